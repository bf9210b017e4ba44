"""From chat messages to token ids: the chat template, and what stands for files."""

from collections.abc import Iterable
from typing import Any

from onellm import timeline
from onellm.errors import OneLLMError
from onellm.messages import parts_of
from onellm.trace import is_file

# Private-use characters stand for the parts while the chat template is rendered. Text a user types is encoded apart
# and with special tokens taken literally, so that it never becomes a placeholder or a tag.
OPEN, CLOSE = "\ue000", "\ue001"


class Prompts:
    """The part of `OneLLMProcessor` that lays prompts out."""

    def encode(self, messages: list[dict], **kwargs: Any) -> tuple[list[int], list[dict]]:
        """Encode one conversation: token ids with placeholders, and its file parts in their order.

        Args:
            messages: chat messages.
            **kwargs: as for the tokenizer's `apply_chat_template`; a generation prompt is added by default.
        """
        return self.lay_out(self.render(messages, **kwargs))

    def render(self, messages: list[dict], **kwargs: Any) -> Iterable[str | dict]:
        """Render the chat template: pieces of its text, and content parts where they belong."""
        parts: list[dict] = []
        rendered = []
        for message in messages:
            content = parts_of(message)
            if message["role"] == "assistant":
                content = [part for part in content if part["type"] == "text" or self.wrote(part)]
            else:
                content = self.instruct(content)
            marks = "".join(f"{OPEN}{len(parts) + index}{CLOSE}" for index in range(len(content)))
            parts += content
            rendered.append({**message, "content": marks})
        kwargs["chat_template"] = kwargs.get("chat_template") or self.chat_template
        text = self.tokenizer.apply_chat_template(
            rendered, **{"add_generation_prompt": True, "tokenize": False, "files": sum(map(is_file, parts))} | kwargs
        )
        for piece in text.split(OPEN):
            mark, _, template = piece.rpartition(CLOSE)
            if mark:
                yield parts[int(mark)]
            yield template

    @property
    def instructions(self) -> list[str]:
        """What an LLM is told that was not trained to make something other than text."""
        return [settings["instruction"] for settings in self.outputs.values() if settings.get("instruction")]

    def wrote(self, part: dict) -> bool:
        """Whether this model can have written the file part of an answer: its `tokens` are some it has."""
        settings = self.outputs.get(part["type"])
        if settings is None or not isinstance(part.get("tokens"), list):
            return False
        if settings["type"] == "text":
            return all(0 <= token < len(self.tokenizer) for token in part["tokens"])
        first, last = settings["first"], settings["first"] + settings["count"]
        return len(part["tokens"]) == settings["length"] and all(first <= token < last for token in part["tokens"])

    def lay_out(self, pieces: Iterable[str | dict]) -> tuple[list[int], list[dict]]:
        """Turn template text and content parts into token ids with placeholders, and the file parts in their order."""
        runs = self.runs(pieces)
        files = [piece for piece, _ in runs if is_file(piece)]
        return [token for _, ids in runs for token in ids], files

    def runs(self, pieces: Iterable[str | dict]) -> list[tuple[str | dict, list[int]]]:
        """Turn template text and content parts into token ids: each piece with its ids, in the order of the prompt."""
        runs: list[tuple[str | dict, list[int]]] = []
        files: list[tuple[str | dict, list[int]]] = []  # that do not stay where they are
        space = ""  # one that ends template text belongs to the word that follows it
        for piece in (cut for whole in pieces for cut in self._cut(whole)):
            if isinstance(piece, str):
                text = space + piece
                bare = text.removesuffix(" ")
                if bare:
                    runs.append((piece, self._tokenize(bare)))
                space = text[len(bare) :]
            elif piece["type"] == "text":
                runs.append((piece, self._tokenize(space + piece["text"], literal=True)))
                space = ""
            elif "tokens" in piece:
                runs += [(space, self._tokenize(space)), (piece, list(piece["tokens"]))]
                space = ""
            else:
                settings = self._settings(piece["type"])
                inline = self.media_position == "inline"
                before, after = settings.get("before", ""), settings.get("after", "")
                if inline and before and runs and runs[-1][0] == before:  # what ends a file begins the next one
                    before = space = ""
                bare = after.removesuffix(" ")
                placeholders = (piece, [settings["token_id"]] * self.positions(piece))
                opening = self._tokenize(space * inline + before)
                (runs if inline else files).extend([(before, opening), placeholders, (bare, self._tokenize(bare))])
                if inline:
                    space = after[len(bare) :]
        runs.append(("", self._tokenize(space)))
        return [*files, *runs] if self.media_position == "front" else self._behind_first(runs, files)

    def _cut(self, piece: str | dict) -> list[str | dict]:
        """Cut a video that is read with its sound into what it stands for."""
        if not is_file(piece) or "tokens" in piece:
            return [piece]
        self._settings(piece["type"])
        return timeline.spans(timeline.resolve(piece, {}, self.load))

    @staticmethod
    def _behind_first(runs: list, files: list) -> list:
        """Put the files behind the first token of a prompt."""
        first = next((index for index, (_, ids) in enumerate(runs) if ids), 0)
        piece, ids = runs[first]
        return [*runs[:first], (piece, ids[:1]), *files, (piece, ids[1:]), *runs[first + 1 :]] if files else runs

    def _settings(self, kind: str) -> dict:
        if kind not in self.modalities:
            known = (
                f"use one of {', '.join(self.modalities)}" if self.modalities else "it reads text alone, leave it out"
            )
            raise OneLLMError(f"'{kind}' is no kind of file this model knows; {known}.")
        return self.modalities[kind]

    def _tokenize(self, text: str, literal: bool = False) -> list[int]:
        if not text:
            return []
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=literal)["input_ids"]
