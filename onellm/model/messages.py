"""Chat messages: how files are sorted into them, counted and named."""

import copy
import json
import os
from collections.abc import Iterable, Sized

from onellm.errors import OneLLMError
from onellm.utils.limits import LIMITS

DEFAULT_QUESTION = "What is this?"


def by_modality(parts: Iterable[dict]) -> dict[str, list[dict]]:
    """Sort content parts of files as `Chat.stream` takes them: modality -> parts without their type."""
    files: dict[str, list[dict]] = {}
    for part in parts:
        files.setdefault(part["type"], []).append({key: value for key, value in part.items() if key != "type"})
    return files


def check_count(files: Sized) -> None:
    """Refuse more files than one question takes.

    Raises:
        OneLLMError: there are more.
    """
    if len(files) > LIMITS.files_per_turn:
        raise OneLLMError(
            f"{len(files)} files came with one question; {LIMITS.files_per_turn} are allowed, send the others with the "
            "next question."
        )


def parts_of(message: dict) -> list[dict]:
    """Return a message's content parts; a content that is only text is one."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def with_parts(message: dict) -> dict:
    """Copy a message, its content as parts."""
    return {**message, "content": copy.deepcopy(parts_of(message))}


def key_of(part: dict) -> str:
    """Name a file part within a conversation."""
    return json.dumps(part, sort_keys=True, default=str)


def is_file(piece: str | dict) -> bool:
    """Whether a piece of a prompt is the content part of a file that was asked about, not one that was answered."""
    return isinstance(piece, dict) and piece["type"] != "text" and "tokens" not in piece


def name_of(part: dict) -> str:
    """Return the name of a content part's file, and which seconds of it are meant where it is cut out."""
    name = os.path.basename(os.fspath(part["path"])) if "path" in part else part["type"]
    return f"{name} {part['start_s']:g}–{part['stop_s']:g} s" if "start_s" in part else name


def without_surrogates(text: str) -> str:
    """Put a question mark for every lone surrogate, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
