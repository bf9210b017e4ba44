"""Chat on a tiny random model: history, streaming, stop, errors in words."""

import functools
import threading

import numpy as np
import pytest
from PIL import Image

from onellm.chat.chat import Chat
from onellm.chat.protocol import CacheState
from onellm.errors import FileError, ModelError, OneLLMError
from onellm.utils.limits import LIMITS


@pytest.fixture
def chat(model, processor):
    for settings in processor.modalities.values():
        settings["input"] = {"size": 28}
    return Chat(model, processor, "toy")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "dot.png"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)
    return path


def test_ask_remembers_files_and_answers(chat, picture):
    chat.ask("w3", image=picture, max_new_tokens=3)
    chat.ask("w4", image=[picture, picture], max_new_tokens=3)
    modalities = [[part["type"] for part in message["content"]] for message in chat.messages]
    assert modalities == [["image", "text"], ["text"], ["image", "image", "text"], ["text"]]
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
    assert chat.messages[0]["content"][0]["path"] == str(picture)


def test_stream_is_the_answer_in_pieces(chat):
    pieces = list(chat.stream("w3", max_new_tokens=6))
    assert chat.messages[-1]["content"][0]["text"] == "".join(pieces)


def test_a_file_without_words_gets_a_question(chat, picture):
    chat.ask(image=picture, max_new_tokens=2)
    assert chat.messages[0]["content"][-1] == {"type": "text", "text": "What is this?"}


def test_retry_and_undo_keep_the_files(chat, picture):
    first = chat.ask("w3", image=picture, max_new_tokens=4)
    assert "".join(chat.retry(max_new_tokens=4)) == first
    assert len(chat.messages) == 2
    chat.undo()
    assert chat.messages == []


@pytest.fixture
def runs(chat, monkeypatch):
    """What the model does: ("encode", kind) for a file, the number of positions for a run of the LLM."""
    seen = []

    def encode(modality, values, *rest, of=chat.model.soft_tokens):
        seen.append(("encode", modality))
        return of(modality, values, *rest)

    def run(*, inputs_embeds, of=chat.model.language_model.forward, **rest):
        seen.append(inputs_embeds.shape[1])
        return of(inputs_embeds=inputs_embeds, **rest)

    monkeypatch.setattr(chat.model, "soft_tokens", encode)
    monkeypatch.setattr(chat.model.language_model, "forward", run)
    return seen


def test_a_file_is_encoded_once_a_conversation(chat, picture, runs):
    chat.ask("w3", image=picture, max_new_tokens=2)
    chat.ask("w4", image=[picture, picture], max_new_tokens=2)
    list(chat.retry(max_new_tokens=2))
    assert runs.count(("encode", "image")) == 1
    chat.clear()
    chat.ask("w3", image=picture, max_new_tokens=2)
    assert runs.count(("encode", "image")) == 2


def test_a_turn_runs_only_what_is_new(chat, picture, runs):
    chat.ask("w3 w4 w5 w6 w7", image=picture, max_new_tokens=3)
    del runs[:]
    chat.ask("w8", max_new_tokens=3)
    whole = len(chat.processor.encode(chat.messages[:-1])[0])
    assert runs[0] <= 10 < whole  # the words of the first answer may come back as other tokens
    del runs[:]
    list(chat.retry(max_new_tokens=3))
    assert runs[0] == 1


@pytest.mark.parametrize("adapter", [None, {"r": 2, "target_modules": ["q_proj", "v_proj"]}])
@pytest.mark.parametrize("position", ["inline", "start"])
def test_the_cache_does_not_change_answers(make_model, processor, picture, adapter, position):
    """Text first, then files, so that the adapter comes on; files at the start move what the cache holds."""
    model = make_model(adapter=adapter)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    processor.media_position = position
    for settings in processor.modalities.values():
        settings["input"] = {"size": 28}
    answers = []
    for forget in (False, True):
        chat = Chat(model, processor, "toy")
        for text, files in (("w3", {}), ("w4", {"image": picture}), ("w5", {}), ("w6", {"image": [picture, picture]})):
            if forget:
                chat._state = CacheState()
            answers.append(chat.ask(text, max_new_tokens=4, **files))
    assert answers[:4] == answers[4:]


