"""Pictures to learn drawing from: Microsoft's Fluent emoji without skin tones, small, on white, named by emojibase.

A picture whose label is in ``drawings.txt`` has a name people use; the LLM learns these. The others only teach the
the VQ model what pictures look like. ``HELD_OUT`` names colours and shapes that are each seen, but never together.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from onellm.errors import OneLLMError
from onellm.utils import atomic
from train.small.corpus import lists, packages

SIZE = 64  # pixels
LICENCE = "MIT"
PICTURES, NAMES = "@lobehub/fluent-emoji-3d", "emojibase-data"
HELD_OUT = ("orange heart", "green square", "purple circle")
DEV = 0.05  # of the pictures without a name, kept for measuring how well the VQ model gives pictures back
PEOPLE, FLAGS = 1, 9  # emojibase's groups: left out


def build(out: Path, cache: Path) -> int:
    """Write ``drawings.jsonl`` and its pictures.

    Args:
        out: the corpus folder.
        cache: folder for downloads.

    Returns:
        The number of pictures.
    """
    pictures = packages.npm(PICTURES, cache) / "package/assets"
    names = {label: name for label, name, *_ in _table()}
    lines = []
    for entry in json.loads((packages.npm(NAMES, cache) / "package/en/data.json").read_text(encoding="utf-8")):
        file = _file(pictures, entry["hexcode"])
        if file is None or entry.get("group") in (PEOPLE, FLAGS, None):
            continue
        label = entry["label"]
        name = names.pop(label, None)
        target = out / "drawing" / f"{lists.slug(label) or file.stem}.png"
        if not target.exists():
            with atomic.whole(target) as part:
                _on_white(file).save(part)
        held = name in HELD_OUT
        dev = name is None and lists.hash_unit(label) < DEV
        lines.append(
            {
                "id": f"drawing/{target.stem}",
                "kind": "image",
                "file": str(target.relative_to(out)),
                "name": name,
                "label": label,
                "split": "test" if held else "dev" if dev else "train",
                "source": f"npm {packages.NPM[PICTURES].file.removesuffix('.tgz')}",
                "licence": LICENCE,
            }
        )
    if names:
        raise OneLLMError(f"drawings.txt names {', '.join(sorted(names))}, for which there is no picture; correct it.")
    return lists.write_items(out / "drawings.jsonl", lines)


def _table() -> list[list[str]]:
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    return [line.split("|") for line in text.splitlines() if line and not line.startswith("#")]


def _file(folder: Path, hexcode: str) -> Path | None:
    """Find a picture; its file may or may not name the variation selector."""
    code = hexcode.lower()
    found = (folder / f"{name}.webp" for name in (code, f"{code}-fe0f", code.replace("-200d", "-fe0f-200d")))
    return next((path for path in found if path.exists()), None)


def _on_white(file: Path) -> Image.Image:
    """Open a transparent picture as a small one on white."""
    with Image.open(file) as opened:
        picture = opened.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
