"""Files are read in processes of their own, with limits of memory and time: what breaks there breaks nothing here.

A template process imports the readers' libraries and does nothing else. For each file it forks a process that reads
this one file, sends plain numbers back and ends, so none meets another's file, and its memory is free at once. Nothing
that comes back is unpickled or believed.

Only Linux forks safely beside such libraries; elsewhere, and for files that are trusted, this process reads.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onellm.errors import BusyError, FileError
from onellm.modalities.base import Sample
from onellm.utils.limits import LIMITS

__all__ = ["Died", "call", "trust_files", "trusted"]

MESSAGE_BYTES = 65_536
PATIENCE_S = 120  # for one's turn to read
IMPORT_S = 60  # for libraries to be imported from a slow disk, once
FILE_BYTES = 1_000_000  # no reader writes files, but `tempfile` tries its folder with a small one
ERROR = ("message", "found", "expected", "advice")  # of a FileError
START = "import sys; from onellm.modalities.sandbox import serve; serve(int(sys.argv[1]))"

_trusted = False


class Died(Exception):
    """A process that read a file ended before its time.

    Attributes:
        found: what happened, for an error.
        advice: what to do about it.
    """

    def __init__(self, found: str, advice: str):
        super().__init__(found)
        self.found, self.advice = found, advice


def trust_files() -> None:
    """Read files in this process from now on: one's own, where speed counts, as in training."""
    global _trusted
    _trusted = True


def trusted() -> bool:
    """Whether files are read in this process, see `trust_files`."""
    return _trusted


def call(job: Callable[..., Any], *arguments: Any, libraries: Sequence[str] = (), **options: Any) -> Any:
    """Call a function that reads a file in a process of its own.

    Args:
        job: a function of a module; returns a `Sample` or what JSON can hold.
        *arguments: its arguments: paths, or what JSON can hold.
        libraries: what it imports, so that this happens only once; see `Modality`.
        **options: its keyword arguments.

    Returns:
        What it returns; the arrays of a sample are new.

    Raises:
        FileError: the function raised it.
        BusyError: other files are being read, for long.
        Died: the process ended for lack of time or memory, or by a fault of the reader.
    """
    if _trusted or not LIMITS.readers or sys.platform != "linux":
        return job(*arguments, **options)
    task = {
        "job": [job.__module__, job.__qualname__],
        "arguments": arguments,
        "options": options,
        "libraries": list(libraries),
        "folder": os.getcwd(),
        "seconds": LIMITS.load_seconds,
        "memory_bytes": LIMITS.load_memory_bytes,
    }
    if not _slots.acquire(timeout=PATIENCE_S):
        raise BusyError("Too many files are being read; try again in about a minute.", 60)
    message = json.dumps(task, default=_plain).encode()
    try:
        return _receive(_template.request(message))
    except Died:
        if _template.alive():
            raise
        return _receive(_template.request(message))
    finally:
        _slots.release()


def _plain(value: Any) -> Any:
    """Return a path or a number of NumPy's as JSON takes it."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value.item()


# ---- here ------------------------------------------------------------------------------------------------------------


class _Template:
    """The process that forks the others; it is started when first needed, and again if it is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0  # a forked copy of this process starts a template of its own
        self._control: socket.socket
        self._process: subprocess.Popen

    def request(self, message: bytes) -> socket.socket:
        """Have a file read; returns where the answer comes."""
        here, there = socket.socketpair()
        with there, self._lock:
            for _ in range(2):
                if self._owner != os.getpid():
                    self._start()
                try:
                    socket.send_fds(self._control, [message], [there.fileno()])
                    return here
                except ConnectionError:  # somebody killed it
                    self._control.close()
                    self._process.wait()
                    self._owner = 0
        here.close()
        raise Died("the process that reads files cannot be started", "start the program again")

    def alive(self) -> bool:
        """Whether it can fork; one that was killed takes a moment to be gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1)
        return self._process.returncode is None

    def _start(self) -> None:
        self._control, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = str(Path(__file__).resolve().parents[2])
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
            "OMP_NUM_THREADS": "1",  # threads do not survive a fork
            "OPENBLAS_NUM_THREADS": "1",
        }
        with there:  # it ends when this process, which holds the other end, does
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, str(there.fileno())],
                env=environment,
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is not for it
            )
        self._owner = os.getpid()


_template = _Template()
_slots = threading.BoundedSemaphore(max(1, LIMITS.readers))


def _receive(answers: socket.socket) -> Any:
    """Read a process's answer; give up after the time a file may take."""
    begun_s = time.monotonic()
    deadline_s = begun_s + LIMITS.load_seconds + IMPORT_S  # the process ends itself before

    def read(buffer: memoryview) -> None:
        while buffer:
            answers.settimeout(max(0.01, deadline_s - time.monotonic()))
            count = answers.recv_into(buffer)
            if not count:
                raise EOFError
            buffer = buffer[count:]

    try:
        with answers:
            length = bytearray(8)
            read(memoryview(length))
            text = bytearray(_checked(int.from_bytes(length, "little")))
            read(memoryview(text))
            answer = json.loads(text)
            if "error" in answer:
                message, *fields = (str(answer["error"][key]) for key in ERROR)
                raise FileError(message, **dict(zip(ERROR[1:], fields, strict=True)))
            if "sample" not in answer:
                return answer["value"]
            return _unpack(answer["sample"], read)
    except FileError:
        raise
    except TimeoutError:
        late = True
    except (EOFError, OSError, ValueError, TypeError, KeyError):  # it died, or says what none of ours would say
        late = time.monotonic() - begun_s >= LIMITS.load_seconds
    if late:
        raise Died(f"reading it takes longer than {LIMITS.load_seconds:g} s", "use a smaller or simpler file")
    raise Died("its reader broke off", "the file is damaged, so save or download it again")


