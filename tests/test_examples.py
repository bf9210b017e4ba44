"""The shipped model and the bundled examples: what the page offers has to work."""

import json
from pathlib import Path

import pytest

import onellm
from onellm.errors import FileError
from onellm.modalities import MODALITIES

FOLDER = Path(__file__).resolve().parents[1] / "examples"
EXAMPLES = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tiny():
    return onellm.load("onellm-tiny")


def test_two_files_a_kind_two_mixed_prompts_and_every_licence():
    modalities = [next(iter(example["files"])) for example in EXAMPLES if len(example["files"]) == 1]
    assert all(modalities.count(modality) >= 2 for modality in MODALITIES)
    assert sum(len(example["files"]) > 1 for example in EXAMPLES) >= 2
    assert all(example["source"] and example["licence"] and example["expected"] for example in EXAMPLES)


def test_at_least_four_of_five_examples_are_answered_right(tiny):
    wrong = []
    naming = [example for example in EXAMPLES if not example.get("converses")]
    for example in naming:
        files = {modality: FOLDER / path for modality, path in example["files"].items()}
        answer = tiny.new().ask(example["question"], max_new_tokens=32, **files)
        if not any(word.lower() in answer.lower() for word in example["expected"]):
            wrong.append((example["files"], answer))
    assert len(wrong) <= 0.2 * len(naming), wrong


def test_text_alone_gets_what_the_base_model_would_say(tiny):
    """The adapter is silent without files: the answer is the base LLM's, token by token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from onellm.model.base_parts import fetch

    folder = fetch("smollm2-135m-instruct")
    base, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        AutoTokenizer.from_pretrained(folder),
    )
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    new = base.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=2)[0, prompt.shape[1] :]
    expected = tokenizer.decode(new, skip_special_tokens=True).strip()
    assert tiny.new().ask("What is the capital of France?", max_new_tokens=12) == expected


def test_a_later_question_remembers_the_file(tiny):
    chat = tiny.new()
    cat = next(e for e in EXAMPLES if "cat" in e["expected"] and list(e["files"]) == ["image"])
    chat.ask("What is in the picture?", image=FOLDER / cat["files"]["image"])
    assert "cat" in chat.ask("What animal is it? Answer in one word.").lower()


def test_a_scan_of_another_size_is_told_in_words(tiny, tmp_path):
    import numpy as np

    path = tmp_path / "whole.npy"
    np.save(path, np.random.default_rng(0).normal(size=15724).astype(np.float32))
    with pytest.raises(FileError, match="15,?724.*800|800.*15,?724"):
        tiny.new().ask("What is it?", fmri=path)
