"""Depth maps: [H, W] float32 in metres."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onellm.modalities.base import Damaged, Preview, Sample, megabytes, refuse
from onellm.modalities.maps import Map, normals_of, shade, shrink
from onellm.modalities.plots import GREY, spread, style
from onellm.modalities.readers import exr
from onellm.modalities.readers.arrays import read_arrays
from onellm.modalities.readers.pictures import deep_pixels, is_deep, millions, open_image, size_text
from onellm.utils.limits import LIMITS

MILLIMETRE = 0.001
RELATIVE = 1 / 255  # of the farthest distance, a step of 8 bits
FAR_VALUE = 0.1  # brightness of the farthest points: 0 is kept for unknown ones
_NEAREST_M = 1e-6  # what is nearer is not a distance; one divided by it is too large a number
_PREVIEW_SIDE = 256
_SENTINELS = (65_504, 65_535)  # the largest half float, the largest number of 16 bits: no depth, where alone
_GAP = 1.1  # by which a value that stands for no depth is larger than all others
_FAR_M = 500  # floats whose median is above that are millimetres
_NAMES = ("depth", "depths", "depth_map", "depthmap", "depth_m", "z", "arr_0", "data", "array", "")
_INVERSE_NAMES = ("disparity", "disp", "inverse_depth", "inv_depth", "idepth")
_INVERSE_FILE = re.compile(r"(?<![a-z])(disp\d*|disparity|inverse|invdepth|midas|dpt)(?![a-z])", re.IGNORECASE)
# file names that tell of a data set -> metres a unit
_SCALES = (
    (re.compile(r"(?<![a-z])tum(?![a-z])|^\d{10}\.\d{6}\.png$", re.IGNORECASE), 1 / 5000, "TUM"),
    (re.compile(r"(?<![a-z])kitti(?![a-z])|proj_depth|velodyne_raw", re.IGNORECASE), 1 / 256, "KITTI"),
)


class Depth(Map):
    """Depth maps, alone or with the picture they belong to.

    Canonical array: [H, W] float32, metres along the viewing direction, NaN where unknown (0, negative or not
    a number in the file).

    Whole numbers are millimetres and floats are metres, unless their size, the file's name or the options say
    otherwise. 8 bits a pixel are relative distances, 255 farthest. What was decided stands in the sample's notes.
    """

    name = "depth"
    title = "Depth"
    icon = "📏"
    libraries = ("PIL.Image:init", "av")
    suffixes = (".png", ".npy", ".tif", ".tiff", ".exr", ".npz", ".pfm", ".pgm", ".h5", ".hdf5")
    layout = ("[H, W] in metres", 2, None)
    unit = "metres"
    expects = (
        f"a depth map (16-bit png, tiff or pgm, npy, npz, h5, pfm or exr) of up to {megabytes(LIMITS.depth_bytes)} "
        f"and {millions(LIMITS.map_pixels)}"
    )

    def read(
        self,
        path: Path,
        picture: str | Path | None = None,
        scale: float | None = None,
        inverse: bool | None = None,
    ) -> Sample:
        """Read a depth map.

        Args:
            path: the file.
            picture: the picture the map belongs to, an image file.
            scale: metres a unit of the file; of an inverse depth, of one by the file's values.
            inverse: whether the file holds inverse depth or disparity, near large and far small.

        Returns:
            A sample whose array is [H, W] float32 in metres.
        """
        if scale is not None and not 0 < float(scale) < 1e6:
            raise refuse(path, f"the option scale is {scale!r}", "metres a unit, above 0", "correct the option")
        notes: list[str] = []
        values, name = self._read_values(path)
        self.check_pixels(path, *values.shape)
        whole = values.dtype.kind in "biu"
        known = _known(values, notes)
        if inverse is None and (name in _INVERSE_NAMES or _INVERSE_FILE.search(path.stem)):
            inverse = True
            notes.append("its name says that it holds inverse depth or disparity (option inverse)")
        values = np.where(known, values, np.nan).astype(np.float32)
        if inverse:
            values = np.divide(1, values, out=np.full_like(values, np.nan), where=values > _NEAREST_M)
            relative = scale is None
            if relative:
                values = values / np.nanmax(values) if np.isfinite(values).any() else values
                notes.append("inverse depth: its distances are relative, not metres (option scale)")
        else:
            unit, relative = (1.0, False) if scale is not None else _unit(path, values, whole, notes)
        if not inverse or scale is not None:
            values = values * np.float32(scale or unit)
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

    def _read_values(self, path: Path) -> tuple[np.ndarray, str]:
        """Return values [H, W] as they are in a file, and the name that its array or channel has in it."""
        with open(path, "rb") as file:
            head = file.read(8)
        if head.startswith((b"\x93NUMPY", b"PK\3\4")):
            return self._read_numpy(path)
        if head.startswith(b"v/1\x01"):
            return self._read_exr(path)
        if head.startswith(b"\x89HDF"):
            return self._read_hdf(path)
        if re.match(rb"P[25]\s", head):
            return self._read_pgm(path), ""
        return self._read_image(path), ""

    def _read_numpy(self, path: Path) -> tuple[np.ndarray, str]:
        return self._pick(path, read_arrays(path, LIMITS.map_pixels * 16, self.expects))

    def _pick(self, path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, str]:
        """Choose the array that holds the depth: by its name, else the only one of two dimensions."""
        squeezed = {key.lower().rpartition("/")[2]: np.squeeze(value) for key, value in arrays.items()}
        flat = {key: value for key, value in squeezed.items() if value.ndim == 2}
        name = next((name for name in (*_NAMES, *_INVERSE_NAMES) if name in flat), None)
        if name is None and len(flat) == 1:
            name = next(iter(flat))
        if name is None:
            found = "several arrays" if flat else f"an array of shape {list(next(iter(arrays.values())).shape)}"
            raise refuse(path, found, "[H, W], metres", "save the depth alone, or call it depth")
        return flat[name], name

    def _read_hdf(self, path: Path) -> tuple[np.ndarray, str]:
        """Read the arrays of an HDF5 file that lie in it; what it links to elsewhere is not looked for."""
        import h5py

        arrays: dict[str, np.ndarray] = {}
        with h5py.File(path, "r") as file:
            for name in list(file)[: LIMITS.archive_names]:
                if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                    continue
                item = file[name]
                if (
                    not isinstance(item, h5py.Dataset)
                    or item.external
                    or item.is_virtual
                    or item.dtype.kind not in "biuf"
                ):
                    continue
                if 0 < math.prod(side for side in item.shape if side > 1) <= LIMITS.map_pixels:
                    arrays[name] = item[()]
        if not arrays:
            raise refuse(path, "no array of numbers in it", self.expects, "save the depth as [H, W], called depth")
        return self._pick(path, arrays)

    def _read_pgm(self, path: Path) -> np.ndarray:
        """Read grey values as they are: Pillow stretches them to all of 16 bits."""
        data = path.read_bytes()
        match = re.match(
            rb"(P[25])\s+(?:#[^\n]*\s+)*(\d{1,9})\s+(?:#[^\n]*\s+)*(\d{1,9})\s+(?:#[^\n]*\s+)*(\d{1,5})\s", data
        )
        if match is None:
            raise Damaged("it has no PGM header")
        width, height, top = (int(part) for part in match.groups()[1:])
        self.check_pixels(path, height, width)
        kind = np.dtype(">u2" if top > 255 else "u1")
        if match[1] == b"P2":
            values = np.array(data[match.end() :].split(), np.int64)[: width * height]
        else:
            values = np.frombuffer(data[match.end() :][: width * height * kind.itemsize], kind)
        if not width * height or len(values) < width * height:
            raise Damaged("it is cut short")
        return values.reshape(height, width).astype(np.uint16 if top > 255 else np.uint8)

    def _read_image(self, path: Path) -> np.ndarray:
        """Return values as they are in a png, tiff or pfm."""
        advice = "save the distances as 16-bit png or npy, not a colour picture of them"
        with open_image(path, LIMITS.map_pixels, ("PNG", "TIFF", "PPM")) as image:
            if image.mode == "F" or image.mode.startswith("I"):
                return np.asarray(image)
            if is_deep(path, image):
                pixels = deep_pixels(path, image.format)
                if pixels is None:
                    found = "a picture of several 16-bit channels"
                    raise refuse(path, found, self.expects, "save one 16-bit channel")
                colours = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]
                if np.ptp(colours.astype(np.int32), axis=2).max() > 2:
                    raise refuse(path, "a picture in colour", self.expects, advice)
                return colours[..., 0]
            if image.mode in ("RGB", "RGBA", "P", "LA"):
                channels = np.asarray(image.convert("RGB"), np.int16)
                if np.abs(channels - channels[..., :1]).max() > 2:
                    raise refuse(path, "a picture in colour", self.expects, advice)
                return channels[..., 0].astype(np.uint8)
            if image.mode == "L":
                return np.asarray(image)
            raise refuse(path, f"a picture of mode {image.mode}", self.expects, "save it as 16-bit png or npy")

    def _read_exr(self, path: Path) -> tuple[np.ndarray, str]:
        """Read the channel of an exr file that holds the depth: by its name, or the only one that differs from 0."""
        for size in exr.windows(path):  # the library makes the whole picture
            self.check_pixels(path, *size)
        channels = exr.read_channels(path)
        last = {name.rpartition(".")[2].lower(): name for name in reversed(channels)}
        for wanted in ("z", "depth", "distance", "v", "y"):
            if wanted in last:
                return channels[last[wanted]], wanted
        for name in channels:
            if "depth" in name.lower():
                return channels[name], "depth"
        used = {name: values for name, values in channels.items() if name.rpartition(".")[2] != "A" and values.any()}
        first = next(iter(used or channels))
        if any(not np.array_equal(values, used[first], equal_nan=True) for values in used.values()):
            found = f"channels {', '.join(list(channels)[:8])}, a picture in colour"
            raise refuse(path, found, "a channel Z, V or Y of distances", "save the depth as one float channel, or npy")
        return channels[first], first

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


def _known(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Tell which values [H, W] are distances: not 0, and not the one that stands for "unknown" or "far away"."""
    known = np.isfinite(values) & (values > 0)
    if not known.any():
        return known
    top = values[known].max()
    others = values[known & (values < top)]
    rest = float(others.max()) if others.size else 0.0
    lone = (float(top) in _SENTINELS and rest < float(top) / _GAP) or float(top) > 1000 * rest > 0
    if lone and rest > 0:
        known &= values < top
        if float(top) < 1e6:
            notes.append(f"the value {float(top):,.0f} was read as no depth")
    return known


