"""Processes that begin with what takes long already imported, and are otherwise what a person's shell starts.

`python warm_processes.py FD MODULE…` imports the modules once, then forks a process for each order that comes over the
socket FD: JSON {"arguments": of `python -m onellm`, or "code" for `python -c`, "cwd", "environment", "session": true to
lead a session of its own with standard input for its terminal}, with the four descriptors of standard input, output,
error, and of a socket that is told the new process's number and, once it has ended, its status.
"""

import contextlib
import fcntl
import gc
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import traceback
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONELLM = (
    "torch",
    "peft",
    "onellm.chat.load",
    "onellm.hub.convert",
    "onellm.model.auto",
    "onellm.modalities.detect",
    *(f"onellm.cli.{command}" for command in ("ask", "bench", "chat", "compare", "convert", "inspect", "models")),
)


class Warm:
    """The server, seen from the tests."""

    def __init__(self, modules=ONELLM, environment=None):
        self.environment = dict(os.environ if environment is None else environment)
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server = subprocess.Popen(
            [sys.executable, __file__, str(other.fileno()), *modules],
            pass_fds=[other.fileno()],
            env=self.environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
        other.close()
        self.orders = own

    def popen(self, arguments=None, code=None, cwd=ROOT, env=None, session=False, stdin=0, stdout=1, stderr=2):
        """Start a process; returns a handle of it."""
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = self.environment if env is None else env
        order = {"arguments": arguments, "code": code, "cwd": str(cwd), "environment": environment, "session": session}
        socket.send_fds(self.orders, [json.dumps(order).encode()], [stdin, stdout, stderr, other.fileno()])
        other.close()
        return Process(own)

    def run(self, arguments=None, input="", timeout=300, **options):
        """Run a process to its end; returns what `subprocess.run` does, with its output as text."""
        arguments = None if arguments is None else list(map(str, arguments))
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as typed:
            typed.write(input.encode())
            typed.seek(0)
            process = self.popen(arguments, stdin=typed.fileno(), stdout=said.fileno(), stderr=told.fileno(), **options)
            try:
                status = process.wait(timeout)
            finally:
                process.kill()
            texts = [stream.seek(0) or stream.read().decode() for stream in (said, told)]
            return subprocess.CompletedProcess(arguments, status, *texts)

    def close(self):
        """End the server."""
        self.orders.close()
        self.server.wait(300)


class Process:
    """A process that the server has started."""

    def __init__(self, control):
        self.control, self.returncode = control, None
        self.pid = self._told(300)  # a busy machine imports for a minute
        assert self.pid is not None, "the server of warm processes does not answer"

    def _told(self, timeout):
        if not select.select([self.control], [], [], timeout)[0]:
            return None
        return int(self.control.recv(99))

    def wait(self, timeout=None):
        """Wait for the end; returns the status as subprocess does."""
        if self.poll(timeout) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self.returncode

    def poll(self, timeout=0):
        """Return the status, None before the end."""
        if self.returncode is None:
            status = self._told(timeout)
            self.returncode = None if status is None else os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number):
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kill it, if it has not ended."""
        self.send_signal(signal.SIGKILL)


def serve(orders):
    """Start what is ordered until the other side leaves."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(orders, 1 << 20, 4)
        if not text:
            return
        if os.fork() == 0:
            orders.close()
            keep(json.loads(text), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def keep(order, stdin, stdout, stderr, control):
    """Start a process and tell its number and its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        for place, descriptor in enumerate((stdin, stdout, stderr)):
            os.dup2(descriptor, place)
        os.closerange(3, max(stdin, stdout, stderr, control) + 1)
        become(order)
    for descriptor in (0, 1, 2, stdin, stdout, stderr):  # a terminal is hung up once nobody has it
        os.close(descriptor)
    os.write(control, str(child).encode())
    os.write(control, str(os.waitpid(child, 0)[1]).encode())
    os._exit(0)


def become(order):
    """Be the process that is ordered."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if order["session"]:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["cwd"])
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        if order["code"] is not None:
            sys.argv = ["-c"]
            exec(compile(order["code"], "<string>", "exec"), {"__name__": "__main__"})
            status = 0
        else:
            from onellm.__main__ import main

            sys.argv = ["onellm", *order["arguments"]]
            status = main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = {None: 0}.get(end.code, 1) if not isinstance(end.code, int) else end.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # as where the program itself imports it
    for module in sys.argv[2:]:
        import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who keep the others
    gc.collect()
    gc.freeze()  # a collection in a forked process would touch, and so copy, all that was imported
    serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)  # some libraries complain at length about a process that ends
