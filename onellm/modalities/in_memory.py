"""What lies in memory instead of a file: Pillow images, NumPy arrays and tensors become samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onellm.errors import FileError
from onellm.modalities.base import Sample
from onellm.modalities.readers.pictures import to_rgb
from onellm.modalities.readers.sound import Track

NAME = "data in memory"
# modality -> the array's shape for people, its number of dimensions, and the size of its last one
SHAPES = {
    "audio": ("[S]", 1, None),
    "point": ("[P, 6], xyz and rgb in 0..1", 2, 6),
    "fmri": ("[R, V] or [R, X, Y, Z]", None, None),
    "imu": ("[T, 6], m/s² and rad/s", 2, 6),
    "depth": ("[H, W] in metres", 2, None),
    "normal": ("[H, W, 3]", 3, 3),
}


def from_memory(modality: str, value: Any, rate_hz: float | None = None, picture: Any = None) -> Sample:
    """Turn data into a sample, as `load` does with a file.

    Args:
        modality: a key of `MODALITIES`.
        value: image: a Pillow image, or an array [H, W, 3] or [3, H, W], uint8 or 0..1. video: a list or an array of
            such. Other modalities: the array that a `Sample` of the modality holds; fmri also [V].
        rate_hz: audio (16,000 if None) and imu (50 if None): samples or rows a second.
        picture: depth and normal: the image beside the map.

    Returns:
        The sample.

    Raises:
        FileError: the array's shape is not the modality's.
    """
    if modality == "image":
        return Sample(modality, NAME, _rgb(value), "")
    if modality == "video":
        return Sample(modality, NAME, np.stack([_rgb(frame) for frame in value]), "")
    array = np.asarray(_to_numpy(value), np.float32)
    if modality == "fmri":
        array = np.atleast_2d(array)
    words, dimensions, last = SHAPES[modality]
    if dimensions not in (None, array.ndim) or last not in (None, array.shape[-1]) or not array.size:
        found = f"an array of shape {list(array.shape)}"
        raise FileError(f"{NAME}: {found} was given as {modality}; expected {words}; give it in this shape.")
    if modality == "audio":
        from onellm.modalities import MODALITIES

        rate = int(rate_hz or 16_000)
        return MODALITIES[modality].sample(Path(NAME), Track(array, rate, len(array) / rate, rate, 1))
    return Sample(modality, NAME, array, "", rate_hz or 50.0, None if picture is None else _rgb(picture))


def _to_numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _rgb(value: Any) -> np.ndarray:
    """Return [H, W, 3] uint8 of a Pillow image, an array, a tensor or a path."""
    from PIL import Image, ImageOps

    if isinstance(value, str | Path):
        from onellm.modalities import MODALITIES

        return MODALITIES["image"].load(value).array
    if isinstance(value, Image.Image):
        return np.asarray(to_rgb(ImageOps.exif_transpose(value)))
    array = _to_numpy(value)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.ndim == 3 and array.shape[-1] not in (3, 4) or not array.size:
        raise FileError(
            f"{NAME}: an array of shape {list(array.shape)} was given as a picture; expected [H, W, 3] or [3, H, W], "
            "uint8 or 0..1; give it in this shape."
        )
    if array.dtype != np.uint8:
        array = (np.nan_to_num(array).astype(np.float32) * (255 if array.max() <= 1 else 1)).clip(0, 255)
    return np.asarray(to_rgb(Image.fromarray(array.round().astype(np.uint8))))
