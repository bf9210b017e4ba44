"""Memory that runs out while a model is loaded, a file is read or encoded, a prompt is read, a token is written."""

import functools
import gc
import os
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from onellm.chat.chat import Chat
from onellm.errors import ModelError
from onellm.model.runtime.kv_cache import GrowingCache
from onellm.serving.engine import Engine
from onellm.utils.limits import LIMITS

ERRORS = {
    "python": MemoryError(),
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory"),
}
PLACES = [("read", "python"), ("encode", "cpu"), ("prefill", "torch"), ("token 10", "torch"), ("token 10", "cpu")]


OTHERS = weakref.WeakSet()  # caches that other tests still hold


@pytest.fixture
def chat(model, processor):
    gc.collect()
    OTHERS.update(thing for thing in gc.get_objects() if type(thing) is GrowingCache)
    for settings in processor.modalities.values():
        settings["input"] = {"size": 28}
    return Chat(model, processor, "toy", lighter="--quantize 4bit (1.0 GB)")


@pytest.fixture
def pictures(tmp_path):
    made = [tmp_path / "black.png", tmp_path / "white.png"]
    for path, level in zip(made, (0, 255), strict=True):
        Image.fromarray(np.full((30, 40, 3), level, np.uint8)).save(path)
    return made


class Holding:
    """Stands in front of a function, and at one call runs out of memory in the middle of it, holding a tensor."""

    def __init__(self, function, call, error):
        self.function, self.call, self.error, self.count = function, call, error, 0
        functools.update_wrapper(self, function)  # transformers reads the signature

    def __call__(self, *args, **kwargs):
        self.count += 1
        result = self.function(*args, **kwargs)
        if self.count == self.call:
            held = torch.ones(1000, 1000)
            self.held = weakref.ref(held)
            raise self.error.with_traceback(None)
        return result


def inject(chat, monkeypatch, place, error):
    owner, name, call = {
        "read": (chat.processor, "to_tensor", 1),
        "encode": (chat.model, "soft_tokens", 1),
        "prefill": (chat.model.language_model, "forward", 1),
        "token 10": (chat.model.language_model, "forward", 10),
    }[place]
    holding = Holding(getattr(owner, name), call, error)
    monkeypatch.setattr(owner, name, holding)
    return holding


def caches():
    gc.collect()
    return sum(type(thing) is GrowingCache and thing not in OTHERS for thing in gc.get_objects())


@pytest.mark.parametrize(("place", "modality"), PLACES)
def test_words_memory_and_the_next_question(chat, pictures, monkeypatch, figure, place, modality):
    chat.model.generation_config.eos_token_id = None  # it writes on
    other = chat.new()
    other.ask("w3", max_new_tokens=2)  # whose cache is given up for the sake of the others
    chat.ask("w3", image=pictures[0], max_new_tokens=2)
    expected = chat.new(chat.messages).ask("w4", image=pictures[1], max_new_tokens=12)
    said = list(chat.messages)
    with monkeypatch.context() as patch:
        holding = inject(chat, patch, place, ERRORS[modality])
        with pytest.raises(ModelError) as told:
            chat.ask("w4", image=pictures[1], max_new_tokens=12)
    freed = holding.held() is None and not chat._tensors
    if place != "read":  # there the model has done nothing
        freed = freed and caches() == 0
    assert "fewer or smaller files, or in a new conversation, or load a model" in str(told.value)
    assert "--quantize 4bit (1.0 GB)" in str(told.value)
    if place == "token 10":  # what was said stays
        assert len(chat.messages) == len(said) + 2 and chat.messages[-1]["content"][0]["text"]
        chat.undo()
    assert chat.messages == said and not chat.broken and not chat.busy
    works = chat.ask("w4", image=pictures[1], max_new_tokens=12) == expected
    figure(
        f"out of memory at {place} ({modality})",
        f"as_user_error, freed: {freed}, next answer right: {works}",
        "both True",
    )
    assert freed and works


