"""A video's sound in the form: offered where there is one, chosen, asked with, kept."""

from types import SimpleNamespace

import pytest
from file_makers import video

from onellm.chat.trace import FileTrace, Segment, Trace
from onellm.web import records
from onellm.web.handlers.composer import Composer
from onellm.web.session import Session, Turn
from onellm.web.views import inside
from onellm.web.views.page import Page
from onellm.web.views.texts import LANGUAGES


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setattr("onellm.modalities.sandbox._trusted", True)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))


@pytest.fixture
def page():
    page = Page(SimpleNamespace(inputs={"video": {"frames": 2}}), [], can_switch=True)
    page.check_path = lambda path: path
    page.parts["attached"] = "attached"
    return page


def test_a_video_with_a_sound_track_can_be_heard(page, tmp_path):
    session, form = Session(), Composer(page)
    heard, silent = (str(video(tmp_path / name, sound=sound)) for name, sound in (("a.mp4", True), ("b.mp4", False)))
    shown = form.add(session, [heard, silent], modality="video")["attached"]
    assert shown.count('data-act="sound"') == 1 and 'data-act="sound" aria-pressed="false"' in shown
    shown = form.sound(session, SimpleNamespace(id=session.pending[0].id))["attached"]
    assert 'data-act="sound" aria-pressed="true"' in shown and "sees 6 of 30 frames" in shown
    turn = Turn("What?", tuple(item.file for item in session.pending), stage="done", held=True)
    assert turn.parts() == [{"type": "video", "path": heard, "sound": True}, {"type": "video", "path": silent}]
    session.turns.append(turn)
    again = Session()
    records.restore(page, again, records.dump(session))
    assert [file.sound for file in again.turns[0].files] == [True, False]
    form.sound(session, SimpleNamespace(id=session.pending[0].id))
    assert not session.pending[0].file.sound


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_was_read_in_windows_is_told(language):
    windows = [(0.0, 5.0), (5.0, 10.0), (10.0, 15.0)]
    long = FileTrace(
        "audio", "<long>.wav", [3, 1, 96, 64], 2, 1, [[1.0]] * 8, windows=windows, sizes=[3], window_words=8
    )
    whole = FileTrace(
        "audio", "all.wav", [3, 1, 96, 64], 2, 1, [[1.0]] * 24, windows=windows, sizes=[1, 1, 1], window_words=8
    )
    segments = [Segment("audio", "x", 6, 0, 0), Segment("audio", "y", 26, 0, 1), Segment("audio", "z", 6, 6, 2)]
    trace = Trace("toy", segments, [long, whole, long])
    told = inside.reading(trace, language)
    assert told.count("<long>.wav") == 1  # the third is of an earlier question
    for number in ("24", "8", "3", "15"):
        assert number in told
    panel = inside.panel(trace, language)
    assert "&lt;long&gt;.wav" in panel and "<long>" not in panel
    assert inside.reading(Trace(), language) == ""
