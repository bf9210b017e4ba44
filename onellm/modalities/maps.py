"""What depth and normal maps share: the picture beside a map, and its shading, as a photograph of plaster shows it.

A backbone that learned from photographs knows shaded shapes better than coded distances or directions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onellm.modalities.base import Sample
from onellm.modalities.image import Image
from onellm.modalities.readers.pictures import to_pixels

if TYPE_CHECKING:
    import torch

__all__ = ["beside", "normals_of", "read_beside", "shade", "shrink"]

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
    margin = [(1, 1) if place == axis else (0, 0) for place in range(3)]
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


def read_beside(path: str | Path | None, shape: tuple[int, int], notes: list[str]) -> np.ndarray | None:
    """Read the picture beside a depth or normal map.

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


def beside(
    sample: Sample,
    looks: list[np.ndarray],
    size: int,
    resize: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> torch.Tensor:
    """Turn pictures made of a map, and the picture beside it, into pixels.

    Args:
        sample: the map's sample.
        looks: what was made of the map, each [H, W, 3] uint8.
        size: see `to_pixels`.
        resize: see `to_pixels`.
        mean: see `to_pixels`.
        std: see `to_pixels`.

    Returns:
        [looks, 3, size, size] float32, or [1 + looks, 3, size, size] with the picture first.
    """
    pictures = looks if sample.picture is None else [sample.picture, *looks]
    return to_pixels(pictures, size, resize, mean, std)
