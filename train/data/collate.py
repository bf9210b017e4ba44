"""From examples to tensors: token ids with labels where the loss is, and the files' tensors."""

from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES
from onellm.model.messages import parts_of
from train.data.augment import vary_sample, vary_tensor
from train.data.example import Example

IGNORED = -100  # the label where there is no loss


@dataclass
class Row:
    """One encoded example.

    Attributes:
        key: of the example.
        modalities: its files' modalities.
        files: modality and tensor of each file.
        extracted: the tensors are what the modality's tokenizer extracts already.
        ids: tokens.
        labels: as many, `IGNORED` where there is no loss; for an encoder-decoder LLM the answer's tokens alone.
        anchor_labels: [M] indices in the anchor's vocabulary, for that objective.
        instructions: for a projector that reads text, the question about each file in its tokens; for the objective
            "contrast" the answer.
        generated: targets of the outputs that a generator makes, `train.output_loss.Target`.
    """

    key: str
    modalities: tuple[str, ...]
    files: list[tuple[str, torch.Tensor]]
    extracted: bool
    ids: list[int] | None = None
    labels: list[int] | None = None
    anchor_labels: torch.Tensor | None = None
    instructions: list[torch.Tensor] = field(default_factory=list)
    generated: list = field(default_factory=list)


def encode_conversation(
    processor, messages: list[dict], objective: str = "chat", limit: int | None = None, is_encoder_decoder: bool = False
) -> tuple[list[int], list[int], list[dict]]:
    """Encode a conversation with labels on its answers alone.

    Args:
        processor: a OneLLMProcessor.
        messages: chat messages that end with an answer.
        objective: "chat" follows the chat template; "caption" sets the first answer right behind the files, as
            alignment does.
        limit: longest row, in tokens; what is behind is cut.
        is_encoder_decoder: the encoder reads the question and the decoder answers: the last answer alone is learnt, and
            the labels are its tokens.

    Returns:
        Token ids, labels, and the file parts in their order.

    Raises:
        OneLLMError: there is no answer to learn, or it lies beyond the limit.
    """
    if not any(_text(message) or _tokens(message) for message in messages if message["role"] == "assistant"):
        raise OneLLMError("There is no answer in it, or an empty one; give every example a caption or an answer.")
    if objective == "caption":
        ids, labels, files = _caption(processor, messages, is_encoder_decoder)
    elif is_encoder_decoder:
        ids, files = processor.encode(messages[:-1], add_generation_prompt=True)
        answer = _answer(processor, messages[-1])
        ids, labels = ids + answer, [IGNORED] * len(ids) + answer
    else:
        ids, files = processor.encode(messages, add_generation_prompt=False)
        labels = [IGNORED] * len(ids)
        for turn, message in enumerate(messages):
            if message["role"] == "assistant":
                start = len(processor.encode(messages[:turn], add_generation_prompt=True)[0])
                stop = len(processor.encode(messages[: turn + 1], add_generation_prompt=False)[0])
                labels[start:stop] = ids[start:stop]
    ids, labels = ids[:limit], labels[:limit]
    if is_encoder_decoder:
        ids = ids[: labels.count(IGNORED)]
        labels = labels[len(ids) :]
    placeholders = {settings["token_id"] for settings in processor.modalities.values()}
    room = sum(token in placeholders for token in ids)
    if room < sum(map(processor.positions, files)) or all(label == IGNORED for label in labels):
        raise OneLLMError(f"Its first {limit} tokens hold no answer; raise 'max_tokens', or shorten the question.")
    return ids, labels, files


def _caption(processor, messages: list[dict], is_encoder_decoder: bool) -> tuple[list[int], list[int], list[dict]]:
    """Lay out files, a question if there is one, and the caption, without the chat template."""
    tokenizer = processor.tokenizer
    asked = (processor.instruct(parts_of(message)) for message in messages if message["role"] == "user")
    content = [part for parts in asked for part in parts]
    pieces = [*content, tokenizer.eos_token] if is_encoder_decoder else [tokenizer.bos_token or "", *content]
    start, files = processor.lay_out(pieces)
    answer = _answer(processor, next(message for message in messages if message["role"] == "assistant"))
    return start + answer, [IGNORED] * len(start) + answer, files


def cut_caption(messages: list[dict]) -> list[dict]:
    """Cut a caption before a random word: what is before stands behind the files, and the rest is the answer.

    Prefix language modelling, as BLIP-2 trains before an encoder-decoder LLM (arXiv:2301.12597, section 3.3).
    """
    *before, last = messages
    words = _text(last).split(" ")
    position = int(torch.randint(len(words), (1,)))
    asked, answer = ({"type": "text", "text": " ".join(part)} for part in (words[:position], words[position:]))
    first = {**before[0], "content": [*parts_of(before[0]), *([asked] if position else [])]}
    return [first, *before[1:], {**last, "content": [answer]}]


def _answer(processor, message: dict) -> list[int]:
    """Return the tokens of an answer without the chat template, and the end behind them."""
    tokenizer = processor.tokenizer
    answer = tokenizer(_text(message), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*answer, tokenizer.eos_token_id]