def _checked(count_bytes: int) -> int:
    """Refuse an answer that is larger than what a reader can hold."""
    if not 0 <= count_bytes <= LIMITS.load_memory_bytes:
        raise ValueError("too large an answer")
    return count_bytes


def _unpack(fields: dict[str, Any], read: Callable[[memoryview], None]) -> Sample:
    """Make a sample of what `_pack` described and of the bytes that follow."""
    values = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            dtype, shape = np.dtype(value["dtype"]), tuple(int(side) for side in value["shape"])
            if dtype.kind not in "biuf" or min(shape, default=0) < 0:
                raise ValueError("no plain numbers")
            _checked(dtype.itemsize * int(np.prod([float(side) for side in shape])))
            array = np.empty(shape, dtype)
            read(memoryview(array.reshape(-1).view(np.uint8)))
            values[name] = array
        else:
            values[name] = tuple(value) if name == "size" and value is not None else value
    return Sample(**values)


# ---- there -----------------------------------------------------------------------------------------------------------


def serve(control_fd: int) -> None:
    """Be the template: fork a process for each message, until the other end is closed.

    Args:
        control_fd: the socket the messages come by, each with a socket for the answer.
    """
    control = socket.socket(fileno=control_fd)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes it forks
    import numpy.ma  # noqa: F401  # which NumPy imports when it is first used

    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
        if not message:
            return
        task = json.loads(message)
        importlib.import_module(task["job"][0])
        for library in task["libraries"]:
            with contextlib.suppress(ImportError):  # the reader says so in words
                found = pkgutil.resolve_name(library)
                if callable(found):
                    found()
        with socket.socket(fileno=descriptors[0]) as answers:
            if os.fork() == 0:
                control.close()
                try:
                    _work(task, answers)
                finally:
                    os._exit(0)


def _work(task: dict[str, Any], answers: socket.socket) -> None:
    """Do one task, in a forked process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # native readers complain there
    with contextlib.suppress(OSError):
        os.chdir(task["folder"])
    _limit(task["seconds"], task["memory_bytes"])
    module, name = task["job"]
    arrays: list[np.ndarray] = []
    try:
        value = getattr(importlib.import_module(module), name)(*task["arguments"], **task["options"])
        answer = {"sample": _pack(value, arrays)} if isinstance(value, Sample) else {"value": value}
    except FileError as error:
        answer = {"error": {"message": str(error), **{key: getattr(error, key) for key in ERROR[1:]}}}
    text = json.dumps(answer).encode()
    answers.sendall(len(text).to_bytes(8, "little") + text)
    for array in arrays:
        answers.sendall(array.reshape(-1).view(np.uint8))


def _limit(seconds: float, memory_bytes: int) -> None:
    """Bound this process: time, memory beyond what it has, no large files written, no core dumped."""
    import resource

    with open("/proc/self/statm") as file:
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    most = used_bytes + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _pack(sample: Sample, arrays: list[np.ndarray]) -> dict[str, Any]:
    """Describe a sample for JSON, and list the arrays whose bytes follow."""
    fields: dict[str, Any] = {}
    for name, value in vars(sample).items():
        if isinstance(value, np.ndarray):
            arrays.append(np.ascontiguousarray(value))
            fields[name] = {"dtype": value.dtype.str, "shape": value.shape}
        else:
            fields[name] = value
    return fields
