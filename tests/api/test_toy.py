"""The API around a toy model in memory."""

import base64

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from onellm.chat.chat import Chat
from onellm.serve import routes
from onellm.serving.engine import Engine


@pytest.mark.parametrize("stream", [False, True])
def test_a_file_that_the_model_does_not_read_is_a_bad_request(model, processor, stream):
    del processor.modalities["imu"]
    engine = Engine("toy", load=lambda *_, **__: Chat(model, processor, "toy"), choices=lambda *_, **__: [])
    engine.wait()
    client = TestClient(FastAPI(routes=routes(engine)), raise_server_exceptions=False)
    data = base64.b64encode(b"0,0,9.8,0,0,0\n" * 50).decode()
    file = {"type": "file", "file": {"filename": "a.csv", "file_data": data, "kind": "imu"}}
    body = {"model": "toy", "messages": [{"role": "user", "content": [file]}], "stream": stream}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "'imu' is no kind of file this model knows" in answer.json()["error"]["message"]
