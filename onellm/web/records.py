"""Conversations outlive the page: as a record the browser keeps, and as Markdown, JSON or a zip with the files.

A record comes back from the browser or a file, so nothing in it is believed: it is checked like any other input.
"""

import contextlib
import json
import os
import shutil
import time
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from onellm.chat.markdown import as_markdown
from onellm.chat.sampling import Settings
from onellm.chat.trace import Trace
from onellm.errors import FileError, OneLLMError
from onellm.modalities import MODALITIES
from onellm.modalities.base import display_name, megabytes
from onellm.modalities.readers.archives import open_zip
from onellm.utils.limits import LIMITS
from onellm.web.security import uploads
from onellm.web.session import Attachment, Session, Turn

if TYPE_CHECKING:
    from onellm.web.views.page import Page

VERSION = 1
FORMATS = ("md", "json", "zip")
RECORD = "conversation.json"  # in a zip
NOTE_CHARACTERS = 2_000  # of what the app said below an answer
TEXT_CHARACTERS = 4 * LIMITS.chat_characters  # of a whole conversation with all that was said and shown beside it
TRACED = 30_000  # numbers and words that are shown of what the model did; of the answers before, nothing is


class FileRecord(BaseModel):
    """A file of a question; its path is empty where only the name is known."""

    kind: str
    name: str = Field(max_length=255)
    path: str = Field("", max_length=4096)
    picture: str | None = Field(None, max_length=4096)
    frames: int | None = Field(None, ge=1, le=LIMITS.video_sampled_frames)
    sound: bool = False


class GeneratedRecord(BaseModel):
    """What an answer holds besides text, one of its content parts."""

    type: Literal["image", "video", "audio"]
    path: str = Field("", max_length=4096)
    tokens: list[int] = Field([], max_length=LIMITS.new_tokens)
    prompt: str = Field("", max_length=LIMITS.message_characters)
    error: str = Field("", max_length=NOTE_CHARACTERS)


class TurnRecord(BaseModel):
    """A question with its answer, see `Turn`."""

    question: str = Field(max_length=LIMITS.message_characters)
    files: list[FileRecord] = Field([], max_length=LIMITS.files_per_turn)
    settings: Settings = Settings()
    answer: str = Field("", max_length=LIMITS.chat_characters)
    made: list[GeneratedRecord] = Field([], max_length=LIMITS.files_per_turn)
    note: str = Field("", max_length=NOTE_CHARACTERS)
    failed: bool = False
    held: bool = False
    model: str = Field("", max_length=255)
    vote: Literal["", "up", "down"] = ""
    seal: str = Field("", max_length=64)
    trace: dict | None = None


class Record(BaseModel):
    """A conversation."""

    version: Literal[1]
    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    begun_s: float = Field(ge=0, le=1e11)
    title: str = Field("", max_length=200)
    turns: list[TurnRecord] = Field([], max_length=LIMITS.chat_turns)

    @model_validator(mode="after")
    def _bounded(self) -> "Record":
        """Bound the whole, as each of its parts is."""
        texts = (
            text
            for turn in self.turns
            for text in (turn.question, turn.answer, turn.note, *(thing.prompt + thing.error for thing in turn.made))
        )
        if (found := sum(map(len, texts))) > TEXT_CHARACTERS:
            raise ValueError(f"{found:,} characters; at most {TEXT_CHARACTERS:,} are taken")
        return self


def dump(session: Session) -> str:
    """Return a session's conversation as JSON, for the browser to keep; empty before the first question."""
    return _record(session).model_dump_json() if session.turns else ""


