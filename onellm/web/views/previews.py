"""Previews as the page shows them, in the form and in the conversation: HTML alone.

What is heavy (pictures, the data of plots) lies in files the page fetches once: a stream sends all messages at every
step. `js/viewer.js` draws the plots.
"""

import html
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from onellm.errors import FileError
from onellm.modalities import MODALITIES, Coverage, Preview, Sample
from onellm.modalities import load as load_file
from onellm.modalities.base import megabytes
from onellm.modalities.video import SILENT
from onellm.model.timeline import TIMED, seconds_of, spans, windows
from onellm.web.security import uploads
from onellm.web.views import icons
from onellm.web.views.markup import escaped, part
from onellm.web.views.texts import say

if TYPE_CHECKING:
    import PIL.Image

SIDE = 640  # pixels of a preview picture's longer side
FRAME_SIDE = 240  # of one frame of a video
AXES = (  # what a normal along each axis looks like
    ("preview.axis_x", "#ff8080"),
    ("preview.axis_y", "#80ff80"),
    ("preview.axis_z", "#8080ff"),
)


@dataclass(frozen=True)
class FileView:
    """How a file looks.

    Attributes:
        html: its name, what is in it, and how much of it the model takes.
        summary: what is in it, in one line.
        error: why the model cannot take the file although it is whole; empty if it can.
        sound: whether a video's file has a sound track.
    """

    html: str
    summary: str
    error: str = ""
    sound: bool = False


def look_at(
    modality: str, path: str, options: dict, inputs: dict | None = None, language: str = "en", sound: bool = False
) -> FileView:
    """Read a file and make its preview.

    Args:
        modality: name of the modality.
        path: the file, an upload or one of the examples.
        options: the modality's load options.
        inputs: settings of the modality's `to_tensor`, which tell how much of the file the model takes, and `windows`
            of long files; None if no model is loaded.
        language: of the words around it.
        sound: a video's sound track is heard too.

    Returns:
        What to show.

    Raises:
        FileError: the file cannot be used as that modality.
    """
    reader = MODALITIES[modality]
    sample = load_file(modality, path, **options)
    settings = {key: value for key, value in (inputs or {}).items() if key != "windows"}
    cut = _cut(sample, inputs or {}, sound)
    preview = reader.preview(sample, **{} if cut else settings)
    seen, error = None, ""
    if inputs is not None:
        try:
            seen = _seen_cut(sample, cut, settings) if cut else reader.coverage(sample, **settings)
        except FileError as refused:
            error = str(refused)
    body = _player(modality, path, sample.name, language) + _show(sample, preview, language)
    below = _seen(seen, preview.veiled, language) + (refusal(error) if error else "")
    lines = [line for line in sample.notes if not (sound and line == SILENT)]
    notes = "".join(f"<li>{html.escape(_sentence(line))}</li>" for line in lines)
    notes = f'<ul class="hints">{notes}</ul>' if notes else ""
    content = f"{_head(modality, path, sample)}{body}{below}{notes}"
    return FileView(f'<div class="look look-{modality}">{content}</div>', sample.summary, error, sample.sound)


def _cut(sample: Sample, inputs: dict, sound: bool) -> list[dict]:
    """Return the windows, or the spans with sound, that a file will be read in; none where it is read at once."""
    if sample.modality not in TIMED:
        return []
    part = {"type": sample.modality, "path": sample.name, "seconds": seconds_of(sample)}
    if sound:
        return [span for span in spans(part | {"sound": {"seconds": 0.0}}) if span["type"] == sample.modality]
    return windows(part, inputs)


def _seen_cut(sample: Sample, cut: list[dict], settings: dict) -> Coverage:
    """Say how much of a file the model takes that is cut: every part as if it were a file."""
    share = max(window["stop_s"] for window in cut) / sample.seconds
    if sample.modality == "video":
        of = max(len(sample.array), round(sample.seconds * sample.rate_hz))
        used = min(round(of * share), len(cut) * settings.get("frames", 5))
        return Coverage(f"{used:,}", f"{of:,}", "frames")
    used_s = 0.0
    for window in cut:
        first, last = (round(window[key] * sample.rate_hz) for key in ("start_s", "stop_s"))
        piece = replace(sample, array=sample.array[first:last], duration_s=None)
        used_s += sum(end - start for start, end in MODALITIES[sample.modality].heard(piece, **settings))
    return Coverage.seconds(used_s, sample.seconds)


def words(text: str) -> dict:
    """Return text as message content in which nothing is markup."""
    return {"type": "text", "text": escaped(text)}


def note(text: str, failed: bool) -> Any:
    """Return the app's own words as message content."""
    modality = "error" if failed else "wait"
    role = "alert" if failed else "status"
    return part(f'<div class="note {modality}" role="{role}">{html.escape(text)}</div>')


def refusal(text: str) -> str:
    """Return the words for a file that cannot be used as HTML."""
    return f'<div class="note error" role="alert">{html.escape(text)}</div>'


def made(thing: dict, language: str) -> str:
    """Return what an answer made, a content part of it, as HTML: a picture, what plays a video or sound, or why not."""
    modality, path, prompt = thing["type"], thing.get("path", ""), thing.get("prompt", "")
    if thing.get("error") or not Path(path).is_file():
        why = thing.get("error") or say(language, "made.gone")
        return f'<div class="note" role="status">{escaped(why)}</div>'
    name = prompt or say(language, f"made.{modality}")
    if modality == "image":
        shown = f'<img class="player" alt="{html.escape(name)}" src="{html.escape(file_url(path))}">'
    else:
        shown = _player(modality, path, name, language)
    caption = f"<figcaption>{escaped(prompt)}</figcaption>" if prompt else ""
    return f'<figure class="made made-{modality}">{shown}{caption}</figure>'


