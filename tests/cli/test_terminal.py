"""python -m onellm chat: at a real terminal, and in a pipe."""

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onellm.cli.chat import split_files

ROOT = Path(__file__).resolve().parents[2]
MODEL = os.environ.get("ONELLM_TEST_MODEL", "onellm-tiny")
COMMAND = [sys.executable, "-m", "onellm", "chat", "--model", MODEL]
STORY = "Tell me a very long story about the sea and the people who live by it."


class Person:
    """Types into a terminal and reads what it shows."""

    def __init__(self, warm=None):
        self.end, inner = pty.openpty()
        places = {"stdin": inner, "stdout": inner, "stderr": inner}
        environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
        if warm is not None:
            self.process = warm.popen(["chat", "--model", MODEL], env=environment, session=True, **places)
        else:
            self.process = subprocess.Popen(
                COMMAND,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what started the tests may ignore it
                **places,
            )
        os.close(inner)
        self.seen = ""

    def type(self, line):
        self.seen = ""
        os.write(self.end, f"{line}\n".encode())

    def sees(self, pattern, timeout_s=180.0):
        end_s = time.monotonic() + timeout_s
        while not re.search(pattern, self.seen, re.DOTALL):
            assert time.monotonic() < end_s, f"no {pattern!r} in {self.seen!r}"
            self.read()
        return self.seen

    def read(self):
        if select.select([self.end], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):  # raised once the other side is gone
                self.seen += os.read(self.end, 65_536).decode(errors="replace")

    def leaves(self, timeout_s=10.0):
        end_s = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < end_s:
            self.read()
        return self.process.poll()


@pytest.fixture
def sit_down():
    people = []

    def make(warm=None):
        people.append(Person(warm))
        return people[-1]

    yield make
    for person in people:
        person.process.kill()
        person.process.wait()
        os.close(person.end)


def test_a_conversation(sit_down, example_files, tmp_path):
    spaced = tmp_path / "my cat.jpg"
    shutil.copy(example_files["image"], spaced)
    person = sit_down()
    assert "files of 8 kinds" in person.sees("you>")
    person.type(f"'{spaced}'")  # as terminals type a file that is dropped on them
    assert "my cat.jpg" in person.sees(r"pixels.*you>")
    person.type("What is in the picture?")
    assert "cat" in person.sees(r"picture shows.*you>").lower()
    person.type("/inside")
    assert "expert 1" in person.sees("tokens.*a second.*you>")
    assert "█" in person.seen
    person.type(STORY)
    person.sees(r"live by it\.\r\n.*[a-z]+ [a-z]+ [a-z]+ [a-z]+")
    person.process.send_signal(signal.SIGINT)
    person.sees("stopped.*you>", 5)
    person.type("/undo")
    person.sees("you>")
    person.type("/settings temperature 99")
    assert "expected 0 to 10" in person.sees("temperature: .*you>")
    saved = tmp_path / "talk.md"
    person.type(f"/save {saved}")
    person.sees("written to.*you>")
    time.sleep(0.5)  # readline hears keys and signals only once it listens, a moment after the prompt
    os.write(person.end, b"\x04")  # Ctrl-D
    assert person.leaves() == 0
    assert "What is in the picture?" in saved.read_text() and STORY not in saved.read_text()


def test_leaving_at_the_prompt(sit_down, warm):
    person = sit_down(warm)
    person.sees("you>")
    time.sleep(0.5)  # as above
    person.process.send_signal(signal.SIGINT)
    assert person.leaves() == 0


def test_in_a_pipe(example_files, warm):
    lines = (
        f"/audio {example_files['audio']}",
        "What do you hear?",
        f"{example_files['depth']} What is this?",
        "/image nowhere.png",
        "/wizard",
        "/exit",
        "This is not asked any more.",
    )
    done = warm.run(["chat", "--model", MODEL, "--max-new-tokens", "6"], input="\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and all(done.stdout.splitlines())
    assert "\x1b" not in done.stdout + done.stderr
    assert "nowhere.png: there is no such file" in done.stderr
    assert "no command /wizard" in done.stderr and "Traceback" not in done.stderr


def test_a_model_that_is_not_there(warm):
    done = warm.run(["chat", "--model", "nowhere"])
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "question", "names"),
    [
        ("What's this?", "What's this?", []),
        ("{0} what's this?", "what's this?", ["a.png"]),
        ("'{1}' {0}", "", ["b c.wav", "a.png"]),
        ("see {2} and say", "see and say", ["b c.wav"]),
        ("file://{0}", "", ["a.png"]),
        ("is nowhere.png  a file?", "is nowhere.png  a file?", []),
    ],
)
def test_files_are_taken_out_of_a_line(tmp_path, line, question, names):
    first, second = tmp_path / "a.png", tmp_path / "b c.wav"
    first.touch()
    second.touch()
    found, paths = split_files(line.format(first, second, str(second).replace(" ", "\\ ")))
    assert found == question
    assert paths == [str(tmp_path / name) for name in names]
