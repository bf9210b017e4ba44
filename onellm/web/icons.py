"""One line drawing a kind: emoji look different everywhere, and are missing on many machines."""

import html
from functools import lru_cache
from pathlib import Path

from onellm.modalities import MODALITIES

FOLDER = Path(__file__).parent / "icons"


@lru_cache
def svg(kind: str) -> str:
    """Return a kind's icon as HTML; a kind without a drawing shows its emoji."""
    path = FOLDER / f"{kind}.svg"
    if path.exists():
        return f'<span class="icon" aria-hidden="true">{path.read_text(encoding="utf-8").strip()}</span>'
    return f'<span class="icon" aria-hidden="true">{html.escape(MODALITIES[kind].icon)}</span>'
