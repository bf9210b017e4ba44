"""The panel below an answer and the choice of models, as HTML."""

import html.parser
import re
from dataclasses import replace
from pathlib import Path

import pytest

from onellm.chat.trace import FileTrace, Segment, Timings, Trace
from onellm.hub.catalogue import Entry, Option
from onellm.hub.registry import MODELS
from onellm.utils.progress import Progress
from onellm.web.views import inside, picker
from onellm.web.views.texts import LANGUAGES, say

NASTY = '"><img src=x onerror=alert(1)>.png'


class Reader(html.parser.HTMLParser):
    """Collects elements and text, and makes sure that every element is closed in its place."""

    EMPTY = ("input", "path", "circle", "rect", "line", "polyline", "ellipse", "polygon")

    def __init__(self, source):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(str(source))
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag, **wanted):
        wanted = {name.rstrip("_"): value for name, value in wanted.items()}
        return [given for name, given in self.elements if name == tag and wanted.items() <= given.items()]


@pytest.fixture
def trace():
    router = [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]
    words = [[("cat", 0.9), ("<b>", 0.05), ("x", 0.001)], [("", 1.0)]]
    return Trace(
        "toy <7b>",
        [
            Segment("template", "<|im_start|>", 4, 4),
            Segment("image", NASTY, 6, 2, 0),
            Segment("question", "<script>", 3),
        ],
        [FileTrace("image", NASTY, [3, 28, 28], 4, 1, router, words, 0.1, 0.2, 0.3)],
        Timings(0.001, 0.1, 0.5, 0.25, 1.0),
        new_tokens=11,
        settings={"max_new_tokens": 128, "temperature": 0.0, "top_p": 1.0, "seed": None, "system": ""},
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_panel_is_closed_whole_and_escaped(trace, language):
    page = Reader(inside.panel(trace, language))
    assert page.elements[0] == ("details", {"class": "inside"})
    assert not page.all("img") and not page.all("script") and not page.all("b", onerror="alert(1)")
    assert NASTY in page.text and "<b>" in page.text and "<script>" in page.text
    assert say(language, "inside.title") in page.text


def test_the_row_is_as_wide_as_the_tokens(trace):
    page = Reader(inside.panel(trace, "en"))
    widths = [(given["class"], given["style"]) for given in page.all("span") if "flex-grow" in given.get("style", "")]
    assert widths[:4] == [
        ("k-template cached", "flex-grow:4"),
        ("k-image cached", "flex-grow:2"),
        ("k-image", "flex-grow:4"),
        ("k-question", "flex-grow:3"),
    ]
    assert "It read 13 of them" in page.text and "6 were still in its memory" in page.text
    (label,) = [given["aria-label"] for given in page.all("div", role="img")][:1]
    assert "Image 6" in label and "Questions 3" in label


def test_numbers_stand_beside_every_bar(trace):
    page = Reader(inside.panel(trace, "en"))
    assert [given["style"] for given in page.all("i") if "style" in given] == [
        "width:30.0%",
        "width:22.5%",
        "width:47.5%",
    ]
    for number in ("30%", "22%", "48%", "50%", "70%", "cat", "90%", "5%"):
        assert number in page.text
    heat = [float(given["style"].partition(":")[2]) for given in page.all("td") if "--heat" in given.get("style", "")]
    assert len(heat) == 6 and (min(heat), max(heat)) == (inside.FAINT, 1.0)
    assert "palest 10%, darkest 70%" in page.text
    assert "The first token came after 0.85 s, then 10 tokens a second." in page.text
    assert "Waiting" not in page.text  # too short to be seen


def test_a_file_that_is_there_twice_is_shown_once(trace):
    trace.files *= 2
    assert len(Reader(inside.panel(trace, "en")).all("ol", class_="inside-flow")) == 1


def test_answers_without_files_and_empty_traces_have_a_panel(trace):
    assert "What became" not in inside.panel(replace(trace, files=[]), "en")
    Reader(inside.panel(Trace(), "en"))
    odd = Trace("m", [Segment("smell", "x", 1)], [FileTrace("smell", "x", [1])], settings={"temperature": "hot"})
    Reader(inside.panel(Trace.from_dict(odd.to_dict()), "zh"))


def test_how_it_was_drawn_is_told(trace):
    trace.settings |= {"temperature": 0.7, "seed": 3}
    trace.stopped = True
    text = Reader(inside.panel(trace, "en")).text
    assert "drew each token with temperature 0.7 and top-p 1.0, at most 128. Seed 3. The answer was stopped." in text


MB, FREE = 1_000_000, 9_000_000_000


class Loaded:
    """An engine that stands still."""

    ready, loading, waited_s, progress = True, False, 3.2, None
    name, origin, quantize = "onellm-tiny (int8)", "onellm-tiny", "int8"
    entries = [
        Entry(
            "onellm-tiny",
            (Option("none", 900 * MB, FREE), Option("int8", 600 * MB, FREE), Option("4bit", 500 * MB, FREE, slow=True)),
            300 * MB,
            Path("/pretrained"),
        ),
        Entry(
            "onellm-7b",
            (Option("none", 32_800 * MB, FREE, "memory", "too large"), Option("4bit", 8_000 * MB, FREE)),
            15_200 * MB,
            source="someone/7b",
            told=False,
        ),
        Entry(
            "/models/<mine>",
            (Option("none", 1_000 * MB, FREE), Option("8bit", 0, FREE, "device", "no library")),
            500 * MB,
            Path("/models/<mine>"),
        ),
    ]

    def for_visitors(self, text):
        return text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_model_is_a_form_with_one_way_chosen(language):
    page = Reader(picker.table(Loaded(), language))
    assert len(page.all("form", method="dialog")) == 3 and len(page.all("section")) == 2
    assert ["open" in given for given in page.all("details")] == [True, False, False]  # what is loaded
    ways = page.all("input", type="radio", name="quantize")
    assert [given["value"] for given in ways if "checked" in given] == ["int8", "none", "4bit"]
    assert ["disabled" in given for given in ways] == [False, False, False, False, True, True, False]
    buttons = page.all("button", **{"data-act": "switch"})
    assert [given["data-model"] for given in buttons] == ["onellm-tiny", picker.model_id("/models/<mine>"), "onellm-7b"]
    assert ["disabled" in given for given in buttons] == [False, False, True]


def test_what_cannot_be_had_says_why():
    text = Reader(picker.table(Loaded(), "en")).text
    for words in ("0.6 GB, loaded", "0.5 GB, very slow on a CPU", "needs 32.8 GB, and 9.0 GB are free", "hub does not"):
        assert words in text
    assert "loaded · 0.3 GB on the disk · needs 0.6 GB of memory" in text and "/models" not in text


def entry_of(**changes):
    return replace(Loaded.entries[1], **changes)


@pytest.mark.parametrize(
    ("entry", "words", "disabled"),
    [
        (entry_of(told=True), "15.2 GB to download", [False]),
        (entry_of(told=None), "about 15.2 GB to download", [False]),  # the hub was not asked yet
        (entry_of(told=False), "The hub does not answer", [True]),
        (entry_of(source="", command="onellm convert <it>"), "by hand", []),
        (entry_of(options=Loaded.entries[1].options[:1]), "at least 32.8 GB of memory, 9.0 GB are free", [True]),
    ],
)
def test_what_is_not_here_says_its_size_first(entry, words, disabled):
    engine = Loaded()
    engine.entries = [entry]
    for language in LANGUAGES:
        page = Reader(picker.table(engine, language))
    page = Reader(picker.table(engine, "en"))
    assert words in page.text and entry.command in page.text
    assert ["disabled" in load for load in page.all("button", **{"data-act": "switch"})] == disabled
    assert ("Download 15.2 GB and load onellm-7b" in page.text) == bool(disabled)


def test_where_the_host_has_fixed_the_model_there_is_one_sentence():
    page = Reader(picker.table(Loaded(), "en", can_switch=False))
    assert "chose onellm-tiny (int8)" in page.text and not page.all("button") and not page.all("input")


def test_before_anything_is_known_it_says_so():
    engine = Loaded()
    engine.entries, engine.loading, engine.ready = [], True, False
    assert "in a moment" in Reader(picker.table(engine, "en")).text
    page = Reader(picker.progress_bar(engine, "en", cancel=True))
    assert "3 s" in page.text and page.all("button", **{"data-act": "cancel_switch"})


STEPS = [
    (
        Progress("read", "model-00002-of-00003.safetensors", 120, 480, "tensors"),
        "model-00002.*120 of 480 tensors",
        0.25,
    ),
    (Progress("download", "weights.pth", 3.1e9, 15.5e9, "bytes"), "Downloading weights.pth, 3.1 of 15.5 GB", 0.2),
    (Progress("optimise", "", 15, 30, "layers"), "15 of 30 layers", 0.5),
    (Progress("check", "x", 0, 10, "bytes"), "Checking x", 0),
    (Progress("convert", "x", 0, 10, "bytes"), "Converting", 0),
    (Progress("answer"), "ends first", None),
    (Progress("wait", "onellm-7b"), "Another process", None),
    (None, "3 s", None),
]


@pytest.mark.parametrize(("progress", "words", "share"), STEPS)
def test_loading_is_a_bar_with_words(progress, words, share):
    engine = Loaded()
    engine.progress, engine.loading = progress, True
    for language in LANGUAGES:
        page = Reader(picker.progress_bar(engine, language))
    page = Reader(picker.progress_bar(engine, "en"))
    assert re.search(words, page.text)
    (bar,) = page.all("progress")
    assert bar["aria-label"] == "Loading onellm-tiny (int8)" and not page.all("button")
    assert (float(bar["value"]) if "value" in bar else None) == share


def test_every_known_model_has_a_card():
    for name in MODELS:
        for language in LANGUAGES:
            words = Reader(picker.card(name, language)).text
            assert say(language, f"picker.card.{name}.description") in words
    assert picker.card("elsewhere", "en") == ""
