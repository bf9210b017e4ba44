"""Whose a session is: its name stands in addresses, and so in proxies' logs; it opens nothing to another visitor."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable

from onellm.utils.limits import LIMITS

NAME = 128  # characters of a session's name


class Sessions:
    """The sessions of all visitors, each of the one who named it first; those that are used least are forgotten.

    Attributes:
        forget: drops what is kept of a session; tells whether it could.
    """

    def __init__(self):
        self.forget: Callable[[str], bool] = lambda _: True
        self._lock = threading.Lock()
        self._owners: OrderedDict[str, str] = OrderedDict()  # the one used last stands last
        self._bytes: Counter[str] = Counter()  # of conversations that came from outside

    def may_use(self, name: str, visitor: str) -> bool:
        """Tell whether a session is a visitor's own, or nobody's yet."""
        with self._lock:
            return len(name) <= NAME and self._owners.get(name, visitor) == visitor

    def use(self, name: str, visitor: str) -> bool:
        """Make a session a visitor's own; tell whether it is.

        Args:
            name: of the session.
            visitor: who names it.
        """
        with self._lock:
            if len(name) > NAME or self._owners.setdefault(name, visitor) != visitor:
                return False
            self._owners.move_to_end(name)
            own = [other for other, owner in self._owners.items() if owner == visitor]
            spare = own[: max(0, len(own) - LIMITS.visitor_sessions)]
            spare += list(self._owners)[: max(0, len(self._owners) - LIMITS.sessions)]
            self._drop(spare, name)
        return True

    def keep(self, name: str, size: int) -> None:
        """Note the size of the conversation that a session took from outside, in bytes; others make room."""
        with self._lock:
            self._bytes[name] = size
            for other in list(self._owners):
                if self._bytes.total() <= LIMITS.sessions_bytes:
                    return
                if self._bytes[other]:
                    self._drop([other], name)

    def end(self, name: str) -> None:
        """Forget a session."""
        with self._lock:
            self._drop([name], "")

    def _drop(self, names: list[str], but: str) -> None:
        for name in names:
            if name != but and self.forget(name):
                self._owners.pop(name, None)
                self._bytes.pop(name, None)


SESSIONS = Sessions()
