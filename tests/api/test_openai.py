"""The official openai client against a running app."""

import base64
import json
import threading
import time

import httpx
import openai
import pytest

from onellm.modalities import MODALITIES

MEDIA_TYPES = {"image": "image/jpeg", "video": "video/mp4"}
TELL = "Tell me a very long story about the sea and the people who live by it."


@pytest.fixture(scope="module")
def client(ready_url):
    return openai.OpenAI(base_url=f"{ready_url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def parts(example_files):
    """One content part a kind."""
    encoded = {modality: base64.b64encode(path.read_bytes()).decode() for modality, path in example_files.items()}
    found = {}
    for modality, path in example_files.items():
        if modality in MEDIA_TYPES:
            url = f"data:{MEDIA_TYPES[modality]};base64,{encoded[modality]}"
            found[modality] = {"type": f"{modality}_url", f"{modality}_url": {"url": url}}
        elif modality == "audio":
            found[modality] = {
                "type": "input_audio",
                "input_audio": {"data": encoded[modality], "format": path.suffix.lstrip(".")},
            }
        else:
            file = {"filename": path.name, "file_data": encoded[modality], "kind": modality}
            found[modality] = {"type": "file", "file": file}
    return found


def ask(client, *content, **options):
    settings = {"model": "onellm-tiny", "max_tokens": 16} | options
    return client.chat.completions.create(messages=[{"role": "user", "content": list(content)}], **settings)


def text(words):
    return {"type": "text", "text": words}


def figures(url, name):
    """Sum what /metrics says of a name."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_the_model_is_listed(client):
    assert [model.id for model in client.models.list()] == ["onellm-tiny"]
    assert client.models.retrieve("onellm-tiny").owned_by == "onellm"


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_file_of_each_kind(client, parts, modality):
    answer = ask(client, text("What is this?"), parts[modality])
    assert answer.choices[0].message.content.strip()
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 10 and answer.usage.completion_tokens > 0


@pytest.mark.parametrize("modality", ["point", "fmri", "imu", "depth", "normal", "audio"])
def test_a_file_is_recognised_by_its_content(client, example_files, modality):
    path = example_files[modality]
    url = "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode()
    part = {"type": "file", "file": {"filename": path.name, "file_data": url}}
    assert (
        ask(client, part).choices[0].message.content
        == ask(client, {"type": "file", "file": part["file"] | {"kind": modality}}).choices[0].message.content
    )


def test_the_picture_is_seen(client, parts):
    assert "cat" in ask(client, parts["image"], text("What is in the picture?")).choices[0].message.content.lower()


def test_two_pictures_and_a_sound(client, parts):
    one = ask(client, parts["image"], text("What is this?")).usage.prompt_tokens
    answer = ask(client, parts["image"], parts["image"], parts["audio"], text("What is this?"))
    assert answer.usage.prompt_tokens > one
    assert answer.choices[0].message.content.strip()


def test_a_picture_beside_a_map(client, parts):
    beside = parts["depth"]["file"] | {"picture": parts["image"]["image_url"]["url"]}
    assert ask(client, {"type": "file", "file": beside}).choices[0].message.content.strip()


def test_several_turns_and_a_system_message(client, parts):
    messages = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": [parts["image"], text("What is in the picture?")]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Is it an animal?"},
    ]
    long = client.chat.completions.create(model="onellm-tiny", messages=messages, max_tokens=8)
    short = client.chat.completions.create(model="onellm-tiny", messages=messages[-1:], max_tokens=8)
    assert long.usage.prompt_tokens > short.usage.prompt_tokens + 20


def test_streaming_says_the_same(client, parts):
    whole = ask(client, parts["image"], text("What is this?"))
    chunks = list(
        ask(client, parts["image"], text("What is this?"), stream=True, stream_options={"include_usage": True})
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert len({c.id for c in chunks}) == 1


def test_a_stream_is_server_sent_events(ready_url):
    body = {
        "model": "onellm-tiny",
        "messages": [{"role": "user", "content": "Hello!"}],
        "stream": True,
        "max_tokens": 4,
    }
    answer = httpx.post(f"{ready_url}/v1/chat/completions", json=body, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["object"] == "chat.completion.chunk" for event in events[:-1])


def test_sampling_is_repeatable(client):
    def drawn(seed):
        return ask(client, text(TELL), temperature=1.5, top_p=0.95, seed=seed).choices[0].message.content

    assert drawn(-7) == drawn(-7) != drawn(8)


def test_length_and_stop_words(client):
    long = ask(client, text(TELL), max_completion_tokens=24)
    assert long.choices[0].finish_reason == "length" and long.usage.completion_tokens == 24
    words = long.choices[0].message.content
    word = words.split()[5]
    cut = ask(client, text(TELL), max_tokens=24, stop=[word])
    assert cut.choices[0].message.content == words[: words.index(word)].strip()
    assert cut.choices[0].finish_reason == "stop"


def test_a_client_that_leaves_frees_the_model(client, ready_url):
    before = figures(ready_url, "onellm_tokens_total")
    for piece in (stream := ask(client, text(TELL), stream=True, max_tokens=1000, temperature=1.0, seed=3)):
        if piece.choices[0].delta.content:
            break
    stream.close()
    begun_s = time.monotonic()
    assert ask(client, text("Hello!"), max_tokens=1).usage.completion_tokens == 1
    assert time.monotonic() - begun_s < 2.0
    assert figures(ready_url, 'onellm_answers_total{face="openai",outcome="stopped"}') >= 1
    assert figures(ready_url, "onellm_tokens_total") - before < 400


def test_an_impatient_client_frees_the_model(ready_url):
    body = {"model": "onellm-tiny", "messages": [{"role": "user", "content": TELL}], "max_tokens": 1000}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{ready_url}/v1/chat/completions", json=body | {"temperature": 1.0, "seed": 3}, timeout=1.0)
    begun_s = time.monotonic()
    assert httpx.post(f"{ready_url}/v1/chat/completions", json=body | {"max_tokens": 1}, timeout=30).is_success
    assert time.monotonic() - begun_s < 2.0


def test_a_full_line_is_told(client, ready_url):
    answers = []

    def one():
        try:
            answers.append(ask(client, text(TELL), max_tokens=30).usage.completion_tokens)
        except openai.RateLimitError as error:
            answers.append(int(error.response.headers["retry-after"]))
            assert "questions are waiting" in error.body["message"]

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 20 and answers.count(30) == 17
    assert figures(ready_url, "onellm_waiting") == 0


PNG = "data:image/png;base64,"


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": "gpt-4o"}, 404, "use 'onellm-tiny'"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "wizard", "content": "?"}]}, 400, "role"),
        ({"messages": [{"role": "assistant", "content": "Yes."}]}, 400, "nothing to answer"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "Nothing was asked"),
        ({"messages": [{"role": "user", "content": "x" * 8001}]}, 400, "8,001 characters"),
        ({"messages": [{"role": "user", "content": "x"}] * 201}, 400, "201 messages"),
        ({"temperature": -1}, 400, "temperature"),
        ({"n": 1_000_000}, 400, "n: "),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"stop": [""]}, 400, "stop"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"response_format": {"type": "json_object"}}, 400, "plain text"),
        ({"image": "https://example.org/cat.png"}, 400, "fetches nothing"),
        ({"image": "file:///etc/passwd"}, 400, "fetches nothing"),
        ({"image": "data:image/png,abc"}, 400, "not in base64"),
        ({"image": PNG + "!!!"}, 400, "not base64"),
        ({"image": PNG + "aGVsbG8="}, 400, "image.png: "),
        ({"image": "data:text/html;base64,aGVsbG8="}, 400, "image.html: the name ends in .html"),
        ({"file": {"filename": "../../etc/a.npy", "file_data": "aGVsbG8=", "kind": "imu"}}, 400, "a.npy: "),
        ({"file": {"filename": "a.npy", "file_data": "aGVsbG8=", "kind": "smell"}}, 400, "no kind of file"),
        ({"file": {"filename": "a.npy", "file_data": "aGVsbG8="}}, 400, "a.npy"),
        ({"file": {"filename": "a.csv", "file_data": "aGk=", "kind": "imu", "picture": PNG}}, 400, "leave it out"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_a_status_and_words(ready_url, changes, status, words, stream):
    body = {"model": "onellm-tiny", "messages": [{"role": "user", "content": "Hello!"}], "stream": stream} | changes
    if "image" in body:
        part = {"type": "image_url", "image_url": {"url": body.pop("image")}}
        body["messages"] = [{"role": "user", "content": [part]}]
    if "file" in body:
        body["messages"] = [{"role": "user", "content": [{"type": "file", "file": body.pop("file")}]}]
    answer = httpx.post(f"{ready_url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert words in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model": 1}'])
def test_a_malformed_body_is_told(ready_url, body):
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{ready_url}/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_large_body_is_refused(ready_url):
    def much():
        for _ in range(210):
            yield b" " * 1_000_000

    answer = httpx.post(
        f"{ready_url}/v1/chat/completions", content=much(), headers={"content-type": "application/json"}, timeout=60
    )
    assert answer.status_code == 413
    assert "200 MB" in answer.json()["error"]["message"]


def test_no_file_stays_behind(client, parts, tmp_path, ready_url):
    ask(client, parts["image"], text("What is this?"), max_tokens=2)
    import tempfile
    from pathlib import Path

    assert not [p for p in Path(tempfile.gettempdir()).glob("onellm-*/*/image.jpg")]


def test_an_unknown_path_is_told_in_openais_form(ready_url):
    answer = httpx.get(f"{ready_url}/v1/embeddings")
    assert answer.status_code == 404 and answer.json()["error"]["type"] == "invalid_request_error"