def restore(page: "Page", session: Session, text: str) -> None:
    """Replace a session's conversation by one that was kept.

    Args:
        page: says which files are the visitor's own.
        session: changed in place, once the record is known to be good.
        text: JSON, as `dump` makes it.

    Raises:
        OneLLMError: it is not a conversation.
    """
    try:
        record = Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise OneLLMError(
            f"This is not a conversation kept by OneLLM ({field}: {first['msg']}); expected JSON or a zip as exported "
            "here; export it again."
        ) from error
    _drop_traces(record)
    session.forget()
    session.id, session.begun_s = record.id, record.begun_s
    for turn_record in record.turns:
        files = tuple(_attachment(page, file) for file in turn_record.files if file.kind in MODALITIES)
        generated = [_generated(page, thing) for thing in turn_record.made]
        values = turn_record.model_dump(exclude={"files", "made", "settings", "trace"})
        turn = Turn(**values, files=files, generated=generated, settings=turn_record.settings, stage="done")
        with contextlib.suppress(Exception):  # an older version's trace is no reason to lose the answer
            turn.trace = Trace.from_dict(turn_record.trace) if turn_record.trace else None
        session.turns.append(turn)


def _drop_traces(record: Record) -> None:
    """Drop what the model did for the earlier answers, where all together would be too much for a page."""
    left = TRACED
    for turn in reversed(record.turns):
        left -= _weight(turn.trace, left) if turn.trace else 0
        if left < 0:
            turn.trace = None


def _weight(value: Any, most: int) -> int:
    """Return how many numbers and words a trace holds, or something beyond `most`; long texts count for more."""
    count, waiting = 0, [value]
    while waiting and count <= most:
        item = waiting.pop()
        if isinstance(item, dict | list):
            count += 1
            waiting.extend(item if isinstance(item, list) else [*item, *item.values()])
        else:
            count += 1 + len(item if isinstance(item, str) else "") // 64
    return count


def export(session: Session, form: str) -> Path:
    """Write a session's conversation to a file for download.

    Args:
        session: the visitor's session.
        form: "md" (to read), "json" (to keep) or "zip" (to keep, with the files).

    Returns:
        The file, below the upload folder under a name nobody can guess.
    """
    record = _record(session)
    paths = {path for turn in record.turns for file in turn.files for path in (file.path, file.picture) if path}
    paths |= {thing.path for turn in record.turns for thing in turn.made if thing.path}
    size = sum(os.path.getsize(path) for path in paths if os.path.exists(path)) if form == "zip" else 0
    target = uploads.fresh(f"onellm-{time.strftime('%Y-%m-%d-%H%M', time.localtime(record.begun_s))}.{form}", size)
    if form == "md":
        target.write_text(_markdown(record), encoding="utf-8")
    elif form == "json":
        for turn in record.turns:
            for file in turn.files:
                file.path, file.picture = "", None
            for thing in turn.made:
                thing.path = ""
        target.write_text(record.model_dump_json(indent=1), encoding="utf-8")
    else:
        _write_zip(target, record)
    return target


def read(path: str) -> str:
    """Read an exported conversation.

    Args:
        path: a .json or .zip file; a zip's files are unpacked below the upload folder.

    Returns:
        The record as JSON, for `restore`.

    Raises:
        FileError: it is neither.
    """
    name = display_name(path)
    expected = "expected a conversation exported here as JSON or zip; choose another file"
    try:
        if not zipfile.is_zipfile(path):
            return _text(name, os.path.getsize(path), Path(path).open("rb"))
        with open_zip(Path(path)) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > LIMITS.import_bytes:
                limit = megabytes(LIMITS.import_bytes)
                raise FileError(
                    f"{name}: {megabytes(size)} when unpacked; expected at most {limit}; choose another file."
                )
            return _unpack(name, archive)
    except OneLLMError:
        raise
    except Exception as error:  # zipfile and json raise a dozen kinds
        raise FileError(f"{name}: it holds no conversation; {expected}.") from error


def _record(session: Session) -> Record:
    """Describe a session's conversation."""
    turns = []
    for turn in session.turns:
        files = [
            FileRecord(
                kind=f.modality, name=f.title[:255], path=f.path, picture=f.picture, frames=f.frames, sound=f.sound
            )
            for f in turn.files
        ]
        turns.append(
            TurnRecord(
                question=turn.question,
                files=files,
                settings=turn.settings,
                answer=turn.answer,
                made=[_shortened(thing) for thing in turn.generated[: LIMITS.files_per_turn]],
                note=turn.note[:NOTE_CHARACTERS],
                failed=turn.failed,
                held=turn.held,
                model=turn.model,
                vote=turn.vote,
                seal=turn.seal,
                trace=turn.trace.to_dict() if turn.trace else None,
            )
        )
    title = session.turns[0].question[:80] if session.turns else ""
    return Record(version=VERSION, id=session.id, begun_s=session.begun_s, title=title, turns=turns)


