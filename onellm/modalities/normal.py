"""Normal maps: [H, W, 3] float32 unit vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from onellm.modalities.base import Preview, Sample, megabytes, refuse
from onellm.modalities.maps import Map, shade
from onellm.modalities.readers import exr
from onellm.modalities.readers.arrays import pick, read_arrays
from onellm.modalities.readers.pictures import open_image, size_text
from onellm.utils.limits import LIMITS

LENGTHS = (0.7, 1.3)  # lengths of vectors that pass for normals
_LEGEND_SIDE = 144  # pixels
_FORMATS = ("PNG", "WEBP", "JPEG", "TIFF", "TGA", "BMP")
_EXR_NAMES = (("x", "y", "z"), ("r", "g", "b"))
_NOTHING = 0.1  # length of a vector that stands for no normal
_STEEP = 0.2  # z of what is too steep to have a slope
_STEP = 0.5  # change of slope from pixel to pixel that is an edge
_SURE = 0.25  # correlation of slopes by which the direction of y is told
_QUADS = 200  # squares of pixels that are needed for it


class Normal(Map):
    """Surface normal maps, alone or with the picture they belong to.

    Canonical array: [H, W, 3] float32, unit vectors in the camera's frame: x to the right, y up, z towards
    the viewer; 0, 0, 0 where unknown.

    A picture holds (normal + 1) / 2 as red, green, blue; black or transparent pixels are unknown. An array is
    [H, W, 3] or [3, H, W] in -1..1, in 0..1 or of whole numbers. Which way y points is told by whether the normals
    can be those of one surface; a map in OpenCV's frame (y down, z away) or with red and blue swapped is turned.
    What was decided stands in the sample's notes.
    """

    name = "normal"
    title = "Normal"
    icon = "🧊"
    suffixes = (".png", ".npy", ".npz", ".webp", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", ".tga", ".bmp")
    layout = ("[H, W, 3]", 3, 3)
    unit = "unit vectors"
    expects = (
        "a normal map (png, webp, jpg, tiff or exr with x, y, z as red, green, blue, or npy [H, W, 3]) "
        f"of up to {megabytes(LIMITS.normal_bytes)}"
    )

    def read(self, path: Path, picture: str | Path | None = None, y: str | None = None, z: str | None = None) -> Sample:
        """Read a normal map.

        Args:
            path: the file.
            picture: the picture the map belongs to, an image file.
            y: "up" or "down", where the file's second component points; by evidence if not given.
            z: "towards" or "away" from the viewer, where the third one points; by evidence if not given.

        Returns:
            A sample whose array is [H, W, 3] float32.
        """
        for option, value, valid in (("y", y, ("up", "down")), ("z", z, ("towards", "away"))):
            if value not in (None, *valid):
                raise refuse(path, f"the option {option} is {value!r}", " or ".join(valid), "correct the option")
        normals, known = self._read_vectors(path)
        lengths = np.linalg.norm(normals, axis=2)
        known &= np.isfinite(lengths) & (lengths > 1e-3)
        if not known.any():
            raise refuse(path, "no pixel has a normal", self.expects, "check how the map was saved")
        share = float(((lengths[known] > LENGTHS[0]) & (lengths[known] < LENGTHS[1])).mean())
        if share < 0.5:
            found = f"only {share:.0%} of the pixels hold vectors of length 1"
            raise refuse(path, found, self.expects, "give photographs as image, or save the normals again")
        normals = np.divide(normals, lengths[..., None], out=np.zeros_like(normals), where=known[..., None])
        notes: list[str] = []
        normals = _turned(normals, known, y, z, notes)
        summary = f"{size_text(normals.shape[1], normals.shape[0])}, {known.mean():.0%} known"
        return Sample(
            self.name,
            path.name,
            normals,
            summary,
            picture=self.read_picture(picture, normals.shape[:2], notes),
            notes=notes,
        )

    def _read_vectors(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return [H, W, 3] float32 in -1..1 and which pixels may be known."""
        with open(path, "rb") as file:
            head = file.read(8)
        if head.startswith((b"\x93NUMPY", b"PK\3\4")):
            return self._read_numpy(path)
        return self._read_exr(path) if head.startswith(b"v/1\x01") else self._read_image(path)

    def _read_exr(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        for size in exr.windows(path):
            self.check_pixels(path, *size)
        channels = exr.read_channels(path)
        last = {name.rpartition(".")[2].lower(): values for name, values in reversed(channels.items())}
        names = next((names for names in _EXR_NAMES if set(names) <= set(last)), None)
        if names is None:
            found = f"channels {', '.join(list(channels)[:8])}"
            raise refuse(path, found, "channels X, Y, Z or R, G, B", "save the normals as three channels")
        return from_array(np.stack([last[name] for name in names], axis=-1))

    def _read_numpy(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return [H, W, 3] float32 in -1..1 and which pixels may be known."""
        arrays = read_arrays(path, LIMITS.map_pixels * 3 * 8, self.expects)
        array = (
            pick(arrays, "", "normal", "normals", "normal_map", "arr_0")
            if len(arrays) > 1
            else next(iter(arrays.values()))
        )
        while array is not None and array.ndim > 3 and array.shape[0] == 1:
            array = array[0]
        if array is not None and array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
            array = array.transpose(1, 2, 0)
        if array is None or array.ndim != 3 or array.shape[2] != 3:
            found = "arrays without names" if array is None else f"an array of shape {list(array.shape)}"
            raise refuse(path, found, "[H, W, 3]", "save the normals alone")
        self.check_pixels(path, *array.shape[:2])
        return from_array(array)

    def _read_image(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return [H, W, 3] float32 in -1..1 and which pixels may be known."""
        with open_image(path, LIMITS.map_pixels, _FORMATS) as image:
            if image.mode not in ("RGB", "RGBA", "P"):
                found = f"a picture of mode {image.mode}, without three colours"
                raise refuse(path, found, self.expects, "save x, y, z as red, green, blue")
            return from_picture(np.asarray(image.convert("RGBA")))

    def clean(self, path: Path, array: np.ndarray, notes: list[str]) -> np.ndarray:
        """Mark what is no direction as unknown (0, 0, 0)."""
        return np.where(np.isfinite(array).all(axis=2, keepdims=True), array, np.float32(0))

    def arrays(self, sample: Sample) -> dict[str, np.ndarray]:
        """Return "array" [H, W, 3] and "known" [H, W] bool."""
        return {"array": sample.array, "known": (sample.array != 0).any(axis=2)}

    def renderings(self, array: np.ndarray, side: int) -> dict[str, Callable[[], np.ndarray]]:
        """Return normals as colours, and shaded."""
        return {"coded": lambda: to_picture(array), "shaded": lambda: shade(array)}

    def preview(self, sample: Sample, **settings) -> Preview:
        """Show the map as colours; the legend is a ball of all directions that face the viewer."""
        from PIL import Image

        image = Image.fromarray(to_picture(sample.array))
        alpha = np.any(sample.array != 0, axis=2)
        image.putalpha(Image.fromarray(np.where(alpha, 255, 0).astype(np.uint8)))
        image.thumbnail((768, 768))
        if max(image.size) < 256:
            factor = 256 // max(image.size) + 1
            image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
        legend = Image.fromarray(_sphere(_LEGEND_SIDE))
        return Preview("image", image, f"{sample.name}: {sample.summary}", legend=legend)


def from_picture(rgba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decode normals from colours.

    Args:
        rgba: [H, W, 4] uint8.

    Returns:
        [H, W, 3] float32 in -1..1, not brought to length 1, and [H, W] bool: which pixels may be known.
    """
    known = (rgba[..., 3] > 127) & (rgba[..., :3] > 0).any(axis=2)
    normals = rgba[..., :3].astype(np.float32) / 127.5 - 1
    # 127 and 128 are the same "no direction"; both would otherwise be tiny vectors of length below 0.01
    return normals, known & (np.abs(normals) > 0.012).any(axis=2)


def from_array(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring an array of normals to -1..1.

    Args:
        array: [H, W, 3] numbers in -1..1, in 0..1 or in 0..255.

    Returns:
        As `from_picture`.
    """
    normals = array.astype(np.float32)
    known = np.isfinite(normals).all(axis=2) & (normals != 0).any(axis=2)
    normals[~known] = 0
    if not known.any():
        return normals, known
    low, high = float(normals[known].min()), float(normals[known].max())
    if high > 1.5 or low < -1.5:
        wide = max(high, -low) > 300
        if array.dtype.kind in "iu" or low >= 0 and high > 100:  # whole numbers, of 8 or 16 bits
            if low < 0:
                return normals / (32_767 if wide else 127), known
            normals = normals / (32_767.5 if wide else 127.5) - 1
            known &= (np.abs(normals) > 0.012).any(axis=2)
    elif low >= 0:
        centred = normals * 2 - 1
        far = known & (np.linalg.norm(centred, axis=2) > _NOTHING)  # (0.5, 0.5, 0.5) is no direction
        if _share_of_units(centred, far) > _share_of_units(normals, known):
            normals, known = centred, far
    return normals, known


def _share_of_units(vectors: np.ndarray, known: np.ndarray) -> float:
    """Tell how many of the known vectors [H, W, 3] have about length 1."""
    lengths = np.linalg.norm(vectors[known], axis=-1)
    return float((np.abs(lengths - 1) < 0.1).mean()) if lengths.size else 0.0


def _turned(normals: np.ndarray, known: np.ndarray, y: str | None, z: str | None, notes: list[str]) -> np.ndarray:
    """Bring unit vectors [H, W, 3] to x right, y up, z towards the viewer; say what was decided."""
    x_values, _, z_values = normals[known].T
    if (x_values > 0).mean() > 0.98 and (z_values < 0).mean() > 0.2:
        normals = np.ascontiguousarray(normals[..., ::-1])
        z_values = x_values
        notes.append("red and blue seem to be swapped: read as z, y, x")
    away = float((z_values < -0.2).mean())
    if z is None and away > 0.95:
        z = "away"
        notes.append("z points away from the viewer in the file: turned around (option z)")
    elif z is None and away > 0.5:
        notes.append(f"{away:.0%} of the normals point away from the viewer: is z meant the other way? (option z)")
    if z == "away":
        normals[..., 2] *= -1
    if y is None:
        agreement = _agreement(normals, known)
        if agreement is not None and agreement < -_SURE:
            y = "down"
            notes.append("y, the green channel, points down in the file: turned up (option y)")
        elif agreement is not None and agreement < _SURE:
            notes.append("which way y, the green channel, points cannot be told: taken as up (option y)")
    if y == "down":
        normals[..., 1] *= -1
    return normals


def _agreement(normals: np.ndarray, known: np.ndarray) -> float | None:
    """Correlate how the slope along x changes along y with how the slope along y changes along x.

    On one surface the two are equal, as d2z/dxdy = d2z/dydx; where y is meant the other way, they are opposite.

    Args:
        normals: [H, W, 3] unit vectors, x right, y up.
        known: [H, W] bool.

    Returns:
        -1..1; None where there is too little to tell, as on a plane.
    """
    inside = known & (normals[..., 2] > _STEEP)
    safe = np.where(inside, normals[..., 2], 1)
    along_x, along_y = -normals[..., 0] / safe, -normals[..., 1] / safe
    square = inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:]
    of_x = (along_x[:-1, :-1] + along_x[:-1, 1:] - along_x[1:, :-1] - along_x[1:, 1:]) / 2
    of_y = (along_y[:-1, 1:] + along_y[1:, 1:] - along_y[:-1, :-1] - along_y[1:, :-1]) / 2
    square &= (np.abs(of_x) < _STEP) & (np.abs(of_y) < _STEP)
    first, second = of_x[square].astype(np.float64), of_y[square].astype(np.float64)
    powers = float((first**2).sum() * (second**2).sum())
    if first.size < _QUADS or powers < 1e-12:
        return None
    return float((first * second).sum() / powers**0.5)


def to_picture(normals: np.ndarray) -> np.ndarray:
    """Encode normals as colours.

    Args:
        normals: [H, W, 3] float32 in -1..1, 0, 0, 0 where unknown.

    Returns:
        [H, W, 3] uint8: (normal + 1) / 2 as red, green, blue; black where unknown.
    """
    known = np.any(normals != 0, axis=2, keepdims=True)
    return np.where(known, (normals + 1) * 127.5 + 0.5, 0).clip(0, 255).astype(np.uint8)


def _sphere(side: int) -> np.ndarray:
    """Draw a ball coloured by its normals: [side, side, 4] uint8."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(axis, -axis)
    square = 1 - x**2 - y**2
    normals = np.stack([x, y, np.sqrt(np.maximum(square, 0))], axis=2)
    alpha = np.clip(square * side / 4, 0, 1) * 255
    return np.dstack([to_picture(normals), alpha.astype(np.uint8)])
