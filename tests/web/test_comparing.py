"""Comparing on the page: a tiny random model whose weights are kept in two ways, then real ones in a browser."""

import gc
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from onellm.chat.chat import Chat
from onellm.errors import ModelError
from onellm.hub.catalogue import Entry, Option
from onellm.serving import comparison
from onellm.serving.engine import Engine
from onellm.utils.progress import Progress
from onellm.web import layout
from onellm.web.handlers.asking import Asking
from onellm.web.handlers.comparing import Comparing
from onellm.web.handlers.settings import DEFAULTS
from onellm.web.session import Session
from onellm.web.views.page import Page
from onellm.web.views.texts import LANGUAGES

GB, FREE, TOY = 10**9, 9 * 10**9, "<toy>"
SHORT = (*DEFAULTS[:2], 8, *DEFAULTS[3:])  # 8 tokens


@pytest.fixture
def load(make_model, processor):
    """Build the same random model, whatever is asked for."""

    def load(name, *, quantize, on_progress):
        on_progress(Progress("read", "weights", 0, 1, "tensors"))
        return Chat(make_model(), processor, f"{name} ({quantize})", origin=name, quantize=quantize)

    return load


def choices(*_):
    options = Option("none", 2 * GB, FREE), Option("int8", GB, FREE), Option("8bit", 0, FREE, "device", "not on a CPU")
    return [
        Entry(TOY, options, GB, Path("here")),
        Entry("onellm-7b", options, 15 * GB, source="someone/7b"),
    ]


def laid_out(engine, monkeypatch, **options):
    made, keep = [], Page.__init__
    monkeypatch.setattr(Page, "__init__", lambda self, *a, **k: (keep(self, *a, **k), made.append(self))[0])
    layout.build(engine, **options)
    return made[0]


@pytest.fixture
def engine(load, monkeypatch):
    monkeypatch.setattr("onellm.model.runtime.quantization.free_bytes", lambda device: FREE)
    monkeypatch.setattr("onellm.hub.catalogue.asked", list)
    monkeypatch.setattr("onellm.utils.oom.free", lambda: None)  # looks at all objects, some times a test
    engine = Engine(TOY, load, choices, quantize="none")
    engine.wait()
    yield engine
    engine.close()


@pytest.fixture
def on(engine, monkeypatch):
    page = laid_out(engine, monkeypatch)
    comparing = Comparing(page, Asking(page))
    yield comparing
    comparing.close(Session())


def begin(on, session, name=TOY, quantize="int8", text="w3 w4", settings=SHORT):
    return on.begin(session, SimpleNamespace(other=f"{quantize} {name}"), text, *settings)


def shown(on, updates):
    return updates[on.page.parts["compared"]], updates[on.page.parts["compare"]]


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def test_both_answer_in_a_table(on, engine):
    session = Session()
    _, form = shown(on, begin(on, session))
    assert 'data-act="end_compare"' in form and "disabled" in form
    table, form = shown(on, list(on.answer(session))[-1])
    first, other = session.comparison.answers
    assert (first.quantize, other.quantize) == ("none", "int8") and not first.error and not other.error
    for answer in (first, other):
        assert answer.trace.new_tokens and f"{answer.first_word_s:.2f} s" in table
    assert "&lt;toy&gt;" in table and "<toy>" not in table + form and 'data-act="compare"' in form
    assert not session.turns and not len(engine.queue)  # the conversation is left alone
    for language in LANGUAGES:
        session.language = language
        assert "w3 w4" in shown(on, on.show(session))[0]


def test_what_an_answer_makes_is_shown(on, tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "drawn.png")
    drawn, refused = {"type": "image", "path": str(tmp_path / "drawn.png")}, {"type": "audio", "error": "No generator."}
    monkeypatch.setattr(Chat, "generated", [drawn, refused])
    session = Session()
    begin(on, session)
    table, _ = shown(on, list(on.answer(session))[-1])
    assert table.count('<img class="player"') == table.count("No generator.") == 2


def test_the_second_model_stays_until_the_drawer_closes(on, engine):
    session = Session()
    begin(on, session), list(on.answer(session))
    beside, model = engine.beside, weakref.ref(engine.beside._chat.model)
    begin(on, session), list(on.answer(session))
    assert engine.beside is beside and beside.ready
    on.close(session)
    gc.collect()
    assert engine.beside is None and model() is None and engine.ready


def test_an_idle_second_model_goes(on, engine, monkeypatch):
    monkeypatch.setattr(comparison, "IDLE_S", 0.05)
    session = Session()
    begin(on, session), list(on.answer(session))
    until(lambda: engine.beside is None)


