"""Options of an answer as people type them: their names, their ranges, what they mean."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onellm.limits import LIMITS

__all__ = ["SAMPLING", "Sampling", "add_sampling"]


@dataclass(frozen=True)
class Sampling:
    """An option of `Chat.stream`.

    Attributes:
        default: the value where none is given.
        read: turns text into a value; a ValueError says what was expected.
        mark: stands for the value in a list of options.
        help: what it does.
    """

    default: Any
    read: Callable[[str], Any]
    mark: str
    help: str


def _within(kind: Callable[[str], Any], least: float, most: float) -> Callable[[str], Any]:
    """Return a reader of numbers in a range."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected {least} to {most}, not {text}")
        return value

    return read


SAMPLING = {
    "max_new_tokens": Sampling(128, _within(int, 1, LIMITS.new_tokens), "N", "longest answer, in tokens"),
    "temperature": Sampling(0.0, _within(float, 0, 10), "T", "0: the likeliest answer; higher is freer"),
    "top_p": Sampling(1.0, _within(float, 0.01, 1), "P", "only the likeliest words that make up this share are drawn"),
    "seed": Sampling(None, _within(int, 0, 2**32 - 1), "N", "makes drawn answers repeatable"),
    "system": Sampling("", str, "TEXT", "a message before the conversation that tells the model how to answer"),
}


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    for name, option in SAMPLING.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=option.read, default=option.default, metavar=option.mark, help=option.help)
