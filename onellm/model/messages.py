"""Chat messages: how files are sorted into them, counted and named."""

import copy
import hashlib
import json
import os
import pickle
from collections.abc import Iterable, Sized
from typing import Any

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES
from onellm.utils.limits import LIMITS

DEFAULT_QUESTION = "What is this?"
PATHS = ("path", "picture", "sound", *MODALITIES)  # keys of a content part that may hold a path


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


def key_of(part: dict, known: Iterable[str] = ()) -> str:
    """Name a file part within a conversation: two parts have one key if the model reads the same of both.

    Data in memory counts by its content, a path by its name and by the time and size of its file.

    Args:
        part: a content part.
        known: keys so far; a part whose file is gone has the latest of these that it had.
    """
    files: list[str] = []
    part = {option: value for option, value in part.items() if option != "findings"}  # they follow from the rest
    name = json.dumps(_named(part, files), sort_keys=True, default=str)
    if "" in files:  # gone
        return next((key for key in reversed(list(known)) if key.startswith(f"{name}@")), name)
    return "@".join([name, *files])


def _named(value: Any, files: list[str], option: str = "") -> Any:
    """Replace data in memory by a hash; note the time and size of every file that a path names, "" for none."""
    if isinstance(value, dict):
        return {key: _named(content, files, key) for key, content in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_named(content, files, option) for content in value]
    if isinstance(value, str | os.PathLike):
        if option in PATHS:
            try:
                status = os.stat(value)
                files.append(f"{status.st_mtime_ns}:{status.st_size}")
            except (OSError, ValueError):
                files.append("")
        return os.fspath(value)
    if hasattr(value, "tobytes") and hasattr(value, "mode"):  # a Pillow image; its state holds palette and orientation
        return hashlib.sha256(pickle.dumps(value.__getstate__())).hexdigest()
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu().numpy()
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    return value


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