def test_only_the_latest_conversations_keep_their_cache(chat, monkeypatch):
    """The others are answered all the same; a conversation that ends gives its place away."""
    chats = [chat.new() for _ in range(LIMITS.caches + 3)]
    first = [one.ask("w3", max_new_tokens=3) for one in chats]
    assert caches() == LIMITS.caches
    assert [one._state.cache is not None for one in chats] == [False] * 3 + [True] * LIMITS.caches
    assert len({one.ask("w4", max_new_tokens=3) for one in chats}) == len(set(first)) == 1
    chats[-1].clear()
    del chats[-2]
    assert caches() == LIMITS.caches - 2


def test_files_of_a_question_that_failed_are_not_kept(chat, pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    with pytest.raises(Exception, match="broken.png"):
        chat.ask("w3", image=[*pictures, broken])
    assert not chat._tensors
    chat.ask("w3", image=pictures, max_new_tokens=2)
    chat.undo()
    chat.ask("w3", image=pictures[0], max_new_tokens=2)
    assert len(chat._media_embeds) == 1 and not chat._tensors


def test_while_a_model_is_loaded(figure, soak, monkeypatch):
    """The engine goes back to what answered before; nothing of the other one stays."""
    from onellm.model.auto import OneLLMForConditionalGeneration

    def count():
        gc.collect()
        found = [thing for thing in gc.get_objects() if type(thing) is OneLLMForConditionalGeneration]
        return sum(model.device.type != "meta" for model in found)

    before = count()
    engine = Engine("onellm-tiny")
    answer = engine.new_chat().ask("What are you?", max_new_tokens=8)
    tell = engine._note
    for step in soak(["optimise"], ["read", "optimise"]):

        def run_out(progress, step=step):
            if progress is not None and (progress.what, engine.quantize) == (step, "none") and progress.done > 10:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return tell(progress)

        monkeypatch.setattr(engine, "_note", run_out)
        engine.switch("onellm-tiny", "none")
        engine._done.wait(120)
        told = engine.error
        works = engine.new_chat().ask("What are you?", max_new_tokens=8) == answer
        found = f"next answer right: {works}, models in memory: {count() - before}"
        figure(f"out of memory while loading ({step})", found, "True, 1")
        assert "memory ran out while onellm-tiny was loaded; close other programs, or use --quantize int8" in told
        assert "onellm-tiny (int8) answers again" in told
        assert works and count() == before + 1


def test_the_first_load_can_be_tried_again(chat, monkeypatch):
    monkeypatch.setattr("onellm.serving.engine.PAUSE_S", 0)
    full = [True]

    def load(*_, **__):
        if full:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 113 bytes.")
        return chat

    engine = Engine("toy", load, lambda *_: [])
    with pytest.raises(ModelError, match="more memory than there is"):
        engine.new_chat()
    full.clear()
    engine.new_chat().ask("w3", max_new_tokens=4)
    assert engine.ready and not engine.error


REAL = """
import resource, sys
import onellm
from onellm.errors import OneLLMError

chat = onellm.load("onellm-tiny")
before = chat.new().ask("What are you?", max_new_tokens=8)
used = 1024 * int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + 10_000_000, resource.RLIM_INFINITY))
try:
    chat.ask("sea " * 1900, max_new_tokens=8)
    print("answered")
except OneLLMError as error:
    print(error)
print(chat.new().ask("What are you?", max_new_tokens=8) == before, chat.broken)
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux")
def test_a_process_that_really_has_no_more_memory(figure):
    """The system gives 10 MB and refuses more; nothing is injected."""
    environment = os.environ | {"MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REAL)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told, next_one = done.stdout.splitlines()[-2:]
    figure("a process without memory", f"{told!r}; next answer right, model broken: {next_one}", "True False")
    assert "memory was not enough" in told and next_one == "True False"
