"""gradio_client against a running app."""

import httpx
import pytest
from gradio_client import Client, handle_file

from onellm.modalities import MODALITIES

KINDS = list(MODALITIES)


@pytest.fixture(scope="module")
def client(app_url):
    return Client(app_url, verbose=False)


def test_ask_is_the_only_endpoint(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ["/ask"]
    parameters = endpoints["/ask"]["parameters"]
    assert [p["parameter_name"] for p in parameters] == ["message", *KINDS]
    assert [p["parameter_has_default"] for p in parameters] == [False] + [True] * 8


def test_text_only(client):
    assert client.predict("Hello! Who are you?", api_name="/ask").strip()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_each_kind(client, example_files, kind):
    answer = client.predict("What is this?", api_name="/ask", **{kind: handle_file(example_files[kind])})
    assert answer.strip()


def test_two_kinds_at_once(client, example_files):
    files = {kind: handle_file(example_files[kind]) for kind in ("image", "audio")}
    assert client.predict("What do you see and hear?", api_name="/ask", **files).strip()


def test_a_wrong_file_is_refused_in_words(client, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(Exception, match=r"notes\.png: .*expected .*"):
        client.predict("What is this?", image=handle_file(path), api_name="/ask")


def test_a_long_message_is_refused_in_words(client):
    with pytest.raises(Exception, match="8,001 characters"):
        client.predict("x" * 8001, api_name="/ask")


@pytest.mark.parametrize("given", ["path", "parent", "plain", "url"])
def test_only_uploads_are_read(app_url, tmp_path, given):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret words")
    path = {"parent": f"/tmp/gradio/../../{secret}", "url": f"{app_url}/config"}.get(given, str(secret))
    data = path if given == "plain" else {"path": path, "meta": {"_type": "gradio.FileData"}}
    begun = httpx.post(f"{app_url}/gradio_api/call/ask", json={"data": ["What?", data] + [None] * 7})
    event = begun.json()["event_id"]
    answer = httpx.get(f"{app_url}/gradio_api/call/ask/{event}", timeout=60).text
    assert "event: error" in answer
    assert "secret" not in answer.replace("secret.txt", "")


def test_the_page_names_no_other_host(app_url):
    page = httpx.get(app_url).text
    assert "fonts.googleapis" not in page
    assert httpx.get(f"{app_url}/config").json()["analytics_enabled"] is False
