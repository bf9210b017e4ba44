"""OneLLMProcessor: chat messages with files -> model inputs.

Messages are transformers' chat messages. A file is a content part `{"type": kind, "path": file, ...}`; further keys are
options of the kind's `load` (a depth map's `picture` and `scale`, for example).
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from onellm.modalities import MODALITIES
from onellm.modalities import load as load_file

# Private-use characters stand for the parts while the chat template is rendered. Text a user types is encoded apart
# and with special tokens taken literally, so that it never becomes a placeholder or a tag.
OPEN, CLOSE = "\ue000", "\ue001"


class OneLLMProcessor(ProcessorMixin):
    """Render a chat template, load the files, and lay out placeholders: as many as the model makes soft words.

    Args:
        tokenizer: the LLM's tokenizer.
        modalities: kind -> `token_id`, `input` (settings of `to_tensor`), `before` and `after` (text around a file).
        media_length: placeholders a file takes.
        media_position: "inline" leaves files where the message has them; "start" puts all of them behind the first
            token of the prompt, as the published model has it.
        chat_template: a Jinja template; by default the tokenizer's.
    """

    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any,
        modalities: dict | None = None,
        media_length: int = 0,
        media_position: str = "inline",
        chat_template: str | None = None,
    ):
        self.modalities = modalities or {}
        self.media_length = media_length
        self.media_position = media_position
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)

    @classmethod
    def from_config(cls, tokenizer: Any, config: Any) -> "OneLLMProcessor":
        """Build the processor that fits a `OneLLMConfig`."""
        keys = ("token_id", "input", "before", "after")
        modalities = {
            kind: {key: settings[key] for key in keys if key in settings}
            for kind, settings in config.modalities.items()
        }
        return cls(tokenizer, modalities, config.media_length, config.media_position)

    def to_tensor(self, part: dict) -> torch.Tensor:
        """Load the file of one content part and turn it into the model's tensor.

        Raises:
            FileError: the file is not what its kind expects.
        """
        options = {key: value for key, value in part.items() if key not in ("type", "path")}
        kind = part["type"]
        sample = load_file(kind, part["path"], **options)
        return MODALITIES[kind].to_tensor(sample, **self.modalities[kind].get("input", {}))

    def apply_chat_template(
        self,
        conversation: list,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        to_tensor: Callable[[dict], torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Turn a conversation, or a batch of them, into model inputs.

        Args:
            conversation: chat messages, or a list of such lists.
            chat_template: another template than the processor's.
            add_generation_prompt: end with the opening of an answer.
            to_tensor: replaces `self.to_tensor`, for callers that keep tensors.
            **kwargs: further variables for the template.

        Returns:
            `input_ids` and `attention_mask` [B, L] int64, padded on the left, and `media`: kind -> tensors in the
            order of their placeholders.
        """
        for ignored in ("tokenize", "return_dict", "return_tensors", "padding"):
            kwargs.pop(ignored, None)
        batch = conversation if conversation and isinstance(conversation[0], list) else [conversation]
        media: dict[str, list[torch.Tensor]] = {}
        rows = []
        for messages in batch:
            ids, files = self.encode(messages, chat_template, add_generation_prompt, **kwargs)
            rows.append(ids)
            for part in files:
                media.setdefault(part["type"], []).append((to_tensor or self.to_tensor)(part))
        return BatchFeature({**self.pad(rows), "media": media})

    def pad(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        """Pad rows of token ids on the left: `input_ids` and `attention_mask` [B, L]."""
        length = max(map(len, rows))
        filler = self.tokenizer.pad_token_id or 0
        return {
            "input_ids": torch.tensor([[filler] * (length - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        }

    def encode(
        self,
        messages: list[dict],
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> tuple[list[int], list[dict]]:
        """Encode one conversation: token ids with placeholders, and its file parts in their order."""
        parts: list[dict] = []
        rendered = []
        for message in messages:
            content = message["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            marks = []
            for part in content:
                marks.append(f"{OPEN}{len(parts)}{CLOSE}")
                parts.append(part)
            rendered.append({**message, "content": "".join(marks)})
        text = self.tokenizer.apply_chat_template(
            rendered,
            chat_template=chat_template or self.chat_template,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **kwargs,
        )
        at_start = self.media_position == "start"
        ids: list[int] = []
        files: list[dict] = []
        placeholders: list[int] = []
        for piece in text.split(OPEN):
            mark, _, template = piece.rpartition(CLOSE)
            if mark:
                part = parts[int(mark)]
                if part["type"] == "text":
                    ids += self._tokenize(part["text"], literal=True)
                else:
                    files.append(part)
                    settings = self.modalities[part["type"]]
                    run = [settings["token_id"]] * self.media_length
                    if at_start:
                        placeholders += run
                    else:
                        ids += self._tokenize(settings.get("before", "")) + run
                        ids += self._tokenize(settings.get("after", ""))
            ids += self._tokenize(template)
        if at_start:
            ids = ids[:1] + placeholders + ids[1:]
        return ids, files

    def _tokenize(self, text: str, literal: bool = False) -> list[int]:
        if not text:
            return []
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=literal)["input_ids"]

    def __call__(self, text: str | list[str] | None = None, **files: Any) -> BatchFeature:
        """Encode one question with files: `processor("What is this?", image="cat.jpg", audio=["a.wav", "b.wav"])`."""
        content = []
        for kind, paths in files.items():
            for path in paths if isinstance(paths, list) else [paths]:
                content.append({"type": kind, "path": path})
        content.append({"type": "text", "text": text or ""})
        return self.apply_chat_template([{"role": "user", "content": content}])