def test_what_does_not_fit_is_told_before_it_is_loaded(on, engine, monkeypatch):
    monkeypatch.setattr("onellm.model.runtime.quantization.free_bytes", lambda device: GB // 2)
    with pytest.raises(gr.Error, match=r"would need 1\.0 GB beside &lt;toy.*and 0\.5 GB are free"):
        begin(on, Session())
    assert engine.beside is None


@pytest.mark.parametrize(
    ("quantize", "text", "words"),
    [("none", "w3", "is loaded"), ("3bit", "w3", "no choice"), ("int8", " ", "no question")],
)
def test_what_cannot_be_compared_is_refused(on, quantize, text, words):
    session = Session()
    with pytest.raises(gr.Error, match=words):
        begin(on, session, TOY, quantize, text)
    with pytest.raises(gr.Error, match="no choice"):
        begin(on, session, "onellm-7b")  # not installed
    assert session.comparison is None


def test_stop(on, engine):
    session = Session()
    begin(on, session, settings=(*DEFAULTS[:2], 1000, *DEFAULTS[3:]))
    running = on.answer(session)
    while not session.comparison.answers[0].text:
        next(running)
    on.halt(session)
    table, form = shown(on, list(running)[-1])
    first, other = session.comparison.answers
    assert "Stopped." in table and 'data-act="compare"' in form
    assert first.trace.stopped and first.trace.new_tokens < 1000 and other.trace is None
    assert not len(engine.queue) and not engine._chat.busy


def test_a_closed_page_frees_everything(on, engine):
    session = Session()
    begin(on, session, settings=(*DEFAULTS[:2], 1000, *DEFAULTS[3:]))
    running = on.answer(session)
    while not session.comparison.answers[0].text:
        next(running)
    running.close()
    assert not len(engine.queue) and not engine._chat.busy and not on.comparison_model.lock.locked()


def test_stopped_while_it_loads(on, engine, monkeypatch):
    going, build = threading.Event(), engine._load

    def slow(name, *, quantize, on_progress):
        on_progress(Progress("read", "weights", 1, 3, "tensors"))
        assert going.wait(20)
        return build(name, quantize=quantize, on_progress=on_progress)

    monkeypatch.setattr(engine, "_load", slow)
    session = Session()
    begin(on, session)
    running = on.answer(session)
    until(lambda: "1 of 3 tensors" in next(running)[on.page.parts["compared"]])
    on.halt(session)
    next(running)
    going.set()
    list(running)
    assert session.comparison.answers[0].trace is None and not engine.beside.ready


def test_one_that_cannot_be_loaded_leaves_the_other_answer(on, engine, monkeypatch):
    def broken(*_, **__):
        raise ModelError("Its weights are gone; convert them again.")

    monkeypatch.setattr(engine, "_load", broken)
    session = Session()
    begin(on, session)
    table, _ = shown(on, list(on.answer(session))[-1])
    first, other = session.comparison.answers
    assert first.trace and other.error == "Its weights are gone; convert them again." and other.error in table


def test_it_waits_in_the_line_of_all(on, engine):
    session, before = Session(), engine.queue.join()
    begin(on, session)
    running = on.answer(session)
    until(lambda: next(running) and len(engine.queue) == 2)
    assert not session.comparison.answers[0].text
    before.leave()
    list(running)
    assert all(answer.trace for answer in session.comparison.answers)


def test_two_pages_compare_one_after_the_other(on):
    first, other = Session(), Session()
    begin(on, first), begin(on, other)
    running, waiting = on.answer(first), on.answer(other)
    next(running)
    assert "Another page" in next(waiting)[on.page.parts["compared"]]
    list(running), list(waiting)
    assert all(answer.trace for answer in other.comparison.answers)
    with pytest.raises(gr.Error, match="on its way"):
        begin(on, first), begin(on, first)


def test_where_the_model_is_fixed_there_is_no_drawer(engine, monkeypatch):
    page = laid_out(engine, monkeypatch, fixed_model=True)
    assert not {"comparing", "compare", "compared"} & page.parts.keys() and page.comparison(Session()) == {}


@pytest.mark.browser
def test_two_ways_on_the_page(open_page, screen, example_files):
    from axe_playwright_python.sync_playwright import Axe

    person = open_page(*screen)
    page = person.page
    person.give("image", example_files["image"])
    page.locator("#message textarea").fill("What is this?")
    person.open("comparing")
    page.wait_for_selector("#compare select")
    person.see("compare-before")
    page.locator('[data-act="compare"]').press("Enter")
    page.wait_for_selector('[data-act="end_compare"]:focus')
    page.wait_for_selector('[data-act="compare"]')
    cells = page.locator("#compared tbody tr").nth(1).locator("td").all_inner_texts()
    assert len(cells) == 2 and all(cells)
    assert person.chips.count() == 1 and person.questions.count() == 0
    person.see("compared")
    violations = (
        Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}).response["violations"]
    )
    assert not [item for item in violations if item["impact"] in ("serious", "critical")]
