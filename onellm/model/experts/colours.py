"""Colours: how people would call those of a picture, and those of the main thing in it, by computation alone."""

from collections.abc import Sequence

import numpy as np

from onellm.modalities.base import Sample
from onellm.model.experts.base import Expert, Finding
from onellm.model.experts.objects import DETECTOR, FRAMES, Box, spread
from onellm.model.experts.wording import listed

SIDE = 128  # pixels of the longer side at which colours are counted
MOST = 3  # colours that are named of one thing
SHARE = 0.13  # a colour with less of a thing is not named
ALIKE = 0.06  # distance in OKLab at which two colours pass for one in a plain background
PLAIN = 0.85  # share of a picture's edge that is alike where the background is plain
WHOLE = 0.95  # share of one colour with which a picture has no other
SMALLEST = 0.02  # share of a picture below which a thing is not the main one

COLOURS = "black grey white red orange yellow green turquoise blue purple pink brown beige".split()
BLACK, GREY, WHITE, RED, ORANGE, YELLOW, GREEN, TURQUOISE, BLUE, PURPLE, PINK, BROWN, BEIGE = range(len(COLOURS))

# Björn Ottosson, "A perceptual color space for image processing", 2020: linear sRGB to cones, cones to lab
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    np.float32,
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    np.float32,
)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Turn sRGB colours [..., 3] in 0..1 into OKLab [..., 3] float32: lightness in 0..1, green-red, blue-yellow."""
    rgb = np.asarray(rgb, np.float32)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _CONES.T) @ _LAB.T


def name_colours(lab: np.ndarray) -> np.ndarray:
    """Return for OKLab colours [..., 3] their indices [...] in `COLOURS`.

    Hue decides, except that dark or dull orange is brown, light and dull orange is beige, light red is pink, and
    what has hardly any hue is black, grey or white.
    """
    light, chroma = lab[..., 0], np.hypot(lab[..., 1], lab[..., 2])
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360
    warm = (hue >= 35) & (hue < 105)
    rules = [
        (light < 0.2, BLACK),
        ((light < 0.34) & (chroma < np.where(warm, 0.02, 0.04)), BLACK),
        ((light > 0.81) & (chroma < 0.025), WHITE),
        ((light > 0.88) & (chroma < np.where(hue < 200, 0.04, 0.025)), WHITE),
        (warm & (light > 0.72) & (chroma > 0.025) & (chroma < 0.085), BEIGE),
        (chroma < np.where(warm & (light < 0.6), 0.018, 0.035), GREY),
        # red and its neighbours
        (((hue < 15) | (hue >= 345)) & (light > 0.62), PINK),
        ((hue >= 345) & (chroma < 0.18) & (light <= 0.62), PURPLE),
        ((hue < 15) | (hue >= 345), RED),
        ((hue < 35) & (light > 0.7) & (chroma < 0.17), PINK),
        ((hue < 35) & (chroma < 0.09), BROWN),
        (hue < 38, RED),
        ((hue < 46) & (chroma > 0.17), RED),
        # orange, brown and yellow
        ((hue < 78) & ((light < 0.63) | (chroma < 0.085) | (light < 0.69) & (chroma < 0.13)), BROWN),
        (hue < 78, ORANGE),
        ((hue < 100) & ((light < 0.6) | (light < 0.72) & (chroma < 0.12)), BROWN),
        (hue < 100, YELLOW),
        ((hue < 113) & (light > 0.74) & (chroma > 0.03), YELLOW),
        (hue < 168, GREEN),
        (hue < 215, TURQUOISE),
        (hue < 284, BLUE),
        ((hue < 325) | (light < 0.6), PURPLE),
    ]
    return np.select([condition for condition, _ in rules], [index for _, index in rules], PINK)


def shares(rgb: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return what share of pixels or points [..., 3] (uint8, or float in 0..1) has each of `COLOURS`: [13], sum 1."""
    values = rgb.reshape(-1, 3) if mask is None else rgb[mask]
    if values.dtype == np.uint8:
        values = values / np.float32(255)
    counts = np.bincount(name_colours(to_lab(values)), minlength=len(COLOURS))
    return counts / max(1, counts.sum())


