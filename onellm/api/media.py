"""Content parts of a request -> files in a private folder that lives as long as the answer.

Nothing is fetched: a file comes as a data URL or in base64 within the request, or not at all.
"""

import base64
import binascii
import mimetypes
import re
from dataclasses import dataclass, field
from pathlib import Path

from onellm.api import schema
from onellm.errors import FileError, OneLLMError
from onellm.modalities import MODALITIES, WITH_PICTURE
from onellm.model.messages import by_modality, check_count
from onellm.utils.limits import LIMITS

__all__ = ["Conversation", "describe", "read"]

# media types whose name is not the ending of a file name
SUFFIXES = {
    "image/jpeg": "jpg",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "video/x-msvideo": "avi",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/x-m4a": "m4a",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
    "audio/vnd.wave": "wav",
    "audio/x-flac": "flac",
}


NAME_BYTES = 100  # a file system counts bytes, not characters


@dataclass
class Conversation:
    """A request's messages as `Chat` takes them.

    Attributes:
        system: the system and developer messages.
        messages: what was said before the question.
        text: the question.
        files: the question's files, modality -> content parts.
    """

    system: str = ""
    text: str = ""
    messages: list[dict] = field(default_factory=list)
    files: dict[str, list[dict]] = field(default_factory=dict)


def read(messages: list[schema.Message], folder: Path) -> Conversation:
    """Write the files of a request and put its messages into `Chat`'s form.

    Args:
        messages: the request's.
        folder: where files go; private to this request.

    Returns:
        The conversation; the last message is its question.

    Raises:
        OneLLMError: the last message is not the user's, or the conversation is too long.
        FileError: a file is not in the request, or not in base64.
    """
    talk, said = Conversation(), [message for message in messages if message.role not in ("system", "developer")]
    if not said or said[-1].role != "user":
        raise OneLLMError("The last message is not a user's, so there is nothing to answer; end with a question.")
    characters = sum(len(part.text) for message in messages for part in message.parts if part.type == "text")
    if len(said) > 2 * LIMITS.chat_turns or characters > LIMITS.chat_characters:
        raise OneLLMError(
            f"The conversation has {len(said)} messages and {characters:,} characters; {2 * LIMITS.chat_turns} and "
            f"{LIMITS.chat_characters:,} are allowed; leave the oldest messages out."
        )
    system = [message for message in messages if message.role in ("system", "developer")]
    talk.system = "\n".join(message.text for message in system)
    writer = _Writer(folder)
    for message in said[:-1]:
        content = [*_files(message, writer), {"type": "text", "text": message.text}]
        talk.messages.append({"role": message.role, "content": content})
    talk.text = said[-1].text
    talk.files = by_modality(_files(said[-1], writer))
    return talk


def describe(part: dict) -> dict:
    """Describe what an answer generated, a content part with its file, for a program: `type` and `url`."""
    described = {key: part[key] for key in ("type", "prompt", "error") if part.get(key)}
    if part.get("path"):
        path = Path(part["path"])
        content = base64.b64encode(path.read_bytes()).decode()
        described["url"] = f"data:{mimetypes.guess_type(path.name)[0]};base64,{content}"
    return described


class _Writer:
    """Writes files into a folder, each in one of its own, so that they keep their names."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0

    def write(self, name: str, data: str) -> str:
        """Write what base64 says; returns the path."""
        name = re.sub(r"[^\w.+-]", "_", name.replace("\\", "/").rpartition("/")[2]).encode()[-NAME_BYTES:]
        name = name.decode(errors="ignore").lstrip(".") or "file"
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise FileError(f"{name}: its data is not base64 ({error}); encode the file's bytes anew.") from error
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        (folder / name).write_bytes(content)
        return str(folder / name)

    def write_url(self, name: str, url: str) -> str:
        """Write what a data URL holds, under a name that ends as its media type says."""
        media_type, data = _split(url, name)
        suffix = SUFFIXES.get(media_type, re.sub(r"[^a-z0-9]", "", media_type.partition("/")[2])[:16])
        return self.write(f"{name}.{suffix}", data)


def _files(message: schema.Message, writer: _Writer) -> list[dict]:
    """Return the content parts of a message's files."""
    given = [part for part in message.parts if part.type != "text"]
    if given and message.role != "user":
        raise OneLLMError("Only messages of the user can hold files; move them there.")
    check_count(given)
    return [_file(part, writer) for part in given]


def _file(part: schema.Part, writer: _Writer) -> dict:
    """Write one file; returns its content part."""
    if part.type == "image_url":
        return {"type": "image", "path": writer.write_url("image", part.image_url.url)}
    if part.type == "video_url":
        return {"type": "video", "path": writer.write_url("video", part.video_url.url)}
    if part.type == "input_audio":
        return {
            "type": "audio",
            "path": writer.write(f"audio.{part.input_audio.format.lower()}", part.input_audio.data),
        }
    file = part.file
    modalities = ", ".join(MODALITIES)
    if file.kind is not None and file.kind not in MODALITIES:
        raise OneLLMError(f"{file.filename}: '{file.kind}' is no kind of file; use one of {modalities}.")
    data = _split(file.file_data, file.filename)[1] if ":" in file.file_data[:8] else file.file_data
    path = writer.write(file.filename, data)
    found = {"type": file.kind or _recognise(path), "path": path}
    if file.picture is not None:
        if found["type"] not in WITH_PICTURE:
            raise OneLLMError(f"{file.filename}: a picture lies beside depth and normal maps only; leave it out.")
        found["picture"] = writer.write_url("picture", file.picture)
    return found


def _recognise(path: str) -> str:
    """Return the likeliest kind of a file."""
    from onellm.modalities.detect import recognise

    return recognise(path)[0]


def _split(url: str, name: str) -> tuple[str, str]:
    """Return the media type of a data URL and its base64 text."""
    head, comma, data = url.partition(",")
    if url[:5].lower() != "data:":
        raise FileError(
            f"{name}: the URL is no data URL, and this server fetches nothing; send the file's bytes as "
            "data:image/png;base64,…"
        )
    if not comma or not head.lower().endswith(";base64"):
        raise FileError(f"{name}: the data URL is not in base64; expected data:image/png;base64,…")
    return head[5:].partition(";")[0].strip().lower(), data
