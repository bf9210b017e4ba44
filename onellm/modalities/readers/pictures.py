"""Pictures: reading them safely, and turning [H, W, 3] uint8 into what a visual encoder takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onellm.modalities.base import Coverage, Damaged, Sample, refuse
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "STILL_BRANDS",
    "fitted",
    "framed",
    "millions",
    "open_image",
    "read_picture",
    "covered_pixels",
    "size_text",
    "to_pixels",
    "to_rgb",
]

# Mean and standard deviation of CLIP's training pictures, in 0..1.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Brands of the first box of files that hold pictures: HEIC, AVIF.
STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1", b"avif")

FITS = ("cut", "squeeze", "pad")
_LONGEST_RATIO = 4  # longer strips lose their ends before they are resized


def open_image(path: Path, limit_pixels: int, formats: tuple[str, ...]) -> Image.Image:
    """Open a picture and check its header; the pixels are not decoded yet.

    Args:
        path: the file.
        limit_pixels: most pixels it may have.
        formats: Pillow's names of the formats that are read.

    Returns:
        The opened picture.

    Raises:
        FileError: if it has too many pixels, or none.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(path, formats=formats)
    except UnidentifiedImageError as error:
        raise Damaged("not a picture in these formats") from error
    except Image.DecompressionBombError as error:
        raise refuse(path, "the picture is too large", _at_most(limit_pixels), "make it smaller") from error
    width, height = image.size
    if width < 1 or height < 1:
        raise Damaged("a picture without pixels")
    if width * height > limit_pixels:
        found = f"the picture has {size_text(width, height)}"
        raise refuse(path, found, _at_most(limit_pixels), "make it smaller")
    return image


def _at_most(limit_pixels: int) -> str:
    return f"at most {millions(limit_pixels)}"


def millions(pixels: int) -> str:
    """Return a number of pixels for people."""
    return f"{pixels / 1e6:,g} million pixels"


def read_picture(path: Path) -> tuple[np.ndarray, tuple[int, int], list[str]]:
    """Read any picture as RGB: upright, on white where it is transparent, first frame if it has several.

    Args:
        path: the file.

    Returns:
        The picture [H, W, 3] uint8, reduced if it is very large; its width and height in the file; notes.

    Raises:
        FileError: if the picture has too many pixels.
    """
    from PIL import ImageOps

    formats = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
    with open_image(path, LIMITS.image_pixels, formats) as image:
        notes = []
        # not n_frames, for which Pillow walks through all of them
        if getattr(image, "is_animated", False) and image.format != "MPO":
            image.seek(0)
            notes.append("only the first frame is used")
        size = image.size
        side = LIMITS.image_side_pixels
        if max(size) > side:
            image.draft("RGB", (side, side))  # lets JPEG decode at a fraction of its size
        rgb = to_rgb(image)
        if max(rgb.size) > side:
            rgb.thumbnail((side, side), reducing_gap=2.0)
        turned = ImageOps.exif_transpose(_with_exif(rgb, image))
    if turned.size != rgb.size:
        size = size[::-1]
    return np.asarray(turned), size, notes