def _shortened(thing: dict) -> dict:
    """Return a content part with no more words than a record takes."""
    return thing | {key: thing[key][:NOTE_CHARACTERS] for key in ("error",) if key in thing}


def _attachment(page: "Page", file: FileRecord) -> Attachment:
    """Turn a file of a record into one the visitor may use; one that is gone keeps its name."""
    try:
        picture = page.check_path(file.picture) if file.picture else None
        return Attachment(file.kind, page.check_path(file.path), picture, file.frames, file.name, file.sound)
    except OneLLMError:
        return Attachment(file.kind, "", name=file.name)


def _generated(page: "Page", thing: GeneratedRecord) -> dict:
    """Turn what an answer holds besides text into a content part; a file that is gone loses its path."""
    part = {key: value for key, value in thing.model_dump().items() if value}
    if thing.path:
        try:
            part["path"] = page.check_path(thing.path)
        except OneLLMError:
            del part["path"]
    return part


def _markdown(record: Record) -> str:
    """Write a conversation for people."""
    messages = []
    for turn in record.turns:
        files = [{"type": file.kind, "path": file.name} for file in turn.files]
        messages.append({"role": "user", "content": [*files, {"type": "text", "text": turn.question}]})
        generated = [thing.model_dump() for thing in turn.made]
        answer = {"type": "text", "text": turn.answer or turn.note}
        messages.append({"role": "assistant", "name": turn.model, "content": [answer, *generated]})
    return as_markdown(messages, record.title, "OneLLM")


def _write_zip(target: Path, record: Record) -> None:
    """Write a conversation and its files; each file is there once."""
    names: dict[str, str] = {}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:

        def packed(path: str | None) -> str | None:
            if not path or not Path(path).is_file():
                return None
            if path not in names:
                names[path] = f"files/{len(names) + 1}/{Path(path).name}"
                archive.write(path, names[path])
            return names[path]

        for turn in record.turns:
            for file in turn.files:
                file.path, file.picture = packed(file.path) or "", packed(file.picture)
            for thing in turn.made:
                thing.path = packed(thing.path) or ""
        archive.writestr(RECORD, record.model_dump_json(indent=1))
        archive.writestr("conversation.md", _markdown(record))


def _text(name: str, size: int, file: IO[bytes]) -> str:
    """Read a record, which is to come back from the browser in one request.

    Args:
        name: of the file, for people.
        size: bytes.
        file: is closed at the end.
    """
    with file:
        if size > LIMITS.event_bytes:
            limit = megabytes(LIMITS.event_bytes)
            raise FileError(
                f"{name}: its conversation takes {megabytes(size)}; expected at most {limit}; choose another file."
            )
        return file.read(size).decode("utf-8")


def _unpack(name: str, archive: zipfile.ZipFile) -> str:
    """Unpack the files a zip's record names; their names choose no folder."""
    record = json.loads(_text(name, archive.getinfo(RECORD).file_size, archive.open(RECORD)))
    there = {member.filename: member for member in archive.infolist() if not member.is_dir()}
    del there[RECORD]
    unpacked: dict[str, str] = {}

    def path_of(member: str | None) -> str | None:
        if member not in there:
            return None
        if member not in unpacked:
            last = PurePosixPath(member).name
            target = uploads.fresh(last if last.strip(".") else "file", there[member].file_size)
            with archive.open(there[member]) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file)
            unpacked[member] = str(target)
        return unpacked[member]

    for turn in record["turns"]:
        for file in turn["files"]:
            file["path"], file["picture"] = path_of(file.get("path")) or "", path_of(file.get("picture"))
        for thing in turn.get("made", []):
            thing["path"] = path_of(thing.get("path")) or ""
    return json.dumps(record)
