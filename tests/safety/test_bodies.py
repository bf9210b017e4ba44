"""Bodies that no good client sends, and text that looks like markup or like a file: refused, or taken as what it is."""

import json
import time

import httpx
import pytest
from http_visitor import Visitor

from onellm.utils.limits import LIMITS

MARKUP = "<image> </s> <img src=x onerror=alert(1)> <script>alert(1)</script> &amp; {{7*7}}"
USER = {"role": "user", "content": "Hi"}
GOOD = {"model": "onellm-tiny", "messages": [USER]}
DEEP = b"[" * 200_000

COMPLETIONS = {
    "n": {**GOOD, "n": 10**6},
    "n of text": {**GOOD, "n": "1e6"},
    "temperature NaN": {**GOOD, "temperature": float("nan")},
    "temperature infinite": {**GOOD, "temperature": float("inf")},
    "top_p 0": {**GOOD, "top_p": 0},
    "max_tokens -1": {**GOOD, "max_tokens": -1},
    "a million stop words": {**GOOD, "stop": ["x"] * 10**6},
    "seed of 5,000 digits": json.dumps(GOOD)[:-1].encode() + b', "seed": ' + b"9" * 5_000 + b"}",
    "no messages": {**GOOD, "messages": []},
    "100,000 messages": {**GOOD, "messages": [USER] * 100_000},
    "unknown role": {**GOOD, "messages": [{"role": "tool", "content": "Hi"}]},
    "content is a number": {**GOOD, "messages": [{"role": "user", "content": 7}]},
    "content of nine files": {
        **GOOD,
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}] * 9}],
    },
    "half a character": b'{"model": "\\ud800", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "deep": b'{"model": "onellm-tiny", "messages": ' + DEEP + b"}",
    "no text": b"\xff\xfe\x00\xd8",
    "8,001 characters": {**GOOD, "messages": [{"role": "user", "content": "x" * 8_001}]},
}
SESSION = "SESSION"  # is replaced by one that is new
EVENTS = {
    "nothing": {},
    "a list": [],
    "deep": b'{"data": ' + DEEP + b"}",
    "no text": b"\xff\xfe\x00\xd8",
    "data is an object": {"data": {}},
    "data is missing": {"fn_index": 1, "session_hash": SESSION},
    "no such event": {"data": [], "fn_index": 10**9, "session_hash": SESSION},
    "negative event": {"data": [], "fn_index": -1, "session_hash": SESSION},
    "event of text": {"data": [], "fn_index": "x", "session_hash": SESSION},
    "session is a list": {"data": [], "fn_index": 0, "session_hash": ["x"]},
    "event data is a number": {"data": [], "fn_index": 0, "session_hash": SESSION, "event_data": 7},
    "a number NaN": b'{"data": [], "fn_index": 0, "session_hash": "SESSION", "trigger_id": NaN}',
    "a million values": {"data": [0] * 10**6, "fn_index": 0, "session_hash": SESSION},
    "a file of a number": {"data": ["Hi", {"path": 7, "meta": 7}]},
    "a file of no meaning": {"data": ["Hi", {"path": "x", "meta": 7}]},
    "half characters": b'{"data": ["' + b"\\ud800" * 8_001 + b'"]}',
    "8,001 characters": {"data": ["x" * 8_001]},
}
EVENT_ADDRESSES = ("queue/join", "call/ask", "call/ask_stream", "call/v2/ask", "call/none", "call/v2/none", "cancel")