def _text(message: dict) -> str:
    return " ".join(part["text"] for part in parts_of(message) if part["type"] == "text").strip()


def _tokens(message: dict) -> bool:
    """Whether a message holds output tokens, of something other than text."""
    return any("tokens" in part for part in parts_of(message))


class Collator:
    """Make rows of examples, and batches of rows.

    Args:
        processor: a OneLLMProcessor.
        objective: of the recipe.
        limit: longest row, in tokens.
        targets: encodes names in the anchor's vocabulary, for the objective "anchor".
        augment: vary pictures and spectrograms.
        is_encoder_decoder: as for `encode_conversation`.
        answers: completes answers that hold something other than text; None where the model only writes text.
    """

    def __init__(
        self,
        processor,
        objective: str,
        limit: int,
        targets=None,
        augment: bool = False,
        is_encoder_decoder: bool = False,
        answers=None,
    ):
        self.processor, self.objective, self.limit = processor, objective, limit
        self.targets, self.augment, self.answers = targets, augment, answers
        self.is_encoder_decoder = is_encoder_decoder

    def encode(self, example: Example) -> Row:
        """Encode one example and load its files.

        Raises:
            OneLLMError: a file or the conversation cannot be used.
        """
        ids = labels = anchor_labels = None
        generated: list = []
        if self.objective in ("anchor", "contrast"):
            parts = [part for message in example.messages for part in parts_of(message)]
            files = [part for part in parts if part["type"] != "text"]
            if len(files) != 1:
                raise OneLLMError(f"It has {len(files)} files; the objective '{self.objective}' takes one an example.")
            text = _text(example.messages[-1])
            if self.objective == "anchor":
                anchor_labels = self.targets.encode(text)
            else:
                files = [{**files[0], "instruction": text}]
        else:
            messages, objective = example.messages, self.objective
            if objective == "prefix":
                messages, objective = cut_caption(messages), "caption"
            if self.answers is not None:
                answered = self.answers.complete(messages)
                messages, generated = answered.messages, answered.targets
            ids, labels, files = encode_conversation(
                self.processor, messages, objective, self.limit, self.is_encoder_decoder
            )
            if generated and not self.answers.are_whole(ids, generated):
                raise OneLLMError(f"Its first {self.limit} tokens do not hold all it is to make; raise 'max_tokens'.")
        extracted = any("features" in part for part in files)
        tensors = [(part["type"], part["features"] if extracted else self.to_tensor(part)) for part in files]
        asked = [self.processor.instruction(part) for part in files] if self.processor.reader else []
        modalities = tuple(modality for modality, _ in tensors)
        return Row(example.key, modalities, tensors, extracted, ids, labels, anchor_labels, asked, generated)

    def to_tensor(self, part: dict) -> torch.Tensor:
        """Load a file part as the app does, varied if that is wanted."""
        if not self.augment:
            return self.processor.to_tensor(part)
        modality = part["type"]
        sample = vary_sample(self.processor.load(part))
        settings = self.processor.modalities[modality].get("input", {})
        return vary_tensor(modality, MODALITIES[modality].to_tensor(sample, **settings))

    def join(self, rows: list[Row]) -> dict:
        """Join rows into a batch.

        Returns:
            `media` (modality -> tensors), `extracted`, `keys`, `instructions` (modality -> token ids) for a projector
            that reads the question, `condition` and `latents` (modality -> tensors) where there are any, and either
            `input_ids`, `attention_mask` and `labels` [B, L], padded on the left (the labels of answers that stand
            encoder-decoder models on the right), or `anchor_labels` [B, M], or `texts` (token ids).
        """
        media: dict[str, list[torch.Tensor]] = {}
        asked: dict[str, list[torch.Tensor]] = {}
        for row in rows:
            for modality, tensor in row.files:
                media.setdefault(modality, []).append(tensor)
            for modality, ids in zip(row.modalities, row.instructions, strict=False):
                asked.setdefault(modality, []).append(ids)
        batch = {"media": media, "extracted": any(row.extracted for row in rows), "keys": [row.key for row in rows]}
        if self.objective == "anchor":
            return {**batch, "anchor_labels": torch.stack([row.anchor_labels for row in rows])}
        if self.objective == "contrast":
            return {**batch, "texts": [ids for row in rows for ids in row.instructions]}
        if asked:
            batch["instructions"] = asked
        padded = self.processor.pad([row.ids for row in rows])
        labels = [torch.tensor(row.labels) for row in rows]
        side = "right" if self.is_encoder_decoder else "left"
        labels = pad_sequence(labels, batch_first=True, padding_value=IGNORED, padding_side=side)
        for name in ("condition", "latents"):
            found: dict[str, list[torch.Tensor]] = {}
            for target in [target for row in rows for target in row.generated]:
                if getattr(target, name) is not None:
                    found.setdefault(target.modality, []).append(getattr(target, name))
            if found:
                batch[name] = {modality: torch.stack(values) for modality, values in found.items()}
        return {**batch, **padded, "labels": labels}
