"""Printed text: PP-OCR finds lines and reads them, in reading order."""

import threading

import numpy as np

from onellm.modalities.base import Sample
from onellm.model.experts.base import Expert, Finding
from onellm.model.experts.objects import spread

SIDE = 800  # pixels: longer pictures are made smaller before lines are looked for
SMALL_SIDE, LARGEST_FACTOR = 480, 2.0  # smaller pictures are enlarged
SHORTEST, NARROWEST = 32, 25  # pixels of a side; longer side over shorter
THREADS = 1  # a second one only waits for the first on a busy machine
THRESHOLD = 0.8  # of a line's score; what is read into textures mostly has less
CHARACTERS = 600  # of all lines
FRAMES = 3  # of a video


class Reader:
    """PP-OCRv6 by `rapidocr`, whose wheel holds the models; loaded at its first picture."""

    def __init__(self):
        self._engine = None
        self._lock = threading.Lock()

    def _load(self):
        with self._lock:
            if self._engine is None:
                from rapidocr import RapidOCR

                self._engine = RapidOCR(
                    params={
                        "Global.log_level": "critical",
                        "Global.text_score": 0.0,
                        "Det.limit_type": "max",
                        "Det.limit_side_len": SIDE,
                        "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
                    }
                )
        return self._engine

    def read(self, picture: np.ndarray) -> list[dict]:
        """Return the lines in a picture [H, W, 3] uint8 in reading order: text, score and corners as shares."""
        scaled = widened(enlarge(picture))
        found = self._load()(np.ascontiguousarray(scaled[..., ::-1]))
        if not getattr(found, "txts", None):
            return []
        size = np.array(scaled.shape[1::-1], np.float64)  # a strip's shares are of what it was widened to
        lines = [
            {"text": text.strip(), "score": float(score), "corners": np.asarray(corners) / size}
            for text, score, corners in zip(found.txts, found.scores, found.boxes, strict=True)
        ]
        return in_reading_order([line for line in lines if is_text(line)], scaled.shape[1] / scaled.shape[0])


def enlarge(picture: np.ndarray) -> np.ndarray:
    """Make a small picture larger, so that small letters are found."""
    from PIL import Image

    height, width = picture.shape[:2]
    factor = min(LARGEST_FACTOR, SMALL_SIDE / max(height, width))
    if factor <= 1:
        return picture
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def widened(picture: np.ndarray) -> np.ndarray:
    """Repeat the edge of a strip too narrow to be looked at; below one in `NARROWEST` resizing would leave no pixel."""
    height, width = picture.shape[:2]
    shortest = max(SHORTEST, -(-max(height, width) // NARROWEST))
    return np.pad(picture, ((0, max(0, shortest - height)), (0, max(0, shortest - width)), (0, 0)), mode="edge")


def is_text(line: dict) -> bool:
    """Whether a line is sure enough, and more than one lone sign."""
    return line["score"] >= THRESHOLD and sum(sign.isalnum() for sign in line["text"]) > 1


def in_reading_order(lines: list[dict], aspect: float) -> list[dict]:
    """Sort lines from top to bottom, and what stands in one row along the slope that most lines have.

    Args:
        lines: with corners [4, 2] as shares of width and height, from the top left, clockwise.
        aspect: the picture's width over its height.
    """
    if not lines:
        return []
    corners = np.stack([line["corners"] for line in lines]) * [aspect, 1]
    along = corners[:, 1] - corners[:, 0]
    slope = np.median(np.arctan2(along[:, 1], along[:, 0]))
    turn = np.array([[np.cos(slope), -np.sin(slope)], [np.sin(slope), np.cos(slope)]])
    middles = corners.mean(axis=1) @ turn
    heights = np.linalg.norm(corners[:, 3] - corners[:, 0], axis=1)
    rows: list[list[int]] = []
    for index in np.argsort(middles[:, 1], kind="stable"):
        if rows and middles[index, 1] - np.mean(middles[rows[-1], 1]) < 0.5 * heights[index]:
            rows[-1].append(index)
        else:
            rows.append([index])
    return [lines[index] for row in rows for index in sorted(row, key=lambda index: middles[index, 0])]


class Text(Expert):
    """Printed words in a picture or in a video's frames."""

    name = "text"
    modalities = ("image", "video")

    def __init__(self):
        self._reader = Reader()

    def find(self, sample: Sample) -> Finding:
        """Say 'Text: "EXIT", "No parking".', or that there is none."""
        if sample.modality == "image":
            lines = self._reader.read(sample.array)
            return Finding(self.name, sentence([line["text"] for line in lines]), _score(lines), _details(lines))
        frames = {index: self._reader.read(sample.array[index]) for index in spread(len(sample.array), FRAMES)}
        lines = [line for found in frames.values() for line in found]
        details = tuple(detail | {"frame": index} for index, found in frames.items() for detail in _details(found))
        return Finding(self.name, sentence([line["text"] for line in lines]), _score(lines), details)


def sentence(texts: list[str], characters: int = CHARACTERS) -> str:
    """Quote lines of text, each once, up to a length; what is left out is said."""
    kept, length = [], 0
    texts = list(dict.fromkeys(texts))
    for text in texts:
        room = characters - length
        if room <= 0:
            break
        kept.append(text if len(text) <= room else text[:room].rstrip() + "…")
        length += len(text)
    if not kept:
        return "Text: none; there is no sign to read."
    quoted = ", ".join('"{}"'.format(text.replace('"', "'")) for text in kept)
    return f"Text: {quoted}." + (" (There is more text; the rest is left out.)" if length > characters else "")


def _score(lines: list[dict]) -> float | None:
    return min((line["score"] for line in lines), default=None)


def _details(lines: list[dict]) -> tuple[dict, ...]:
    return tuple(
        {
            "label": line["text"],
            "score": round(line["score"], 3),
            "box": np.round([*line["corners"].min(axis=0), *line["corners"].max(axis=0)], 3).tolist(),
        }
        for line in lines
    )
