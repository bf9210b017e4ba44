"""The page's handlers with a model made of plain Python."""

import os
import threading
from types import SimpleNamespace

import gradio as gr
import pytest

from onellm import serve
from onellm.chat.streaming import AnswerJob, AnswerStream
from onellm.errors import FileError, ModelError
from onellm.serving.engine import Engine
from onellm.web import layout
from onellm.web.handlers.asking import Asking
from onellm.web.handlers.composer import Composer
from onellm.web.handlers.settings import DEFAULTS
from onellm.web.security import uploads
from onellm.web.session import Session
from onellm.web.views import examples
from onellm.web.views.page import Page


class PlainChat:
    name = origin = "plain"
    stalled_s = 0.0
    quantize, description, busy, broken, inputs = "none", "plain: says what it was asked", False, False, {}
    trace = None

    def __init__(self, messages=None):
        self.messages, self.stopped, self.closed = list(messages or []), threading.Event(), False

    def new(self, messages=None):
        return PlainChat(messages)

    def close(self):
        self.closed = True

    def stop(self):
        self.stopped.set()

    def stream(self, text, **options):
        return streamed(self, self.said(text, **options), long=text == "long")

    def said(self, text, *, max_new_tokens, temperature, top_p, seed, system, **files):
        if text == "fail":
            raise ModelError("The memory was not enough; ask for less.")
        if text == "crash":
            raise ValueError("secret detail")
        self.messages.append({"role": "user"})
        try:
            yield from ("You ", "said ", text, *sorted(files), system)
        finally:
            self.messages.append({"role": "assistant"})

    def retry(self, **settings):
        return streamed(self, self.said_again())

    def said_again(self):
        del self.messages[-1]
        try:
            yield "Again."
        finally:
            self.messages.append({"role": "assistant"})


def streamed(chat, pieces, long=False):
    def write(say, stop, _):
        for piece in pieces:
            say(piece)
            if long and stop.wait(20):
                chat.stopped.set()
                break
        pieces.close()

    return AnswerStream(AnswerJob(write, lambda job, _: threading.Thread(target=job).start()))


def plain(name, **_):
    return PlainChat()


@pytest.fixture(scope="module")
def page():
    """A page that is laid out."""
    made = []
    keep = Page.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "__init__", lambda self, *a, **k: (keep(self, *a, **k), made.append(self))[0])
        layout.build(Engine("plain", plain, lambda *_: []))
    return made[0]


@pytest.fixture(autouse=True)
def upload_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))


@pytest.fixture
def on(page):
    return Asking(page)


@pytest.fixture
def form(page):
    return Composer(page)


@pytest.fixture
def picture(tmp_path):
    from PIL import Image

    path = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return str(path)


def event(**data):
    return SimpleNamespace(**data)


def ask(on, session, text, *settings):
    on.begin(session, text, *(settings or DEFAULTS))
    return by_name(on.page, list(on.answer(session))[-1])


def by_name(page, updates):
    names = {id(part): name for name, part in page.parts.items()}
    return {names[id(part)]: update for part, update in updates.items()}


def contents(message):
    return [part["text"] if isinstance(part, dict) else part.value for part in message["content"]]


def test_a_question_with_a_file(on, form, picture):
    session = Session()
    shown = by_name(on.page, form.add(session, [picture], modality="image"))
    assert "red.png" in shown["attached"] and "8 × 8" in shown["attached"]
    begun = by_name(on.page, on.begin(session, " What? ", *DEFAULTS))
    assert begun["message"] == "" and begun["attached"] == ""  # the form is empty again
    assert begun["stop"].visible and not begun["send"].visible
    done = by_name(on.page, list(on.answer(session))[-1])
    user, assistant = done["conversation"]
    assert "red.png" in contents(user)[0] and contents(user)[1] == "What?"
    assert contents(assistant)[0] == "You said What?image"
    assert done["send"].visible and not done["stop"].visible


