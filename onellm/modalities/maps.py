"""What depth and normal maps share: the picture that may belong to a map, and shading, as of a plaster model.

A backbone that learned from photographs knows shaded shapes better than coded distances or directions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onellm.modalities.base import Coverage, Modality, Sample, refuse
from onellm.modalities.image import Image
from onellm.modalities.readers.pictures import CLIP_MEAN, CLIP_STD, covered_pixels, millions, size_text, to_pixels
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch

__all__ = ["Map", "normals_of", "shade", "shrink"]

FIELD_OF_VIEW_DEG = 50.0  # assumed, as depth maps do not say theirs; the shading hardly depends on it
LAMP = np.array([0.6, 0.4, 0.7], np.float32) / np.float32(np.sqrt(1.01))  # from the upper right, towards the surface
PLASTER, AMBIENT, DIFFUSE, HEADLAMP = 0.6, 0.25, 0.8, 0.1
BACKGROUND = 0.92  # brightness where nothing is known


def shrink(values: np.ndarray, side: int) -> np.ndarray:
    """Average blocks of pixels, which also takes a sensor's noise away, while the shorter side stays above `side`.

    Args:
        values: [H, W] or [H, W, C] float32, NaN where unknown.
        side: shorter side wanted, in pixels.

    Returns:
        The same at a whole fraction of the size; NaN where a block is mostly unknown.
    """
    block = max(1, min(values.shape[:2]) // side)
    if block == 1:
        return values
    height, width = (length // block for length in values.shape[:2])
    blocks = values[: height * block, : width * block].reshape(height, block, width, block, -1)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    mean = np.where(known, blocks, 0).sum(axis=(1, 3)) / np.maximum(count, 1)
    mean[count < block * block / 2] = np.nan
    return mean.reshape(height, width, *values.shape[2:]).astype(np.float32)


def normals_of(depth_m: np.ndarray) -> np.ndarray:
    """Estimate surface normals from depths.

    Between a pixel and its two neighbours on an axis, the nearer neighbour in space counts, so that an object's
    outline does not bend towards what lies behind it.

    Args:
        depth_m: [H, W] float32 along the optical axis, NaN where unknown.

    Returns:
        [H, W, 3] float32 unit vectors, x right, y up, z towards the viewer; 0, 0, 0 where unknown.
    """
    height, width = depth_m.shape
    focal = 0.5 * max(height, width) / np.tan(np.radians(FIELD_OF_VIEW_DEG / 2))
    right = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal
    up = (height / 2 - 0.5 - np.arange(height, dtype=np.float32)) / focal
    points = np.stack([right * depth_m, up[:, None] * depth_m, -depth_m], axis=-1)
    across, down = _step(points, 1), _step(points, 0)
    normals = np.cross(across, -down)
    lengths = np.linalg.norm(normals, axis=2, keepdims=True)
    normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 1e-20)
    normals = np.where(normals[..., 2:] < 0, -normals, normals)
    facing = np.array([0, 0, 1], normals.dtype)  # a lone pixel is taken to face the viewer
    normals = np.where(np.any(normals != 0, axis=2, keepdims=True), normals, facing)
    return np.where(np.isfinite(depth_m)[..., None], normals, 0).astype(np.float32)


def _step(points: np.ndarray, axis: int) -> np.ndarray:
    """Return the vector [H, W, 3] to the next pixel of an axis, by whichever neighbour is nearer, 0 where neither."""
    margin = [(1, 1) if index == axis else (0, 0) for index in range(3)]
    padded = np.pad(points, margin, constant_values=np.nan)
    steps = np.diff(padded, axis=axis)
    count = points.shape[axis]
    before, after = (np.take(steps, np.arange(count) + shift, axis=axis) for shift in (0, 1))
    lengths = [np.nan_to_num(np.linalg.norm(step, axis=2, keepdims=True), nan=np.inf) for step in (before, after)]
    alike = (lengths[0] < 2 * lengths[1]) & (lengths[1] < 2 * lengths[0])
    chosen = np.where(lengths[0] < lengths[1], before, after)
    return np.nan_to_num(np.where(alike, (before + after) / 2, chosen))


def shade(normals: np.ndarray) -> np.ndarray:
    """Light a surface from the upper right.

    Args:
        normals: [H, W, 3] float32 unit vectors in the camera's frame, 0, 0, 0 where unknown.

    Returns:
        [H, W, 3] uint8, grey on a light ground.
    """
    known = np.any(normals != 0, axis=2)
    light = AMBIENT + DIFFUSE * np.maximum(normals @ LAMP, 0) + HEADLAMP * np.maximum(normals[..., 2], 0)
    grey = np.where(known, np.minimum(PLASTER * light, 1), BACKGROUND)
    return np.repeat((grey * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)


class Map(Modality):
    """A depth or a normal map: how it is turned into pictures, alone or with the picture it belongs to."""

    def renderings(self, array: np.ndarray, side: int) -> dict[str, Callable[[], np.ndarray]]:
        """Return functions that make pictures [H, W, 3] uint8 of a map, by name: "coded" and "shaded".

        Args:
            array: the map.
            side: length of the shorter side that is wanted, in pixels.
        """
        raise NotImplementedError

    def check_pixels(self, path: Path, height: int, width: int) -> None:
        """Refuse a map that is too large.

        Raises:
            FileError: it has more pixels than `map_pixels` of the limits.
        """
        if height * width > LIMITS.map_pixels:
            found = f"a map of {size_text(width, height)}"
            raise refuse(path, found, f"at most {millions(LIMITS.map_pixels)}", "make it smaller")

    def read_picture(self, path: str | Path | None, shape: tuple[int, ...], notes: list[str]) -> np.ndarray | None:
        """Read the picture that belongs to a map.

        Args:
            path: an image file, or None.
            shape: height and width of the map.
            notes: the sample's notes; one is added if the two do not have the same proportions.

        Returns:
            The picture [H, W, 3] uint8, or None.
        """
        if path is None:
            return None
        picture = Image().load(path).array
        proportions = picture.shape[0] / picture.shape[1], shape[0] / shape[1]
        if abs(proportions[0] / proportions[1] - 1) > 0.05:
            notes.append("the picture and the map have different proportions: do they belong together?")
        return picture

    def from_memory(self, value: Any, picture: Any = None) -> Sample:
        """Turn a map into a sample, with the picture that belongs to it: what `Image.from_memory` takes, or None."""
        return super().from_memory(value, picture=None if picture is None else Image().rgb(picture))

    def to_tensor(
        self,
        sample: Sample,
        size: int = 224,
        resize: int | None = None,
        mean: tuple[float, ...] = CLIP_MEAN,
        std: tuple[float, ...] = CLIP_STD,
        looks: tuple[str, ...] = ("coded",),
    ) -> torch.Tensor:
        """Render a map as pictures; resize, cut and normalise them.

        Args:
            sample: what `load` returned.
            size: side of the square, in pixels.
            resize: length of the shorter side before cutting; `size` if None.
            mean: mean a channel, in 0..1.
            std: standard deviation a channel, in 0..1.
            looks: names of the renderings: "coded" (depth as brightness, normals as colours), "shaded" as if lit by
                a lamp.

        Returns:
            [looks, 3, size, size] float32, or [1 + looks, 3, size, size] with the picture first.
        """
        renderings = self.renderings(sample.array, resize or size)
        pictures = [] if sample.picture is None else [sample.picture]
        return to_pixels([*pictures, *(renderings[name]() for name in looks)], size, resize, mean, std)

    def coverage(self, sample: Sample, **settings) -> Coverage:
        """Say how many pixels of the map the model takes."""
        return covered_pixels(sample, **settings)