def file_url(path: str | Path) -> str:
    """Return a served file's address, relative to the page so that it holds behind any proxy."""
    return f"gradio_api/file={quote(str(path))}"


def _head(modality: str, path: str, sample: Sample) -> str:
    """Return icon, name, size and summary."""
    summary = f"{megabytes(Path(path).stat().st_size)} · {sample.summary}"
    name = f'<b class="file-name">{html.escape(sample.name)}</b>'
    words = f'<span>{name} <span class="summary">{html.escape(summary)}</span></span>'
    return f'<div class="file-head">{icons.svg(modality)}{words}</div>'


def _player(modality: str, path: str, name: str, language: str) -> str:
    """Return what plays a sound or a video; empty for other modalities."""
    if modality not in ("audio", "video"):
        return ""
    url = html.escape(file_url(path))
    label = html.escape(say(language, "preview.play", name=name))
    if path.lower().endswith(".gif"):
        return f'<img class="player" alt="{html.escape(name)}" src="{url}">'
    failed = html.escape(say(language, "preview.no_player"))
    says = f'aria-label="{label}" data-failed="{failed}"'
    return f'<{modality} class="player" controls preload="metadata" src="{url}" {says}></{modality}>'


def _show(sample: Sample, preview: Preview, language: str) -> str:
    """Return a preview's pictures or plot."""
    alt = f"{sample.name}: {sample.summary}"
    if preview.kind == "plot":
        shown = _plot(preview.content, alt, language)
    elif preview.kind == "gallery":
        shown = _frames(preview, sample.name, language)
    else:
        shown = f'<div class="pictures">{_img(preview.content, SIDE, alt)}{_legend(preview.legend, language)}</div>'
    if sample.picture is not None:
        from PIL import Image

        label = say(language, "preview.beside")
        picture = _img(Image.fromarray(sample.picture), FRAME_SIDE, label)
        shown += f'<figure class="beside">{picture}<figcaption>{html.escape(label)}</figcaption></figure>'
    return shown


def _frames(preview: Preview, name: str, language: str) -> str:
    """Return a video's frames in a row, each with its time."""
    items = []
    for number, picture in enumerate(preview.content, 1):
        label = preview.labels[number - 1] if preview.labels else str(number)
        picture = _img(picture, FRAME_SIDE, say(language, "preview.frame", name=name, time=label))
        items.append(f'<li>{picture}<span aria-hidden="true">{html.escape(label)}</span></li>')
    title = html.escape(say(language, "preview.frames"))
    return f'<ol class="frames" aria-label="{title}" tabindex="0">{"".join(items)}</ol>'


def _legend(ball: "PIL.Image.Image | None", language: str) -> str:
    """Return which colour of a normal map faces where."""
    if ball is None:
        return ""
    axes = "".join(
        f'<li><span class="swatch" style="background:{colour}"></span>{html.escape(say(language, key))}</li>'
        for key, colour in AXES
    )
    return f'<div class="axes">{_img(ball, SIDE, say(language, "preview.ball"))}<ul>{axes}</ul></div>'


def _plot(figure: Any, label: str, language: str) -> str:
    """Return where `viewer.js` draws a plotly figure; its slider is the browser's own, for keyboards and readers."""
    url = html.escape(file_url(_store(figure.to_json().encode(), "figure.json")))
    texts = {"failed": say(language, "preview.no_plot"), "webgl": say(language, "preview.no_webgl")}
    data = "".join(f' data-{key}="{html.escape(text)}"' for key, text in texts.items())
    height, hint, slider = f"{figure.layout.height}px", "", ""
    if figure.layout.scene.to_plotly_json():
        height = f"min({height}, 80vw)"
        hint = f'<p class="hint">{html.escape(say(language, "preview.turn"))}</p>'
    if figure.layout.sliders:
        steps, active = len(figure.layout.sliders[0].steps), figure.layout.sliders[0].active
        text = html.escape(say(language, "preview.position"))
        slider = f'<label class="slider">{text} <input type="range" min="0" max="{steps - 1}" value="{active}"></label>'
    canvas = f'<div class="canvas" role="img" aria-label="{html.escape(label)}" style="height:{height}"></div>'
    return f'<div class="plot" data-figure="{url}"{data}>{canvas}{slider}{hint}</div>'


def _seen(seen: Coverage | None, veiled: bool, language: str) -> str:
    """Return the sentence on how much of the file the model takes; empty where that is unknown."""
    if seen is None:
        return ""
    unit = say(language, f"preview.unit_{seen.unit}")
    text = say(language, "preview.seen_all" if seen.whole else "preview.seen", used=seen.used, of=seen.of, unit=unit)
    if veiled:
        text += say(language, "preview.veiled")
    return f'<p class="seen">{icons.svg("eye")}<span>{html.escape(text)}</span></p>'


def _img(picture: "PIL.Image.Image", side: int, alt: str) -> str:
    """Return a picture as an HTML image of limited size."""
    picture = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=88)
    url = html.escape(file_url(_store(file.getvalue(), "picture.webp")))
    return f'<img alt="{html.escape(alt)}" src="{url}" width="{picture.width}" height="{picture.height}">'


def _store(data: bytes, name: str) -> Path:
    """Write a file that the page fetches."""
    path = uploads.fresh(name, len(data))
    path.write_bytes(data)
    return path


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
