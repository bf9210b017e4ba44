"""The default model converses as the README's first table shows."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \[(\w+)\]\((examples/[^)]+)\) \|.*\| \*(.+?)\* \| \*(.+?)\* \|$", README, re.MULTILINE)
EXAMPLES = json.loads((ROOT / "examples" / "examples.json").read_text(encoding="utf-8"))
# what a right answer says; its words may differ with the processor's arithmetic
RIGHT = {
    "image": "猫",
    "video": r"plant|tree",
    "audio": r"^no\b|not",
    "point": r"living|dining|kitchen|office|sit",
    "fmri": r"^no\b|not",
    "imu": r"^yes\b",
    "depth": r"1\.2",
    "normal": r"four|4",
}


@pytest.fixture(scope="module")
def small():
    from onellm.chat.load import load

    return load("onellm-small")


def test_the_table_has_a_row_a_modality():
    assert [kind for kind, *_ in ROWS] == list(RIGHT)


@pytest.mark.parametrize("kind, path, question, answer", ROWS, ids=[row[0] for row in ROWS])
def test_it_answers_as_the_readme_says(small, kind, path, question, answer):
    assert re.search(RIGHT[kind], answer, re.IGNORECASE)
    said = small.new().ask(question, max_new_tokens=60, **{kind: ROOT / path})
    assert re.search(RIGHT[kind], said, re.IGNORECASE), said


@pytest.mark.parametrize(
    "example", [example for example in EXAMPLES if example.get("converses")], ids=lambda example: example["question"]
)
def test_the_conversations_on_the_first_screen(small, example):
    chat = small.new()
    files = {kind: ROOT / "examples" / path for kind, path in example["files"].items()}
    said = chat.ask(example["question"], max_new_tokens=80, **files)
    assert any(word.lower() in said.lower() for word in example["expected"]), said
    assert chat.ask(example["follow_up"], max_new_tokens=30) not in ("", said)


def test_it_says_what_is_not_there_and_remembers(small):
    chat = small.new()
    assert re.match("No", chat.ask("Is there a dog in it?", image=ROOT / "examples/image/cat.jpg", max_new_tokens=30))
    assert "Paris" in chat.ask("What is the capital of France?", max_new_tokens=20)
    assert "cat" in chat.ask("Which animal was in my picture?", max_new_tokens=30).lower()
    texts = [finding["text"] for finding in chat.messages[0]["content"][0]["findings"]]
    assert any("one cat" in text for text in texts) and any(text.startswith("Colours:") for text in texts)
