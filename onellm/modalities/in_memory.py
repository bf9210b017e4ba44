"""What lies in memory instead of a file: Pillow images, NumPy arrays and tensors become samples."""

from typing import Any

from onellm.modalities import MODALITIES
from onellm.modalities.base import Sample

__all__ = ["from_memory"]


def from_memory(modality: str, value: Any, **options: Any) -> Sample:
    """Turn data into a sample, as `load` does with a file.

    Args:
        modality: a key of `MODALITIES`.
        value: image: a Pillow image, or an array [H, W, 3] or [3, H, W], uint8 or 0..1. video: a list or an array of
            such. Other modalities: the array that a `Sample` of the modality holds; fmri also [V].
        **options: audio (16,000 if not given) and imu (50): `rate_hz`, samples or rows a second; depth and normal:
            `picture`, the image that belongs to the map. None means "not given".

    Returns:
        The sample.

    Raises:
        FileError: the array's shape is not the modality's, or it holds nothing that is a number.
    """
    return MODALITIES[modality].from_memory(value, **{key: item for key, item in options.items() if item is not None})
