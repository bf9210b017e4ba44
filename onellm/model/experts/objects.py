"""Objects and people: what a detector finds in a picture, how many of each and where."""

import threading
from collections import Counter
from dataclasses import dataclass

import numpy as np

from onellm.modalities.base import Sample
from onellm.model import base_parts
from onellm.model.experts.base import Expert, Finding
from onellm.model.experts.wording import counted, number, placed

THRESHOLD = 0.4  # of a box's score
OVERLAP = 0.55  # boxes that share more, of whatever names, are one thing
FRAMES = 4  # of a video
_SMALLEST, _STEP = 32, 32  # pixels of a side that the network takes
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

    def _load(self):
        from safetensors.torch import load_file

        from onellm.model.experts.detector import NanoDet

        with self._lock:
            if self._net is None:
                net = NanoDet().eval()
                net.load_state_dict(load_file(base_parts.fetch("nanodet") / "model.safetensors"))
                self._net = net
        return self._net

    def find(self, picture: np.ndarray) -> list[Box]:
        """Return the things in a picture [H, W, 3] uint8, the surest first."""
        import torch
        from torchvision.ops import nms

        from onellm.model.experts.detector import LABELS

        net = self._load()
        with torch.inference_mode():
            scores, boxes = (output[0] for output in net(prepare(picture)[None]))
        sizes = torch.tensor(fitted(*picture.shape[1::-1])).repeat(2)
        sure, labels = scores.max(dim=1)
        few = torch.nonzero(sure >= THRESHOLD)[:, 0]
        few = few[nms(boxes[few], sure[few], OVERLAP)]
        corners = (boxes[few] / sizes).clamp(0, 1).tolist()
        return [
            Box(LABELS[label], score, *corner)
            for label, score, corner in zip(labels[few].tolist(), sure[few].tolist(), corners, strict=True)
        ]


def fitted(width: int, height: int) -> tuple[int, int]:
    """Return the width and height at which a picture is looked at: its longer side fits, its shape is kept."""
    from onellm.model.experts.detector import SIDE

    longer = max(width, height)
    return tuple(max(_SMALLEST, round(side * SIDE / longer / _STEP) * _STEP) for side in (width, height))


def prepare(picture: np.ndarray):
    """Turn a picture [H, W, 3] uint8 into the network's input [3, H', W'] float32."""
    import torch
    from PIL import Image

    from onellm.model.experts.detector import MEAN, STD

    resized = Image.fromarray(picture).resize(fitted(*picture.shape[1::-1]), Image.Resampling.BILINEAR)
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
