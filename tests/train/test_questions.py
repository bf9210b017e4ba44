"""Questions about labelled files, and what counts as a right answer."""

import random

import pytest

from train.small.items import Item, describe
from train.small.naming import is_right, pick
from train.small.questions import both, exchange, full_answer, verdict, whether, with_article


def item(**values):
    defaults = {"id": "a", "kind": "fmri", "file": None, "name": "cat", "noun": "cat", "accept": ["cat"]}
    return Item(**defaults | {"group": "g", "split": "train"} | values)


def test_basic_noun_comes_first():
    assert describe("German shepherd", "dog") == "dog, German shepherd"
    assert describe("office chair", "chair") == "chair, office chair"
    assert describe("chair", "chair") == "chair"
    assert full_answer("dog, German shepherd", "image") == "The picture shows a dog, a German shepherd."
    assert full_answer("walking upstairs", "imu") == "The person is walking upstairs."


@pytest.mark.parametrize(
    ("name", "expected"), [("owl", "an owl"), ("cat", "a cat"), ("rain", "rain"), ("scissors", "scissors")]
)
def test_articles(name, expected):
    assert with_article(name, "image") == expected


def test_yes_and_no_are_balanced():
    choose = random.Random(0)
    answers = [exchange("image", "cat", "car", choose) for _ in range(2000)]
    verdicts = [answer.startswith("Yes") for _, answer in answers if answer.startswith(("Yes", "No"))]
    assert len(verdicts) > 600
    assert 0.4 < sum(verdicts) / len(verdicts) < 0.6


def test_a_verdict_tells_what_it_is():
    asked = [verdict("image", "dog, German shepherd", "car", random.Random(seed)) for seed in range(40)]
    assert {answer for _, answer in asked} == {"No, it is a dog.", "Yes, it is a dog.", "Yes, it is a German shepherd."}
    assert all(("car" in question) == answer.startswith("No") for question, answer in asked)
    same = [verdict("imu", "walking", "walking", random.Random(seed))[1] for seed in range(9)]
    assert set(same) == {"Yes, the person is walking."}
    assert whether("fmri", "house") == "Is the person looking at a house?"


def test_two_files_are_asked_about_in_one_question():
    asked = {both("image", "audio", random.Random(seed)) for seed in range(30)}
    assert "What is in the picture and what do you hear?" in asked
    assert {both("point", "point", random.Random(seed)) for seed in range(30)} >= {"What are these?", "Describe both."}


def test_a_right_answer_is_a_whole_word_and_not_a_rejected_one():
    cat = item(accept=["cat"], reject=["wild cat"])
    assert is_right("Two cats.", cat)
    assert not is_right("A catalogue.", cat)
    assert not is_right("A wild cat.", cat)


def test_pick_spreads_evenly():
    assert pick(list(range(10)), 3) == [0, 4, 9]
    assert pick([1, 2], 3) == [1, 2]
