"""One line drawing a modality: emoji look different everywhere, and are missing on many machines."""

from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from onellm.modalities import MODALITIES

FOLDER = Path(__file__).parent.parent / "icons"


@lru_cache
def svg(name: str) -> Markup:
    """Return the drawing of a name as HTML; a modality without one shows its emoji."""
    path = FOLDER / f"{name}.svg"
    drawing = Markup(path.read_text(encoding="utf-8").strip()) if path.exists() else MODALITIES[name].icon
    return Markup('<span class="icon" aria-hidden="true">{}</span>').format(drawing)


def css() -> str:
    """Return rules that put the icons on the upload buttons, which hold text alone.

    Given to Gradio as files they would lie in its cache, which any app on this machine empties when it ends.
    """
    rules = []
    for name in (*MODALITIES, "add"):
        path = FOLDER / f"{name}.svg"
        if path.exists():
            url = f'url("data:image/svg+xml,{quote(path.read_text(encoding="utf-8").strip())}")'
            rules.append(f":root {{ --icon-{name}: {url}; }}")
            rules.append(f"#add-{name}::before {{ content: var(--icon-{name}); }}" * (name in MODALITIES))
    return "\n".join(rules)
