"""Previews as the page shows them: HTML for pictures, plotly for everything that is turned or zoomed."""

import base64
import html
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onellm.modalities import MODALITIES
from onellm.modalities import load as load_file
from onellm.web import icons

if TYPE_CHECKING:
    import PIL.Image

SIDE = 640  # pixels of a preview picture's longer side
FRAME_SIDE = 240  # of one frame of a gallery


@dataclass(frozen=True)
class Look:
    """How a file looks.

    Attributes:
        html: pictures and caption.
        plot: a plot as `gr.Plot` sends it, or None.
        parts: both as content of a `gr.Chatbot` message.
    """

    html: str
    plot: Any
    parts: tuple


def look_at(kind: str, path: str, options: dict) -> Look:
    """Read a file and make its preview.

    Args:
        kind: name of the modality.
        path: the file.
        options: the kind's load options.

    Returns:
        What to show.

    Raises:
        FileError: the file cannot be used as that kind.
    """
    from gradio.components.plot import PlotData

    sample = load_file(kind, path, **options)
    preview = MODALITIES[kind].preview(sample)
    pictures = ""
    if preview.kind == "image":
        pictures = f'<div class="pictures">{_img(preview.content, SIDE, sample.name)}</div>'
    elif preview.kind == "gallery":
        frames = [_img(f, FRAME_SIDE, f"{sample.name}, frame {i}") for i, f in enumerate(preview.content, 1)]
        pictures = f'<div class="pictures frames">{"".join(frames)}</div>'
    plot = PlotData(type="plotly", plot=preview.content.to_json()) if preview.kind == "plot" else None
    summary = html.escape(preview.caption.removeprefix(f"{sample.name}: "))
    notes = "".join(f'<div class="hint">{html.escape(_sentence(line))}</div>' for line in sample.notes)
    name = f'<b>{html.escape(sample.name)}</b> <span class="summary">{summary}</span>'
    head = f'<div class="file-head">{icons.svg(kind)}<span>{name}</span></div>'
    wide = " wide" if plot is not None else ""
    parts = [_part("html", f'<div class="sent-file{wide}">{head}{pictures}{notes}</div>')]
    if plot is not None:
        parts.append(_part("plot", plot.model_dump()))
    return Look(f'{pictures}<div class="caption">{summary}</div>{notes}', plot, tuple(parts))


def words(text: str) -> dict:
    """Return text as message content in which nothing is markup."""
    return {"type": "text", "text": html.escape(text, quote=False)}


def note(text: str, failed: bool) -> Any:
    """Return the app's own words as message content."""
    kind = "error" if failed else "wait"
    role = "alert" if failed else "status"
    return _part("html", f'<div class="note {kind}" role="{role}">{html.escape(text)}</div>')


def refusal(text: str) -> str:
    """Return the words for a file that cannot be used as HTML."""
    return f'<div class="note error" role="alert">{html.escape(text)}</div>'


def _part(component: str, value: Any) -> Any:
    """Return a component as message content, ready to be sent: a stream sends all messages at every step."""
    from gradio.components.chatbot import ComponentMessage

    return ComponentMessage(component=component, value=value, constructor_args={}, props={})


def _img(picture: "PIL.Image.Image", side: int, alt: str) -> str:
    """Return a picture as an HTML image of limited size."""
    picture = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=88)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/webp;base64,{data}">'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