def _with_exif(rgb: Image.Image, source: Image.Image) -> Image.Image:
    """Carry over the orientation, which conversions may drop."""
    if 0x0112 in source.getexif():
        rgb.getexif()[0x0112] = source.getexif()[0x0112]
    return rgb


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any mode to RGB, keeping 16-bit and float content visible."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.asarray(image, np.float32)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if image.mode != "F":
            low, high = 0.0, 65535.0 if high > 255 else 255.0
        scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-12)
        return Image.fromarray((scaled.clip(0, 1) * 255 + 0.5).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def to_pixels(
    pictures: list[np.ndarray],
    size: int = 224,
    resize: int | None = None,
    mean: tuple[float, ...] = CLIP_MEAN,
    std: tuple[float, ...] = CLIP_STD,
    crops: int = 1,
) -> torch.Tensor:
    """Resize, crop and normalise pictures.

    Args:
        pictures: N pictures [H, W, 3] uint8 of any sizes.
        size: side of the square that is cut out.
        resize: length the shorter side is resized to (bicubic) before cutting; `size` if None.
        mean: mean a channel, in 0..1.
        std: standard deviation a channel, in 0..1.
        crops: 1 cuts the centre; 3 cuts start, centre and end of the longer side.

    Returns:
        [N * crops, 3, size, size] float32, the crops of one picture next to each other.
    """
    import torch

    squares = np.stack([s for picture in pictures for s in _squares(picture, size, resize or size, crops)])
    scale = 1.0 / (255.0 * np.asarray(std, np.float32))
    shift = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    pixels = squares.astype(np.float32) * scale - shift
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _squares(picture: np.ndarray, size: int, resize: int, crops: int) -> list[np.ndarray]:
    """Return 1 or 3 squares [size, size, 3] of a picture whose shorter side becomes `resize`."""
    from PIL import Image

    if crops not in (1, 3):
        raise ValueError(f"crops is {crops}; expected 1 or 3")
    if resize < size:
        raise ValueError(f"resize is {resize}; expected at least size, {size}")
    picture = _without_ends(picture)
    height, width = picture.shape[:2]
    scale = resize / min(height, width)
    # torchvision's rule: the longer side is rounded down.
    target = (
        resize if width <= height else int(width * scale),
        resize if height <= width else int(height * scale),
    )
    image = Image.fromarray(np.ascontiguousarray(picture))
    # The gap only acts on reductions to a quarter or less: much faster, and equal to within 3 of 255 levels.
    image = image.resize(target, Image.Resampling.BICUBIC, reducing_gap=2.0)
    pixels = np.asarray(image)
    rest_y, rest_x = pixels.shape[0] - size, pixels.shape[1] - size
    squares = []
    for share in (0.5,) if crops == 1 else (0.0, 0.5, 1.0):
        y = round(rest_y * (share if rest_y >= rest_x else 0.5))
        x = round(rest_x * (share if rest_x >= rest_y else 0.5))
        squares.append(pixels[y : y + size, x : x + size])
    return squares


def _without_ends(picture: np.ndarray) -> np.ndarray:
    """Return the middle of a strip."""
    height, width = picture.shape[:2]
    longest = _LONGEST_RATIO * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return picture[top : top + longest, left : left + longest]


def fitted(picture: np.ndarray, fit: str, size: int, mean: tuple[float, ...]) -> np.ndarray:
    """Bring a picture into the form of a square.

    Args:
        picture: [H, W, 3] uint8.
        fit: one of `FITS`: "cut" leaves it as it is (`to_pixels` takes the middle), "squeeze" gives it other
            proportions, "pad" sets it on a square of the colour `mean`.
        size: side of the square to squeeze into, in pixels.
        mean: a channel, in 0..1.

    Returns:
        [H', W', 3] uint8.
    """
    from PIL import Image

    if fit not in FITS:
        raise ValueError(f"fit is {fit!r}; expected one of {', '.join(FITS)}")
    if fit == "cut":
        return picture
    picture = _without_ends(picture)
    if fit == "squeeze":
        return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((size, size), Image.Resampling.BICUBIC))
    height, width = picture.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = [int(255 * value) for value in mean]
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return square


def covered_pixels(
    sample: Sample,
    size: int = 224,
    resize: int | None = None,
    whole: bool = False,
    fit: str = "cut",
    **settings,
) -> Coverage:
    """Say how many pixels of a picture or a map `to_pixels` keeps.

    Args:
        sample: the picture's or the map's sample.
        size: see `to_pixels`.
        resize: see `to_pixels`.
        whole: a second view shows all of the picture.
        fit: see `fitted`.
        **settings: do not matter here.

    Returns:
        The pixels of the square, or of what is cut out for it where that is smaller.
    """
    height, width = sample.array.shape[:2]
    cut = min(height, width) * size // (resize or size)
    used = [min(size, side) for side in ((width, height) if whole or fit != "cut" else (cut, cut))]
    return Coverage("{:,} × {:,}".format(*used), "{:,} × {:,}".format(*(sample.size or (width, height))), "pixels")


def framed(picture: np.ndarray) -> np.ndarray:
    """Centre a picture on a square of its border's median colour, a ninth larger than its longer side.

    Args:
        picture: [H, W, 3] uint8.

    Returns:
        [S, S, 3] uint8.
    """
    height, width = picture.shape[:2]
    side = round(max(height, width) * 10 / 9)
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    square = np.empty((side, side, 3), np.uint8)
    square[:] = np.median(border, axis=0).astype(np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return square


def size_text(width: int, height: int) -> str:
    """Return a picture's size for people."""
    return f"{width:,} × {height:,} pixels"
