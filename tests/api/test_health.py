"""What a host asks a running app, and an app whose model does not come."""

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from onellm.errors import ModelError
from onellm.serve import routes
from onellm.serving.engine import Engine
from onellm.web.app import PLOTLY


def test_a_ready_app(ready_url):
    assert httpx.get(f"{ready_url}/health").json() == {"status": "ok"}
    ready = httpx.get(f"{ready_url}/ready")
    assert ready.status_code == 200 and ready.json()["model"].startswith("onellm-tiny")


def test_metrics_are_prometheus(ready_url):
    body = {"model": "onellm-tiny", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 3}
    assert httpx.post(f"{ready_url}/v1/chat/completions", json=body, timeout=60).is_success
    answer = httpx.get(f"{ready_url}/metrics")
    found = {family.name: family for family in text_string_to_metric_families(answer.text)}
    answered = [s for s in found["onellm_answers"].samples if s.labels == {"face": "openai", "outcome": "answered"}]
    assert answered[0].value >= 1
    assert {s.labels["of"]: s.value > 0 for s in found["onellm_tokens"].samples if s.name.endswith("total")} == {
        "prompt": True,
        "answer": True,
    }
    assert found["onellm_ready"].samples[0].value == 1
    assert found["process_resident_memory_bytes"].samples[0].value > 5e8
    assert "onellm_first_token_seconds" in found and "onellm_answer_seconds" in found


def test_the_plots_script_is_served(ready_url):
    answer = httpx.get(f"{ready_url}{PLOTLY}")
    assert answer.is_success and "max-age" in answer.headers["cache-control"]
    assert len(answer.content) > 1e6


@pytest.fixture
def client_of():
    """Serve the routes around an engine, without a page."""

    def make(engine):
        return TestClient(FastAPI(routes=routes(engine)), raise_server_exceptions=False)

    return make


def test_before_the_model_is_there(client_of):
    client = client_of(Engine("onellm-tiny"))
    assert client.get("/health").status_code == 200
    ready = client.get("/ready")
    assert ready.status_code == 503 and ready.json()["status"] == "loading"
    asked = client.post("/v1/chat/completions", json={"model": "onellm-tiny", "messages": [{"role": "user"}]})
    assert asked.status_code == 503 and asked.headers["retry-after"]
    assert "being loaded" in asked.json()["error"]["message"]


def test_a_model_that_does_not_come(client_of):
    def load(*_, **__):
        raise ModelError("The weights are broken; copy them again.")

    engine = Engine("onellm-tiny", load)
    engine.wait()
    client = client_of(engine)
    assert client.get("/health").status_code == 200
    ready = client.get("/ready")
    assert ready.status_code == 503
    assert ready.json() == {
        "status": "failed",
        "model": "onellm-tiny",
        "message": "The weights are broken; copy them again.",
    }


def test_a_bug_is_an_error_in_words(client_of):
    class Broken:
        name, ready, error, line = "m", True, "", None

    body = {"model": "m", "messages": [{"role": "user", "content": "Hello!"}]}
    answer = client_of(Broken()).post("/v1/chat/completions", json=body)
    assert answer.status_code == 500
    assert "went wrong inside OneLLM" in answer.json()["error"]["message"]
