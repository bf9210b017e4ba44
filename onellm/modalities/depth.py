"""Depth maps: [H, W] float32 in metres."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onellm.modalities.base import Damaged, Preview, Sample, megabytes, refuse
from onellm.modalities.maps import Map, normals_of, shade, shrink
from onellm.modalities.plots import GREY, spread, style
from onellm.modalities.readers.arrays import pick, read_arrays
from onellm.modalities.readers.pictures import millions, open_image, size_text
from onellm.utils.limits import LIMITS

MILLIMETRE = 0.001
RELATIVE = 1 / 255  # of the farthest distance, a step of 8 bits
FAR_VALUE = 0.1  # brightness of the farthest points: 0 is kept for unknown ones
_NEAREST_M = 1e-6  # what is nearer is not a distance; one divided by it is too large a number
_PREVIEW_SIDE = 256
_EXR_HEADER_BYTES = 65_536


class Depth(Map):
    """Depth maps, alone or with the picture they belong to.

    Canonical array: [H, W] float32, metres along the viewing direction, NaN where unknown (0, negative or not
    a number in the file).

    png and integer tiff hold millimetres unless the option `scale` says otherwise; npy, float tiff and exr
    hold metres. An 8-bit png is taken for relative distance, 255 farthest.
    """

    name = "depth"
    title = "Depth"
    icon = "📏"
    libraries = ("PIL.Image:init", "av")
    suffixes = (".png", ".npy", ".tif", ".tiff", ".exr")
    layout = ("[H, W] in metres", 2, None)
    unit = "metres"
    expects = (
        f"a depth map (16-bit png, npy, tiff or exr) of up to {megabytes(LIMITS.depth_bytes)} "
        f"and {millions(LIMITS.map_pixels)}"
    )

    def read(self, path: Path, picture: str | Path | None = None, scale: float | None = None) -> Sample:
        """Read a depth map.

        Args:
            path: the file.
            picture: the picture the map belongs to, an image file.
            scale: metres a unit of the file.

        Returns:
            A sample whose array is [H, W] float32 in metres.
        """
        if scale is not None and not 0 < float(scale) < 1e6:
            raise refuse(path, f"the option scale is {scale!r}", "metres a unit, above 0", "correct the option")
        notes: list[str] = []
        suffix = path.suffix.lower()
        if suffix == ".npy":
            values, unit = self._read_numpy(path), 1.0
        elif suffix == ".exr":
            values, unit = self._read_exr(path), 1.0
        else:
            values, unit = self._read_image(path)
        relative = unit == RELATIVE and scale is None
        if relative:
            notes.append("8 bits a pixel: read as relative distance, not metres; 255 is taken for the farthest")
        values = values.astype(np.float32) * np.float32(scale or unit)
        values = self.clean(path, values, notes)
        known = np.isfinite(values)
        near, far = float(np.nanmin(values)), float(np.nanmax(values))
        if near == far:
            notes.append("all known pixels have the same depth")
        if known.mean() < 0.5:
            notes.append(f"{1 - known.mean():.0%} of the pixels have no depth")
        distances = "relative distances" if relative else f"{near:.3g} to {far:.3g} m"
        summary = f"{size_text(values.shape[1], values.shape[0])}, {distances}"
        return Sample(
            self.name,
            path.name,
            values,
            summary,
            picture=self.read_picture(picture, values.shape[:2], notes),
            notes=notes,
            relative=relative,
        )

    def _read_numpy(self, path: Path) -> np.ndarray:
        arrays = read_arrays(path, LIMITS.map_pixels * 8, self.expects)
        array = np.squeeze(pick(arrays, "", "depth") if len(arrays) > 1 else next(iter(arrays.values())))
        if array.ndim != 2:
            found = f"an array of shape {list(array.shape)}"
            raise refuse(path, found, "[H, W], metres", "save the depth alone")
        self.check_pixels(path, *array.shape)
        return array

    def _read_image(self, path: Path) -> tuple[np.ndarray, float]:
        """Return values as they are in a png or tiff, and metres a unit."""
        with open_image(path, LIMITS.map_pixels, ("PNG", "TIFF")) as image:
            if image.mode == "F":
                return np.asarray(image), 1.0
            if image.mode.startswith("I"):
                return np.asarray(image), MILLIMETRE
            if image.mode in ("RGB", "RGBA", "P", "LA"):
                channels = np.asarray(image.convert("RGB"), np.int16)
                if np.abs(channels - channels[..., :1]).max() > 2:
                    advice = "save the distances as 16-bit png or npy, not a colour picture of them"
                    raise refuse(path, "a picture in colour", self.expects, advice)
                values = channels[..., 0]
            elif image.mode == "L":
                values = np.asarray(image)
            else:
                raise refuse(path, f"a picture of mode {image.mode}", self.expects, "save it as 16-bit png or npy")
        return values, RELATIVE

    def _read_exr(self, path: Path) -> np.ndarray:
        """Read the first channel of an exr file with libavcodec."""
        import av

        for size in _exr_windows(path):  # libavcodec makes the whole picture while it opens the file
            self.check_pixels(path, *size)
        with av.open(str(path), format="exr_pipe") as container:
            context = container.streams.video[0].codec_context
            self.check_pixels(path, context.height, context.width)
            frame = next(container.decode(video=0))
        if "f32" not in frame.format.name and "f16" not in frame.format.name:
            found = f"an exr of format {frame.format.name}"
            raise refuse(path, found, "float values", "save one float channel, or npy")
        array = frame.to_ndarray()
        return array if array.ndim == 2 else array[..., 0]

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a file is an EXR picture."""
        return head.startswith(b"v/1\x01")

    def clean(self, path: Path, array: np.ndarray, notes: list[str]) -> np.ndarray:
        """Mark what is no distance as unknown (NaN)."""
        array = np.where((array > _NEAREST_M) & (array < 1e6), array, np.float32(np.nan))
        if not np.isfinite(array).any():
            raise refuse(path, "no pixel has a depth", self.expects, "check how the map was saved")
        return array

    def arrays(self, sample: Sample) -> dict[str, np.ndarray]:
        """Return "array" [H, W] and "known" [H, W] bool."""
        return {"array": sample.array, "known": np.isfinite(sample.array)}

    def renderings(self, array: np.ndarray, side: int) -> dict[str, Callable[[], np.ndarray]]:
        """Return depth as brightness (near bright, far dark), and shaded."""
        return {"coded": lambda: to_picture(array), "shaded": lambda: shade(normals_of(shrink(array, side)))}

    def preview(self, sample: Sample, **settings) -> Preview:
        """Show the map in colours with a scale in metres."""
        from plotly import graph_objects

        height, width = sample.array.shape
        side = max(height, width)
        rows = spread(height, max(1, _PREVIEW_SIDE * height // side))
        columns = spread(width, max(1, _PREVIEW_SIDE * width // side))
        shown = sample.array[np.ix_(rows, columns)]
        low, high = (float(v) for v in np.nanpercentile(sample.array[np.isfinite(sample.array)], (1, 99)))
        unit = "" if sample.relative else " m"
        bar = {"thickness": 12, "outlinewidth": 0, "ticksuffix": unit, "tickfont": {"color": GREY}}
        figure = graph_objects.Figure(
            graph_objects.Heatmap(
                x=columns.astype(np.int16), y=rows.astype(np.int16), z=shown.astype(np.float32),
                colorscale="Turbo_r", zmin=low, zmax=max(high, low + 1e-6),
                colorbar=bar,
                hovertemplate="%{z:.3g}" + unit + "<extra></extra>",
            )
        )  # fmt: skip
        style(figure, 360)
        figure.update_layout(margin={"l": 8, "r": 8, "t": 12, "b": 12})
        figure.update_xaxes(showticklabels=False, ticks="", showgrid=False, showline=False, constrain="domain")
        figure.update_yaxes(
            showticklabels=False,
            ticks="",
            showgrid=False,
            showline=False,
            autorange="reversed",
            scaleanchor="x",
            constrain="domain",
        )
        return Preview("plot", figure, f"{sample.name}: {sample.summary}")


def _exr_windows(path: Path) -> list[tuple[int, int]]:
    """Read height and width of what an exr file holds and of what is to be seen of it."""
    with open(path, "rb") as file:
        header = file.read(_EXR_HEADER_BYTES)
    windows = []
    for name in (b"dataWindow", b"displayWindow"):
        start = header.find(name + b"\0box2i\0\x10\0\0\0")
        corners = header[start + len(name) + 11 :][:16]
        if start < 0 or len(corners) < 16:
            raise Damaged("it does not say how large it is")
        left, top, right, bottom = struct.unpack("<4i", corners)
        windows.append((bottom - top + 1, right - left + 1))
    if min(min(size) for size in windows) < 1:
        raise Damaged("it has no pixels")
    return windows


def to_picture(depth_m: np.ndarray) -> np.ndarray:
    """Encode depth as brightness: inverse depth between its 2nd and 98th percentile.

    Args:
        depth_m: [H, W] float32 in metres, NaN where unknown.

    Returns:
        [H, W, 3] uint8: 255 near, 26 far, 0 unknown.
    """
    known = np.isfinite(depth_m)
    inverse = np.zeros_like(depth_m)
    np.divide(1.0, depth_m, out=inverse, where=known)
    values = inverse[known]
    low, high = np.percentile(values[:: max(1, values.size // 100_000)], (2, 98))
    share = np.clip((inverse - low) / max(high - low, 1e-9 * abs(high) + 1e-12), 0, 1)
    grey = np.where(known, FAR_VALUE + (1 - FAR_VALUE) * share, 0)
    return np.repeat((grey * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
