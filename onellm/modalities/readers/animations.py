"""Animated WebP, PNG and AVIF pictures, read with Pillow: libavformat knows only their first frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onellm.modalities.base import Damaged
from onellm.modalities.readers.pictures import open_image, to_rgb

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["READER", "frames", "opened", "times_ms"]

READER = "pillow"  # stands for this module where others are libavformat's readers
FORMATS = ("WEBP", "PNG", "AVIF")
_USUAL_MS = 100.0  # how long a frame is shown that does not say so, as browsers do


@contextmanager
def opened(path: Path, limit_pixels: int) -> Iterator[Image.Image]:
    """Open an animation; to be used in a `with` statement.

    Args:
        path: the file.
        limit_pixels: most pixels a frame may have.

    Raises:
        FileError: if it has more.
    """
    with open_image(path, limit_pixels, FORMATS) as image:
        yield image


def times_ms(image: Image.Image, limit: int) -> tuple[np.ndarray, float]:
    """Tell when each frame of an animation is shown; all are decoded for that.

    Args:
        image: the opened animation.
        limit: most frames it may have.

    Returns:
        [T] float64, and when the last one ends.
    """
    count = getattr(image, "n_frames", 1)
    if count > limit:
        raise Damaged(f"it has {count:,} frames")
    durations = []
    for number in range(count):
        image.seek(number)
        image.load()
        durations.append(float(image.info.get("duration") or _USUAL_MS))
    ends = np.cumsum(durations)
    return ends - durations, float(ends[-1])


def frames(image: Image.Image, chosen: np.ndarray) -> np.ndarray:
    """Decode frames.

    Args:
        image: the opened animation.
        chosen: [N] their numbers, in order.

    Returns:
        [N, H, W, 3] uint8, on white where they are transparent.
    """
    pictures: dict[int, np.ndarray] = {}
    for number in map(int, chosen):
        if number not in pictures:
            image.seek(number)
            pictures[number] = np.asarray(to_rgb(image))
    return np.stack([pictures[int(number)] for number in chosen])
