"""The thread in which a model's answers are written one after the other, and how long ago it last got on."""

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

Job = Callable[[], None]
Fail = Callable[[BaseException], None]


class GivenUp(BaseException):
    """Ends, in the thread itself, a job that nobody waits for any more."""


class Pulse:
    """When something last got on.

    Attributes:
        at_s: time of `time.monotonic`.
    """

    def __init__(self):
        self.at_s = time.monotonic()

    def __call__(self, *_: Any) -> None:
        """Note that it got on; also a module's hook."""
        self.at_s = time.monotonic()


class JobThread:
    """Does jobs one after the other, in a thread that begins with the first.

    Args:
        pulse: is called by the jobs, again and again as they get on.
    """

    def __init__(self, pulse: Pulse):
        self.pulse = pulse
        self._jobs: SimpleQueue[tuple[Job, Fail] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._fail: Fail | None = None  # of the job that is being done
        self._given_up = False

    def submit(self, job: Job, fail: Fail) -> None:
        """Do a job, once what was submitted before has ended.

        Args:
            job: must not raise.
            fail: says to whoever waits for the job that it will not end.
        """
        if self._thread is None or not self._thread.is_alive():  # a forked process has none
            self._thread = threading.Thread(target=self._work, name="generation", daemon=True)
            self._thread.start()
        self._jobs.put((job, fail))

    def end(self) -> None:
        """End the thread once what was submitted is done."""
        self._jobs.put(None)

    @property
    def stalled_s(self) -> float:
        """Seconds since the job that is being done last got on; 0 where there is none."""
        return time.monotonic() - self.pulse.at_s if self._fail is not None else 0.0

    def give_up(self, error: BaseException) -> None:
        """Leave the thread to itself, and tell whoever waits for it.

        Python code in it ends at once; what hangs in native code stays, and with it what it holds.

        Args:
            error: what they are told.
        """
        self._given_up, fail, thread = True, self._fail, self._thread
        if thread is not None and thread.is_alive() and fail is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(GivenUp))
        if fail is not None:
            fail(error)
        with contextlib.suppress(Empty):
            while (waiting := self._jobs.get_nowait()) is not None:
                waiting[1](error)
        self.end()

    def _work(self) -> None:
        with contextlib.suppress(GivenUp):
            for job, fail in iter(self._jobs.get, None):
                self.pulse()
                self._fail = fail
                job()
                self._fail = None
                del job, fail  # while the thread waits, nothing may keep the model
                if self._given_up:
                    return