def test_a_question_taken_back_leaves_nothing_in_the_cache(make_model, processor, picture):
    """What lies before the file was read with the adapter on; without the file it is off."""
    model = make_model(adapter={"r": 2, "target_modules": ["q_proj", "v_proj"]})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=3)
    for settings in processor.modalities.values():
        settings["input"] = {"size": 28}
    processor.chat_template = "{{ '<s> w8 w9 w10 w11 w12' }}" + processor.tokenizer.chat_template
    chat = Chat(model, processor, "toy")
    expected = chat.new().ask("w3 w4", max_new_tokens=8)
    chat.ask("w3", image=picture, max_new_tokens=2)
    chat.undo()
    assert chat.ask("w3 w4", max_new_tokens=8) == expected


def test_new_is_another_conversation_with_the_same_model(chat):
    chat.ask("w3", max_new_tokens=2)
    other = chat.new()
    assert other.messages == [] and other.model is chat.model


def test_a_conversation_goes_on_from_messages(chat, picture):
    chat.ask("w3", image=picture, max_new_tokens=3)
    kept = [{"role": "user", "content": "w9"}, {"role": "assistant", "content": "w8"}, *chat.messages]
    other = chat.new(kept)
    other.ask("w4", max_new_tokens=3)
    assert len(other.messages) == 6 and len(chat.messages) == 2
    assert other.messages[0]["content"] == [{"type": "text", "text": "w9"}]
    assert [file.name for file in other.trace.files] == ["dot.png"]
    picture.unlink()
    gone = chat.new(kept)
    with pytest.raises(FileError, match="dot.png"):
        gone.ask("w4")
    assert len(gone.messages) == 4


def test_a_system_message_stands_first_and_is_not_part_of_the_conversation(chat):
    chat.ask("w3", max_new_tokens=2)
    plain = chat.trace.prompt_tokens
    list(chat.retry(max_new_tokens=2, system="w40 w41"))
    assert chat.trace.prompt_tokens > plain
    assert [s.text for s in chat.trace.segments if s.kind == "system"] == ["w40 w41"]
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]


def test_a_template_without_a_place_for_a_system_message_is_told(chat):
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    chat.processor.chat_template = refuse + chat.processor.tokenizer.chat_template
    chat.ask("w3", max_new_tokens=2)
    with pytest.raises(OneLLMError, match="no system role.*leave the system message out"):
        chat.ask("w4", system="w5")
    assert len(chat.messages) == 2


def test_a_closed_conversation_gives_its_model_back_and_says_so(make_model, processor):
    import gc
    import weakref

    chat = Chat(make_model(), processor, "toy")
    other = chat.new()
    chat.ask("w3", max_new_tokens=2)
    seen = weakref.ref(chat.model)
    chat.close()
    other.close()
    gc.collect()
    assert seen() is None and chat.closed and len(chat.messages) == 2
    for act in (lambda: chat.ask("w4"), lambda: list(chat.retry()), chat.new):
        with pytest.raises(ModelError, match="toy was unloaded; go on in a new conversation"):
            act()
    assert len(chat.messages) == 2


