"""gradio_client against a running app."""

import json
import time

import httpx
import pytest
from gradio_client import Client, handle_file

from onellm.modalities import MODALITIES

KINDS = list(MODALITIES)
ENDPOINTS = ["/ask", "/ask_stream"]
PICTURES = ["depth_picture", "normal_picture"]


@pytest.fixture(scope="module")
def client(ready_url):
    return Client(ready_url, verbose=False)


def test_the_endpoints_are_as_documented(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ENDPOINTS
    for endpoint in endpoints.values():
        parameters = endpoint["parameters"]
        assert [p["parameter_name"] for p in parameters] == ["message", *KINDS, *PICTURES]
        assert [p["parameter_has_default"] for p in parameters] == [False] + [True] * 10


def test_text_only(client):
    assert client.predict("Hello! Who are you?", api_name="/ask").strip()


@pytest.mark.parametrize("modality", KINDS)
def test_a_file_of_each_kind(client, example_files, modality):
    answer = client.predict("What is this?", api_name="/ask", **{modality: handle_file(example_files[modality])})
    assert answer.strip()


def test_two_kinds_at_once(client, example_files):
    files = {modality: handle_file(example_files[modality]) for modality in ("image", "audio")}
    assert client.predict("What do you see and hear?", api_name="/ask", **files).strip()


def test_a_picture_beside_a_map(client, example_files):
    files = {"depth": handle_file(example_files["depth"]), "depth_picture": handle_file(example_files["image"])}
    assert client.predict("What is this?", api_name="/ask", **files).strip()


def test_a_stream_grows_to_the_answer(client, example_files):
    image = handle_file(example_files["image"])
    told = list(client.submit("What is in the picture?", image=image, api_name="/ask_stream"))
    assert told[-1] == client.predict("What is in the picture?", image=image, api_name="/ask")
    assert len(set(told)) > 2
    assert all(later.startswith(earlier) for earlier, later in zip(told, told[1:], strict=False))


def test_a_cancelled_stream_frees_the_model(client, ready_url):
    job = client.submit("Tell me a very long story about the sea.", api_name="/ask_stream")
    while not job.outputs():
        time.sleep(0.05)
    job.cancel()
    begun_s = time.monotonic()
    while json.loads(httpx.get(f"{ready_url}/ready").text)["waiting"]:
        assert time.monotonic() - begun_s < 2.0
        time.sleep(0.05)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_wrong_file_is_refused_in_words(client, tmp_path, endpoint):
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(Exception, match=r"notes\.png: .*expected .*"):
        client.predict("What is this?", image=handle_file(path), api_name=endpoint)


def test_a_picture_without_its_map_is_refused_in_words(client, example_files):
    with pytest.raises(Exception, match="beside a depth map"):
        client.predict("What?", depth_picture=handle_file(example_files["image"]), api_name="/ask")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_long_message_is_refused_in_words(client, endpoint):
    with pytest.raises(Exception, match="8,001 characters"):
        client.predict("x" * 8001, api_name=endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("given", ["path", "parent", "no meta", "text", "number", "url", "foreign url"])
def test_only_uploads_are_read(app_url, tmp_path, given, endpoint):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret words")
    meta = {"meta": {"_type": "gradio.FileData"}}
    data = {
        "path": {"path": str(secret)} | meta,
        "parent": {"path": f"/tmp/gradio/../../{secret}"} | meta,
        "no meta": {"path": str(secret)},
        "text": str(secret),
        "number": 7,
        "url": {"path": f"{app_url}/config"} | meta,
        "foreign url": {"path": "https://example.org/cat.png"} | meta,
    }[given]
    begun = httpx.post(f"{app_url}/gradio_api/call{endpoint}", json={"data": ["What?", data] + [None] * 9})
    event = begun.json()["event_id"]
    answer = httpx.get(f"{app_url}/gradio_api/call{endpoint}/{event}", timeout=60).text
    assert "event: error" in answer
    told = json.loads(answer.partition("data: ")[2])["error"]
    assert "upload" in told
    assert "secret" not in told.replace("secret.txt", "") and str(tmp_path) not in told


def test_old_calls_without_the_pictures_still_work(app_url):
    begun = httpx.post(f"{app_url}/gradio_api/call/ask", json={"data": ["Hello!"] + [None] * 8})
    answer = httpx.get(f"{app_url}/gradio_api/call/ask/{begun.json()['event_id']}", timeout=60).text
    assert "event: complete" in answer


def test_the_page_names_no_other_host(app_url):
    page = httpx.get(app_url).text
    assert "fonts.googleapis" not in page
    assert httpx.get(f"{app_url}/config").json()["analytics_enabled"] is False
