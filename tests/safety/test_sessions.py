"""What visitors keep in the app's memory, and whose it is: a session's name alone opens nothing."""

import json
import os
import secrets
from dataclasses import replace

import httpx
import pytest
from http_visitor import Visitor

from onellm.errors import OneLLMError
from onellm.utils.limits import LIMITS
from onellm.web import records
from onellm.web.security import sessions, visitors
from onellm.web.session import Session
from onellm.web.views import conversation
from onellm.web.views.page import Page

SECRET = "the-words-of-somebody-else"


def record(**turn):
    turn = {"question": SECRET, "answer": "Red.", "held": True} | turn
    return {"version": 1, "id": "0" * 16, "begun_s": 0, "turns": [turn]}


def named(visitor, name):
    return next(event for event in visitor.config["dependencies"] if event["api_name"] == name)


def call(visitor, name, session, act):
    """Trigger an event in a session of a name; returns the answer of the queue, and what came of the event."""
    body = {"fn_index": named(visitor, name)["id"], "data": [None], "event_data": act, "session_hash": session}
    return visitor.http.post("/gradio_api/queue/join", json=body), visitor.http.post(
        f"/gradio_api/run/{name}", json=body
    )


@pytest.fixture(scope="module")
def owner(page_url):
    """Somebody with a conversation."""
    visitor = Visitor(page_url, f"owner-{secrets.token_hex(4)}", cookie=True)
    ((success, told),) = visitor.trigger([(named(visitor, "open"), [None], {"record": json.dumps(record())})])
    assert success and SECRET in told
    return visitor


@pytest.mark.parametrize("cookie", [True, False], ids=["another's cookie", "no cookie"])
def test_a_sessions_name_opens_nothing(page_url, owner, cookie, figure):
    stranger, session = Visitor(page_url, "stranger", cookie), f"{owner.name}-one"
    opened = leaked = 0
    for name, act in (
        ("export", {"format": "json"}),
        ("export", {"format": "zip"}),
        ("edit", {"turn": 0}),
        ("undo", {}),
    ):
        for answer in call(stranger, name, session, act):
            opened += answer.is_success
            leaked += SECRET in answer.text
    for address in (f"queue/data?session_hash={session}", f"heartbeat/{session}"):
        answer = stranger.http.get(f"/gradio_api/{address}")
        opened += answer.is_success
    export = named(stranger, "export")["id"]
    body = {"data": [None], "fn_index": export, "event_data": {"format": "json"}, "session_hash": session}
    answer = stranger.http.post("/gradio_api/run/export", json=body | {"event_id": session})
    opened += answer.is_success
    body = {"session_hash": session, "fn_index": 1, "event_id": "x"}
    opened += stranger.http.post("/gradio_api/cancel", json=body).is_success
    opened += stranger.http.post("/gradio_api/call/ask", json=body | {"data": ["x"]}).is_success
    figure(f"another's session by its name, {'with' if cookie else 'without'} a cookie", f"{opened}, {leaked}", "0, 0")
    assert not opened and not leaked
    ((success, told),) = owner.trigger([(named(owner, "export"), [None], {"format": "json"})])  # it is as it was
    assert success and "file=" in told


def test_without_a_cookie_nothing_is_kept(page_url, figure):
    from onellm.web.security.sessions import SESSIONS as of_page

    program = Visitor(page_url, "nobody", cookie=False)
    for number in range(5):
        session = f"nobody-{number}"
        ((success, told),) = program.trigger([(named(program, "new"), [None], None)], str(number))
        assert not success and "keep its cookie" in told, session
    assert not any(SECRET in name or name.startswith("nobody") for name in states(of_page))


def states(kept):
    """Return the names of the sessions that Gradio keeps something of."""
    return list(kept.forget.__self__.state_holder.session_data)


def test_a_visitor_keeps_few_sessions(page_url, figure):
    from onellm.web.security.sessions import SESSIONS as of_page

    visitor = Visitor(page_url, f"many-{secrets.token_hex(4)}", cookie=True)
    for number in range(LIMITS.visitor_sessions + 8):
        ((success, _),) = visitor.trigger([(named(visitor, "new"), [None], None)], str(number))
        assert success
    kept = [name for name in states(of_page) if name.startswith(visitor.name)]
    figure(f"sessions kept of {LIMITS.visitor_sessions + 8} of one visitor", len(kept), LIMITS.visitor_sessions)
    assert len(kept) == LIMITS.visitor_sessions and kept[-1].endswith(f"-{LIMITS.visitor_sessions + 7}")