def test_closing_waits_for_a_running_answer(chat):
    steps = threading.Semaphore(3)
    slow(chat, steps)
    stream = chat.stream("w3", max_new_tokens=20)
    said = [next(stream)]
    closing = threading.Thread(target=chat.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive() and chat.busy
    steps.release(100)
    said += list(stream)
    closing.join(5)
    assert not closing.is_alive() and not chat.busy
    assert chat.messages[-1]["content"][0]["text"] == "".join(said).strip()


def slow(chat, steps):
    """Make every step of the model wait until told to go on."""
    forward, seen = chat.model.forward, []

    @functools.wraps(forward)  # transformers reads the signature
    def wait(*args, **kwargs):
        seen.append(1)
        steps.acquire()
        return forward(*args, **kwargs)

    chat.model.forward = wait
    return seen


def test_stop_ends_within_one_token(chat):
    steps = threading.Semaphore(3)
    seen = slow(chat, steps)
    stream = chat.stream("w3", max_new_tokens=50)
    next(stream)
    chat.stop()
    steps.release(100)
    list(stream)
    assert len(seen) <= 5
    assert chat.messages[-1]["role"] == "assistant"


def test_stop_holds_from_the_moment_a_stream_is_asked_for(chat):
    stream = chat.stream("w3", max_new_tokens=50)
    chat.stop()
    assert list(stream) == [] and list(stream) == [] and chat.messages == [] and chat.trace is None
    assert chat.ask("w3", max_new_tokens=2) and len(chat.messages) == 2
    again = chat.retry(max_new_tokens=50)
    chat.stop()
    assert list(again) == [] and len(chat.messages) == 2


def test_a_stop_frees_who_waits_for_the_model_at_once(chat):
    steps = threading.Semaphore(3)
    slow(chat, steps)
    running = chat.stream("w3", max_new_tokens=20)
    next(running)
    other, said = chat.new(), []
    waiting = threading.Thread(target=lambda: said.extend(other.stream("w4", max_new_tokens=20)))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    other.stop()
    waiting.join(5)
    assert not waiting.is_alive() and said == [] and other.messages == [] and chat.busy
    steps.release(100)
    assert list(running) and not other.messages


def test_whoever_waits_hears_that_nothing_came(chat):
    steps = threading.Semaphore(0)
    slow(chat, steps)
    stream = chat.stream("w3", max_new_tokens=5)
    assert stream.next(0.05) == ""
    deltas = stream.deltas(0.05)
    assert [next(deltas), next(deltas)] == ["", ""]
    steps.release(100)
    assert "".join(deltas) == chat.messages[-1]["content"][0]["text"] != ""
    assert stream.job.finish_reason == "length"


def test_a_stream_that_nobody_reads_any_more_ends(chat):
    seen = slow(chat, threading.Semaphore(1000))
    for _ in chat.stream("w3", max_new_tokens=500):
        break
    assert chat.ask("w4", max_new_tokens=2) and len(seen) < 400


def test_an_answer_ends_before_a_stop_string_of_the_question(chat):
    whole = chat.ask("w3", max_new_tokens=12)
    word = whole.split()[4]
    stream = chat.new().stream("w3", max_new_tokens=12, stop=[word])
    assert "".join(stream) == whole[: whole.index(word)].strip()
    assert stream.job.finish_reason == "stop"


def test_stop_counts_while_files_are_read(chat, picture, monkeypatch):
    seen = slow(chat, threading.Semaphore(100))
    read = chat.processor.to_tensor
    monkeypatch.setattr(chat.processor, "to_tensor", lambda part: (chat.stop(), read(part))[1])
    assert chat.ask("w3", image=picture, max_new_tokens=50) == ""
    assert len(seen) <= 1 and chat.trace.stopped


def test_a_closed_stream_frees_the_model(chat):
    seen = slow(chat, threading.Semaphore(1000))
    stream = chat.stream("w3", max_new_tokens=500)
    next(stream)
    stream.close()
    count = len(seen)
    assert count < 400
    assert chat.ask("w4", max_new_tokens=2) is not None
    assert len(chat.messages) == 4


@pytest.mark.parametrize(
    ("text", "files", "words"),
    [
        ("", {}, "Nothing was asked"),
        ("x" * (LIMITS.message_characters + 1), {}, "8,001 characters"),
        ("w3", {"smell": "a.png"}, "'smell' is no kind of file; use one of image, video"),
        ("w3", {"image": ["a.png"] * 9}, "9 files came"),
    ],
)
def test_bad_messages_are_told_and_change_nothing(chat, text, files, words):
    with pytest.raises(OneLLMError, match=words):
        chat.ask(text, **files)
    assert chat.messages == []


def test_a_broken_file_changes_nothing(chat, tmp_path):
    path = tmp_path / "empty.wav"
    path.write_bytes(b"")
    chat.ask("w3", max_new_tokens=2)
    with pytest.raises(FileError, match="empty.wav"):
        chat.ask("w4", audio=path)
    assert len(chat.messages) == 2


@pytest.mark.parametrize(("error", "words"), [(MemoryError(), "memory"), (RuntimeError("boom"), "boom")])
def test_a_failing_model_is_told_and_the_next_question_works(chat, error, words):
    forward = chat.model.forward

    @functools.wraps(forward)
    def fail(*args, **kwargs):
        raise error

    chat.model.forward = fail
    with pytest.raises(ModelError, match=words):
        chat.ask("w3")
    assert chat.messages == []
    chat.model.forward = forward
    chat.ask("w3", max_new_tokens=2)
    assert len(chat.messages) == 2
