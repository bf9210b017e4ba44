"""OneLLMProcessor: chat messages with files -> model inputs.

Messages are transformers' chat messages. A file is a content part `{"type": modality, "path": file, ...}`; further
keys are options of the modality's `load` (a depth map's `picture` and `scale`, for example). What lies in memory stands
under the modality's name, `{"type": "image", "image": pillow_image}`, with the options of `from_memory`. Where the
model's projector reads the question about a file, the part also has it, as `instruction`.

Two options are the processor's own. A video's `sound` (True for its own track, or a sound file) has both read second by
second, in turns. `windows` (True, a number, or False where the model does so by itself) reads a long sound or video in
windows, whose soft tokens are merged into at most `words`.
"""

import os
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES, Sample
from onellm.modalities import load as load_file
from onellm.modalities.in_memory import from_memory
from onellm.model import timeline
from onellm.model.experts import find_all
from onellm.model.merging import Windows
from onellm.model.messages import is_file, key_of, parts_of
from onellm.utils.limits import LIMITS

KEPT_FINDINGS = 64  # files whose findings are remembered: programs send a conversation's files again with every turn
READER = "qformer_tokenizer"  # folder of a projector's own tokenizer, as transformers calls it


# Private-use characters delimit the content parts while the chat template is rendered. Typed text is encoded by itself,
# with special tokens taken literally, so that it never becomes a placeholder or a tag.
ORDINALS = ("", "second ", "third ", "fourth ", "fifth ", "sixth ", "seventh ", "eighth ", "next ")
OPEN, CLOSE = "\ue000", "\ue001"


