"""Decoded files that are in use: recognising, previewing, measuring and encoding one file decodes it once."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from onellm.modalities.base import Sample
from onellm.utils.limits import LIMITS

__all__ = ["SampleCache", "stamp"]

CLOCK_STEP_NS = 20_000_000  # more than the step of any file system's clock but FAT's
ENTRY_BYTES = 1_000  # of an entry besides its arrays


def stamp(path: str | os.PathLike) -> tuple | None:
    """Return what tells a file's content from another's: path, time of change and size.

    None if there is no file, or if it changed a moment ago: it may change again within one step of the disk's clock.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if 0 <= time.time_ns() - status.st_mtime_ns < CLOCK_STEP_NS:
        return None
    return os.path.abspath(path), status.st_mtime_ns, status.st_size, status.st_ino


class SampleCache:
    """Keeps what was read last, within `sample_cache_bytes` of the limits; safe for threads.

    Arrays that come from it are shared, and therefore read-only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._reading: dict[Hashable, list] = {}  # key -> a lock, and how many threads want it
        self.size_bytes = 0

    def get(self, key: Callable[[], Hashable | None], read: Callable[[], Any]) -> Any:
        """Return what was read under a key, or read it; of threads that want the same, one reads.

        Args:
            key: names the content as it is now; None keeps nothing.
            read: returns a sample or a list; its errors are passed on and not kept.

        Returns:
            A sample of its own fields with shared arrays, or a copy of the list.
        """
        before = key()
        if before is None or not LIMITS.sample_cache_bytes:
            return read()
        with self._turn(before):
            with self._lock:
                if before in self._entries:
                    self._entries.move_to_end(before)
                    return _copy(self._entries[before][0])
            value = read()
            if key() == before:  # else it changed while it was read
                self._keep(before, value)
        return _copy(value)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self.size_bytes = 0

    def _keep(self, key: Hashable, value: Any) -> None:
        arrays = [field for field in vars(value).values() if isinstance(field, np.ndarray)] if _is_sample(value) else []
        size = ENTRY_BYTES + sum(array.nbytes for array in arrays)
        if size > LIMITS.sample_cache_bytes:
            return
        for array in arrays:
            array.setflags(write=False)
        with self._lock:
            self._entries[key] = value, size
            self.size_bytes += size
            while self.size_bytes > LIMITS.sample_cache_bytes:
                self.size_bytes -= self._entries.popitem(last=False)[1][1]

    @contextlib.contextmanager
    def _turn(self, key: Hashable) -> Iterator[None]:
        """Let one thread at a time read what a key names."""
        with self._lock:
            turn = self._reading.setdefault(key, [threading.Lock(), 0])
            turn[1] += 1
        try:
            with turn[0]:
                yield
        finally:
            with self._lock:
                turn[1] -= 1
                if not turn[1]:
                    del self._reading[key]


def _is_sample(value: Any) -> bool:
    return isinstance(value, Sample)


def _copy(value: Any) -> Any:
    """Return a value whose lists may be changed."""
    return replace(value, notes=list(value.notes)) if _is_sample(value) else list(value)
