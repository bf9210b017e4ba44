"""One table of limits: the environment changes it, the page and the documents show it."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from markupsafe import escape

from onellm.errors import OneLLMError
from onellm.utils.limits import PREFIX, Limits
from onellm.web.views import limits
from onellm.web.views.texts import LANGUAGES, say

ROOT = Path(__file__).resolve().parents[2]


def test_the_environment_changes_limits():
    given = Limits.read(
        {"ONELLM_LIMIT_QUEUE": "4", "ONELLM_LIMIT_LOAD_SECONDS": "2.5", "ONELLM_LIMIT_IMAGE_BYTES": "1_000"}
    )
    assert (given.queue, given.load_seconds, given.image_bytes) == (4, 2.5, 1000)
    assert Limits.read({"PATH": "/bin"}) == Limits()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("QUEU", "4", "no such limit"),
        ("QUEUE", "many", "'many'; expected a whole number"),
        ("QUEUE", "4.5", "expected a whole number"),
        ("QUEUE", "-1", "of 0 or more"),
        ("LOAD_SECONDS", "inf", "expected a number"),
        ("LOAD_SECONDS", "nan", "expected a number"),
        ("QUEUE", "", "expected a whole number"),
    ],
)
def test_nonsense_is_told(name, value, told):
    with pytest.raises(OneLLMError, match=told):
        Limits.read({PREFIX + name: value})


def with_a_wrong_limit(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"ONELLM_LIMIT_QUEUE": "x"}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("program", [["-m", "onellm", "models"], ["-m", "onellm", "serve"], ["app.py"]])
def test_programs_end_with_words(program):
    ended = with_a_wrong_limit(*program)
    assert ended.returncode == 1 and not ended.stdout
    assert ended.stderr.startswith("ONELLM_LIMIT_QUEUE is 'x'") and ended.stderr.count("\n") == 1


def test_an_import_never_ends_a_process():
    code = (
        "import onellm\nfrom onellm.errors import OneLLMError\nprint(len(onellm.MODALITIES))\n"
        "try:\n    onellm.modalities.load('image', 'examples/image/cat.jpg')\n"
        "except OneLLMError as error:\n    print(error)\n"
    )
    done = with_a_wrong_limit("-c", code)
    count, told = done.stdout.splitlines()
    assert done.returncode == 0 and count == "8" and told.startswith("ONELLM_LIMIT_QUEUE is 'x'")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_every_limit(language):
    table = limits.table(language)
    for name, number in asdict(Limits()).items():
        assert f"{escape(say(language, f'limit.{name}'))}</th><td>{limits.value(name, number)}</td>" in table


def test_the_documents_list_every_limit():
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \|", (ROOT / "docs/security.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert dict(rows) == {name: limits.value(name, number) for name, number in asdict(Limits()).items()}


def test_no_module_states_a_limit_of_its_own():
    texts = [
        json.loads((ROOT / f"onellm/web/texts/{language}.json").read_text(encoding="utf-8")) for language in LANGUAGES
    ]
    for text in (value for each in texts for value in each.values()):
        assert not re.search(r"\d+ (MB|seconds|minutes)|an hour", text), text
