"""The request queue of all who wait for the model: the page, /ask and the OpenAI-style server alike."""

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

from onellm.errors import BusyError

_numbers = itertools.count()  # of tickets, in the order in which they came


class Ticket:
    """A position in the request queue.

    Attributes:
        queue: the queue it belongs to.
        owner: who asks; "" for one of its own.
        refusal: why it lost its position to somebody who had none.
    """

    def __init__(self, queue: "RequestQueue", owner: str = ""):
        self.queue, self.owner = queue, owner
        self.number = next(_numbers)
        self.refusal: BusyError | None = None
        self._called = threading.Event()

    @property
    def position(self) -> int:
        """How many are served before: 0 is one's own turn."""
        return self.queue.position(self)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for one's turn; tell whether it has come.

        Raises:
            BusyError: the position was lost, as one's other questions took more than a share.
        """
        called = self._called.wait(timeout_s)
        if self.refusal is not None:
            raise self.refusal
        return called

    def leave(self) -> None:
        """Give the position up, whether served or not; twice is once."""
        self.queue.leave(self)


class RequestQueue:
    """One at a time, first come, first served, each in turn: nobody's second question comes before another's first.

    Where the queue is full, a newcomer gets the last position of whoever holds the most, if that is more than his.

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

    def check(self, owner: str = "") -> None:
        """Make sure that there is room for one more.

        Args:
            owner: who asks.

        Raises:
            BusyError: the queue is full.
        """
        with self._lock:
            if len(self._tickets) > self.limit and self._greedy(owner) is None:
                raise self._full()

    def join(self, owner: str = "") -> Ticket:
        """Join the queue.

        Args:
            owner: who asks, such as a visitor or an address; "" is somebody of its own.

        Raises:
            BusyError: the queue is full.
        """
        with self._lock:
            if len(self._tickets) > self.limit:
                greedy = self._greedy(owner)
                if greedy is None:
                    raise self._full()
                greedy.refusal = self._full()
                self._tickets.remove(greedy)
                greedy._called.set()
            ticket = Ticket(self, owner)
            self._tickets.append(ticket)
            self._sort()
            self._call()
        return ticket

    def _full(self) -> BusyError:
        count = len(self._tickets)
        seconds = max(1, round(count * self._usual_s))
        return BusyError(
            f"{count} questions are waiting, and no more are taken; ask again in about {seconds} s.", seconds
        )

    def _greedy(self, owner: str) -> Ticket | None:
        """Return the last ticket of whoever holds the most; None if that is no more than an owner would hold."""
        held = Counter(ticket.owner or id(ticket) for ticket in self._tickets)
        most, count = held.most_common(1)[0]
        if count <= held.get(owner, 0) + 1:
            return None
        return next(ticket for ticket in reversed(self._tickets) if ticket.owner == most)

    def _sort(self) -> None:
        """Order those who wait: everybody's first question, then everybody's second, and so on."""
        served, *waiting = self._tickets
        before = Counter([served.owner])
        ranked = []
        for ticket in sorted(waiting, key=lambda ticket: ticket.number):
            ranked.append((before[ticket.owner] if ticket.owner else 0, ticket.number, ticket))
            before[ticket.owner] += 1
        self._tickets = deque([served, *(ticket for *_, ticket in sorted(ranked, key=lambda item: item[:2]))])

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
