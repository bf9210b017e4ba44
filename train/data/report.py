"""The page that `python -m train data inspect` writes: one file, nothing fetched."""

import base64
import html
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from onellm.modalities import MODALITIES, Preview

if TYPE_CHECKING:
    import PIL.Image

    from train.data.inspect import Shown, SourceReport

TEMPLATE = Path(__file__).parent / "report.html"
SIDE, FRAME_SIDE, FRAMES = 480, 200, 12  # pixels of a picture and of a video's frame; frames shown


def render(reports: list["SourceReport"], shown: list["Shown"], title: str, model: str, objective: str) -> str:
    """Return the page.

    Args:
        reports: figures of every source.
        shown: examples in full.
        title: what was inspected.
        model: its name.
        objective: which layout the tokens follow.
    """
    from jinja2 import Environment, select_autoescape

    plots: list[dict] = []
    previews = {id(file): _preview(file.preview, plots) for one in shown for file in one.files}
    environment = Environment(autoescape=select_autoescape(default=True, default_for_string=True), trim_blocks=True)
    environment.filters["count"] = lambda value: f"{value:,}"
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        reports=reports,
        shown=shown,
        title=title,
        model=model,
        objective=objective,
        look=lambda file: previews[id(file)],
        icon=lambda modality: MODALITIES[modality].icon,
        token=_token,
        plots=json.dumps(plots).replace("</", "<\\/"),
        plotly=_plotly() if plots else "",
    )


def _preview(preview: Preview, plots: list[dict]) -> str:
    """Return a preview as HTML; a plot's figure goes to the list, to be drawn when it comes into view."""
    if preview.kind == "plot":
        plots.append(json.loads(preview.content.to_json()))
        height = preview.content.layout.height or 320
        return f'<div class="plot" data-plot="{len(plots) - 1}" style="height:{height}px"></div>'
    if preview.kind == "image":
        return f'<div class="picture">{_img(preview.content, SIDE)}</div>'
    step = max(1, -(-len(preview.content) // FRAMES))
    return f'<div class="frames">{"".join(_img(frame, FRAME_SIDE) for frame in preview.content[::step])}</div>'


def _img(picture: "PIL.Image.Image", side: int) -> str:
    picture = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=85)
    return f'<img alt="" src="data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _token(text: str) -> str:
    """Return a token's text as HTML: spaces and line ends stay visible."""
    from markupsafe import Markup

    if not text:
        return Markup('<span class="none">∅</span>')
    shown = html.escape(text).replace("\n", '<span class="end">↵</span>\n')
    return Markup(shown)


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script")
