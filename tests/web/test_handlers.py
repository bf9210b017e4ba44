"""The page's handlers with a model made of plain Python."""

import os
import threading

import gradio as gr
import pytest

from onellm.errors import FileError, ModelError
from onellm.web import examples, layout, serve, uploads
from onellm.web.engine import Engine
from onellm.web.handlers import Handlers
from onellm.web.session import Session


class PlainChat:
    name, description = "plain", "plain: says what it was asked"

    def __init__(self):
        self.messages, self.stopped = [], threading.Event()

    def new(self):
        return PlainChat()

    def stop(self):
        self.stopped.set()

    def stream(self, text, **files):
        if text == "fail":
            raise ModelError("The memory was not enough; ask for less.")
        if text == "crash":
            raise ValueError("secret detail")
        self.messages.append({"role": "user"})
        try:
            yield from ("You ", "said ", text, *sorted(files))
        finally:
            self.messages.append({"role": "assistant"})

    def retry(self):
        del self.messages[-1]
        try:
            yield "Again."
        finally:
            self.messages.append({"role": "assistant"})

    def undo(self):
        del self.messages[-2:]

    def ask(self, text, **files):
        return "".join(self.stream(text, **files))


@pytest.fixture(scope="module")
def built():
    """Handlers of a built page."""
    made = []
    keep = Handlers.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handlers, "__init__", lambda self, *a: (keep(self, *a), made.append(self))[0])
        layout.build(Engine("plain", lambda name: PlainChat()))
    return made[0]


@pytest.fixture
def page(built, monkeypatch, tmp_path):
    """The page's handlers, with an upload folder of the test's own."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return built


@pytest.fixture
def picture(tmp_path):
    from PIL import Image

    path = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return str(path)


def ask(page, session, text, image=None):
    page.begin(session, text, image, *[None] * 9)
    return list(page.answer(session))[-1]


def by_name(page, updates):
    names = {part: name for name, part in page.parts.items() if not isinstance(part, dict)}
    names |= {part: kind for kind, part in page.parts["files"].items()}
    return {names[part]: update for part, update in updates.items() if part in names}


def test_a_question_with_a_file(page, picture):
    session = Session()
    begun = by_name(page, page.begin(session, " What? ", picture, *[None] * 9))
    assert begun["message"] == "" and begun["image"] is None  # the form is empty again
    assert begun["stop"].visible and not begun["send"].visible
    done = by_name(page, list(page.answer(session))[-1])
    user, assistant = done["conversation"]
    assert "red.png" in user["content"][0].value and user["content"][-1]["text"] == "What?"
    assert assistant["content"][0]["text"] == "You said What?image"
    assert done["send"].visible and not done["stop"].visible


def test_markup_stays_text(page):
    session = Session()
    ask(page, session, "<b>bold</b> <image> & *more*")
    assert session.messages()[0]["content"][-1]["text"] == "&lt;b&gt;bold&lt;/b&gt; &lt;image&gt; &amp; *more*"


@pytest.mark.parametrize(("text", "words"), [("fail", "memory was not enough"), ("crash", "went wrong inside")])
def test_a_failure_is_worded_and_nothing_is_lost(page, picture, text, words):
    session = Session()
    done = by_name(page, ask(page, session, text, picture))
    said = done["conversation"][-1]["content"][-1].value
    assert words in said and "secret" not in said
    assert done["message"] == text and done["image"] == picture
    ask(page, session, "fine", picture)
    assert [turn.question for turn in session.turns] == ["fine"]


@pytest.mark.parametrize("text", ["", "x" * 8001])
def test_a_question_that_cannot_be_asked_changes_nothing(page, text):
    session = Session()
    with pytest.raises(gr.Error):
        page.begin(session, text, *[None] * 10)
    assert not session.turns


def test_stop_keeps_what_was_said(page):
    session = Session()
    page.begin(session, "long", *[None] * 10)
    running = page.answer(session)
    while session.turns[0].answer != "You ":
        next(running)
    page.halt(session)
    list(running)
    assert session.chat.stopped.is_set()
    assert session.turns[0].answer == "You " and session.turns[0].note == "Stopped."
    session.settle()
    assert session.turns[0].held
    ask(page, session, "next")
    assert session.turns[1].answer == "You said next"


def test_retry_and_undo(page, picture):
    session = Session()
    ask(page, session, "one", picture)
    page.begin_again(session)
    list(page.answer(session))
    assert session.turns[0].answer == "Again." and len(session.chat.messages) == 2
    undone = by_name(page, page.undo(session))
    assert undone["message"] == "one" and undone["image"] == picture
    assert not session.turns and not session.chat.messages


def test_clear_forgets(page):
    session = Session()
    ask(page, session, "one")
    cleared = by_name(page, page.clear(session))
    assert cleared["conversation"] == [] and cleared["welcome"].visible and session.chat is None


def test_a_preview_or_the_reason_for_none(page, picture, tmp_path):
    shown, _ = page.show("image", Session(), picture)
    assert "<img" in shown.value and "8 × 8" in shown.value
    broken = tmp_path / "<i>.png"
    broken.write_text("no picture")
    refused, plot = page.show("image", Session(), str(broken))
    assert "expected a picture" in refused.value and "<i>" not in refused.value and not plot.visible
    gone, _ = page.show("image", Session(), None)
    assert not gone.visible


def test_only_uploads_are_taken(page, picture, tmp_path, monkeypatch):
    inside = tmp_path / "uploads"
    inside.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(inside))
    os.symlink(picture, inside / "link.png")
    for path in (picture, f"{inside}/../red.png", str(inside / "link.png"), str(inside), "gone.png", "a\0b"):
        with pytest.raises(FileError):
            uploads.check(path)
    (inside / "mine.png").write_bytes(b"x")
    assert uploads.check(str(inside / "mine.png")) == str(inside / "mine.png")


def test_a_model_that_does_not_load_is_said_and_tried_again():
    answers = iter([ModelError("There is no such model."), RuntimeError("secret"), PlainChat()])

    def load(name):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    engine = Engine("plain", load)
    with pytest.raises(ModelError, match="no such model"):
        engine.new_chat()
    with pytest.raises(ModelError, match="could not be loaded") as raised:
        engine.new_chat()
    assert "secret" not in str(raised.value)
    assert engine.new_chat().name == "plain" and engine.ready


def test_no_examples_is_no_problem(tmp_path):
    assert examples.read(tmp_path) == []


def test_defaults_are_private(monkeypatch):
    import argparse

    def host():
        parser = argparse.ArgumentParser()
        serve.add_options(parser)
        return parser.parse_args([]).host

    monkeypatch.delenv("SPACE_ID", raising=False)
    assert host() == "127.0.0.1"
    monkeypatch.setenv("SPACE_ID", "someone/onellm")
    assert host() == "0.0.0.0"


def test_a_closed_page_stops_the_model(page):
    session = Session()
    page.begin(session, "long", *[None] * 10)
    running = page.answer(session)
    while not session.turns[0].answer:
        next(running)
    running.close()
    assert session.chat.stopped.is_set() and not session.busy


def test_one_question_at_a_time(page):
    session = Session()
    page.begin(session, "one", *[None] * 10)
    for handler in (page.begin_again, page.undo, lambda s: page.begin(s, "two", *[None] * 10)):
        with pytest.raises(gr.Error, match="on its way"):
            handler(session)
    page.halt(session)  # while it stands in the queue
    page.begin(session, "two", *[None] * 10)
    list(page.answer(session)), list(page.answer(session))
    assert [turn.answer for turn in session.turns] == ["", "You said two"]