def test_imported_conversations_make_room(monkeypatch):
    monkeypatch.setattr(sessions, "LIMITS", replace(LIMITS, sessions=5, sessions_bytes=1000))
    kept, gone, busy = sessions.Sessions(), [], {"c"}
    kept.forget = lambda name: name not in busy and (gone.append(name) or True)
    for name in "abcdef":
        assert kept.use(name, f"cookie:{name}")
    assert gone == ["a"]
    for name in "bcdef":
        kept.keep(name, 300)
    assert gone == ["a", "b", "d"]  # c answers
    assert not kept.may_use("c", "cookie:x") and kept.may_use("a", "cookie:x") and not kept.use("x" * 129, "cookie:x")


def test_a_cookie_is_signed(page_url, monkeypatch, tmp_path):
    forged = httpx.Client(base_url=page_url, cookies={"onellm-visitor": f"{'a' * 43}.{'b' * 43}"})
    assert forged.get("/").headers["set-cookie"].startswith("onellm-visitor=")  # it is nobody's
    monkeypatch.setattr(visitors, "cache_folder", lambda: tmp_path)
    visitors._key.cache_clear()
    first = visitors._key()
    visitors._key.cache_clear()
    assert visitors._key() == first and os.stat(tmp_path / "visitors.key").st_mode & 0o777 == 0o600
    visitors._key.cache_clear()
    monkeypatch.setattr(visitors, "cache_folder", lambda: tmp_path / "visitors.key")  # none can be kept
    assert len(visitors._key()) == 32
    visitors._key.cache_clear()


# Records from outside.

FILE_TRACE = {"modality": "audio", "name": "x", "shape": [1], "sizes": [1], "window_words": 1}
LARGE = {
    "windows": {"files": [FILE_TRACE | {"windows": [[0, 1]] * 1_250_000}]},
    "router": {"files": [FILE_TRACE | {"router": [[0.5, 0.5]] * 600_000}]},
    "words": {"files": [FILE_TRACE | {"words": [[["x", 1.0]]] * 400_000}]},
    "segments": {"segments": [{"kind": "x", "text": "x", "tokens": 1}] * 150_000},
    "files": {"files": [FILE_TRACE] * 60_000},
    "texts": {"segments": [{"kind": "x", "text": "x" * 7_000_000, "tokens": 1}]},
    "settings": {"settings": {str(number): number for number in range(400_000)}},
    "shape": {"files": [FILE_TRACE | {"shape": [1] * 2_000_000}]},
}


@pytest.mark.parametrize("what", LARGE)
def test_a_large_record_is_neither_kept_nor_shown(what, figure):
    page, session = Page(None, [], can_switch=True), Session()
    records.restore(page, session, json.dumps(record(trace=LARGE[what])))
    (turn,) = session.turns
    size = len(records.dump(session)) + len(str(conversation.messages(session, None)))
    assert turn.answer == "Red." and turn.trace is None
    figure(f"a record with {what} without end, kept and shown", f"{size} characters", "below 10,000")
    assert size < 10_000


def test_many_large_turns_are_bounded_together():
    page, session = Page(None, [], can_switch=True), Session()
    trace = {"files": [FILE_TRACE | {"router": [[0.5, 0.5]] * 5_000}]}
    text = record(trace=trace) | {"turns": record(trace=trace)["turns"] * 20}
    records.restore(page, session, json.dumps(text))
    assert [turn.trace is not None for turn in session.turns] == [False] * 19 + [True]  # the last ones are kept
    for field, size in (("answer", 32_000), ("note", 2_000), ("question", 8_000)):
        full = record(**{field: "x" * size})
        records.restore(page, session, json.dumps(full))
        with pytest.raises(OneLLMError, match="not a conversation"):
            records.restore(page, session, json.dumps(record(**{field: "x" * (size + 1)})))
        with pytest.raises(OneLLMError, match="characters; at most 128,000"):
            records.restore(page, session, json.dumps(full | {"turns": full["turns"] * 100}))
