"""What an answer makes besides text, on the page, in kept conversations, and for programs."""

import base64
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from onellm.chat.outputs.media import GeneratedMedia, Media, name_for, write
from onellm.web import records
from onellm.web.security import uploads
from onellm.web.session import Session, Turn
from onellm.web.views.markup import render
from onellm.web.views.page import Page

TOKENS = [72, 73, 74]


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()

    class Idle:
        inputs = None

    return Page(Idle(), [], can_switch=False)


def thing(modality):
    media = {
        "image": Media("image", np.full((8, 8, 3), 200, np.uint8)),
        "video": Media("video", np.zeros((4, 16, 16, 3), np.uint8), 8),
        "audio": Media("audio", np.sin(np.arange(1600, dtype=np.float32) / 9), 16000),
    }[modality]
    path = uploads.fresh(name_for(modality), media.array.nbytes)
    write(media, path)
    return GeneratedMedia(modality, TOKENS, "a dog", media).part(path)


@pytest.fixture
def session(page):
    session = Session()
    turn = Turn("Draw a dog.", answer="Here.", stage="done", held=True, model="toy")
    turn.generated = [
        thing("image"),
        thing("video"),
        thing("audio"),
        {"type": "image", "tokens": [1], "error": "None <here>"},
    ]
    session.turns.append(turn)
    return session


def test_the_answer_s_bubble_shows_them(page, session):
    bubble = page.messages(session)[-1]["content"]
    shown = "".join(item.value for item in bubble if not isinstance(item, dict))
    for tag in ('<img class="player" alt="a dog"', '<video class="player" controls', '<audio class="player" controls'):
        assert tag in shown
    assert 'role="status">None &lt;here&gt;' in shown and shown.count("<figcaption>a dog</figcaption>") == 3
    assert session.turns[0].generated[0]["path"].split("/")[-1] in shown


@pytest.mark.parametrize(("language", "words"), [("en", "no longer there"), ("zh", "已不在")])
def test_one_that_is_gone_says_so(page, session, language, words):
    assert words in render("generated", language=language, part={"type": "image", "path": "/nowhere.png"})


def test_the_model_reads_them_again(session):
    answered = session.history(())[-1]["content"]
    assert [part["type"] for part in answered] == ["text", "image", "video", "audio", "image"]
    assert answered[1]["tokens"] == TOKENS


def test_a_kept_conversation_has_them(page, session):
    again = Session()
    records.restore(page, again, records.dump(session))
    assert again.turns[0].generated == session.turns[0].generated
    record = json.loads(records.dump(session))
    record["turns"][0]["made"][0]["path"] = "/etc/passwd"
    records.restore(page, again, json.dumps(record))
    assert "path" not in again.turns[0].generated[0] and again.turns[0].generated[0]["tokens"] == TOKENS


def test_an_exported_zip_has_them(page, session):
    target = records.export(session, "zip")
    with zipfile.ZipFile(target) as archive:
        names = [name.split(".")[-1] for name in archive.namelist() if name.startswith("files/")]
        text = archive.read("conversation.md").decode()
    assert sorted(names) == ["mp4", "png", "wav"] and "* Image: image-" in text and "None <here>" in text
    again = Session()
    records.restore(page, again, records.read(str(target)))
    pictures = [
        Image.open(part["path"]).size for part in again.turns[0].generated if part["type"] == "image" and "path" in part
    ]
    assert pictures == [(8, 8)]
    assert again.turns[0].generated[0]["path"] != session.turns[0].generated[0]["path"]
    markdown = records.export(session, "md").read_text()
    assert "None <here>" in markdown


def test_records_without_them_are_read(page, session):
    record = json.loads(records.dump(session))
    del record["turns"][0]["made"]
    again = Session()
    records.restore(page, again, json.dumps(record))
    assert again.turns[0].generated == []


def test_programs_get_them_as_data_urls(page):
    from onellm.api.media import describe

    part = thing("audio")
    described = describe(part)
    head, content = described["url"].split(",")
    assert head in ("data:audio/x-wav;base64", "data:audio/wav;base64")
    assert base64.b64decode(content)[:4] == b"RIFF" and described["prompt"] == "a dog"
    assert describe({"type": "image", "tokens": [1], "error": "no"}) == {"type": "image", "error": "no"}
