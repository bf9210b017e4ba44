"""The app's one model: loaded, exchanged, cancelled, with plain Python in its place and with the real one."""

import threading
import time
from pathlib import Path

import pytest

from onellm.errors import ModelError
from onellm.hub.catalogue import Entry, Option
from onellm.serving.engine import Engine
from onellm.utils.progress import Progress


class PlainChat:
    """A conversation with a model that says nothing, and may be busy."""

    inputs = {"image": {"size": 28}}
    broken = False
    stalled_s = 0.0

    def __init__(self, name, quantize, busy=None, messages=None):
        self.name, self.description = f"{name} ({quantize})", f"{name} ({quantize}): plain"
        self.origin, self.quantize, self.messages = name, quantize, list(messages or [])
        self.closed = False
        self._busy = busy or threading.Event()

    @property
    def busy(self):
        return self._busy.is_set()

    def new(self, messages=None):
        return PlainChat(self.origin, self.quantize, self._busy, messages)

    def close(self):
        self.closed = True


class Loader:
    """Loads plain conversations step by step; a step waits for its turn where there is one."""

    def __init__(self):
        self.asked, self.failing, self.turns = [], {}, None

    def __call__(self, name, quantize, on_progress):
        self.asked.append((name, quantize))
        for step in range(3):
            if self.turns is not None:
                assert self.turns.acquire(timeout=10)
            on_progress(Progress("read", f"shard {step}", step, 3, "tensors"))
        if name in self.failing:
            raise self.failing[name]
        return PlainChat(name, quantize or "int8")

    @staticmethod
    def choices(folders, free_bytes):
        small = Option("none", 10, free_bytes), Option("int8", 8, free_bytes)
        large = Option("none", 300, 100, "memory", "needs 33 GB, 1 GB free"), Option("4bit", 90, 100)
        return [
            Entry("small", small, folder=Path("here")),
            Entry("large", large, folder=Path("there")),
            Entry("handmade", small, command="convert it"),
        ]


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def engine(loader, monkeypatch):
    monkeypatch.setattr("onellm.serving.engine.PAUSE_S", 0)
    monkeypatch.setattr("onellm.model.runtime.quantization.free_bytes", lambda device: 100)
    return Engine("small", loader, loader.choices)


def settle(engine):
    assert engine._done.wait(60)


def listed(engine):
    deadline = time.monotonic() + 60
    while engine.listing and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not engine.listing and engine.entries


def test_nothing_is_loaded_before_it_begins(engine, loader):
    assert not engine.ready and not engine.loading and engine.inputs is None and loader.asked == []
    assert engine.name == "small" and engine.entries == [] and len(engine.queue) == 0


def test_the_first_question_loads_the_model(engine, loader):
    chat = engine.new_chat([{"role": "user", "content": "w3"}])
    assert engine.ready and not engine.loading and loader.asked == [("small", None)]
    assert (engine.name, engine.origin, engine.quantize) == ("small (int8)", "small", "int8")
    assert chat.messages == [{"role": "user", "content": "w3"}] and engine.inputs == PlainChat.inputs
    listed(engine)
    assert [entry.name for entry in engine.entries] == ["small", "large", "handmade"] and engine.progress is None


def test_progress_is_seen_while_it_loads(engine, loader):
    loader.turns = threading.Semaphore(2)
    engine.start()
    deadline = time.monotonic() + 5
    while (engine.progress is None or engine.progress.done < 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.loading and engine.progress == Progress("read", "shard 1", 1, 3, "tensors")
    loader.turns.release(9)
    settle(engine)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModelError("There is no model 'small'."), "There is no model 'small'."),
        (MemoryError(), "small needs more memory than there is"),
        (ValueError("secret"), "small could not be loaded (ValueError); the app's log says more."),
    ],
)
def test_a_failed_load_is_told_and_tried_again(engine, loader, error, words):
    loader.failing = {"small": error}
    with pytest.raises(ModelError) as told:
        engine.new_chat()
    assert words in str(told.value) and "secret" not in str(told.value) and engine.error == str(told.value)
    loader.failing = {}
    assert engine.new_chat().name == "small (int8)" and engine.error == ""


def test_another_model_takes_its_place(engine, loader):
    chat = engine.new_chat()
    engine.switch("large", "4bit")
    settle(engine)
    assert engine.name == "large (4bit)" and engine.error == "" and chat.closed
    assert engine.new_chat(chat.messages).name == "large (4bit)"
    engine.switch("large", "4bit")  # it is there
    assert engine.ready and loader.asked == [("small", None), ("large", "4bit")]


def test_what_cannot_be_loaded_is_refused_at_once(engine):
    chat = engine.new_chat()
    with pytest.raises(ModelError, match="large cannot be loaded: needs 33 GB, 1 GB free"):
        engine.switch("large", "none")
    with pytest.raises(ModelError, match="no choice '../secret'"):
        engine.switch("../secret", "none")
    with pytest.raises(ModelError, match="handmade cannot be loaded: its weights have to be fetched by hand"):
        engine.switch("handmade", "none")
    assert engine.ready and not chat.closed


def test_only_one_is_loaded_at_a_time(engine, loader):
    loader.turns = threading.Semaphore(0)
    engine.start()
    with pytest.raises(ModelError, match="small is just being loaded"):
        engine.switch("large", "4bit")
    loader.turns.release(9)
    settle(engine)


