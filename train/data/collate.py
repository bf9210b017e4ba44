"""From examples to tensors: token ids with labels where the loss is, and the files' tensors."""

from dataclasses import dataclass, field

import torch

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES
from train.data.augment import vary_sample, vary_tensor
from train.data.example import Example

IGNORED = -100  # the label where there is no loss


@dataclass
class Row:
    """One encoded example.

    Attributes:
        key: of the example.
        kinds: its files' kinds.
        files: kind and tensor of each file.
        extracted: the tensors are what the kind's tokenizer extracts already.
        ids: tokens.
        labels: as many, `IGNORED` where there is no loss.
        word_labels: [M] places in the anchor's vocabulary, for that objective.
        made: what is to come of the outputs that a generator makes, `answers.Target`.
    """

    key: str
    kinds: tuple[str, ...]
    files: list[tuple[str, torch.Tensor]]
    extracted: bool
    ids: list[int] | None = None
    labels: list[int] | None = None
    word_labels: torch.Tensor | None = None
    made: list = field(default_factory=list)


def encode_conversation(
    processor, messages: list[dict], objective: str = "chat", limit: int | None = None
) -> tuple[list[int], list[int], list[dict]]:
    """Encode a conversation with labels on its answers alone.

    Args:
        processor: a OneLLMProcessor.
        messages: chat messages that end with an answer.
        objective: "chat" follows the chat template; "caption" sets the first answer right behind the files, as
            alignment does.
        limit: longest row, in tokens; what is behind is cut.

    Returns:
        Token ids, labels, and the file parts in their order.

    Raises:
        OneLLMError: there is no answer to learn, or it lies beyond the limit.
    """
    if not any(_text(message) or _tokens(message) for message in messages if message["role"] == "assistant"):
        raise OneLLMError("There is no answer in it, or an empty one; give every example a caption or an answer.")
    if objective == "caption":
        ids, labels, files = _caption(processor, messages)
    else:
        ids, files = processor.encode(messages, add_generation_prompt=False)
        labels = [IGNORED] * len(ids)
        for turn, message in enumerate(messages):
            if message["role"] == "assistant":
                start = len(processor.encode(messages[:turn], add_generation_prompt=True)[0])
                stop = len(processor.encode(messages[: turn + 1], add_generation_prompt=False)[0])
                labels[start:stop] = ids[start:stop]
    ids, labels = ids[:limit], labels[:limit]
    placeholders = {settings["token_id"] for settings in processor.modalities.values()}
    room = sum(token in placeholders for token in ids)
    if room < len(files) * processor.media_length or all(label == IGNORED for label in labels):
        raise OneLLMError(f"Its first {limit} tokens hold no answer; raise 'max_tokens', or shorten the question.")
    return ids, labels, files


def _caption(processor, messages: list[dict]) -> tuple[list[int], list[int], list[dict]]:
    """Lay out files, a question if there is one, and the caption, without the chat template."""
    tokenizer = processor.tokenizer
    content = [part for message in messages if message["role"] == "user" for part in _parts(message)]
    caption = next(_text(message) for message in messages if message["role"] == "assistant")
    start, files = processor.lay_out([tokenizer.bos_token or "", *content])
    answer = tokenizer(caption, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    answer = [*answer, tokenizer.eos_token_id]
    return start + answer, [IGNORED] * len(start) + answer, files


def _parts(message: dict) -> list[dict]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(message: dict) -> str:
    return " ".join(part["text"] for part in _parts(message) if part["type"] == "text").strip()


def _tokens(message: dict) -> bool:
    """Whether a message holds something other than text that the model is to make."""
    return any("tokens" in part for part in _parts(message))


class Collator:
    """Make rows of examples, and batches of rows.

    Args:
        processor: a OneLLMProcessor.
        objective: of the recipe.
        limit: longest row, in tokens.
        targets: the anchor's words, for the objective "anchor".
        augment: vary pictures and spectrograms.
        answers: completes answers that hold something other than text; None where the model only writes text.
    """

    def __init__(self, processor, objective: str, limit: int, targets=None, augment: bool = False, answers=None):
        self.processor, self.objective, self.limit = processor, objective, limit
        self.targets, self.augment, self.answers = targets, augment, answers

    def encode(self, example: Example) -> Row:
        """Encode one example and load its files.

        Raises:
            OneLLMError: a file or the conversation cannot be used.
        """
        ids = labels = words = None
        made: list = []
        if self.objective == "anchor":
            parts = [part for message in example.messages for part in _parts(message)]
            files = [part for part in parts if part["type"] != "text"]
            if len(files) != 1:
                raise OneLLMError(f"It has {len(files)} files; the objective 'anchor' takes one an example.")
            words = self.targets.encode(_text(example.messages[-1]))
        else:
            messages = example.messages
            if self.answers is not None:
                answered = self.answers.complete(messages)
                messages, made = answered.messages, answered.targets
            ids, labels, files = encode_conversation(self.processor, messages, self.objective, self.limit)
            if made and not self.answers.are_whole(ids, made):
                raise OneLLMError(f"Its first {self.limit} tokens do not hold all it is to make; raise 'max_tokens'.")
        extracted = any("features" in part for part in files)
        tensors = [(part["type"], part["features"] if extracted else self.to_tensor(part)) for part in files]
        kinds = tuple(kind for kind, _ in tensors)
        return Row(example.key, kinds, tensors, extracted, ids, labels, words, made)

    def to_tensor(self, part: dict) -> torch.Tensor:
        """Load a file part as the app does, varied if that is wanted."""
        if not self.augment:
            return self.processor.to_tensor(part)
        kind = part["type"]
        sample = vary_sample(self.processor.load(part))
        settings = self.processor.modalities[kind].get("input", {})
        return vary_tensor(kind, MODALITIES[kind].to_tensor(sample, **settings))

    def join(self, rows: list[Row]) -> dict:
        """Join rows into a batch.

        Returns:
            `media` (kind -> tensors), `extracted`, `keys`, `condition` and `latents` (kind -> tensors) where there are
            any, and either `input_ids`, `attention_mask` and `labels`
            [B, L], padded on the left, or `word_labels` [B, M].
        """
        media: dict[str, list[torch.Tensor]] = {}
        for row in rows:
            for kind, tensor in row.files:
                media.setdefault(kind, []).append(tensor)
        batch = {"media": media, "extracted": any(row.extracted for row in rows), "keys": [row.key for row in rows]}
        if self.objective == "anchor":
            return {**batch, "word_labels": torch.stack([row.word_labels for row in rows])}
        padded = self.processor.pad([row.ids for row in rows])
        width = padded["input_ids"].shape[1]
        labels = torch.tensor([[IGNORED] * (width - len(row.labels)) + row.labels for row in rows])
        for name in ("condition", "latents"):
            found: dict[str, list[torch.Tensor]] = {}
            for target in [target for row in rows for target in row.made]:
                if getattr(target, name) is not None:
                    found.setdefault(target.kind, []).append(getattr(target, name))
            if found:
                batch[name] = {kind: torch.stack(values) for kind, values in found.items()}
        return {**batch, **padded, "labels": labels}
