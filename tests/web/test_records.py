"""Conversations as records: what goes out comes in again, and nothing in it is believed."""

import json
import pathlib
import zipfile

import pytest

from onellm.chat.sampling import Settings
from onellm.chat.trace import Trace
from onellm.errors import OneLLMError
from onellm.web import records
from onellm.web.session import Attachment, Session, Turn
from onellm.web.views.page import Page


@pytest.fixture(autouse=True)
def upload_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))


@pytest.fixture
def page():
    return Page(None, [], can_switch=True)


@pytest.fixture
def session(tmp_path):
    """A session with one answered question about a file."""
    from PIL import Image

    path = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(path)
    session = Session()
    files = (Attachment("image", str(path)),)
    turn = Turn("What?", files, Settings(seed=3), answer="Red.", stage="done", held=True, model="plain", vote="up")
    turn.trace = Trace("plain", new_tokens=2)
    session.turns.append(turn)
    return session


def again(page, text):
    restored = Session()
    records.restore(page, restored, text)
    return restored


def test_a_record_comes_back(page, session):
    restored = again(page, records.dump(session))
    (turn,) = restored.turns
    assert restored.id == session.id
    assert {**vars(turn), "trace": None} == {**vars(session.turns[0]), "trace": None, "files": turn.files}
    assert turn.files[0].path == session.turns[0].files[0].path and turn.trace.new_tokens == 2
    user, assistant = restored.history({"image"})
    assert user["content"][0]["type"] == "image" and assistant["content"][0]["text"] == "Red."


def test_a_zip_brings_its_files(page, session):
    restored = again(page, records.read(records.export(session, "zip")))
    (file,) = restored.turns[0].files
    assert file.path != session.turns[0].files[0].path and file.title == "red.png"


def test_json_keeps_names_and_no_paths(page, session, tmp_path):
    exported = records.export(session, "json")
    assert str(tmp_path) not in exported.read_text(encoding="utf-8")
    (file,) = again(page, records.read(exported)).turns[0].files
    assert file.path == "" and file.title == "red.png"


def test_a_foreign_path_is_not_taken(page, session):
    record = json.loads(records.dump(session))
    record["turns"][0]["files"][0]["path"] = "/etc/hostname"
    assert again(page, json.dumps(record)).turns[0].files[0].path == ""


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"id": "../../x"},
        {"turns": [{"question": "x" * 9000}]},
        {"turns": [{"question": "x", "settings": {"temperature": 1e9}}]},
        {"turns": 3},
    ],
)
def test_what_is_no_conversation_is_refused_and_changes_nothing(page, session, change):
    record = json.loads(records.dump(session)) | change
    with pytest.raises(OneLLMError, match="not a conversation|temperature is"):
        records.restore(page, session, json.dumps(record))
    assert session.turns[0].answer == "Red."


def test_a_wrong_trace_is_left_out(page, session):
    record = json.loads(records.dump(session))
    record["turns"][0]["trace"] = {"segments": [3]}
    assert again(page, json.dumps(record)).turns[0].trace is None


@pytest.mark.parametrize("name", ["../../../evil.png", "files/1/..", "/abs.png", "files/red.png"])
def test_names_in_a_zip_choose_no_folder(page, session, tmp_path, name):
    record = json.loads(records.dump(session))
    record["turns"][0]["files"][0]["path"] = name
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("conversation.json", json.dumps(record))
        archive.writestr(name, b"x")
    before = {file for file in tmp_path.parent.rglob("*") if tmp_path not in file.parents}
    (file,) = again(page, records.read(str(path))).turns[0].files
    assert not file.path or tmp_path in pathlib.Path(file.path).resolve().parents
    assert {file for file in tmp_path.parent.rglob("*") if tmp_path not in file.parents} == before


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    import dataclasses

    monkeypatch.setattr(records, "LIMITS", dataclasses.replace(records.LIMITS, import_bytes=1000))
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversation.json", bytes(2000))
    with pytest.raises(OneLLMError, match="when unpacked"):
        records.read(str(path))


def packed(path, record, *names):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversation.json", record)
        for name in names:
            archive.writestr(name, b"x")
    return str(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_links_and_twins_in_a_zip_are_plain_files(page, session, tmp_path):
    secret = tmp_path.parent / "secret.txt"
    secret.write_text("secret")
    link = zipfile.ZipInfo("files/1/link.txt")
    link.external_attr = 0o120777 << 16
    record = json.loads(records.dump(session))
    file = record["turns"][0]["files"][0]
    record["turns"][0]["files"] = [file | {"path": "files/1/link.txt"}, file | {"path": "twin.txt"}]
    path = packed(tmp_path / "links.zip", json.dumps(record), "twin.txt", "twin.txt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(secret))
    first, second = again(page, records.read(path)).turns[0].files
    for restored, content in ((first, str(secret)), (second, "x")):
        place = pathlib.Path(restored.path)
        assert not place.is_symlink() and place.read_text() == content


@pytest.mark.parametrize(
    ("record", "names", "words"),
    [
        ("{}", (f"{number}.txt" for number in range(1_001)), "at most 1,000 files"),
        (" " * 9_000_000, (), "takes 9 MB; expected at most 8 MB"),
        ("[" * 200_000, (), "holds no conversation"),
        ('{"turns": [{"files": [{"path": ["x"]}]}]}', (), "holds no conversation"),
    ],
)
def test_a_hostile_zip_is_refused_in_words(tmp_path, record, names, words):
    with pytest.raises(OneLLMError, match=words):
        records.read(packed(tmp_path / "hostile.zip", record, *names))


@pytest.mark.parametrize("text", [" " * 9_000_000, "\0", "[" * 200_000])
def test_hostile_json_is_refused_in_words(page, session, tmp_path, text):
    path = tmp_path / "hostile.json"
    path.write_text(text)
    with pytest.raises(OneLLMError, match="expected"):
        records.restore(page, session, records.read(str(path)))
    assert session.turns[0].answer == "Red."