def test_markup_stays_text(on):
    session = Session()
    ask(on, session, "<b>bold</b> <image> & *more*")
    assert contents(on.page.messages(session)[0])[0] == "&lt;b&gt;bold&lt;/b&gt; &lt;image&gt; &amp; *more*"


@pytest.mark.parametrize(("text", "words"), [("fail", "memory was not enough"), ("crash", "went wrong inside")])
def test_a_failure_is_worded_and_nothing_is_lost(on, form, picture, text, words):
    session = Session()
    form.add(session, [picture])
    done = ask(on, session, text)
    said = " ".join(contents(done["conversation"][-1]))
    assert words in said and "secret" not in said
    assert done["message"] == text and "red.png" in done["attached"]
    ask(on, session, "fine")
    assert [turn.question for turn in session.turns] == ["fine"]


@pytest.mark.parametrize("text", ["", "x" * 8001])
def test_a_question_that_cannot_be_asked_changes_nothing(on, text):
    session = Session()
    with pytest.raises(gr.Error):
        on.begin(session, text, *DEFAULTS)
    assert not session.turns


def test_settings_reach_the_model_and_wrong_ones_are_refused(on):
    session = Session()
    done = ask(on, session, "Hello", 0.5, 0.9, 32, 7, 0, " Be short.")
    assert contents(done["conversation"][-1])[0] == "You said HelloBe short."
    assert session.turns[0].settings.seed == 7
    with pytest.raises(gr.Error, match="seed is -3"):
        on.begin(session, "Hello", 0.5, 0.9, 32, -3, 0, "")


def test_stop_keeps_what_was_said(on):
    session = Session()
    on.begin(session, "long", *DEFAULTS)
    running = on.answer(session)
    while session.turns[0].answer != "You ":
        next(running)
    on.halt(session)
    list(running)
    assert session.chat.stopped.is_set()
    assert session.turns[0].answer == "You" and session.turns[0].note == "Stopped."
    session.settle()
    assert session.turns[0].held
    ask(on, session, "next")
    assert session.turns[1].answer == "You said next"


def test_retry_undo_and_edit(on, form, picture):
    session = Session()
    form.add(session, [picture])
    ask(on, session, "one")
    on.begin_again(session, event(turn=0))
    list(on.answer(session))
    assert session.turns[0].answer == "Again." and len(session.chat.messages) == 2
    ask(on, session, "two")
    edited = by_name(on.page, on.edit(session, event(turn="0")))
    assert edited["message"] == "one" and "red.png" in edited["attached"]
    ask(on, session, "one, again")
    assert [turn.question for turn in session.turns] == ["one, again"] and len(session.chat.messages) == 2
    undone = by_name(on.page, on.undo(session, event(turn=0)))
    assert undone["message"] == "one, again" and "red.png" in undone["attached"]
    assert not session.turns and not session.chat.messages


@pytest.mark.parametrize("number", ["-1", "1", "99"])
def test_only_turns_that_are_there_are_edited(on, number):
    session = Session()
    ask(on, session, "one")
    with pytest.raises(gr.Error, match="no longer"):
        on.edit(session, event(turn=number))


def test_another_model_goes_on_where_the_first_one_was(on):
    session = Session()
    ask(on, session, "one")
    session.chat.close()
    ask(on, session, "two")
    first, second, *_ = session.chat.messages
    assert first["content"][-1]["text"] == "one" and second["content"][0]["text"] == "You said one"
    assert session.turns[1].answer == "You said two"


def test_waiting_in_line_is_said(on):
    session = Session()
    before = on.page.engine.queue.join()
    on.begin(session, "one", *DEFAULTS)
    running = on.answer(session)
    while "in line" not in session.turns[0].note:
        next(running)
    assert "1 before you" in session.turns[0].note
    before.leave()
    list(running)
    assert session.turns[0].answer == "You said one" and not len(on.page.engine.queue)


def test_a_form_takes_so_many_files(on, form, picture):
    session = Session()
    with pytest.raises(gr.Error, match="8 files"):
        form.add(session, [picture] * 9)
    assert len(session.pending) == 8
    form.remove(session, event(id=session.pending[0].id))
    assert len(session.pending) == 7
    with pytest.raises(gr.Error, match="no longer"):
        form.remove(session, event(id="gone"))


