"""What one request can cost all others: texts at which answers end, odd settings, an answer that gets on no more."""

import json
import math
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from onellm.api.schema import Completion
from onellm.chat import sampling
from onellm.chat.chat import Chat
from onellm.chat.streaming import TextFilter
from onellm.errors import ModelError, OneLLMError
from onellm.serve import routes
from onellm.serving import engine as engine_module
from onellm.serving.engine import Engine
from onellm.web.handlers.settings import checked

GOOD = {"model": "toy", "messages": [{"role": "user", "content": "w3 w4"}], "max_tokens": 4}


@pytest.fixture
def engine(make_model, processor):
    return Engine("toy", lambda *_, **__: Chat(make_model(), processor, "toy"), lambda *_: [])


@pytest.fixture
def client(engine):
    engine.wait()
    return TestClient(FastAPI(routes=routes(engine)), raise_server_exceptions=False)


@pytest.mark.parametrize("stop", ["x" * 3_000_000, ["x" * 257], ["x"] * 5, [""], [], None])
def test_texts_that_end_an_answer_are_few_and_short(client, engine, stop):
    begun_s = time.monotonic()
    answer = client.post("/v1/chat/completions", json=GOOD | {"stop": stop})
    assert answer.status_code == (200 if stop in ([], None) else 400) and time.monotonic() - begun_s < 10
    if stop:
        assert "1 to 256 characters" in answer.json()["error"]["message"]
        with pytest.raises(OneLLMError, match="1 to 256 characters"):
            engine.new_chat().stream("w3", stop=stop)


def test_the_search_for_such_a_text_is_linear(figure):
    """Also for one that a model folder asks for: every piece may be its beginning."""
    took_s = []
    for count in (2_000, 8_000):
        text, begun_s = TextFilter(stop_strings=["a" * 3_000_000]), time.perf_counter()
        said = "".join(text.feed("a") for _ in range(count)) + text.end()
        took_s.append(time.perf_counter() - begun_s)
        assert said == "a" * count
    figure("8,000 pieces against a stop string of 3 million characters", f"{took_s[1]:.2f} s", "below 5 s")
    assert took_s[1] < 5


ODD = [1e-300, 1e-38, 5e-324, 1e-7, 0.0099, 0.01, 0.02, 1, 2, 10]


@pytest.mark.parametrize("temperature", ODD)
@pytest.mark.parametrize("top_p", [0.01, 1])
def test_every_accepted_setting_gives_numbers(client, engine, temperature, top_p):
    answer = client.post("/v1/chat/completions", json=GOOD | {"temperature": temperature, "top_p": top_p, "seed": 1})
    assert answer.status_code == 200, answer.text
    engine.new_chat().ask("w3", temperature=temperature, top_p=float(top_p), max_new_tokens=4)
    assert engine.ready


REFUSED = {
    "temperature": [-1, -1e-300, 10.1, 1e308, math.nan, math.inf, -math.inf, "hot", [1], True, None],
    "top_p": [0, 1e-9, 1.01, math.nan, "x", None],
    "max_new_tokens": [0, -1, 1025, 10**400, 1.5, math.inf, math.nan, "x", None],
    "seed": [-2, 2**32, 10**400, 0.5, math.nan, "x"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_other_settings_are_refused_in_words_by_all_faces(client, engine, name, value):
    expected = f"{name} is .*expected"
    with pytest.raises(OneLLMError, match=expected):
        sampling.Settings(**{name: value})
    with pytest.raises(OneLLMError, match=expected):
        engine.new_chat().stream("w3", **{name: value})
    page = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 8, "seed": -1, "frames": 0, "system": ""}
    with pytest.raises(OneLLMError, match=expected):
        checked(**page | {name: value})
    with pytest.raises(Exception, match="expected"):
        sampling.parse(name, str(value))
    if name in ("temperature", "top_p") and value is not None:  # where None means the default
        body = json.dumps(GOOD | {name: value})
        answer = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code == 400 and name in answer.text) or value is True


def test_the_ranges_are_one(client):
    properties = Completion.model_json_schema()["properties"]
    for name in ("temperature", "top_p"):
        numbers = next(form for form in properties[name]["anyOf"] if form["type"] == "number")
        assert (numbers["minimum"], numbers["maximum"]) == sampling.RANGES[name]
    assert sampling.Settings(temperature=np.float32(0.5)).temperature == 0.5


# An answer that gets on no more.


def spin():
    """Do what a loop over a text would that does not end."""
    while True:
        sum(range(100))


def sleep():
    """Hang in native code, as a driver can; nothing in Python ends that."""
    time.sleep(15)


@pytest.mark.parametrize("hang", [spin, sleep])
@pytest.mark.parametrize("leaves", [False, True], ids=["waits", "has left"])
def test_a_worker_without_progress_is_found_and_replaced(engine, client, monkeypatch, hang, leaves, figure):
    before = client.post("/v1/chat/completions", json=GOOD).json()["choices"][0]["message"]["content"]
    monkeypatch.setattr(engine_module, "LIMITS", replace(engine_module.LIMITS, stall_seconds=3.0))
    monkeypatch.setattr(engine_module, "WATCH_EVERY_S", 0.1)
    engine.wait()
    loaded, told = engine._chat.model, []
    hung, load = threading.Event(), engine._load
    may = threading.Event()
    monkeypatch.setattr(engine, "_load", lambda *a, **k: (may.wait(30), load(*a, **k))[1])

    def generate(*_, **__):
        hung.set()
        hang()

    monkeypatch.setattr(loaded, "generate", generate)

    def ask():
        stream = engine.new_chat().stream("w3")
        try:
            if leaves:
                stream.next(0.1)
                stream.close()
            else:
                list(stream)
        except ModelError as error:
            told.append(str(error))

    asker = threading.Thread(target=ask)
    asker.start()
    assert hung.wait(30)
    thread = engine._chat._worker._thread._thread
    begun_s = time.monotonic()
    while engine.ready:
        assert time.monotonic() - begun_s < 20
        time.sleep(0.02)
    found_s = time.monotonic() - begun_s
    ready = client.get("/ready")
    assert ready.status_code == 503 and "is being loaded again" in ready.json()["message"]
    asker.join(10)
    assert not asker.is_alive() and (leaves or "got on no more" in told[0])
    may.set()
    while client.get("/ready").status_code != 200:
        assert time.monotonic() - begun_s < 60
        time.sleep(0.02)
    seen = client.post("/v1/chat/completions", json=GOOD).json()["choices"][0]["message"]["content"]
    assert seen == before and engine._chat.model is not loaded
    figure(f"a worker that hangs ({hang.__name__}) is found after", f"{found_s:.1f} s", "3 s, the limit of this test")
    if hang is spin:  # its thread goes, and with it what it holds
        thread.join(20)
        assert not thread.is_alive()
