"""Thumbs that nobody gave an answer for, names that are too long, odd values, and how the app ends."""

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from http_visitor import Visitor

from onellm.api import media, schema
from onellm.chat.chat import Chat
from onellm.errors import ModelError
from onellm.serving import answers
from onellm.serving.engine import Engine
from onellm.utils import oom
from onellm.web.handlers import archive
from onellm.web.security import connections, uploads, visitors

ROOT = Path(__file__).resolve().parents[2]
MODEL = os.environ.get("ONELLM_TEST_MODEL", "onellm-tiny")


def named(visitor, name):
    return next(event for event in visitor.config["dependencies"] if event["api_name"] == name)


def say(visitor, name, act):
    ((success, told),) = visitor.trigger([(named(visitor, name), [None], act)])
    return success, json.loads(told[6:])["output"].get("error") or ""


def opened(visitor, **turn):
    """Open a conversation as the browser kept it, or as somebody wrote it."""
    turn = {"question": "What?", "answer": "Red.", "held": True, "model": "toy"} | turn
    text = json.dumps({"version": 1, "id": "0" * 16, "begun_s": 0, "turns": [turn]})
    assert say(visitor, "open", {"record": text})[0]


@pytest.fixture
def visitor(page_url):
    return Visitor(page_url, secrets.token_hex(8), cookie=True)


def sealed(visitor):
    name = visitor.http.cookies["onellm-visitor"].partition(".")[0]
    with visitors.serving(f"cookie:{name}"):
        return visitors.seal("What?", "Red.", "toy")


def log():
    path = Path(os.environ["ONELLM_FEEDBACK"])
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_a_vote_belongs_to_an_answer_of_this_app_once(visitor, page_url, figure):
    before = len(log())
    other = Visitor(page_url, secrets.token_hex(8), cookie=True)
    for forged in ({}, {"seal": "x" * 43}, {"seal": sealed(other)}, {"seal": sealed(visitor), "answer": "x" * 30_000}):
        opened(visitor, **forged)
        for _ in range(5):
            assert not say(visitor, "vote", {"turn": 0, "vote": "up"})[0]
    assert len(log()) == before
    for _ in range(5):  # also where the conversation is opened anew
        opened(visitor, seal=sealed(visitor))
        say(visitor, "vote", {"turn": 0, "vote": "up"})
        say(visitor, "vote", {"turn": 0, "vote": "up"})
    figure("thumbs logged of 20 forged and 10 of one answer", len(log()) - before, archive.CHANGES)
    assert len(log()) - before == archive.CHANGES


def test_the_log_of_votes_has_an_end(visitor, monkeypatch):
    opened(visitor, seal=sealed(visitor))
    with monkeypatch.context() as patch:
        patch.setattr(archive, "SPARE_BYTES", 10**18)  # the disk is nearly full
        success, told = say(visitor, "vote", {"turn": 0, "vote": "up"})
        assert not success and "No more thumbs" in told
    assert say(visitor, "vote", {"turn": 0, "vote": "up"})[0]


ODD = [None, 7, [], "x", {}, {"turn": "x"}, {"turn": [1]}, {"turn": 10**400}, {"turn": None}, {"id": {}}, {"record": 7}]


def test_odd_values_of_events_are_refused_in_words(visitor, caplog):
    for name in ("edit", "vote", "export", "open", "remove", "choose", "begin_example", "sample", "sound", "switch"):
        for act in ODD:
            success, told = say(visitor, name, act)
            assert not success and told != "None" and told, (name, act)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("name", ["漢" * 96, "漢" * 255, "é" * 250 + ".png", "\u202e" * 200, ".." * 100, "a/" * 100])
def test_a_files_name_is_cut_by_bytes(tmp_path, name):
    file = schema.FileData(filename=name, file_data=base64.b64encode(b"x").decode())
    written = media._Writer(tmp_path).write(file.filename, file.file_data)
    assert Path(written).read_bytes() == b"x" and len(Path(written).name.encode()) <= 100
    url = f"data:image/{'x' * 3_000_000};base64,eA=="
    assert Path(
        media._Writer(tmp_path / "1").write_url("image", url) if (tmp_path / "1").exists() else written
    ).exists()


