"""The request queue of all who wait for the model: the page, /ask and the OpenAI-style server alike."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from onellm.errors import BusyError


class Ticket:
    """A position in the request queue.

    Attributes:
        queue: the queue it belongs to.
    """

    def __init__(self, queue: "RequestQueue"):
        self.queue = queue
        self._called = threading.Event()

    @property
    def position(self) -> int:
        """How many are served before: 0 is one's own turn."""
        return self.queue.position(self)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for one's turn; tell whether it has come."""
        return self._called.wait(timeout_s)

    def leave(self) -> None:
        """Give the position up, whether served or not; twice is once."""
        self.queue.leave(self)


class RequestQueue:
    """First come, first served, one at a time.

    Args:
        limit: how many may wait behind the one who is served.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._tickets: deque[Ticket] = deque()
        self._lock = threading.Lock()
        self._begun_s = 0.0
        self._usual_s = 5.0  # of one turn; follows what is measured

    def __len__(self) -> int:
        """How many are being served or wait."""
        return len(self._tickets)

    def check(self) -> None:
        """Make sure that there is room for one more.

        Raises:
            BusyError: the queue is full.
        """
        count = len(self._tickets)
        if count > self.limit:
            seconds = max(1, round(count * self._usual_s))
            raise BusyError(
                f"{count} questions are waiting, and no more are taken; ask again in about {seconds} s.", seconds
            )

    def join(self) -> Ticket:
        """Join the queue.

        Raises:
            BusyError: the queue is full.
        """
        with self._lock:
            self.check()
            ticket = Ticket(self)
            self._tickets.append(ticket)
            self._call()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Take a ticket out of the queue."""
        with self._lock:
            if ticket not in self._tickets:
                return
            if ticket is self._tickets[0]:
                self._usual_s = 0.8 * self._usual_s + 0.2 * (time.monotonic() - self._begun_s)
            self._tickets.remove(ticket)
            self._call()

    def position(self, ticket: Ticket) -> int:
        """Return how many are served before a ticket."""
        with self._lock:
            return self._tickets.index(ticket) if ticket in self._tickets else 0

    @contextmanager
    def turn(self) -> Iterator[Ticket]:
        """Join the queue, wait, and leave at the end.

        Raises:
            BusyError: the queue is full.
        """
        ticket = self.join()
        try:
            ticket.wait()
            yield ticket
        finally:
            ticket.leave()

    def _call(self) -> None:
        """Call the first in the queue, unless that was done."""
        if self._tickets and not self._tickets[0]._called.is_set():
            self._begun_s = time.monotonic()
            self._tickets[0]._called.set()
