"""The measure of modality bias: which pairs are drawn, and what an answer is said to follow."""

import json
import random

import pytest

from train.small import bias
from train.small.items import Item
from train.small.naming import chance_of


def item(name, modality="image", **values):
    fields = {"id": name, "kind": modality, "file": None, "name": name, "noun": name, "accept": [name], "group": name}
    return Item(**fields | {"split": "dev"} | values)


PICTURES = [item("cat", accept=["cat", "pet"]), item("car"), item("dog", accept=["dog", "pet"])]
SOUNDS = [item(name, "audio") for name in ("dog", "rain", "car")]


def test_pairs_agree_or_have_no_name_in_common():
    names = {
        agree: {(one.name, other.name) for one, other in bias.draw_pairs(PICTURES, SOUNDS, agree, 99, random.Random(0))}
        for agree in (True, False)
    }
    assert names[True] == {("car", "car"), ("dog", "dog")}
    assert len(names[False]) == 7 and not names[True] & names[False]
    assert len(bias.draw_pairs(PICTURES, SOUNDS, False, 3, random.Random(0))) == 3


def test_answers_are_counted_by_what_they_name():
    pairs = [(PICTURES[0], SOUNDS[1])] * 4
    row = bias.score("both", ["A cat.", "It is rain.", "A cat in the rain.", "A house."], pairs)
    assert (row.first, row.second, row.both, row.neither) == (0.25, 0.25, 0.25, 0.25)


def test_chance_is_what_answers_about_others_would_count():
    wanted = [[PICTURES[1]], [SOUNDS[1]], [item("owl")]]
    assert chance_of(["A car.", "Rain.", "An owl."], wanted) == 0
    assert chance_of(["A car, rain or an owl."] * 3, wanted) == 1
    assert chance_of(["A car.", "A car.", "A car."], wanted) == pytest.approx(2 / 6)  # of six pairs, two want a car
    assert chance_of(["A cat, a pet.", "A dog, a pet."], [[PICTURES[0]], [PICTURES[2]]]) == 0  # both are pets


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELLM_CORPUS", str(tmp_path))
    for modality, items in {"image": PICTURES, "audio": SOUNDS}.items():
        (tmp_path / f"{modality}.jsonl").write_text("\n".join(json.dumps(vars(one)) for one in items))


def test_a_model_that_looks_at_the_first_file_alone(corpus, monkeypatch):
    monkeypatch.setattr(bias, "ask_all", lambda chat, asked: [f"This is a {files[0].name}." for files, _ in asked])
    measured = list(bias.measure_bias(None, "dev", (("image", "audio"),)))
    rows = [row for _, row in measured]
    found = [(row.first, row.second, row.both) for row in rows]
    assert found == [(1, 0, 0), (0, 1, 0), (1, 0, 0), (0, 1, 0), (1, 0, 0), (1, 0, 0), (0, 0, 1)]
    assert [row.n for row in rows] == [7] * 6 + [2]
    lines = bias.table(measured).splitlines()
    assert lines[4].startswith("| image, audio | 7 | 1.00 | 0.00 | 0.00 | 0.00 |") and len(lines) == 9