def main_names(share: np.ndarray) -> list[str]:
    """Return the names of the largest shares, the largest first; at least one."""
    order = np.argsort(-share, kind="stable")[:MOST]
    return [COLOURS[index] for rank, index in enumerate(order) if rank == 0 or share[index] >= SHARE]


def shrink(picture: np.ndarray) -> np.ndarray:
    """Average a picture [H, W, 3] uint8 down to at most `SIDE` pixels a side."""
    from PIL import Image

    height, width = picture.shape[:2]
    factor = min(1, SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def background_of(picture: np.ndarray) -> np.ndarray | None:
    """Return which pixels [H, W] bool of a picture belong to a plain background; None where it has none."""
    from scipy import ndimage

    lab = to_lab(picture / np.float32(255))
    edge = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    colour = np.median(edge, axis=0)
    if np.mean(np.linalg.norm(edge - colour, axis=-1) < ALIKE) < PLAIN:
        return None
    regions, _ = ndimage.label(np.linalg.norm(lab - colour, axis=-1) < ALIKE)
    outer = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    return np.isin(regions, outer[outer > 0])


def main_thing(shape: Sequence[int], boxes: Sequence[Box], background: np.ndarray | None) -> np.ndarray:
    """Return which pixels [H, W] bool show the main thing.

    That is what a plain background leaves; else the ellipse within the largest box, or within the picture's middle.
    """
    height, width = shape[:2]
    if background is not None and SMALLEST < 1 - background.mean():
        return ~background
    boxes = [box for box in boxes if box.area >= SMALLEST]
    box = max(boxes, key=lambda box: box.area * box.score, default=Box("", 0, 0.2, 0.2, 0.8, 0.8))
    y, x = (np.arange(height) + 0.5)[:, None] / height, (np.arange(width) + 0.5)[None] / width
    across = (x - (box.left + box.right) / 2) / max(box.right - box.left, 1e-6)
    down = (y - (box.top + box.bottom) / 2) / max(box.bottom - box.top, 1e-6)
    inside = across**2 + down**2 < 0.4**2  # less than 0.5: the outline's background stays out
    return inside if inside.any() else np.ones((height, width), bool)


class Colours(Expert):
    """Main colours of a picture and of the main thing in it."""

    name = "colours"
    modalities = ("image", "video")
    base_parts = ("nanodet",)

    def find(self, sample: Sample) -> Finding:
        """Say "Colours: the picture is mostly green and brown; the main thing is orange and white."."""
        pictures = sample.array[None] if sample.modality == "image" else sample.array
        whole, thing, plain = [], [], []
        for index in spread(len(pictures), FRAMES):
            small = shrink(pictures[index])
            background = background_of(small)
            boxes = DETECTOR.find(pictures[index]) if background is None else []
            whole.append(shares(small))
            thing.append(shares(small, main_thing(small.shape, boxes, background)))
            plain.append(None if background is None else shares(small, background))
        whole, thing = np.mean(whole, axis=0), np.mean(thing, axis=0)
        word = "picture" if sample.modality == "image" else "video"
        if whole.max() > WHOLE:
            text = f"the whole {word} is {main_names(whole)[0]}"
        elif all(share is not None for share in plain):
            ground = main_names(np.mean(plain, axis=0))[0]
            text = f"the main thing is {listed(main_names(thing))}, on a plain {ground} background"
        else:
            text = f"the {word} is mostly {listed(main_names(whole))}; the main thing is {listed(main_names(thing))}"
        details = tuple(
            {"of": of, "colours": {COLOURS[i]: round(float(share[i]), 3) for i in np.argsort(-share) if share[i] > 0}}
            for of, share in ((word, whole), ("main thing", thing))
        )
        return Finding(self.name, f"Colours: {text}.", None, details)
