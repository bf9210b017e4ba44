"""Objects and people: what a detector finds in a picture, how many of each and where."""

import threading
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onellm.modalities.base import Sample
from onellm.model import base_parts
from onellm.model.experts.base import Expert, Finding
from onellm.model.experts.wording import counted, number, placed

if TYPE_CHECKING:
    import torch

THRESHOLD = 0.5  # of a box's score
# Pictures are looked at twice, their longer side so many pixels: large things are named better in a small picture
# (of 79 pictures of one large thing 320 pixels name 40, 416 name 30), small things are found in a larger one.
SIDES = {True: 320, False: 448}  # for things that are large or not
LARGE = 0.5  # share of the picture's width or height
OVERLAP = 0.55  # boxes that share more, of whatever names, are one thing
FRAMES = 4  # of a video
STEP = 32  # pixels: sides of what the network takes are multiples
_PLACES = 3  # so many of a name are placed


@dataclass(frozen=True)
class Box:
    """A thing in a picture; left, top, right and bottom are shares of its width and height."""

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Share of the picture."""
        return (self.right - self.left) * (self.bottom - self.top)

    @property
    def place(self) -> str:
        """Where its middle is."""
        return placed((self.left + self.right) / 2, (self.top + self.bottom) / 2)


class Detector:
    """NanoDet, loaded at its first picture."""

    def __init__(self):
        self._net = None
        self._lock = threading.Lock()
        self._last: tuple[weakref.ref | None, list[Box]] = (None, [])  # two experts look at the same picture

    def find(self, picture: np.ndarray) -> list[Box]:
        """Return the things in a picture [H, W, 3] uint8, the surest first."""
        with self._lock:
            if self._last[0] is None or self._last[0]() is not picture:
                self._last = weakref.ref(picture), self._look(picture)
            return self._last[1]

    def _load(self):
        if self._net is None:
            from safetensors.torch import load_file

            from onellm.model.experts.detector import NanoDet

            net = NanoDet().eval()
            net.load_state_dict(load_file(base_parts.fetch("nanodet") / "model.safetensors"))
            self._net = net
        return self._net

    def _look(self, picture: np.ndarray) -> list[Box]:
        import torch
        from torchvision.ops import nms

        from onellm.model.experts.detector import LABELS

        net, scores, boxes = self._load(), [], []
        for large, side in SIDES.items():
            width, height = fitted(*picture.shape[1::-1], side)
            with torch.inference_mode():
                views = net(prepare(picture, width, height)[None])
            corners = (views[1][0] / torch.tensor([width, height, width, height])).clamp(0, 1)
            extent = (corners[:, 2:] - corners[:, :2]).amax(dim=1)
            kept = (views[0][0].amax(dim=1) >= THRESHOLD) & ((extent >= LARGE) == large)
            scores.append(views[0][0, kept])
            boxes.append(corners[kept])
        sure, labels = torch.cat(scores).max(dim=1)
        corners = torch.cat(boxes)
        order = nms(corners, sure, OVERLAP).tolist()
        return [Box(LABELS[labels[index]], float(sure[index]), *corners[index].tolist()) for index in order]


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the width and height at which a picture is looked at: its shape is kept, in steps of the network's."""
    longer = max(width, height)
    width, height = (max(STEP, round(length * side / longer / STEP) * STEP) for length in (width, height))
    return width, height


def prepare(picture: np.ndarray, width: int, height: int) -> "torch.Tensor":
    """Turn a picture [H, W, 3] uint8 into the network's input [3, height, width] float32."""
    import torch
    from PIL import Image

    from onellm.model.experts.detector import MEAN, STD

    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    values = (np.asarray(resized, np.float32)[..., ::-1] - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


DETECTOR = Detector()


class Objects(Expert):
    """Names, counts and places of things, and people."""

    name = "objects"
    modalities = ("image", "video")
    base_parts = ("nanodet",)

    def find(self, sample: Sample) -> Finding:
        """Say "Objects: one cup (left), two spoons. People: none."; of a video, the most that one frame shows."""
        if sample.modality == "image":
            boxes = DETECTOR.find(sample.array)
            return Finding(self.name, sentence(boxes), _score(boxes), tuple(_detail(box) for box in boxes))
        chosen = spread(len(sample.array), FRAMES)
        frames = {index: DETECTOR.find(sample.array[index]) for index in chosen}
        boxes = most(list(frames.values()))
        details = tuple(_detail(box) | {"frame": index} for index, found in frames.items() for box in found)
        return Finding(self.name, sentence(boxes, " (most in one frame)"), _score(boxes), details)


def spread(count: int, wanted: int) -> list[int]:
    """Return indices from the middles of `wanted` equal parts of `count`, all where there are fewer."""
    return sorted({int((part + 0.5) * count / wanted) for part in range(wanted)})


def most(frames: list[list[Box]]) -> list[Box]:
    """Return of every label the boxes of the frame that has the most of it."""
    labels = dict.fromkeys(box.label for frame in frames for box in frame)
    of = {label: max(([b for b in frame if b.label == label] for frame in frames), key=len) for label in labels}
    return [box for boxes in of.values() for box in boxes]


def sentence(boxes: list[Box], how: str = "") -> str:
    """Say what there is, and what there is not.

    Args:
        boxes: what was found.
        how: stands behind "Objects" and "People".
    """
    things = [box for box in boxes if box.label != "person"]
    people = [box for box in boxes if box.label == "person"]
    named = [
        counted(count, label) + _places([box for box in things if box.label == label])
        for label, count in Counter(box.label for box in things).most_common()
    ]
    objects = ", ".join(named) or "none that the detector knows"
    persons = number(len(people)) + _places(people) if people else "none"
    return f"Objects{how}: {objects}. People{how}: {persons}."


def _places(boxes: list[Box]) -> str:
    """Return " (left)" or " (left, right)"; nothing where there are many."""
    if len(boxes) > _PLACES:
        return ""
    places = dict.fromkeys(box.place for box in sorted(boxes, key=lambda box: box.left))
    return f" ({', '.join(places)})"


def _score(boxes: list[Box]) -> float | None:
    return max((box.score for box in boxes), default=None)


def _detail(box: Box) -> dict:
    corners = [round(value, 3) for value in (box.left, box.top, box.right, box.bottom)]
    return {"label": box.label, "score": round(box.score, 3), "box": corners}
