"""What a model generates besides text, a picture, a video or a sound, and how it becomes a file."""

import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onellm.utils import atomic

SUFFIXES = {"image": ".png", "video": ".mp4", "audio": ".wav"}


@dataclass
class Media:
    """A picture, a video or a sound in memory; it can be pickled.

    Attributes:
        modality: "image", "video" or "audio".
        array: [H, W, 3] or [T, H, W, 3] uint8, or [S] float32 in -1..1.
        rate_hz: frames or samples a second; 0 for a picture.
    """

    modality: str
    array: np.ndarray
    rate_hz: float = 0.0

    @classmethod
    def of_floats(cls, modality: str, array: np.ndarray, rate_hz: float = 0.0) -> "Media":
        """Take pictures as floats in 0..1, or a sound."""
        if modality == "audio":
            return cls(modality, np.clip(np.asarray(array, np.float32), -1, 1), rate_hz)
        return cls(modality, (np.clip(array, 0, 1) * 255).round().astype(np.uint8), rate_hz)


@dataclass
class GeneratedMedia:
    """One thing of an answer that is not text.

    Attributes:
        modality: "image", "video" or "audio".
        tokens: what the LLM wrote for it.
        prompt: the text that a generator was given; empty where it was given something else.
        media: the thing; None where it could not be generated.
        error: why, for the user.
    """

    modality: str
    tokens: list[int]
    prompt: str = ""
    media: Media | None = None
    error: str = ""

    def part(self, path: Path | None) -> dict:
        """Return it as a content part of an answer, with the file it was written to."""
        part = {"type": self.modality, "tokens": self.tokens}
        further = {"path": str(path) if path else "", "prompt": self.prompt, "error": self.error}
        return part | {key: value for key, value in further.items() if value}


def name_for(modality: str) -> str:
    """Return a new file name for a modality."""
    return f"{modality}-{secrets.token_hex(4)}{SUFFIXES[modality]}"


def saved(part: dict) -> str:
    """Say where something is that an answer generated, or why it could not."""
    return part.get("error") or f"saved {part['path']}"


def write(media: Media, path: Path) -> None:
    """Write a picture as PNG, a video as MP4 (H.264), a sound as WAV (16 bit).

    Raises:
        OneLLMError: the disk is full.
    """
    with atomic.whole(path, media.array.nbytes) as part:
        if media.modality == "image":
            from PIL import Image

            Image.fromarray(media.array).save(part)
        elif media.modality == "video":
            _write_video(media, part)
        else:
            import soundfile

            soundfile.write(str(part), media.array, round(media.rate_hz), "PCM_16")


def _write_video(media: Media, path: Path) -> None:
    """Encode frames; H.264 takes even sides only, so an odd last row or column goes."""
    import av

    _, height, width, _ = media.array.shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(media.rate_hz))
        stream.width, stream.height, stream.pix_fmt = width & ~1, height & ~1, "yuv420p"
        for frame in media.array[:, : height & ~1, : width & ~1]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
