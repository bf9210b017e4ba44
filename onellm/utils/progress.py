"""How far the loading of a model has come, for whoever wants to show it; raising `Cancelled` there ends it."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from onellm.errors import ModelError

REPORT_EVERY_S = 0.1


@dataclass(frozen=True)
class Progress:
    """A step of loading.

    Attributes:
        what: "answer" (one has to end first), "wait" (another process fetches the model), "download", "check",
            "convert", "read" or "optimise".
        detail: the file, shard or base part at hand; may be empty.
        done: how much of `total`.
        total: 0 where nobody knows.
        unit: of both: "bytes", "tensors", "layers", or "" where they mean nothing.
    """

    what: str
    detail: str = ""
    done: float = 0
    total: float = 0
    unit: str = ""


Report = Callable[[Progress], None]


class Cancelled(ModelError):
    """Loading was cancelled; nothing of the model is left in memory."""


class Bar:
    """Stands in for a tqdm and reports instead of drawing.

    No subclass of tqdm: when `report` raises `Cancelled` within its `update`, tqdm keeps its global lock.

    Args:
        report: called at most ten times a second, and at the beginning, a new detail and the end.
        what: the step.
        iterable: passed through, as tqdm does.
        desc: the detail.
        total: how much there is.
        initial: how much was done before.
        unit: tqdm's: "B" for bytes.
        detail_of: an item -> its detail.
        **_: further options of tqdm.
    """

    def __init__(
        self,
        report: Report,
        what: str,
        iterable: Iterable | None = None,
        *,
        desc: str = "",
        total: float | None = None,
        initial: float = 0,
        unit: str = "it",
        detail_of: Callable[[Any], str] | None = None,
        **_: Any,
    ):
        self.report, self.what, self.detail, self.detail_of = report, what, desc, detail_of
        self.iterable, self.n, self.unit = iterable, initial, {"B": "bytes", "it": "tensors"}.get(unit, unit)
        self.total = len(iterable) if total is None and hasattr(iterable, "__len__") else total or 0
        self._reported_s = 0.0
        self.update(0)

    def __iter__(self) -> Iterator[Any]:
        """Pass the items on."""
        for item in self.iterable:
            if self.detail_of and self.detail != (detail := self.detail_of(item)):
                self.detail, self._reported_s = detail, 0.0
                self.update(0)
            yield item
            self.update()

    def update(self, n: float = 1) -> None:
        """Count `n` more."""
        self.n += n
        if self.n == self.total or time.monotonic() - self._reported_s > REPORT_EVERY_S:
            self._reported_s = time.monotonic()
            self.report(Progress(self.what, self.detail, self.n, self.total, self.unit))

    def __enter__(self) -> "Bar":
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def close(self) -> None:
        """End."""


def bar(report: Report | None, what: str, **options: Any) -> Any:
    """Return a `Bar`, or tqdm on standard error without a report; the options are tqdm's."""
    if report is not None:
        return Bar(report, what, **options)
    from tqdm import tqdm

    return tqdm(**options)


@contextmanager
def reading(report: Report | None, detail_of: Callable[[str], str]) -> Iterator[None]:
    """Report the tensors that transformers reads in the block.

    Args:
        report: None leaves transformers' own bars.
        detail_of: name of a tensor -> the shard or base part it comes from.
    """
    if report is None:
        yield
        return
    from transformers.utils import logging

    def hook(_: Any, args: tuple, options: dict) -> Bar:
        named = {"desc": "", "detail_of": lambda item: detail_of(item[0])}
        return Bar(report, "read", *args, **options | named)

    previous = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