def post(url, body, **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    return httpx.post(url, content=content, headers=headers, timeout=60, **options)


@pytest.fixture(autouse=True)
def alive(ready_url, app_folder):
    """Whatever was sent, the same server lives, answers, and has nothing to be ashamed of in its log."""
    log = app_folder / "log.txt"
    before = log.stat().st_size
    yield
    assert httpx.get(f"{ready_url}/health").status_code == httpx.get(f"{ready_url}/ready").status_code == 200
    answer = httpx.post(f"{ready_url}/v1/chat/completions", json={**GOOD, "max_tokens": 2}, timeout=60)
    assert answer.status_code == 200
    assert "Traceback" not in log.read_text(encoding="utf-8", errors="replace")[before:]


def test_malformed_bodies_of_the_openai_style_server(ready_url, figure):
    told = {what: post(f"{ready_url}/v1/chat/completions", body) for what, body in COMPLETIONS.items()}
    for what, answer in told.items():
        assert 400 <= answer.status_code < 500, what
        assert answer.json()["error"]["message"].strip(), what
    figure("malformed bodies to /v1", f"{len(told)} of {len(COMPLETIONS)} are 4xx with words", "at least 12, all")


def test_what_is_odd_and_harmless_is_taken(ready_url):
    tokens = {**GOOD, "max_tokens": 10**9, "stop": [" "]}  # as many as there are
    half = {**GOOD, "messages": [{"role": "user", "content": "Hi \ud800"}], "max_tokens": 2}  # half a character
    for body in (tokens, half):
        assert post(f"{ready_url}/v1/chat/completions", body).status_code == 200


def test_malformed_bodies_of_events(ready_url, figure):
    count = refused = 0
    for address in EVENT_ADDRESSES:
        for what, body in EVENTS.items():
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            body = body.replace(b"SESSION", f"body-{count}".encode())
            answer = post(f"{ready_url}/gradio_api/{address}", body)
            assert answer.status_code < 500, (address, what, answer.text)
            count += 1
            refused += answer.status_code >= 400
            if answer.status_code == 200 and address.startswith("call"):  # taken, and refused as an event
                event = answer.json()["event_id"]
                answer = httpx.get(f"{ready_url}/gradio_api/{address}/{event}".replace("/v2", ""), timeout=60)
                assert "event: error" in answer.text and '"error"' in answer.text, (address, what)
                assert json.loads(answer.text.partition("data: ")[2])["error"], (address, what)
                refused += 1
    figure("malformed bodies to Gradio's addresses", f"{count}, {refused} refused, 0 are 5xx", "at least 12, 0 are 5xx")


def test_large_bodies(ready_url, figure):
    large = b'{"data": ["' + b"x" * 50_000_000 + b'"]}'
    statuses = {}
    for address in ("/v1/chat/completions", "/v1/none", "/gradio_api/queue/join", "/gradio_api/call/ask", "/none", "/"):
        begun_s = time.monotonic()
        answer = post(f"{ready_url}{address}", large)
        statuses[address] = answer.status_code
        assert 400 <= answer.status_code < 500 and answer.json(), address
        assert time.monotonic() - begun_s < 30
    assert statuses["/gradio_api/queue/join"] == statuses["/gradio_api/call/ask"] == 413
    assert "8 MB" in post(f"{ready_url}/gradio_api/queue/join", large).json()["detail"]
    figure("a body of 50 MB", sorted(set(statuses.values())), "4xx")


def test_an_upload_beyond_the_limit_is_told_and_leaves_nothing(ready_url, app_folder):
    def much():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n'
        for _ in range(LIMITS.turn_bytes // 1_000_000 + 2):
            yield bytes(1_000_000)
            if len(sent) < 90:  # beyond that Gradio's own limit of one file speaks
                sent.append(1)
            else:
                yield b'\r\n--x\r\nContent-Disposition: form-data; name="files"; filename="b.bin"\r\n\r\n'
                sent.clear()
        yield b"\r\n--x--\r\n"

    sent: list = []
    before = set((app_folder / "uploads").iterdir())
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{ready_url}/gradio_api/upload", content=much(), headers=headers, timeout=60)
    assert answer.status_code == 413 and "larger than 201 MB; send fewer" in answer.text
    assert set((app_folder / "uploads").iterdir()) == before


def test_a_broken_off_upload_leaves_nothing(ready_url, app_folder):
    def part():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n' + bytes(500_000)
        raise ConnectionAbortedError

    before = set((app_folder / "uploads").iterdir())
    with pytest.raises(ConnectionAbortedError):
        headers = {"content-type": "multipart/form-data; boundary=x"}
        httpx.post(f"{ready_url}/gradio_api/upload", content=part(), headers=headers, timeout=60)
    for _ in range(50):
        if set((app_folder / "uploads").iterdir()) == before:
            return
        time.sleep(0.1)
    pytest.fail("a part of the upload stays")


def test_text_stays_text(ready_url, figure):
    before = files(ready_url)
    messages = [{"role": "user", "content": MARKUP}]
    usage = post(f"{ready_url}/v1/chat/completions", {**GOOD, "messages": messages, "max_tokens": 2}).json()["usage"]
    messages = [{"role": "user", "content": MARKUP.replace("<image>", "<imagi>")}]
    other = post(f"{ready_url}/v1/chat/completions", {**GOOD, "messages": messages, "max_tokens": 2}).json()["usage"]
    assert abs(usage["prompt_tokens"] - other["prompt_tokens"]) <= 2 and files(ready_url) == before  # no file's tokens
    page = Visitor(ready_url, "markup", cookie=True)
    event = page.event("send", "click")
    values = {c["id"]: c["props"].get("value") for c in page.config["components"]}
    data = [values[part] for part in event["inputs"]]
    data[:2] = None, MARKUP
    ((success, told),) = page.trigger([(event, data, None)])
    assert success and "&lt;img src=x onerror=alert(1)&gt;" in told and "&lt;image&gt;" in told
    assert "<img src=x" not in told and "<script>" not in told
    data[1] = "x" * (LIMITS.message_characters + 1)
    ((success, told),) = page.trigger([(event, data, None)], "two")
    assert not success and "8,001" in told
    figure("text with <image>, HTML, 8,001 characters", "literal, escaped, refused", "literal, escaped, refused")


def files(url):
    """Count the files that answers were about."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("onellm_files_total"))
