"""Images: [H, W, 3] uint8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onellm.modalities.base import IN_MEMORY, Coverage, Modality, Preview, Sample, megabytes, refuse, to_numpy
from onellm.modalities.readers.pictures import (
    CLIP_MEAN,
    CLIP_STD,
    covered_pixels,
    fitted,
    framed,
    millions,
    read_picture,
    size_text,
    to_pixels,
    to_rgb,
)
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch


class Image(Modality):
    """Photographs and drawings, read with Pillow.

    Canonical array: [H, W, 3] uint8, upright, transparency on white, 16-bit and float scaled to 0..255;
    the first frame of animations; reduced to 2,048 pixels where the longer side has more.
    """

    name = "image"
    title = "Image"
    icon = "🖼️"
    suffixes = (
        ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".hif", ".avif", ".jxl",
        ".jfif", ".jpe", ".jif", ".mpo", ".apng", ".dib", ".jp2", ".ppm", ".pgm", ".pnm", ".tga", ".ico",
    )  # fmt: skip
    unit = "red, green, blue in 0..255"
    expects = (
        f"a picture (png, jpg, webp, heic, avif, jxl, bmp, tiff or gif) of up to {megabytes(LIMITS.image_bytes)} "
        f"and {millions(LIMITS.image_pixels)}"
    )

    def read(self, path: Path) -> Sample:
        """Read a picture.

        Args:
            path: the file.

        Returns:
            A sample whose array is [H, W, 3] uint8.
        """
        array, (width, height), notes = read_picture(path)
        return Sample(self.name, path.name, array, size_text(width, height), notes=notes, size=(width, height))

    def from_memory(self, value: Any) -> Sample:
        """Turn a picture into a sample.

        Args:
            value: a Pillow image, an array or a tensor [H, W, 3] or [3, H, W], uint8 or 0..1, or a path.

        Raises:
            FileError: it is no picture.
        """
        return Sample(self.name, IN_MEMORY, self.rgb(value), "")

    def rgb(self, value: Any) -> np.ndarray:
        """Return [H, W, 3] uint8 of what `from_memory` takes."""
        from PIL import Image, ImageOps

        if isinstance(value, str | Path):
            return self.load(value).array
        if isinstance(value, Image.Image):
            return np.asarray(to_rgb(ImageOps.exif_transpose(value)))
        array = to_numpy(value)
        if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):
            array = np.moveaxis(array, 0, -1)
        if array.ndim == 3 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim not in (2, 3) or array.ndim == 3 and array.shape[-1] not in (3, 4) or not array.size:
            found = f"an array of shape {list(array.shape)} for a picture"
            raise refuse(IN_MEMORY, found, "[H, W, 3] or [3, H, W], uint8 or 0..1", "give it in this shape")
        if array.dtype != np.uint8:
            finite = np.isfinite(array)
            top = array[finite].max(initial=0)  # the pixels that are no numbers do not say what the others are
            deep = array.dtype.kind in "ui" and top > 255  # whole numbers of more than 8 bits
            factor = 255 / (2 ** int(top).bit_length() - 1) if deep else 255 if top <= 1 else 1
            array = np.where(finite, array, 0).astype(np.float32) * factor
            array = array.clip(0, 255).round().astype(np.uint8)
        return np.asarray(to_rgb(Image.fromarray(array)))

    def to_tensor(
        self,
        sample: Sample,
        size: int = 224,
        resize: int | None = None,
        mean: tuple[float, ...] = CLIP_MEAN,
        std: tuple[float, ...] = CLIP_STD,
        whole: bool = False,
        fit: str = "cut",
    ) -> torch.Tensor:
        """Resize the shorter side, cut the centre and normalise.

        Args:
            sample: what `load` returned.
            size: side of the square, in pixels.
            resize: length of the shorter side before cutting; `size` if None.
            mean: mean a channel, in 0..1.
            std: standard deviation a channel, in 0..1.
            whole: add a second view, the whole picture in a frame and mirrored, so that nothing is cut off.
            fit: what is done before, so that the centre is all: "squeeze" or "pad", see `fitted`.

        Returns:
            [3, size, size] float32, or [2, 3, size, size].
        """
        if whole:
            return to_pixels([sample.array, framed(sample.array)[:, ::-1]], size, resize, mean, std)
        return to_pixels([fitted(sample.array, fit, size, mean)], size, resize, mean, std)[0]

    def coverage(self, sample: Sample, **settings) -> Coverage:
        """Say how many of its pixels the model takes."""
        return covered_pixels(sample, **settings)

    def preview(self, sample: Sample, **settings) -> Preview:
        """Show the picture, at most 1,024 pixels wide and high."""
        from PIL import Image as PillowImage

        image = PillowImage.fromarray(sample.array)
        image.thumbnail((1024, 1024))
        return Preview("image", image, f"{sample.name}: {sample.summary}")
