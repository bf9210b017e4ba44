"""How much visitors bring: each alone and all together, within the time that uploads are kept."""

import shutil
import threading
import time
from collections import Counter, deque
from pathlib import Path

from onellm.errors import FileError
from onellm.modalities.base import megabytes
from onellm.utils.limits import LIMITS

FILE_BYTES = 16_384  # what a file costs beside its content: a folder, an entry in the list of owners
SPARE_BYTES = 1_000_000_000  # of the disk, for everything else that runs on the machine
MERGE_S = 10.0  # what the same visitor brings within is one entry


class QuotaError(FileError):
    """No room for a file.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Quotas:
    """A ledger of bytes brought; entries go when the files do, an upload's lifetime later."""

    def __init__(self):
        self._lock = threading.Lock()
        self._entries: deque[list] = deque()  # [time in seconds, visitor, bytes], oldest first
        self._of_visitor: Counter[str] = Counter()
        self._of_all = 0

    def check(self, visitor: str, size: int, folder: Path) -> None:
        """Check that there is room.

        Args:
            visitor: who brings it.
            size: bytes.
            folder: where it will lie; it is made if need be.

        Raises:
            QuotaError: there is none, for this visitor or for anybody.
        """
        minutes = LIMITS.upload_lifetime_s // 60
        with self._lock:
            self._expire()
            if self._of_visitor[visitor] + size > LIMITS.visitor_bytes:
                raise QuotaError(
                    f"You have brought {megabytes(self._of_visitor[visitor])} of files within {minutes} minutes; "
                    f"{megabytes(LIMITS.visitor_bytes)} are allowed; wait a while, or send smaller files.",
                    413,
                )
            if self._of_all + size > LIMITS.uploads_bytes:
                raise QuotaError(
                    f"All visitors together have brought {megabytes(self._of_all)} of files, and no more are kept at "
                    f"once; expected at most {megabytes(LIMITS.uploads_bytes)}; try again in some minutes.",
                    507,
                )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size + SPARE_BYTES:
            raise QuotaError(
                f"The disk of the app's machine is nearly full: {megabytes(free)} are free; expected "
                f"{megabytes(size + SPARE_BYTES)}; whoever runs the app has to free some space.",
                507,
            )

    def spend(self, visitor: str, size: int) -> None:
        """Note what a visitor has brought, in bytes."""
        with self._lock:
            now = time.monotonic()
            last = self._entries[-1] if self._entries else None
            if last and last[1] == visitor and now - last[0] < MERGE_S:
                last[2] += size
            else:
                self._entries.append([now, visitor, size])
            self._of_visitor[visitor] += size
            self._of_all += size

    def _expire(self) -> None:
        """Forget what was brought so long ago that it is no longer kept."""
        oldest_s = time.monotonic() - LIMITS.upload_lifetime_s
        while self._entries and self._entries[0][0] < oldest_s:
            _, visitor, size = self._entries.popleft()
            self._of_all -= size
            self._of_visitor[visitor] -= size
            if not self._of_visitor[visitor]:
                del self._of_visitor[visitor]


QUOTAS = Quotas()