class OneLLMProcessor(ProcessorMixin):
    """Render a chat template, load the files, and lay out placeholders: as many as the model gives soft tokens.

    Args:
        tokenizer: the LLM's tokenizer.
        modalities: modality -> `token_id`, `input` (settings of `to_tensor`), `before` and `after` (text around a
            file), `windows` (of long files, see `OneLLMConfig`).
        media_length: placeholders a file takes: one number, or modality -> number.
        media_position: "inline" leaves files where the message has them; "start" puts all of them behind the first
            token of the prompt, as the published OneLLM has it; "front" before all tokens, as BLIP-2 has it.
        chat_template: a Jinja template; by default the tokenizer's.
        outputs: modality -> what the model generates besides text: `type` and, of its tokens, `first`, `count` and
            `length`, or `start`, `end` and `instruction`, see `model.output_heads`.
        media_tags: how many of a file's placeholders are for tags, which are not merged.
        media_instruction: what the system message of a conversation with files tells the LLM about them.

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
        media_instruction: str = "",
    ):
        self.media_tags = media_tags
        self.media_instruction = media_instruction
        self._found: OrderedDict[str, list[dict]] = OrderedDict()  # key of a file -> what experts found in it
        self.modalities = modalities or {}
        self.outputs = outputs or {}
        self.media_length = media_length
        self.media_position = media_position
        tokenizer.padding_side = "left"  # answers begin at the right end of a prompt
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)

    @classmethod
    def from_config(cls, tokenizer: Any, config: Any) -> "OneLLMProcessor":
        """Build the processor that fits a `OneLLMConfig`."""
        keys = ("token_id", "input", "before", "after", "windows", "experts")
        modalities = {
            modality: {key: settings[key] for key in keys if key in settings}
            for modality, settings in config.modalities.items()
        }
        lengths = {modality: config.length_of(modality) for modality in config.modalities}
        length = next(iter(lengths.values())) if len(set(lengths.values())) == 1 else lengths
        position, template, outputs = config.media_position, config.chat_template, cls.outputs_of(config)
        tags, instruction = len(config.tags), getattr(config, "media_instruction", "")
        return cls(tokenizer, modalities, length, position, template, outputs, tags, instruction)

    @staticmethod
    def outputs_of(config: Any) -> dict[str, dict]:
        """Return what the processor knows of a config's outputs."""
        keys = ("type", "start", "end", "instruction")
        outputs = {
            modality: {key: settings[key] for key in keys if key in settings}
            for modality, settings in config.outputs.items()
        }
        for span in config.spans:
            outputs[span.modality] |= {"first": span.first, "count": span.count, "length": span.length}
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

    def settings_of(self, modality: str) -> dict:
        """Return the settings of a modality that the model reads, see `modalities`.

        Raises:
            OneLLMError: the model reads no files of it.
        """
        if modality not in self.modalities:
            advice = f"use one of {', '.join(self.modalities)}" if self.modalities else "it reads text alone"
            raise OneLLMError(found=f"'{modality}' is no kind of file this model knows", advice=advice)
        return self.modalities[modality]

    def resolve(self, part: dict) -> dict:
        """Note in a content part what its layout depends on: how long its file lasts, and what experts find in it.

        Args:
            part: a content part.

        Returns:
            The part, or a copy with `seconds`, see `timeline.resolve`, and `findings`, see `experts.Finding`; an
            expert that failed has a `note` there instead of a text.
        """
        if not is_file(part):
            return part
        settings = self.settings_of(part["type"])
        if part.get("sound"):
            self.settings_of("audio")
        resolved = timeline.resolve(part, settings, self.load)
        readable = "path" in part or part["type"] in part
        if "findings" in part or not settings.get("experts") or not readable or "start_s" in part:
            return resolved
        return resolved | {"findings": self._find(resolved)}

    def _find(self, part: dict) -> list[dict]:
        """Let the modality's experts look at a file, and those of sounds at a sound track that is heard with it."""
        key = key_of(part)
        if key not in self._found:
            heard = [{"type": "audio", **timeline.without_options(part["sound"])}] if part.get("sound") else []
            findings: list[dict] = []
            for file in (timeline.without_options(part), *heard):
                names = self.settings_of(file["type"]).get("experts", ())
                found, notes = find_all(names, self.load(file))
                findings += [finding.as_json() for finding in found] + [{"text": "", "note": note} for note in notes]
            self._found[key] = findings
            while len(self._found) > KEPT_FINDINGS:
                self._found.popitem(last=False)
        return self._found[key]

    def windows(self, part: dict) -> list[dict]:
        """Return the windows that a content part's file is read in; none for one that is not long."""
        return timeline.windows(part, self.settings_of(part["type"]))

    def to_tensor(self, part: dict) -> torch.Tensor | Windows:
        """Turn the file of one content part, or what lies in memory, into the model's tensor, see `load`."""
        if windows := self.windows(part):
            return Windows(tuple(map(self.to_tensor, windows)), self.kept_windows(part))
        return MODALITIES[part["type"]].to_tensor(self.load(part), **self.input_of(part))

    def input_of(self, part: dict) -> dict:
        """Return the settings of `to_tensor` for a content part; a video may name its own number of `frames`."""
        settings = self.settings_of(part["type"]).get("input", {})
        named = part["type"] == "video" and part.get("frames") is not None
        return settings | {"frames": part["frames"]} if named else settings

    def length_of(self, modality: str) -> int:
        """Placeholders that a file of a modality takes."""
        self.settings_of(modality)
        return self.media_length[modality] if isinstance(self.media_length, dict) else self.media_length

    def positions(self, part: dict) -> int:
        """Placeholders that the file of a content part takes."""
        return self.kept_windows(part) * (self.length_of(part["type"]) - self.media_tags) + self.media_tags

    def kept_windows(self, part: dict) -> int:
        """Of how many windows of a content part's file the soft tokens remain: as many as there is room for, or 1."""
        count, settings = len(self.windows(part)), self.settings_of(part["type"]).get("windows", {})
        room = part.get("words") or settings.get("words", LIMITS.long_words)
        return max(1, min(count, room // (self.length_of(part["type"]) - self.media_tags)))

    @staticmethod
    def load(part: dict) -> Sample:
        """Load the file of one content part, or take what lies in memory.

        Raises:
            FileError: the file is not what its modality expects.
            OneLLMError: the part holds no file.
        """
        modality = part["type"]
        value = part.get("path", part.get(modality))
        if value is None:
            raise OneLLMError(
                f"A content part of type {modality} holds {', '.join(set(part) - {'type'}) or 'nothing'}; expected "
                f"'path' (a file) or '{modality}' (data in memory); add one of them."
            )
        options = {
            key: part[key]
            for key in timeline.without_options(part)
            if key not in ("type", "path", "instruction", modality)
        }
        return (load_file if isinstance(value, str | os.PathLike) else from_memory)(modality, value, **options)

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
            tokenize: False returns the prompt's text, a placeholder such as `<image>` for a file, to be given back
                to the processor together with the files. Typed text is then no longer told from placeholders and tags.
            return_dict: False returns the `input_ids` alone.
            to_tensor: replaces `self.to_tensor`, for callers that keep tensors.
            **kwargs: as for the tokenizer's `apply_chat_template`, and further variables for the template. Tensors
                are always PyTorch's and padded on the left.

        Returns:
            `input_ids` and `attention_mask` [B, L] int64, padded on the left, and `media`: modality -> tensors in the
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

        A text that comes alone, or with a placeholder such as `<image>` where each file belongs, is a prompt and taken
        as it is. A text that comes with files and without placeholders is a question about them: it goes through the
        chat template.

        Args:
            images: as `image`.
            text: one text or a list of them.
            videos: as `video`.
            audio: as the other modalities.
            **kwargs: modality -> a file or a list of files (paths, content parts, or data in memory); with a list of
                texts without placeholders, one entry a text. The rest is ignored: tensors are always PyTorch's and
                padded on the left.

        Returns:
            As for `apply_chat_template`.

        Raises:
            OneLLMError: placeholders, texts and files do not match in number.
        """
        one = text is None or isinstance(text, str)
        texts = [text or ""] if one else list(text)
        given = {"image": images, "video": videos, "audio": audio}
        given |= {modality: kwargs[modality] for modality in MODALITIES if kwargs.get(modality) is not None}
        files = {modality: [items] if one else items for modality, items in given.items() if items is not None}
        for modality in files:
            self.settings_of(modality)
        known = "|".join(map(re.escape, self.modalities)) or "(?!)"  # which matches nothing
        placeholder = re.compile(f"<({known})>")
        if not files or any(map(placeholder.search, texts)):
            queues = {
                modality: iter([self._part(modality, file) for file in _flat(items)])
                for modality, items in files.items()
            }
            rows = [self.lay_out(self._prompt(placeholder.split(text), queues)) for text in texts]
            left = sorted(modality for modality, queue in queues.items() if next(queue, None))
            if left:
                found = f"There are fewer placeholders <{left[0]}> than files"
                raise OneLLMError(found=found, advice="write one where each file belongs")
            return self._collect(rows)
        for modality, items in files.items():
            if not isinstance(items, list | tuple) or len(items) != len(texts):
                raise OneLLMError(
                    f"{len(texts)} texts came with another number of {modality} entries; give one a text."
                )
        batch = []
        for row, question in enumerate(texts):
            parts = [self._part(modality, file) for modality, items in files.items() for file in _flat(items[row])]
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
        """Put files into a prompt: `pieces` are text and modality in turns."""
        start = self.tokenizer.bos_token or ""
        if self.tokenizer("")["input_ids"] and not pieces[0].startswith(start):  # a tokenizer that opens every text
            yield start
        for index, piece in enumerate(pieces):
            if index % 2 == 0:
                yield piece
            elif (part := next(queues.get(piece, iter([])), None)) is None:
                raise OneLLMError(f"There are more placeholders <{piece}> than files; give a file for each.")
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
    def _part(modality: str, file: Any) -> dict:
        return {"type": modality, **(file if isinstance(file, dict) else {modality: file})}

    # ---- layout: from chat messages to token ids, and what stands for files ------------------------------------------

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
        for message in self._with_instruction(messages):
            content = parts_of(message)
            if message["role"] == "assistant":
                content = [part for part in content if part["type"] == "text" or self.wrote(part)]
            else:
                content = self.instruct(content)
            numbers = "".join(f"{OPEN}{len(parts) + index}{CLOSE}" for index in range(len(content)))
            parts += content
            rendered.append({**message, "content": numbers})
        kwargs["chat_template"] = kwargs.get("chat_template") or self.chat_template
        text = self.tokenizer.apply_chat_template(
            rendered, **{"add_generation_prompt": True, "tokenize": False, "files": sum(map(is_file, parts))} | kwargs
        )
        for piece in text.split(OPEN):
            number, _, template = piece.rpartition(CLOSE)
            if number:
                yield parts[int(number)]
            yield template

    def _with_instruction(self, messages: list[dict]) -> list[dict]:
        """Put the instruction about files into the system message of a conversation that has some."""
        if not self.media_instruction or not any(is_file(part) for message in messages for part in parts_of(message)):
            return messages
        text = {"type": "text", "text": self.media_instruction}
        if messages[0]["role"] == "system":
            content = [*parts_of(messages[0]), {"type": "text", "text": "\n"}, text]
            return [{"role": "system", "content": content}, *messages[1:]]
        return [{"role": "system", "content": [text]}, *messages]

    @property
    def instructions(self) -> list[str]:
        """What the system message tells an LLM that was not trained to generate media."""
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
        seen: Counter[str] = Counter()  # files of a modality
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
                settings = self.settings_of(piece["type"])
                inline = self.media_position == "inline"
                before, after = settings.get("before", ""), settings.get("after", "")
                before = before.replace("{nth}", ORDINALS[min(seen[piece["type"]], len(ORDINALS) - 1)])
                seen[piece["type"]] += 1
                if inline and before and runs and runs[-1][0] == before:  # what ends a file begins the next one
                    before = space = ""
                bare = after.removesuffix(" ")
                placeholders = (piece, [settings["token_id"]] * self.positions(piece))
                opening = self._tokenize(space * inline + before)
                (runs if inline else files).extend([(before, opening), placeholders, (bare, self._tokenize(bare))])
                if inline:
                    space = after[len(bare) :]
                if settings.get("experts") is not None:  # their sentences end what a file is to the LLM
                    texts = [finding["text"] for finding in piece.get("findings", ()) if finding["text"]]
                    said = " ".join(["", *texts]) + "\n"
                    (runs if inline else files).append((said, self._tokenize(said, literal=True)))
        runs.append(("", self._tokenize(space)))
        return [*files, *runs] if self.media_position == "front" else self._behind_first(runs, files)

    def _cut(self, piece: str | dict) -> list[str | dict]:
        """Cut a video that is read with its sound into what it stands for."""
        if not is_file(piece) or "tokens" in piece:
            return [piece]
        self.settings_of(piece["type"])
        return timeline.spans(timeline.resolve(piece, {}, self.load))

    @staticmethod
    def _behind_first(runs: list, files: list) -> list:
        """Put the files behind the first token of a prompt."""
        first = next((index for index, (_, ids) in enumerate(runs) if ids), 0)
        piece, ids = runs[first]
        return [*runs[:first], (piece, ids[:1]), *files, (piece, ids[1:]), *runs[first + 1 :]] if files else runs

    def _tokenize(self, text: str, literal: bool = False) -> list[int]:
        if not text:
            return []
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=literal)["input_ids"]


def _flat(items: Any) -> list:
    """Return the files of lists in lists."""
    if not isinstance(items, list | tuple):
        return [] if items is None else [items]
    return [file for item in items for file in _flat(item)]
