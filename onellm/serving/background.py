"""Read an answer in a thread of its own, so that whoever waits for it stays free to stop."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

_END = object()


class Reader(threading.Thread):
    """Reads an iterator to its end.

    Args:
        pieces: what is read.
        done: called at the end, however it comes, before `pieces` yields it.
    """

    def __init__(self, pieces: Iterator[str], done: Callable[[], None]):
        super().__init__(name="read-answer", daemon=True)
        self._pieces, self._done = pieces, done
        self._read: queue.Queue[Any] = queue.Queue()
        self.start()

    def run(self) -> None:
        """Read until the end or an error, and pass both on."""
        end: Any = _END
        try:
            for piece in self._pieces:
                self._read.put(piece)
        except BaseException as error:  # raised again where the pieces are wanted
            end = error
        finally:
            self._done()
            self._read.put(end)

    def pieces(self, patience_s: float) -> Iterator[str]:
        """Yield the pieces as they come, and an empty one whenever none came for `patience_s`.

        Raises:
            BaseException: what reading raised.
        """
        while True:
            try:
                piece = self._read.get(timeout=patience_s)
            except queue.Empty:
                yield ""
                continue
            if piece is _END:
                return
            if isinstance(piece, BaseException):
                raise piece
            yield piece
