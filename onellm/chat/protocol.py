"""What a conversation and its writer tell each other: the request, what comes of it bit by bit, and the cache."""

import threading
from dataclasses import dataclass, field
from typing import Any

from onellm.chat.sampling import Settings
from onellm.chat.trace import FileTrace


@dataclass
class Request:
    """What an answer is made from; it can be pickled.

    Attributes:
        ids: the prompt with placeholders.
        files: kind and key of each file in the prompt, in order.
        tensors: key -> tensor of a file that is not yet encoded.
        traces: key -> the beginning of such a file's trace.
        words: key -> soft tokens [M + 2, D_llm] of a file that is.
        settings: how to answer.
        instructions: key -> token ids of the question about a file, for a projector that reads it; None for others.
    """

    ids: list[int]
    files: list[tuple[str, str]]
    tensors: dict[str, Any]
    traces: dict[str, FileTrace]
    words: dict[str, Any]
    settings: Settings
    instructions: dict[str, Any] = field(default_factory=dict)


@dataclass
class CacheState:
    """What the key-value cache holds: tokens, in which a file's key stands for its placeholders, and the cache."""

    tokens: list = field(default_factory=list)
    cache: Any = None

    def forget(self) -> None:
        """Free the cache; the next answer reads the whole prompt."""
        self.tokens, self.cache = [], None


@dataclass
class Here:
    """What an answer shares with its conversation where both are in one process.

    Attributes:
        stop: set to end the answer within one token.
        past: of the conversation; brought up to date when the answer ends.
    """

    stop: threading.Event
    past: CacheState


@dataclass
class EncodeDone:
    """Said once the files are encoded.

    Attributes:
        words: key -> soft tokens of the new files.
        traces: key -> their traces.
        cached: positions of the prompt that the cache still holds.
        wait_s: seconds until the model was free.
        encode_s: seconds since.
        at_s: when it was, in the machine's own time.
    """

    words: dict[str, Any]
    traces: dict[str, FileTrace]
    cached: int
    wait_s: float
    encode_s: float
    at_s: float


@dataclass
class TextDelta:
    """Said of every token, and of the rest at the end: text that is certain now, when it was, and how many tokens."""

    text: str
    at_s: float
    tokens: int
