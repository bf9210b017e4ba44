"""What the README says is short, true and runs."""

import argparse
import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BODY = README.split("---\n", 2)[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands():
    lines = [line.split(" #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def test_it_is_short_and_cites_the_paper():
    assert len(BODY.split()) <= 1100
    assert "@inproceedings" in BODY


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_the_tree_shows_every_room():
    tree = re.search(r"^```\n(app\.py.*?)^```", README, re.MULTILINE | re.DOTALL)[1]
    for package in ("onellm", "train"):
        for folder in (ROOT / package).iterdir():
            if folder.is_dir() and not folder.name.startswith("__"):
                assert re.search(rf"^  .*\b{folder.name}/", tree, re.MULTILINE), folder


def test_its_python_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), names)
    assert "cat" in printed.getvalue() and "dog" in printed.getvalue()


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_make_has_the_target(line):
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", [line for line in commands() if "evaluate --list" in line or line.endswith(" models")])
def test_cheap_commands_run(line, warm):
    program, *words = shlex.split(line)
    assert program == ".venv/bin/python"
    if words[:2] == ["-m", "onellm"]:
        run = warm.run(words[2:])
    else:
        run = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout, run.stderr


@pytest.mark.parametrize("line", [line for line in commands() if "-m onellm" in line])
def test_the_program_knows_its_options(line, monkeypatch):
    """Every command of the README passes the program's own parser; nothing is run."""
    from onellm import __main__ as program

    parsed = {}

    def stop(parser, args=None, namespace=None, of=argparse.ArgumentParser.parse_args):
        parsed["arguments"] = of(parser, args, namespace)
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", ["onellm", *shlex.split(line)[3:]])
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        program.main()
    assert parsed["arguments"]


def test_recipes_and_files_that_it_names_are_there():
    for word in " ".join(commands()).split():
        if re.match(r"(train|examples)/", word):
            assert (ROOT / word).exists(), word
