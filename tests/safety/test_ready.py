"""What a host sees: /health and /ready while a model is loaded, answers, dies, and comes back by itself."""

import threading
import time

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from onellm.chat.chat import Chat
from onellm.errors import ModelError
from onellm.serve import routes
from onellm.serving.engine import Engine

BODY = {"model": "toy", "messages": [{"role": "user", "content": "w3 w4"}], "max_tokens": 4}


class Loader:
    """Loads the random model again and again; each load waits until it may go on, and can be made to fail."""

    def __init__(self, make_model, processor):
        self.make_model, self.processor = make_model, processor
        self.may, self.failing, self.count = threading.Semaphore(0), None, 0

    def __call__(self, name, quantize, on_progress):
        self.count += 1
        assert self.may.acquire(timeout=90)
        if self.failing is not None:
            raise self.failing
        self.model = self.make_model()
        return Chat(self.model, self.processor, "toy")


@pytest.fixture
def loader(make_model, processor):
    return Loader(make_model, processor)


@pytest.fixture
def engine(loader, monkeypatch):
    monkeypatch.setattr("onellm.serving.engine.PAUSE_S", 0.2)
    return Engine("toy", loader, lambda *_: [])


@pytest.fixture
def client(engine):
    return TestClient(FastAPI(routes=routes(engine)), raise_server_exceptions=False)


@pytest.fixture
def state(client):
    """Return both statuses, and what /ready says."""

    def look():
        ready = client.get("/ready")
        return client.get("/health").status_code, ready.status_code, ready.json()["status"]

    return look


def until(state, wanted):
    deadline = time.monotonic() + 90
    while state() != wanted:
        assert time.monotonic() < deadline, state()
        time.sleep(0.02)


def ask(client):
    return client.post("/v1/chat/completions", json=BODY)


def break_weights(loader):
    """Let a weight become no number, as a fault of the memory or of a kernel would."""
    loader.model.get_input_embeddings().weight.data[:, 0] = float("nan")


def break_code(loader):
    """Let every run fail, as it does on a GPU that has gone."""

    def fail(*_, **__):
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with ...")

    loader.model.language_model.forward = fail


@pytest.mark.parametrize("kill", [break_weights, break_code])
def test_while_loading_ready_dead_and_after(engine, loader, client, state, figure, kill):
    engine.start()
    seen = [state()]
    loader.may.release()
    until(state, (200, 200, "ready"))
    seen.append(state())
    before = ask(client).json()["choices"][0]["message"]["content"]

    kill(loader)
    told = ask(client)
    seen.append(state())
    assert told.status_code == 503 and "has to be loaded again" in told.json()["error"]["message"]
    assert "Compile" not in told.text
    assert "is being loaded again" in client.get("/ready").json()["message"]
    assert ask(client).status_code == 503

    loader.may.release()
    begun_s = time.monotonic()
    until(state, (200, 200, "ready"))
    seen.append(state())
    assert ask(client).json()["choices"][0]["message"]["content"] == before and loader.count == 2
    figure(
        f"/health and /ready while loading, ready, model dead ({kill.__name__}), loaded again",
        "; ".join(f"{health} {ready} {said}" for health, ready, said in seen),
        "200 503 loading; 200 200 ready; 200 503 failed; 200 200 ready",
    )
    assert seen == [(200, 503, "loading"), (200, 200, "ready"), (200, 503, "failed"), (200, 200, "ready")]
    assert time.monotonic() - begun_s < 10


def test_a_reload_that_fails_is_tried_again(engine, loader, client, state):
    loader.may.release()
    engine.wait()
    break_weights(loader)
    loader.failing = ModelError("The weights are gone; copy them again.")
    loader.may.release()
    assert ask(client).status_code == 503
    deadline = time.monotonic() + 60
    while "weights are gone" not in client.get("/ready").json().get("message", ""):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not engine.ready and state()[0] == 200
    loader.failing = None
    loader.may.release(10)
    until(state, (200, 200, "ready"))  # to look is enough
    assert ask(client).is_success


def test_who_waits_in_line_waits_for_the_reload(engine, loader, client, state):
    loader.may.release()
    engine.wait()
    before = ask(client).json()["choices"][0]["message"]["content"]
    place = engine.queue.join()  # somebody is being answered, and two wait
    answers = []
    waiting = [threading.Thread(target=lambda: answers.append(ask(client))) for _ in range(2)]
    for thread in waiting:
        thread.start()
    deadline = time.monotonic() + 60
    while len(engine.queue) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    break_weights(loader)
    with pytest.raises(ModelError, match="has to be loaded again"):
        engine.new_chat().ask("w3")
    place.leave()
    until(state, (200, 503, "failed"))
    assert not answers
    loader.may.release()
    for thread in waiting:
        thread.join(90)
    assert [answer.json()["choices"][0]["message"]["content"] for answer in answers] == [before] * 2


def test_a_strange_question_does_not_cost_the_model(engine, loader, client, state, monkeypatch):
    """An answer that fails although the model works is told; the model stays."""
    loader.may.release()
    engine.wait()
    chat = engine.new_chat()

    def fail(*_, **__):
        raise ValueError("odd")

    with monkeypatch.context() as patch:
        patch.setattr(loader.model, "generate", fail)
        with pytest.raises(ModelError, match=r"failed \(ValueError: odd\); ask again"):
            chat.ask("w3")
    assert engine.ready and state() == (200, 200, "ready") and loader.count == 1
    assert chat.ask("w3", max_new_tokens=2) == engine.new_chat().ask("w3", max_new_tokens=2)


def test_no_numbers_are_no_answer(loader):
    """The likeliest of logits that are no numbers would be a token like any other."""
    loader.may.release()
    chat = loader("toy", None, None)
    with torch.no_grad():
        loader.model.language_model.model.norm.weight[0] = float("nan")
    with pytest.raises(ModelError, match="no numbers"):
        chat.ask("w3")
    assert chat.broken
    loader.model.language_model.model.norm.weight.data[0] = 1.0
    chat.ask("w3", max_new_tokens=2)
    assert not chat.broken