def test_a_full_disk_is_no_surprise(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="disk of this machine is full"), answers.private_folder() as folder:
        (folder / "x").write_bytes(b"x")
        full()
    monkeypatch.setattr(answers.tempfile, "TemporaryDirectory", full)
    with pytest.raises(ModelError, match="disk of this machine is full"), answers.private_folder():
        pass


def test_a_primitive_that_cannot_be_created_is_a_lack_of_memory():
    assert oom.ran_out(RuntimeError("could not create a primitive"))


def test_what_an_upload_leaves_behind_goes_soon(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    empty, begun, full = (tmp_path / f"tmp{number}abcdefg" for number in range(3))
    for path in (empty, begun, full):
        path.touch()
    full.write_bytes(b"x")
    for path in (empty, full):
        os.utime(path, (time.time() - 100, time.time() - 100))
    uploads.sweep()
    assert [path.exists() for path in (empty, begun, full)] == [False, True, True]


def test_when_the_app_is_stopped_answers_end_in_words(make_model, processor):
    engine = Engine("toy", lambda *_, **__: Chat(make_model(), processor, "toy"), lambda *_: [])
    engine.wait()
    begun, told = threading.Event(), []
    layer = engine._chat.model.language_model.model.layers[0]
    layer.register_forward_hook(lambda *_: (begun.set(), time.sleep(0.02)))

    def ask():
        try:
            count = type("Count", (), {"trace": None, "finish_reason": ""})()
            told.append("".join(answers.stream(engine, count, "w3", max_new_tokens=1000, temperature=2.0)))
        except ModelError as error:
            told.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    threads[0].start()
    assert begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(engine.queue) < 3:
        time.sleep(0.02)
    assert engine.shut(60)
    for thread in threads:
        thread.join(20)
    assert len(told) == 3 and sum("being stopped" in words for words in told) >= 2 and not engine.ready


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow", b"POST"])
def test_half_sent_headers_are_given_up(page_url, monkeypatch, sent):
    monkeypatch.setattr(connections, "HEADERS_S", 1.0)
    with socket.create_connection(("127.0.0.1", int(page_url.rpartition(":")[2])), timeout=60) as connection:
        connection.sendall(sent)
        assert connection.recv(1000) == b""  # closed
    assert httpx.get(f"{page_url}/health").is_success


@pytest.mark.slow
def test_a_stop_during_an_answer_ends_well(tmp_path, page_url):
    port = int(page_url.rpartition(":")[2]) + 1
    url = f"http://127.0.0.1:{port}"
    kept = {"GRADIO_TEMP_DIR": str(tmp_path / "uploads"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "app.py", "--port", str(port), "--model", MODEL]
    with open(tmp_path / "log", "wb") as log_:
        app = subprocess.Popen(command, cwd=ROOT, env=os.environ | kept, stdout=log_, stderr=subprocess.STDOUT)
    try:
        until_s = time.monotonic() + 180
        while True:
            try:
                if httpx.get(f"{url}/ready", timeout=5).is_success:
                    break
            except httpx.TransportError:
                pass
            assert app.poll() is None and time.monotonic() < until_s, (tmp_path / "log").read_text()
            time.sleep(0.2)
        (upload,) = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.txt", b"x")}).json()
        messages = [{"role": "user", "content": "Tell me a very long story about the sea."}]
        body = {"model": MODEL, "messages": messages, "max_tokens": 1000, "stream": True, "temperature": 1.0}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            app.send_signal(signal.SIGTERM)
            said = list(lines)
        assert said[-2:] == ["data: [DONE]", ""]
        assert app.wait(30) == 0
        told = (tmp_path / "log").read_text()
        assert "terminate called" not in told and "Traceback" not in told and not Path(upload).exists()
    finally:
        app.kill()
