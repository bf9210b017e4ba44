"""Two models asked the same, one after the other."""

import gc
import weakref

import pytest

from onellm.chat import load as loading
from onellm.chat.compare import compare
from onellm.chat.sampling import Settings
from onellm.cli.tables import comparison

SETTINGS = Settings(max_new_tokens=4)


@pytest.fixture
def folder(make_model, processor, tmp_path):
    for settings in processor.modalities.values():
        settings["input"] = {"size": 28}
    folder = tmp_path / "toy"
    make_model().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def test_both_answer_and_the_first_goes_before_the_second_comes(folder, example_files, monkeypatch):
    files = {"image": [{"path": str(example_files["image"])}]}
    alive, load = [], loading.load
    alone = load(folder, quantize="none").ask("w3 w4", max_new_tokens=4, **files)

    def watched(*arguments, **options):
        gc.collect()
        assert not any(model() for model in alive)
        chat = load(*arguments, **options)
        alive.append(weakref.ref(chat.model))
        return chat

    monkeypatch.setattr(loading, "load", watched)
    first, second = compare([(folder, "none"), (None, "int8")], "w3 w4", SETTINGS, files)
    assert (first.model, first.quantize) == (folder, "none") and (second.model, second.quantize) == (folder, "int8")
    for answer in (first, second):
        trace = answer.trace
        assert answer.error == "" and answer.first_word_s == trace.timings.encode_s + trace.timings.prefill_s > 0
        assert answer.tokens_per_s == (trace.tokens_per_s or None)
        assert [file.name for file in trace.files] == [example_files["image"].name]
    assert first.text == alone


def test_one_that_fails_leaves_the_other_answer(folder):
    first, second = compare([(folder, "none"), (folder, "3bit")], "w3", SETTINGS, {})
    assert first.trace is not None and "'3bit' on the CPU" in second.error
    assert (second.first_word_s, second.tokens_per_s, second.nearest) == (None, None, [])
    from rich.console import Console

    console = Console(width=60, record=True, file=open("/dev/null", "w"))
    console.print(comparison([first, second]))
    shown = console.export_text()
    assert "3bit" in shown and f"{first.first_word_s:.2f} s" in shown


def test_nearest_words_are_words():
    from onellm.chat.trace import FileTrace

    file = FileTrace("image", "a.png", [1], words=[[("cat", 0.9)], [(",", 1.0)], [("cat", 0.5)], [("Mau", 1.0)], []])
    assert file.nearest == ["cat", "Mau"]
