"""Two models asked the same, side by side: what each says, and how long it takes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onellm.chat.sampling import Settings
from onellm.chat.trace import Trace
from onellm.errors import OneLLMError
from onellm.utils import oom


@dataclass(eq=False)
class Answer:
    """What one model says.

    Attributes:
        model: what it was loaded from: a name of `registry.MODELS` or a folder.
        quantize: how its weights are kept.
        text: its text so far.
        generated: what it generated besides text, see `Chat.generated`.
        trace: what it did; None before the end, or where it did nothing.
        error: why there is no answer, for the user.
    """

    model: str
    quantize: str
    text: str = ""
    generated: list[dict] = field(default_factory=list)
    trace: Trace | None = None
    error: str = ""

    @property
    def first_word_s(self) -> float | None:
        """Seconds from the files, once they are read, to the first word; None without one."""
        if self.trace is None or not self.trace.new_tokens:
            return None
        return self.trace.timings.encode_s + self.trace.timings.prefill_s

    @property
    def tokens_per_s(self) -> float | None:
        """Speed once the first word was there; None for an answer of one token."""
        return (self.trace.tokens_per_s or None) if self.trace is not None else None

    @property
    def nearest(self) -> list[tuple[str, list[str]]]:
        """For each file its name, and the words that the LLM's soft tokens for it are nearest to, each once."""
        files = self.trace.files if self.trace is not None else []
        return [(file.name, file.nearest) for file in files if file.nearest]


def compare(
    ways: Sequence[tuple[str | None, str | None]],
    text: str,
    settings: Settings,
    files: dict[str, Any],
    device_map: str | None = None,
    out: Path | None = None,
) -> Iterator[Answer]:
    """Ask one model after the other; each is given back before the next one is loaded.

    Args:
        ways: a model of `registry.MODELS` or a folder, and how its weights are kept; None for what suits the machine. A
            second model that is None is the first one.
        text: the question.
        settings: how the answers are drawn.
        files: as for `Chat.stream`.
        device_map: as for `load`.
        out: folder for what answers hold besides text; by default a new one.

    Yields:
        The answers, or why there is none.
    """
    from onellm.chat.load import load

    first: str | None = None
    for name, quantize in ways:
        answer, chat = Answer(name or first or "", quantize or ""), None
        try:
            chat = load(name or first, quantize=quantize, device_map=device_map)
            answer.model, answer.quantize = chat.origin, chat.quantize
            first = first or chat.origin
            if out is not None:
                chat.output_path = lambda name, _: out / name
            answer.text = chat.ask(text, **asdict(settings), **files).strip()
            answer.generated, answer.trace = chat.generated, chat.trace
        except OneLLMError as error:
            answer.error = str(error)
        if chat is not None:
            chat.close()
            chat = None
        oom.free()
        yield answer


def figure(value: float | None, form: str) -> str:
    """Return a figure as text; nothing for one that there is not."""
    return "" if value is None else form.format(value)
