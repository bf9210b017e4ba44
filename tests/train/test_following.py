"""The measure of following: verdicts, shapes, and a model that answers everything or nothing right."""

import json
import random

import pytest

from train.small import following
from train.small.items import Item


def item(name, modality="image", **values):
    fields = {"id": name, "kind": modality, "file": None, "name": name, "noun": name, "accept": [name], "group": name}
    return Item(**fields | {"split": "dev"} | values)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("Yes, it is a cat.", True), ("no.", False), ("No, it is a dog.", False), ("Not at all.", None), ("", None)],
)
def test_verdicts(answer, verdict):
    assert following.said_yes(answer) is verdict


def test_shapes():
    assert following.has_shape("Cat", True) and following.has_shape("Teddy bear.", True)
    assert not following.has_shape("It is a cat.", True) and not following.has_shape("", True)
    assert following.has_shape("The picture shows a cat.", False)
    assert not following.has_shape("A cat.", False) and not following.has_shape("The picture shows a", False)


def test_a_wrong_name_is_wrong():
    cat = item("cat", accept=["cat", "pet"])
    others = [cat, item("pet"), item("dog"), item("black cat")]
    assert {following.wrong_name(cat, others, random.Random(seed)) for seed in range(20)} == {"dog"}


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELLM_CORPUS", str(tmp_path))
    for modality, names in {"image": ["cat", "car", "owl"], "audio": ["dog", "rain", "bell"]}.items():
        lines = [json.dumps(vars(item(name, modality))) for name in names]
        (tmp_path / f"{modality}.jsonl").write_text("\n".join(lines))


def test_a_model_that_knows_all_gets_all(corpus, monkeypatch):
    def knows(chat, questions):
        answers = []
        for items, text in questions:
            names = " ".join(item.name for item in items)
            if text.startswith("Is"):
                answers.append("Yes." if names in text else "No.")
            else:
                answers.append(names if "one word" in text else f"These files show {names}.")
        return answers

    monkeypatch.setattr(following, "ask_all", knows)
    figures = following.measure_following(None, "dev", ["image", "audio"])
    assert (figures.both, figures.yes_no, figures.one_word, figures.sentence) == (1, 1, 1, 1)
    assert figures.yes_no_n == 12 and figures.both_n == following.PAIRS and figures.shape_n == 6
    assert "| yes or no, balanced accuracy | 12 | 1.00 |" in following.table(figures)


def test_a_model_that_always_says_yes_is_at_chance(corpus, monkeypatch):
    monkeypatch.setattr(following, "ask_all", lambda chat, questions: ["Yes, a cat and a rain." for _ in questions])
    figures = following.measure_following(None, "dev", ["image", "audio"])
    assert figures.yes_no == 0.5 and figures.one_word == 0 and figures.sentence == 1
    assert 0 < figures.both < 0.5
