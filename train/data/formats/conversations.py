"""Conversations of published instruction lists become chat messages; `<image>` is a placeholder of a file."""

import re
from typing import Any

from onellm.modalities import MODALITIES
from train.data.example import DataError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
ALIASES = {"rgbd": "depth", "rgbn": "normal"}  # published names of modalities
_PLACEHOLDER = re.compile(rf"\s*<({'|'.join([*MODALITIES, *ALIASES])})>\s*")


def conversation_messages(turns: Any, files: list[dict]) -> list[dict]:
    """Make messages of a list of turns.

    Args:
        turns: [{"from": "human" or "gpt", "value": text}] or [{"role": ..., "content": text}].
        files: file parts. Each replaces the next placeholder of its modality, or any placeholder where all files are of
            one modality; without placeholders they come first in the first question.

    Returns:
        Chat messages.

    Raises:
        DataError: a turn has another form, or placeholders and files differ in number.
    """
    if not isinstance(turns, list) or not turns:
        raise DataError("its conversation is empty or no list; expected a list of turns; correct it.")
    messages, left, count = [], list(files), 0
    for turn in turns:
        role, text = _turn(turn)
        content: list[dict] = []
        pieces = _PLACEHOLDER.split(text) if files and role == "user" else [text]
        for index, piece in enumerate(pieces):
            if index % 2:
                count += 1
                content.append(_take(left, ALIASES.get(piece, piece), count))
            elif piece.strip():
                content.append({"type": "text", "text": piece.strip()})
        messages.append({"role": role, "content": content})
    if left and count:
        raise DataError(f"{count} placeholders for {len(files)} files; expected as many; add some, or leave all out.")
    if left:
        question = next((message for message in messages if message["role"] == "user"), None)
        if question is None:
            raise DataError("it asks nothing, but has files; expected a human's turn; add one.")
        question["content"] = left + question["content"]
    return messages


def _turn(turn: Any) -> tuple[str, str]:
    turn = turn if isinstance(turn, dict) else {}
    role, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if isinstance(text, list):  # parts, as transformers' chat messages have them
        text = "\n".join(p.get("text") or f"<{p.get('type')}>" for p in text if isinstance(p, dict))
    if role not in ROLES or not isinstance(text, str):
        raise DataError(
            f"a turn holds {', '.join(turn) or 'nothing'} (from: {role!r}); expected 'from' ({', '.join(ROLES)}) and "
            "a text 'value'; correct it."
        )
    return ROLES[role], text


def _take(left: list[dict], modality: str, count: int) -> dict:
    """Take the file of a placeholder."""
    alike = len({part["type"] for part in left}) == 1
    part = next((part for part in left if part["type"] == modality or alike), None)
    if part is None:
        raise DataError(f"placeholder {count}, <{modality}>, has no file; expected a file for each; correct it.")
    left.remove(part)
    return part