def test_a_kind_is_chosen_among_those_it_may_be(on, form, picture):
    session = Session()
    form.add(session, [picture])
    (item,) = session.pending
    assert item.modalities[0] == item.file.modality == "image" and len(item.modalities) > 1
    form.choose(session, event(id=item.id, kind=item.modalities[1]))
    assert item.file.modality == item.modalities[1]
    with pytest.raises(gr.Error):
        form.choose(session, event(id=item.id, kind="audio"))


def test_a_broken_file_is_told_and_not_sent(on, form, tmp_path):
    session = Session()
    broken = tmp_path / "<i>.png"
    broken.write_text("no picture")
    shown = by_name(on.page, form.add(session, [str(broken)], modality="image"))
    assert "expected a picture" in shown["attached"] and "<i>" not in shown["attached"]
    with pytest.raises(gr.Error, match="expected a picture"):
        on.begin(session, "What?", *DEFAULTS)
    assert not session.turns


def test_only_uploads_are_taken(form, picture, tmp_path, monkeypatch):
    inside = tmp_path / "uploads"
    inside.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(inside))
    os.symlink(picture, inside / "link.png")
    for path in (picture, f"{inside}/../red.png", str(inside / "link.png"), str(inside), "gone.png", "a\0b"):
        with pytest.raises(FileError):
            uploads.check(path)
        with pytest.raises(gr.Error):
            form.add(Session(), [path])
    (inside / "mine.png").write_bytes(b"x")
    assert uploads.check(str(inside / "mine.png")) == str(inside / "mine.png")


def test_conversations_come_first_where_the_model_converses():
    some = examples.read()
    first = next(number for number, example in enumerate(some) if example.converses)
    shown = examples.cards(some, "en", converses=True)
    assert f'data-example="{first}"' in shown[: shown.index('data-example="0"')]
    plain = examples.cards(some, "en", converses=False)
    assert all((f'data-example="{number}"' in plain) != example.converses for number, example in enumerate(some))


def test_an_example_offers_its_further_question_but_keeps_a_draft(on):
    number = next(number for number, example in enumerate(on.page.examples) if example.follow_up)
    begun = on.begin_example(Session(), "", event(example=number))
    assert begun[on.page.parts["message"]] == on.page.examples[number].follow_up
    assert on.page.parts["message"] not in on.begin_example(Session(), "mine", event(example=number))


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


def test_a_closed_page_stops_the_model(on):
    session = Session()
    on.begin(session, "long", *DEFAULTS)
    running = on.answer(session)
    while not session.turns[0].answer:
        next(running)
    running.close()
    session.settle()
    assert session.chat.stopped.is_set() and not session.busy
    assert not len(on.page.engine.queue)


def test_one_question_at_a_time(on):
    session = Session()
    on.begin(session, "one", *DEFAULTS)
    for handler in (on.begin_again, on.undo, on.edit, lambda s, _: on.begin(s, "two", *DEFAULTS)):
        with pytest.raises(gr.Error, match="on its way"):
            handler(session, event(turn=0))
    on.halt(session)  # while it stands in the queue
    on.begin(session, "two", *DEFAULTS)
    list(on.answer(session)), list(on.answer(session))
    assert [turn.answer for turn in session.turns] == ["", "You said two"]


def test_a_model_that_does_not_read_a_kind_goes_on_without_it(on, form, picture, page):
    session = Session()
    form.add(session, [picture], modality="image")
    ask(on, session, "one")
    session.chat = None  # another model was loaded: the plain one takes no files
    shown = ask(on, session, "two")
    user, _, *_ = session.chat.messages
    assert [part["type"] for part in user["content"]] == ["text"] and len(session.turns[0].files) == 1
    assert "plain does not read every kind of file" in session.turns[1].note and "Image" in session.turns[1].note
    assert session.turns[1].answer == "You said two" and not session.turns[1].failed and shown
