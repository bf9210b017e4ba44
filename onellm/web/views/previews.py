"""Previews as the page shows them, in the form and in the conversation: HTML alone.

What is heavy (pictures, the data of plots) lies in files the page fetches once: a stream sends all messages at every
step. `js/viewer.js` draws the plots.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onellm.errors import FileError
from onellm.modalities import MODALITIES, Coverage, Sample
from onellm.modalities import load as load_file
from onellm.modalities.base import megabytes
from onellm.modalities.video import SILENT
from onellm.model.timeline import TIMED, seconds_of, spans, windows
from onellm.web.security import uploads
from onellm.web.views.markup import file_url, render

if TYPE_CHECKING:
    import numpy as np
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
    """A file as the page shows it.

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


def preview_file(
    modality: str, path: str, options: dict, inputs: dict | None = None, language: str = "en", sound: bool = False
) -> FileView:
    """Read a file and make its preview.

    Args:
        modality: name of the modality.
        path: the file, an upload or one of the examples.
        options: the modality's load options.
        inputs: settings of the modality's `to_tensor`, which tell how much of the file the model takes, and `windows`
            of long files; None if no model is loaded.
        language: of the texts around it.
        sound: a video's sound track is heard too.

    Returns:
        The preview, and what is said of the file.

    Raises:
        FileError: the file cannot be used as that modality.
    """
    reader = MODALITIES[modality]
    sample = load_file(modality, path, **options)
    settings = {key: value for key, value in (inputs or {}).items() if key != "windows"}
    cut = _cut(sample, inputs or {}, sound)
    preview = reader.preview(sample, **{} if cut else settings)
    coverage, error = None, ""
    if inputs is not None:
        try:
            coverage = _cut_coverage(sample, cut, settings) if cut else reader.coverage(sample, **settings)
        except FileError as refused:
            error = str(refused)
    pictures: dict[str, Any] = {"image": None, "ball": None, "plot": None, "frames": None}
    if preview.kind == "plot":
        pictures["plot"] = _plot(preview.content)
    elif preview.kind == "gallery":
        times = preview.labels or map(str, range(1, len(preview.content) + 1))
        frames = [_picture(frame, FRAME_SIDE) for frame in preview.content]
        pictures["frames"] = list(zip(frames, times, strict=True))
    else:
        pictures |= {
            "image": _picture(preview.content, SIDE),
            "ball": preview.legend and _picture(preview.legend, SIDE),
        }
    content = render(
        "preview",
        language=language,
        modality=modality,
        sample=sample,
        size=megabytes(Path(path).stat().st_size),
        url=file_url(path),
        **pictures,
        axes=AXES,
        beside=None if sample.picture is None else _picture(sample.picture, FRAME_SIDE),
        coverage=coverage,
        veiled=preview.veiled,
        refusal=error,
        notes=[_sentence(line) for line in sample.notes if not (sound and line == SILENT)],
    )
    return FileView(content, sample.summary, error, sample.sound)


def _cut(sample: Sample, inputs: dict, sound: bool) -> list[dict]:
    """Return the windows, or the spans with sound, that a file will be read in; none where it is read at once."""
    if sample.modality not in TIMED:
        return []
    part = {"type": sample.modality, "path": sample.name, "seconds": seconds_of(sample)}
    if sound:
        return [span for span in spans(part | {"sound": {"seconds": 0.0}}) if span["type"] == sample.modality]
    return windows(part, inputs)


def _cut_coverage(sample: Sample, cut: list[dict], settings: dict) -> Coverage:
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


def _plot(figure: Any) -> dict:
    """Store a plotly figure, which `viewer.js` draws; its slider is the browser's own, for keyboards and readers."""
    sliders, turns = figure.layout.sliders, bool(figure.layout.scene.to_plotly_json())
    return {
        "url": file_url(_store(figure.to_json().encode(), "figure.json")),
        "height": f"min({figure.layout.height}px, 80vw)" if turns else f"{figure.layout.height}px",
        "turns": turns,
        "steps": len(sliders[0].steps) if sliders else 0,
        "active": sliders[0].active if sliders else 0,
    }


def _picture(picture: "PIL.Image.Image | np.ndarray", side: int) -> dict:
    """Store a picture whose longer side is at most `side` pixels."""
    from PIL import Image

    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=88)
    url = file_url(_store(file.getvalue(), "picture.webp"))
    return {"url": url, "width": picture.width, "height": picture.height}


def _store(data: bytes, name: str) -> Path:
    """Write a file that the page fetches."""
    path = uploads.fresh(name, len(data))
    path.write_bytes(data)
    return path


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
