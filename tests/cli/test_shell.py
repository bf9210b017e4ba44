"""python -m onellm, as a person types it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from onellm.hub.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
MODEL = os.environ.get("ONELLM_TEST_MODEL", "onellm-tiny")


@pytest.fixture
def shell(warm):
    """Run a command and wait for its end."""
    return lambda *arguments, **options: warm.run(arguments, **options)


@pytest.fixture(scope="module")
def files():
    """One bundled file a kind."""
    found = {}
    for entry in json.loads((ROOT / "examples/examples.json").read_text(encoding="utf-8")):
        for modality, given in entry["files"].items():
            path = given["path"] if isinstance(given, dict) else given
            found[modality] = next(p for p in (ROOT / "examples" / path, ROOT / path) if p.exists())
    return found


def test_the_answer_and_nothing_else(files):
    """As a person's shell starts it; nothing is imported beforehand."""
    command = [sys.executable, "-m", "onellm", "ask", "--model", MODEL, "--max-new-tokens", "4", "--temperature", "0.7"]
    command += ["--seed", "1", "--image", files["image"], "--image", files["image"], "--audio", files["audio"], "?"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and done.stdout == done.stdout.lstrip() and done.stdout.endswith("\n")
    assert done.stderr == ""


def test_models_are_listed(shell):
    done = shell("models")
    assert done.returncode == 0
    head, *rows = [line.split() for line in done.stdout.partition("\n\n")[0].splitlines()]
    assert head == ["model", "state", "size", "none", "int8", "8bit", "4bit", "where"]
    state = {row[0]: row[1] for row in rows}
    assert list(state) == list(MODELS) and (state["onellm-tiny"], state["onellm-7b"]) == ("installed", "available")


def test_two_ways_are_compared(shell, files):
    arguments = ["--image", files["image"], "--max-new-tokens", 2]
    done = shell("compare", "--model", MODEL, "--with-quantize", "none", *arguments, "?")
    assert done.returncode == 0, done.stderr
    assert re.search(r"weights +│ int8 +│ none", done.stdout) and re.search(r"first word +│ [\d.]+ s", done.stdout)


def test_what_two_models_draw_is_kept(shell, tmp_path):
    arguments = ["--model", "onellm-tiny-draw", "--with", "onellm-tiny", "--max-new-tokens", 80, "--out", tmp_path]
    done = shell("compare", *arguments, "Draw a dog.", env=os.environ | {"COLUMNS": "400"})
    assert done.returncode == 0, done.stderr
    (picture,) = tmp_path.iterdir()
    with Image.open(picture) as drawn:
        assert drawn.size == (64, 64)
    assert picture.name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image", "nowhere.png"], "nowhere.png: there is no such file"),
        (["--audio", "pyproject.toml"], "pyproject.toml: the name ends in .toml"),
        (["--depth", "nowhere.png"], "expected"),
        (["--model", "no-such-model"], "no model 'no-such-model'"),
    ],
)
def test_an_error_is_one_line(shell, arguments, words):
    done = shell("ask", *arguments, "What is this?")
    assert done.returncode == 1
    assert done.stdout == "" and words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["ask"],
        ["compare", "--with", "onellm-7b"],
        ["compare", "Hello"],
        ["ask", "--tune", "x", "Hello"],
        ["ask", "--temperature", "-1", "Hello"],
        ["ask", "--max-new-tokens", "100000", "Hello"],
        ["ask", "--depth-picture", "a.png", "Hello"],
        ["chat", "--top-p", "2"],
    ],
)
def test_usage(shell, arguments):
    done = shell(*arguments)
    assert done.returncode == 2
    assert done.stdout == "" and "usage:" in done.stderr
