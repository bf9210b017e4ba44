"""What the toy parts of test_base_parts are converted with; every conversion is a process that imports this file."""

import os
import signal
import time


def reverse(source, out):
    (out / "model.bin").write_bytes(source.read_bytes()[::-1])


def fill_the_disk(source, out):
    (out / "model.bin").write_bytes(b"half")
    raise OSError(28, "No space left on device")


def fail(source, out):
    raise ValueError("these are no weights")


def be_killed(source, out):
    os.kill(os.getpid(), signal.SIGKILL)


def never_end(source, out):
    (out.parent / "pid").write_text(str(os.getpid()))
    time.sleep(600)
