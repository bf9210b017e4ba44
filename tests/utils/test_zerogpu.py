"""ZeroGPU: answers come out of a process forked for the GPU, as Spaces' own package does it."""

import functools
import multiprocessing
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from onellm.chat.chat import Chat
from onellm.errors import ModelError
from onellm.utils import zerogpu

# The package on a Space does this (spaces/zero/wrappers.py), with a scheduler in between: arguments and yields are
# pickled, whatever else the function changes stays in the child, and closing is told after the next yield.
SPACES = """
import functools
import multiprocessing

context = multiprocessing.get_context("fork")
yielded = context.Value("i", 0)


def GPU(duration):
    def decorate(task):
        @functools.wraps(task)
        def handler(*args, **kwargs):
            given, results, stop, heard = context.SimpleQueue(), context.SimpleQueue(), context.Event(), context.Event()

            def work():
                import torch

                torch.set_num_threads(1)
                args, kwargs = given.get()
                try:
                    generator = task(*args, **kwargs)
                    for value in generator:
                        if stop.is_set():
                            generator.close()
                            break
                        yielded.value += 1
                        results.put(("value", value))
                except Exception as error:
                    results.put(("error", type(error).__name__))
                results.put(("end", None))
                heard.wait(30)  # tensors are handed over while the sender lives

            process = context.Process(target=work, daemon=True)
            process.start()
            given.put((args, kwargs))
            try:
                while True:
                    what, value = results.get()
                    if what == "error":
                        raise RuntimeError("ZeroGPU worker error: " + value)
                    if what == "end":
                        return
                    yield value
            except GeneratorExit:
                stop.set()
                while results.get()[0] != "end":
                    pass
                raise
            finally:
                heard.set()
                process.join(10)
                assert not process.is_alive()
        return handler
    return decorate
"""


@pytest.fixture
def spaces(tmp_path, monkeypatch):
    """A Space with ZeroGPU."""
    (tmp_path / "spaces.py").write_text(SPACES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    yield __import__("spaces")
    sys.modules.pop("spaces")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "dot.png"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def open_chat(model, processor):
    for settings in processor.modalities.values():
        settings["input"] = {"size": 28}
    return lambda: Chat(model, processor, "toy")


def test_elsewhere_a_function_stays_itself(monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert not zerogpu.is_zero()  # the package is missing
    assert zerogpu.on_gpu(zerogpu.prepare) is zerogpu.prepare


def test_the_package_alone_does_not_make_a_space(spaces, monkeypatch):
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert not zerogpu.is_zero()
    assert zerogpu.on_gpu(zerogpu.prepare) is zerogpu.prepare


def test_a_forked_process_answers_alike(spaces, open_chat, picture, monkeypatch):
    questions = [("w3", {"image": picture}), ("w4", {}), ("w5", {"image": [picture, picture]})]
    forked = open_chat()
    said = [forked.ask(text, max_new_tokens=4, **files) for text, files in questions]
    monkeypatch.delenv("SPACES_ZERO_GPU")
    here = open_chat()
    assert said == [here.ask(text, max_new_tokens=4, **files) for text, files in questions]
    assert forked.messages == here.messages
    assert spaces.yielded.value > 6
    assert forked.trace.files[0].router == here.trace.files[0].router
    assert forked.trace.prompt_tokens == here.trace.prompt_tokens
    assert forked.trace.new_tokens == here.trace.new_tokens
    assert (forked.trace.cached_tokens, forked.trace.timings.read_s) == (0, 0)
    assert here.trace.cached_tokens > 0


def test_the_files_words_come_back(spaces, open_chat, picture):
    chat = open_chat()
    chat.ask("w3", image=picture, max_new_tokens=2)
    (words,) = chat._media_embeds.values()
    assert words.shape == (chat.model.config.length_of("image"), 32) and not chat._tensors
    expected = chat.model.soft_tokens("image", [chat.processor.to_tensor(chat.messages[0]["content"][0])])[0]
    assert torch.allclose(words, expected, atol=1e-6)


@pytest.mark.parametrize("how", ["stop", "close"])
def test_stop_reaches_the_other_process(spaces, open_chat, how):
    chat = open_chat()
    stream = chat.stream("w3", max_new_tokens=1000)
    next(stream)
    if how == "stop":
        chat.stop()
        list(stream)
    else:
        stream.close()
    assert spaces.yielded.value < 900 and chat.trace.stopped
    assert chat.messages[-1]["role"] == "assistant"
    assert not multiprocessing.active_children()
    assert chat.ask("w4", max_new_tokens=2) is not None


def test_what_fails_there_is_told_here(spaces, open_chat):
    chat = open_chat()
    forward = chat.model.forward

    @functools.wraps(forward)
    def fail(*args, **kwargs):
        raise RuntimeError("boom")

    chat.model.forward = fail
    with pytest.raises(ModelError, match="boom"):
        chat.ask("w3")
    assert chat.messages == []