def _unit(path: Path, values: np.ndarray, whole: bool, notes: list[str]) -> tuple[float, bool]:
    """Decide how many metres a unit of known values [H, W] is, and whether they are relative; say so."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 1.0, False
    top, middle = float(known.max()), float(np.median(known))
    if whole and top <= 255:
        notes.append(
            "8 bits a pixel: read as relative distance, not metres; 255 is taken for the farthest; where near is "
            "bright, it is inverse (options scale, inverse)"
        )
        return RELATIVE, True
    for pattern, scale, owner in _SCALES:
        if whole and (pattern.search(path.name) or pattern.search(path.parent.name)):
            notes.append(f"its name is that of {owner}: read as {1 / scale:,.0f} units a metre (option scale)")
            return scale, False
    if whole:
        notes.append("whole numbers were read as millimetres (option scale: 1/5000 for TUM, 1/256 for KITTI)")
        if top >= 65_000 and np.ptp(known) > 60_000:
            notes.append("its values fill 16 bits: it may be relative or inverse depth (option inverse)")
        return MILLIMETRE, False
    if middle > _FAR_M:
        notes.append(
            f"values about {middle:,.0f} were read as millimetres; they may be inverse (options scale, inverse)"
        )
        return MILLIMETRE, False
    notes.append("floats were read as metres (option scale)")
    if top <= 1 and (top == 1 or np.nanmin(known) < 0.01):
        notes.append("its values fill 0 to 1: it may be relative or inverse depth (option inverse)")
    return 1.0, False


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
