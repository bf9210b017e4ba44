"""A training example is chat messages; a source of examples answers random access in blocks."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.util import get_temp_dir
from typing import Protocol

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES

BLOCK = 1000  # rows of a table that lie together


class DataError(OneLLMError):
    """Training data that cannot be used; its text is for people."""


@dataclass
class Example:
    """What a model learns from.

    Attributes:
        key: names it for people: "captions.tsv, row 12".
        messages: chat messages that end with an assistant's turn; content is a list of parts. A file part is
            {"type": modality, "path": any `os.PathLike`, ...options of the modality's `load`}, or
            {"type": modality, modality: data in memory, ...options of `from_memory`}.
    """

    key: str
    messages: list[dict]


class Examples(Protocol):
    """A source: holds no data in memory, and is cheap to open and to pickle into workers.

    Attributes:
        modalities: of the files of every example; () for text alone.
        blocks: number of examples a block (a tar shard, or a run of rows of a table).
    """

    modalities: tuple[str, ...]
    blocks: list[int]

    def read(self, block: int, index: int) -> Example:
        """Read one example.

        Raises:
            OneLLMError: the example is bad; its name is in the text.
        """

    def length(self, block: int, index: int) -> int:
        """Return the characters of its text without decoding any file; 0 if it is bad."""


class FileExamples(ABC):
    """What all sources on disk share: the errors of bad examples, and one check of good ones.

    Args:
        name: of the source, for people.
        modalities: of the files of every example.
        blocks: number of examples a block.
    """

    def __init__(self, name: str, modalities: tuple[str, ...], blocks: list[int]):
        self.name, self.modalities, self.blocks = name, modalities, blocks
        get_temp_dir()  # loading processes share it then, and what they leave goes with this process

    @abstractmethod
    def key(self, block: int, index: int) -> str:
        """Name an example for people."""

    @abstractmethod
    def build(self, block: int, index: int) -> list[dict]:
        """Build an example's messages without opening its files."""

    def resolve(self, part: dict) -> dict:
        """Turn a file part as `build` made it into one the processor can load; here, look whether the file is there."""
        MODALITIES[part["type"]].check(part["path"])
        return part

    def read(self, block: int, index: int) -> Example:
        """Read one example, see `Examples`."""
        key = self.key(block, index)
        try:
            messages = self.build(block, index)
            check_messages(messages, self.modalities)
            for message in messages:
                message["content"] = [
                    part if part["type"] == "text" else self.resolve(part) for part in message["content"]
                ]
        except OneLLMError as error:
            raise DataError(f"{key}: {error}") from error
        return Example(key, messages)

    def length(self, block: int, index: int) -> int:
        """Count the characters of an example's text, see `Examples`."""
        try:
            return text_length(self.build(block, index))
        except OneLLMError:
            return 0


def caption_messages(files: list[dict], caption: str, prompt: str | None = None) -> list[dict]:
    """Make the messages of a captioned example.

    Args:
        files: file parts.
        caption: the answer.
        prompt: a question, or None.
    """
    question = [{"type": "text", "text": prompt}] if prompt else []
    return [
        {"role": "user", "content": [*files, *question]},
        {"role": "assistant", "content": [{"type": "text", "text": caption}]},
    ]


def parts_of(messages: list[dict]) -> Iterator[dict]:
    """Yield the content parts of all messages."""
    for message in messages:
        yield from message["content"]


def files_of(messages: list[dict]) -> list[dict]:
    """List the file parts of messages, in their order."""
    return [part for part in parts_of(messages) if part["type"] != "text"]


def text_length(messages: list[dict]) -> int:
    """Count the characters of all text in messages."""
    return sum(len(part["text"]) for part in parts_of(messages) if part["type"] == "text")


def check_messages(messages: list[dict], modalities: tuple[str, ...]) -> None:
    """Check that messages end with an answer and show files of the given modalities.

    Raises:
        DataError: they do not.
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError("the conversation does not end with an answer; expected one; add it, or leave the example out.")
    for message in messages:
        if message["role"] == "assistant" and not any(part.get("text", "").strip() for part in message["content"]):
            raise DataError("the caption or answer is empty; expected words; fill it in, or leave the example out.")
    found = {part["type"] for part in files_of(messages)}
    if found != set(modalities):
        raise DataError(
            f"it holds {_list(found)}; expected {_list(modalities)}, as its source says; give other kinds in a "
            "source of their own."
        )


class Positions:
    """All examples of a source by number: number -> (block, index).

    Args:
        blocks: of the source.
        limit: the first so many only.
    """

    def __init__(self, blocks: list[int], limit: int | None = None):
        self.ends = list(accumulate(blocks))
        total = sum(blocks)
        self.count = total if limit is None else min(total, limit)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[int, int]:
        block = bisect_right(self.ends, number)
        return block, number - (self.ends[block - 1] if block else 0)

    def spread(self, count: int) -> list[int]:
        """Return at most `count` numbers, evenly spread."""
        count = min(count, self.count)
        return [(2 * index + 1) * self.count // (2 * count) for index in range(count)]


def split_rows(count: int) -> list[int]:
    """Split rows into blocks: [1000, 1000, ..., rest]."""
    return [min(BLOCK, count - start) for start in range(0, count, BLOCK)]


def _list(modalities: set[str] | tuple[str, ...]) -> str:
    return " and ".join(sorted(modalities)) or "no file"
