"""The corpus's item: one line of JSON a file, and the rules that split items.

An item is a dict with these keys (a modality may add its own, e.g. ``index`` or ``picture``):
    id: unique within the corpus.
    kind: image, video, audio, point, fmri, imu, depth or normal.
    file: path relative to the corpus folder.
    name: short noun phrase a model should say.
    noun: class used for chance and probes, or None when its class is too small.
    accept: lower-case words or phrases; a right answer contains one of them.
    caption: a sentence, or None.
    group: what must not be torn apart by the split (object, person, run, recording).
    split: train, dev or test.
    source, licence: where it comes from and under which terms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from onellm.utils import atomic


def write_items(path: Path, items: Iterable[dict]) -> int:
    """Write items as JSON lines; see `atomic.whole`.

    Args:
        path: the ``.jsonl`` file.
        items: JSON-serialisable dicts.

    Returns:
        The number of lines written.
    """
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
    atomic.write(path, "".join(lines))
    return len(lines)


def read_items(path: Path) -> list[dict]:
    """Read a ``.jsonl`` file.

    Args:
        path: the file.

    Returns:
        One dict a line.
    """
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def hash_unit(text: str) -> float:
    """Map a text to a fixed number in 0..1, evenly spread and the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def dev_or_test(group: str) -> str:
    """Assign a group of evaluation-only items to dev or test, half and half, by the hash of its name."""
    return "dev" if hash_unit(group) < 0.5 else "test"


def slug(text: str) -> str:
    """Turn a text into a file-name-safe, lower-case id."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def accepted(*words: str) -> list[str]:
    """Merge accepted answers: lower case, no repeats, order kept, empty ones dropped."""
    return list(dict.fromkeys(w.strip().lower() for w in words if w and w.strip()))


def read_table(path: Path) -> list[tuple[str, str, str, list[str]]]:
    """Read a curated table of ``file|name|noun|more accepted words`` lines.

    Args:
        path: the table; lines that begin with ``#`` are comments.

    Returns:
        (file, name, noun, accepted answers) a line.

    Raises:
        ValueError: a line has not four columns.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        cells = line.split("|")
        if len(cells) != 4:
            raise ValueError(f"{path.name} line {number} has {len(cells)} columns; expected 4.")
        file, name, noun, more = cells
        rows.append((file, name, noun, accepted(name, noun, *more.split(","))))
    return rows
