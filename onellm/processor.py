"""OneLLMProcessor: chat messages with files -> model inputs.

Messages are transformers' chat messages. A file is a content part `{"type": kind, "path": file, ...}`; further keys are
options of the kind's `load` (a depth map's `picture` and `scale`, for example). What lies in memory stands under the
kind's name, `{"type": "image", "image": pillow_image}`, with the options of `from_memory`. Where the model's projector
reads the question about a file, the part also has it, as `instruction`.

Two options are the processor's own. A video's `sound` (True for its own track, or a sound file) has both read second by
second, in turns. `windows` (True, a number, or False where the model does so by itself) reads a long sound or video in
windows, whose soft words are merged into `words`.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from onellm import timeline
from onellm.errors import OneLLMError
from onellm.limits import LIMITS
from onellm.modalities import MODALITIES, Sample
from onellm.modalities import load as load_file
from onellm.modalities.memory import from_memory
from onellm.model.merging import Windows
from onellm.prompts import Prompts

READER = "qformer_tokenizer"  # folder of a projector's own tokenizer, as transformers calls it


class OneLLMProcessor(Prompts, ProcessorMixin):
    """Render a chat template, load the files, and lay out placeholders: as many as the model makes soft words.

    Args:
        tokenizer: the LLM's tokenizer.
        modalities: kind -> `token_id`, `input` (settings of `to_tensor`), `before` and `after` (text around a file),
            `windows` (of long files, see `OneLLMConfig`).
        media_length: placeholders a file takes: one number, or kind -> number.
        media_position: "inline" leaves files where the message has them; "start" puts all of them behind the first
            token of the prompt, as the published OneLLM has it; "front" before all tokens, as BLIP-2 has it.
        chat_template: a Jinja template; by default the tokenizer's.
        outputs: kind -> of what the model makes besides text: `type` and, of its tokens, `first`, `count` and
            `length`, or `start`, `end` and `instruction`, see `model.outputs`.
        media_tags: how many of a file's placeholders are for tags, which are not merged.

    Attributes:
        reader: the tokenizer of a projector that reads the question; None where it does not.
    """

    tokenizer_class = "AutoTokenizer"
    reader: Any = None

    def __init__(
        self,
        tokenizer: Any,
        modalities: dict | None = None,
        media_length: int | dict[str, int] = 0,
        media_position: str = "inline",
        chat_template: str | None = None,
        outputs: dict | None = None,
        media_tags: int = 0,
    ):
        self.media_tags = media_tags
        self.modalities = modalities or {}
        self.outputs = outputs or {}
        self.media_length = media_length
        self.media_position = media_position
        tokenizer.padding_side = "left"  # answers begin at the right end of a prompt
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)

    @classmethod
    def from_config(cls, tokenizer: Any, config: Any) -> "OneLLMProcessor":
        """Build the processor that fits a `OneLLMConfig`."""
        keys = ("token_id", "input", "before", "after", "windows")
        modalities = {
            kind: {key: settings[key] for key in keys if key in settings}
            for kind, settings in config.modalities.items()
        }
        lengths = {kind: config.length_of(kind) for kind in config.modalities}
        length = next(iter(lengths.values())) if len(set(lengths.values())) == 1 else lengths
        position, template, outputs = config.media_position, config.chat_template, cls.outputs_of(config)
        return cls(tokenizer, modalities, length, position, template, outputs, len(config.tags))

    @staticmethod
    def outputs_of(config: Any) -> dict[str, dict]:
        """Return what the processor knows of a config's outputs."""
        keys = ("type", "start", "end", "instruction")
        outputs = {kind: {key: own[key] for key in keys if key in own} for kind, own in config.outputs.items()}
        for span in config.spans:
            outputs[span.kind] |= {"first": span.first, "count": span.count, "length": span.length}
        return outputs

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> "OneLLMProcessor":
        """Load the processor of a model folder."""
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        reader = Path(pretrained_model_name_or_path) / READER
        if reader.is_dir():
            from transformers import AutoTokenizer

            processor.reader = AutoTokenizer.from_pretrained(reader, trust_remote_code=False)
        return processor

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> list[str]:
        """Save everything into a model folder."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        if self.reader is not None:
            saved += self.reader.save_pretrained(Path(save_directory) / READER)
        return saved

    def instruct(self, content: list[dict]) -> list[dict]:
        """Give the files of a message its question, where the projector reads it; a part that has one keeps it."""
        if self.reader is None:
            return content
        question = " ".join(part["text"] for part in content if part["type"] == "text").strip()
        return [part if part["type"] == "text" else {"instruction": question, **part} for part in content]

    def instruction(self, part: dict) -> torch.Tensor | None:
        """Return the token ids [L] of the question about a file, for the projector; None where it reads none."""
        if self.reader is None:
            return None
        text = part.get("instruction", "")
        return torch.tensor(self.reader(text, truncation=True)["input_ids"], dtype=torch.long)

    def resolve(self, part: dict) -> dict:
        """Note in a content part how long its file lasts, where its layout depends on it, see `timeline.resolve`."""
        return timeline.resolve(part, self.modalities.get(part["type"], {}), self.load)

    def windows(self, part: dict) -> list[dict]:
        """Return the windows that a content part's file is read in; none for one that is not long."""
        return timeline.windows(part, self.modalities[part["type"]])

    def to_tensor(self, part: dict) -> torch.Tensor | Windows:
        """Turn the file of one content part, or what lies in memory, into the model's tensor, see `load`."""
        if windows := self.windows(part):
            return Windows(tuple(map(self.to_tensor, windows)), self.kept(part))
        return MODALITIES[part["type"]].to_tensor(self.load(part), **self.input_of(part))

    def input_of(self, part: dict) -> dict:
        """Return the settings of `to_tensor` for a content part; a video's `frames` are its own where it names them."""
        settings = self._settings(part["type"]).get("input", {})
        own = {key: part[key] for key in ("frames",) if part.get(key) is not None and part["type"] == "video"}
        return settings | own

    def length_of(self, kind: str) -> int:
        """Placeholders that a file of a kind takes."""
        return self.media_length[kind] if isinstance(self.media_length, dict) else self.media_length

    def positions(self, part: dict) -> int:
        """Placeholders that the file of a content part takes."""
        return self.kept(part) * (self.length_of(part["type"]) - self.media_tags) + self.media_tags

    def kept(self, part: dict) -> int:
        """Of how many windows the words of a content part's file remain: as many as there is room for; 1 of others."""
        count, settings = len(self.windows(part)), self.modalities[part["type"]].get("windows", {})
        room = part.get("words") or settings.get("words", LIMITS.long_words)
        return max(1, min(count, room // (self.length_of(part["type"]) - self.media_tags)))

    @staticmethod
    def load(part: dict) -> Sample:
        """Load the file of one content part, or take what lies in memory.

        Raises:
            FileError: the file is not what its kind expects.
            OneLLMError: the part holds no file.
        """
        kind = part["type"]
        value = part.get("path", part.get(kind))
        if value is None:
            raise OneLLMError(
                f"A content part of type {kind} holds {', '.join(set(part) - {'type'}) or 'nothing'}; expected 'path' "
                f"(a file) or '{kind}' (data in memory); add one of them."
            )
        options = {key: part[key] for key in timeline.plain(part) if key not in ("type", "path", "instruction", kind)}
        return (load_file if isinstance(value, str | os.PathLike) else from_memory)(kind, value, **options)

    def apply_chat_template(
        self,
        conversation: list,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        tokenize: bool = True,
        return_dict: bool = True,
        to_tensor: Callable[[dict], torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> BatchFeature | torch.Tensor | str | list[str]:
        """Turn a conversation, or a batch of them, into model inputs.

        Args:
            conversation: chat messages, or a list of such lists.
            chat_template: another template than the processor's.
            add_generation_prompt: end with the opening of an answer.
            tokenize: False returns the prompt's text, a mark such as `<image>` for a file, to be given back to the
                processor together with the files. What people typed is then no longer told from marks and tags.
            return_dict: False returns the `input_ids` alone.
            to_tensor: replaces `self.to_tensor`, for callers that keep tensors.
            **kwargs: as for the tokenizer's `apply_chat_template`, and further variables for the template. Tensors
                are always PyTorch's and padded on the left.

        Returns:
            `input_ids` and `attention_mask` [B, L] int64, padded on the left, and `media`: kind -> tensors in the
            order of their placeholders. Where the projector reads the question also `instructions`, its token ids for
            each of these.
        """
        for ignored in ("return_tensors", "padding", "processor_kwargs"):
            kwargs.pop(ignored, None)
        one = not conversation or isinstance(conversation[0], dict)
        batch = [conversation] if one else conversation
        kwargs |= {"chat_template": chat_template, "add_generation_prompt": add_generation_prompt}
        if not tokenize:
            texts = ["".join(map(self._as_text, self.render(messages, **kwargs))) for messages in batch]
            return texts[0] if one else texts
        inputs = self._collect([self.encode(messages, **kwargs) for messages in batch], to_tensor)
        return inputs if return_dict else inputs["input_ids"]

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Encode texts with files: `processor(text="What is this?", image="cat.jpg", audio=["a.wav", "b.wav"])`.

        A text that comes alone, or with a mark such as `<image>` where each file belongs, is a prompt and taken as it
        is. A text that comes with files and without marks is a question about them: it goes through the chat template.

        Args:
            images: as `image`.
            text: one text or a list of them.
            videos: as `video`.
            audio: as the other kinds.
            **kwargs: kind -> a file or a list of files (paths, content parts, or data in memory); with a list of
                texts without marks, one entry a text. The rest is ignored: tensors are always PyTorch's and padded on
                the left.

        Returns:
            As for `apply_chat_template`.

        Raises:
            OneLLMError: marks, texts and files do not match in number.
        """
        one = text is None or isinstance(text, str)
        texts = [text or ""] if one else list(text)
        given = {"image": images, "video": videos, "audio": audio}
        given |= {kind: kwargs[kind] for kind in self.modalities if kwargs.get(kind) is not None}
        files = {kind: [items] if one else items for kind, items in given.items() if items is not None}
        marks = re.compile(f"<({'|'.join(map(re.escape, self.modalities))})>")
        if not files or any(map(marks.search, texts)):
            queues = {kind: iter([self._part(kind, file) for file in _flat(items)]) for kind, items in files.items()}
            rows = [self.lay_out(self._prompt(marks.split(text), queues)) for text in texts]
            left = sorted(kind for kind, queue in queues.items() if next(queue, None))
            if left:
                raise OneLLMError(f"There are fewer marks <{left[0]}> than files; write one where each file belongs.")
            return self._collect(rows)
        for kind, items in files.items():
            if not isinstance(items, list | tuple) or len(items) != len(texts):
                raise OneLLMError(f"{len(texts)} texts came with another number of {kind} entries; give one a text.")
        batch = []
        for row, question in enumerate(texts):
            parts = [self._part(kind, file) for kind, items in files.items() for file in _flat(items[row])]
            batch.append([{"role": "user", "content": [*parts, {"type": "text", "text": question}]}])
        return self.apply_chat_template(batch)

    def pad(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        """Pad rows of token ids on the left: `input_ids` and `attention_mask` [B, L]."""
        length = max(map(len, rows))
        filler = self.tokenizer.pad_token_id or 0
        return {
            "input_ids": torch.tensor([[filler] * (length - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        }

    def _prompt(self, pieces: list[str], queues: dict) -> Iterable[str | dict]:
        """Put files into a prompt: `pieces` are text and kind in turns."""
        start = self.tokenizer.bos_token or ""
        if self.tokenizer("")["input_ids"] and not pieces[0].startswith(start):  # a tokenizer that opens every text
            yield start
        for index, piece in enumerate(pieces):
            if index % 2 == 0:
                yield piece
            elif (part := next(queues.get(piece, iter([])), None)) is None:
                raise OneLLMError(f"There are more marks <{piece}> than files; give a file for each.")
            else:
                question = {"type": "text", "text": " ".join(pieces[::2])}
                yield self.instruct([part, question])[0]

    def _collect(self, rows: list[tuple], to_tensor: Callable[[dict], torch.Tensor] | None = None) -> BatchFeature:
        """Pad encoded rows and load their files."""
        media: dict[str, list[torch.Tensor]] = {}
        asked: dict[str, list[torch.Tensor]] = {}
        for _, files in rows:
            for part in files:
                media.setdefault(part["type"], []).append((to_tensor or self.to_tensor)(part))
                asked.setdefault(part["type"], []).append(self.instruction(part))
        instructions = {} if self.reader is None else {"instructions": asked}
        return BatchFeature({**self.pad([ids for ids, _ in rows]), "media": media, **instructions})

    def _as_text(self, piece: str | dict) -> str:
        if isinstance(piece, str):
            return piece
        return piece["text"] if piece["type"] == "text" else f"<{piece['type']}>"

    @staticmethod
    def _part(kind: str, file: Any) -> dict:
        return {"type": kind, **(file if isinstance(file, dict) else {kind: file})}


def _flat(items: Any) -> list:
    """Return the files of lists in lists."""
    if not isinstance(items, list | tuple):
        return [] if items is None else [items]
    return [file for item in items for file in _flat(item)]