def test_a_model_that_fails_leaves_the_old_one_in_place(engine, loader):
    chat = engine.new_chat()
    loader.failing = {"large": ModelError("Its weights cannot be read.")}
    engine.switch("large", "4bit")
    settle(engine)
    assert engine.error == "Its weights cannot be read. small (int8) answers again."
    assert engine.ready and engine.name == "small (int8)" and chat.closed
    assert loader.asked == [("small", None), ("large", "4bit"), ("small", "int8")]
    loader.failing |= {"small": MemoryError()}
    engine.switch("large", "4bit")
    settle(engine)
    assert not engine.ready and "cannot be read" in engine.error and "more memory" in engine.error
    loader.failing = {}
    assert engine.new_chat().name == "small (int8)"


def test_cancelled_while_it_loads_the_old_model_comes_back(engine, loader):
    engine.wait()
    loader.turns = threading.Semaphore(1)
    engine.switch("large", "4bit")
    engine.cancel()
    loader.turns.release(9)
    settle(engine)
    assert engine.error == "Loading large was cancelled. small (int8) answers again."
    assert engine.ready and engine.new_chat().name == "small (int8)"


def test_cancelled_at_first_it_can_be_begun_again(engine, loader):
    loader.turns = threading.Semaphore(0)
    engine.start()
    engine.cancel()
    loader.turns.release(9)
    settle(engine)
    assert engine.error == "Loading small was cancelled." and not engine.ready
    engine.wait()
    assert engine.ready and engine.error == ""


def test_a_running_answer_ends_before_its_model_goes(engine):
    chat = engine.new_chat()
    chat._busy.set()
    engine.switch("large", "4bit")
    time.sleep(0.15)
    assert engine.loading and not chat.closed and engine.progress == Progress("answer")
    chat._busy.clear()
    settle(engine)
    assert chat.closed and engine.name == "large (4bit)"


def test_cancelled_before_the_old_model_went_it_stays(engine, loader):
    chat = engine.new_chat()
    chat._busy.set()
    engine.switch("large", "4bit")
    engine.cancel()
    settle(engine)
    assert engine.error == "Loading large was cancelled." and engine.ready and not chat.closed
    assert loader.asked == [("small", None)] and engine.new_chat().name == "small (int8)"


def test_the_list_is_made_anew(engine):
    """Free is what will be once the model that answers has gone."""
    engine.wait()
    listed(engine)
    assert engine.entries[0].option("int8").free_bytes == 100
    engine.look()
    listed(engine)
    assert engine.entries[0].option("int8").free_bytes == 108


def test_a_closed_engine_stays_so(engine):
    chat = engine.new_chat()
    engine.close()
    assert chat.closed and not engine.ready
    with pytest.raises(ModelError, match="small .int8. was unloaded"):
        engine.new_chat()


def test_a_list_that_fails_does_not_keep_a_model_away(loader):
    def broken(*_):
        raise KeyError("width")

    engine = Engine("small", loader, broken)
    assert engine.new_chat().name == "small (int8)" and engine.entries == [] and not engine.listing


def test_what_lies_beside_goes_when_another_comes(engine):
    engine.wait()
    engine.beside = engine.another("large", "4bit")
    chat = engine.beside.new_chat()
    assert engine.beside.queue is engine.queue
    engine.switch("small", "none")
    settle(engine)
    assert chat.closed and engine.beside.closed and engine.name == "small (none)"


def test_the_real_model_is_exchanged_and_cancelled():
    """The same weights kept in two ways; what is cancelled leaves nothing behind."""
    import gc

    from onellm.model.auto import OneLLMForConditionalGeneration

    def models():
        gc.collect()
        found = [thing for thing in gc.get_objects() if type(thing) is OneLLMForConditionalGeneration]
        return sum(model.device.type != "meta" for model in found)  # estimates build models without weights

    before = models()
    engine = Engine("onellm-tiny", quantize="none")
    seen = []
    tell = engine._note
    engine._note = lambda progress: (seen.append(progress), tell(progress))[1]
    chat = engine.new_chat()
    answer = chat.ask("What is this?", image="examples/image/cat.jpg", max_new_tokens=8)
    listed(engine)
    (tiny,) = (entry for entry in engine.entries if entry.name == "onellm-tiny")
    assert tiny.installed and tiny.option("none").able
    engine.switch("onellm-tiny", "int8")
    settle(engine)
    assert engine.name == "onellm-tiny (int8)" and chat.closed and models() == before + 1
    again = engine.new_chat(chat.messages[:1])
    again.messages.pop()
    assert again.ask("What is this?", image="examples/image/cat.jpg", max_new_tokens=8) == answer
    seen = [progress for progress in seen if progress is not None]
    shards = {progress.detail for progress in seen if progress.what == "read"}
    assert "smollm2-135m-instruct" in shards and any("00002-of-00003" in shard for shard in shards)
    assert {progress.what for progress in seen} >= {"read", "optimise"}

    def cancel(progress):
        if progress is not None and progress.what == "read" and progress.done > 100 and engine.quantize == "none":
            engine.cancel()
        return tell(progress)

    engine._note = cancel
    engine.switch("onellm-tiny", "none")
    settle(engine)
    assert engine.error == "Loading onellm-tiny was cancelled. onellm-tiny (int8) answers again."
    assert engine.new_chat().ask("What is this?", image="examples/image/cat.jpg", max_new_tokens=8) == answer
    assert models() == before + 1
