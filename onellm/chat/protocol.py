"""What a conversation and the generation worker tell each other: the request, its events, the cache state."""

from dataclasses import dataclass, field
from typing import Any

from onellm.chat.sampling import Settings
from onellm.chat.trace import FileTrace


@dataclass
class Request:
    """What an answer is generated from; it can be pickled.

    Attributes:
        ids: the prompt with placeholders.
        files: modality and key of each file in the prompt, in order.
        tensors: key -> tensor of a file that is not yet encoded.
        traces: key -> the beginning of such a file's trace.
        media_embeds: key -> soft tokens [M + 2, D_llm] of a file that is.
        settings: how to answer.
        instructions: key -> token ids of the question about a file, for a projector that reads it; None for others.
        stop_strings: texts at which the answer ends, besides the model's own.
    """

    ids: list[int]
    files: list[tuple[str, str]]
    tensors: dict[str, Any]
    traces: dict[str, FileTrace]
    media_embeds: dict[str, Any]
    settings: Settings
    instructions: dict[str, Any] = field(default_factory=dict)
    stop_strings: list[str] = field(default_factory=list)


@dataclass
class CacheState:
    """What the KV cache holds: tokens, in which a file's key stands for its placeholders, and the cache."""

    tokens: list = field(default_factory=list)
    cache: Any = None

    def forget(self) -> None:
        """Free the cache; the next answer reads the whole prompt."""
        self.tokens, self.cache = [], None


@dataclass
class EncodeDone:
    """Said once the files are encoded.

    Attributes:
        media_embeds: key -> soft tokens of the new files.
        traces: key -> their traces.
        cached: positions of the prompt that the cache still holds.
        encode_s: seconds it took.
        at_s: when it was, in the machine's own time.
    """

    media_embeds: dict[str, Any]
    traces: dict[str, FileTrace]
    cached: int
    encode_s: float
    at_s: float


@dataclass
class TextDelta:
    """Said of every token, and once more at the end.

    Attributes:
        text: text of the answer that is certain now.
        at_s: when it was, in the machine's own time.
        tokens: how many tokens it took.
        at_stop_string: the answer ended at a stop string.
    """

    text: str
    at_s: float
    tokens: int
    at_stop_string: bool = False
