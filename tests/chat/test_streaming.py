"""Tokens become text, and text the answer, however it comes."""

import time

import pytest
from transformers import AutoTokenizer

from onellm.chat.streaming import TextFilter, TokenDecoder
from onellm.hub.registry import PRETRAINED


def filtered(text, pieces, cut):
    return "".join(text.feed(pieces[start : start + cut]) for start in range(0, len(pieces), cut)) + text.end()


@pytest.mark.parametrize("cut", range(1, 12))
def test_prompts_are_found_however_the_text_comes(cut):
    text = TextFilter({"image": ("<i>", "</i>"), "audio": ("<a>", "</a>")})
    assert filtered(text, "ab <i>one</i> cd <a>two</a> <", cut) == "ab  cd  <"
    assert text.prompts == [("image", "one"), ("audio", "two")] and text.open is None


@pytest.mark.parametrize("cut", range(1, 12))
@pytest.mark.parametrize(
    ("written", "said", "stopped"),
    [
        (" a cat sits\n###Human: no", "a cat sits", True),
        ("one # two ## three four \n", "one # two ## three four", False),
        ("ends in ##", "ends in ##", False),
        ("an END before ###", "an", True),
        (" \n ", "", False),
        ("<i>END ### of it</i> stays", "stays", False),
        ("cut <i>off", "cut", False),
    ],
)
def test_an_answer_ends_before_the_first_stop_string(cut, written, said, stopped):
    text = TextFilter({"image": ("<i>", "</i>")}, ["###", "END"])
    assert (filtered(text, written, cut), text.stopped) == (said, stopped)


@pytest.mark.parametrize("piece", ["#", " ", "word "])
def test_the_time_is_linear_in_the_text(piece):
    def took_s(count):
        text = TextFilter({"image": ("####<", ">####")}, ["##########!"])
        text.feed("####<" if piece != " " else "")
        begun_s = time.process_time()
        for _ in range(count):
            text.feed(piece)
        return time.process_time() - begun_s

    assert took_s(100_000) < 40 * max(took_s(10_000), 0.01)


def test_tokens_become_the_text_of_the_whole():
    tokenizer = AutoTokenizer.from_pretrained(PRETRAINED / "onellm-tiny")
    written = "Zwölf 🐈‍⬛ Katzen,\n\n  it's 東京 — and so on.  " * 20
    tokens = [*tokenizer(written)["input_ids"], tokenizer.eos_token_id]
    decoder = TokenDecoder(tokenizer)
    pieces = [decoder.feed(token) for token in tokens]
    assert "".join(pieces) + decoder.end() == written and not any("\ufffd" in piece for piece in pieces)
    half = TokenDecoder(tokenizer)
    (first, *_) = tokenizer("🐈", add_special_tokens=False)["input_ids"]
    assert half.feed(first) == "" and half.end() == "\ufffd"
