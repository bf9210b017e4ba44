"""How an answer is generated: the settings of `Chat.stream`, their ranges, and how they are typed."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from onellm.errors import OneLLMError
from onellm.utils.limits import LIMITS

__all__ = ["HELP", "RANGES", "Settings", "add_options", "check_stop", "parse"]

RANGES: dict[str, tuple[float, float]] = {
    "max_new_tokens": (1, LIMITS.new_tokens),
    "temperature": (0, 10),
    "top_p": (0.01, 1),
    "seed": (0, 2**32 - 1),
}
GREEDY_BELOW = 0.01  # temperatures by which logits would be divided into no numbers; the likeliest token is the same
STOP_STRINGS = 4
STOP_CHARACTERS = 256  # of one
HELP = {
    "max_new_tokens": ("N", "longest answer, in tokens"),
    "temperature": ("T", "0: the likeliest answer; higher is freer"),
    "top_p": ("P", "only the likeliest words that make up this share are drawn"),
    "seed": ("N", "makes drawn answers repeatable"),
    "system": ("TEXT", "a message before the conversation that tells the model how to answer"),
}
_READ: dict[str, Callable[[str], Any]] = {"max_new_tokens": int, "temperature": float, "top_p": float, "seed": int}


@dataclass(frozen=True)
class Settings:
    """How an answer is to be generated.

    Attributes:
        max_new_tokens: longest answer, in tokens.
        temperature: 0 answers with the likeliest words, as does what is below `GREEDY_BELOW`; higher is freer.
        top_p: only the likeliest words that make up this share are drawn.
        seed: makes drawn answers repeatable; None draws anew each time.
        system: a message before the conversation that tells the model how to answer.

    Raises:
        OneLLMError: a value is no number, or out of its range.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    system: str = ""

    def __post_init__(self):
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is None and name == "seed":
                continue
            whole = _READ[name] is int
            if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
                found = f"{value:g}" if isinstance(value, float) else f"of type {type(value).__name__}"
                raise OneLLMError(f"{name} is {found}; expected a {'whole ' * whole}number; give another value.")
            if not least <= value <= most:  # NaN is not
                found = f"{value:g}" if abs(value) < 1e300 else "beyond all numbers"
                raise OneLLMError(f"{name} is {found}; expected {least:g} to {most:,}; give another value.")
            object.__setattr__(self, name, _READ[name](value))  # 1 is 1.0, and NumPy's numbers are Python's
        if not isinstance(self.system, str):
            raise OneLLMError("The system message is no text; give a text.")
        if self.temperature < GREEDY_BELOW:
            object.__setattr__(self, "temperature", 0.0)
        if len(self.system) > LIMITS.message_characters:
            most = f"{LIMITS.message_characters:,}"
            raise OneLLMError(f"The system message has {len(self.system):,} characters; {most} fit; shorten it.")


def check_stop(strings: Iterable[str]) -> list[str]:
    """Return the texts at which an answer is to end.

    Raises:
        OneLLMError: they are too many, too long, empty or no texts; every token is compared with them.
    """
    strings = [strings] if isinstance(strings, str) else list(strings)
    if len(strings) > STOP_STRINGS or not all(isinstance(s, str) and 0 < len(s) <= STOP_CHARACTERS for s in strings):
        raise OneLLMError(
            f"An answer cannot end at these texts; expected at most {STOP_STRINGS}, each of 1 to {STOP_CHARACTERS} "
            "characters; give others."
        )
    return strings


def parse(name: str, text: str) -> Any:
    """Read a typed value.

    Raises:
        argparse.ArgumentTypeError: it is none, or out of its range.
    """
    if name not in RANGES:
        return text
    least, most = RANGES[name]
    try:
        value = _READ[name](text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise argparse.ArgumentTypeError(f"expected {least} to {most}, not {text}")
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the settings to a parser."""
    for field in fields(Settings):
        metavar, text = HELP[field.name]
        flag = f"--{field.name.replace('_', '-')}"

        def read(text: str, name: str = field.name) -> Any:
            return parse(name, text)

        parser.add_argument(flag, type=read, default=field.default, metavar=metavar, help=text)


def given(options: argparse.Namespace) -> Settings:
    """Return the settings that a command line gave."""
    return Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
