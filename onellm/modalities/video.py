"""Videos: [T, H, W, 3] uint8, frames spread evenly over the video."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onellm.modalities.audio import Soundtrack
from onellm.modalities.base import (
    IN_MEMORY,
    Coverage,
    Damaged,
    Modality,
    Preview,
    Sample,
    check_times,
    megabytes,
    refuse,
)
from onellm.modalities.image import Image
from onellm.modalities.plots import spread
from onellm.modalities.readers import sound
from onellm.modalities.readers.pictures import CLIP_MEAN, CLIP_STD, millions, size_text, to_pixels
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch

SILENT = "the sound track is not part of what is seen; choose to have it heard, or add it as audio"
# the largest picture of 16:9 within the limit; codecs fill sides up to a multiple of 8 or 16
_HEIGHT = int((LIMITS.video_pixels * 9 / 16) ** 0.5) // 8 * 8
_WIDTH = _HEIGHT * 16 // 9


@dataclass
class _Index:
    """Where the frames of a video, or of a part of it, are.

    Attributes:
        times: of the frames, in order, in stream units.
        keys: times of the video's key frames.
        origin: time of the video's first frame.
        seconds_per_unit: of the stream.
        length_s: how long it lasts.
    """

    times: np.ndarray
    keys: np.ndarray
    origin: int
    seconds_per_unit: float
    length_s: float

    def between(self, start_s: float, stop_s: float) -> _Index:
        """Return the frames of a part; where none is in it, the one that is still shown."""
        first, last = (self.origin + time_s / self.seconds_per_unit for time_s in (start_s, stop_s))
        inside = self.times[(self.times >= first) & (self.times < last)]
        if not len(inside):
            inside = self.times[self.times < last][-1:]
        return replace(self, times=inside, length_s=max(0.0, min(stop_s, self.length_s) - start_s))


class Video(Modality):
    """Video files and animated GIFs, read with PyAV.

    Canonical array: [T, H, W, 3] uint8, T frames from the middles of T equal parts of the video (all frames
    where it has fewer), at most 120 s of it.
    """

    name = "video"
    title = "Video"
    icon = "🎬"
    libraries = ("av", "av.subtitles.stream")
    suffixes = Soundtrack.suffixes
    unit = "red, green, blue in 0..255"
    expects = (
        f"a video (mp4, mov, webm, mkv, avi or gif) of up to {megabytes(LIMITS.video_bytes)} "
        f"and {_WIDTH} × {_HEIGHT} pixels"
    )

    def read(self, path: Path, frames: int = 16, start_s: float | None = None, stop_s: float | None = None) -> Sample:
        """Read evenly spread frames.

        Args:
            path: the file.
            frames: how many frames to keep, 1 to 64.
            start_s: where to begin, in seconds from the first frame.
            stop_s: where to end.

        Returns:
            A sample whose array is [T, H, W, 3] uint8 and whose rate_hz is the video's frames a second.
        """
        import av

        if not 1 <= frames <= LIMITS.video_sampled_frames:
            expected = f"1 to {LIMITS.video_sampled_frames}"
            raise refuse(path, f"the option frames is {frames}", expected, "choose another number")
        check_times(path, start_s, stop_s)
        reader = sound.container_of(path)
        if reader not in sound.VIDEOS:
            raise Damaged("not a video in these formats")
        with av.open(str(path), format=reader) as container:
            if not container.streams.video:
                raise refuse(path, "there is no picture in it", self.expects, "choose a file with video")
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > LIMITS.video_pixels:
                found = f"the video has {size_text(width, height)}"
                raise refuse(path, found, f"at most {_WIDTH:,} × {_HEIGHT:,}", "make it smaller")
            if stream.duration and stream.time_base:
                declared_s = float(stream.duration * stream.time_base)
            else:
                declared_s = (container.duration or 0) / av.time_base
            index = self._index(path, container, stream)
            duration_s = index.length_s
            if duration_s < 0.9 * min(declared_s, 1e5) - 1 / max(float(stream.average_rate or 1), 1):
                found = f"the video ends after {duration_s:.1f} s of {declared_s:.1f} s"
                raise refuse(path, found, self.expects, "the file is cut short, so save or download it again")
            if reader == "gif" and len(index.times) * width * height > LIMITS.gif_decoded_pixels:
                found = f"an animation of {len(index.times):,} frames of {size_text(width, height)}"
                raise refuse(
                    path,
                    found,
                    f"at most {millions(LIMITS.gif_decoded_pixels)} in all",
                    "save it as mp4, or shorten it",
                )
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"max_pixels": str(LIMITS.video_pixels)}  # frames may be larger than that
            if start_s is not None or stop_s is not None:
                index = index.between(start_s or 0, duration_s if stop_s is None else stop_s)
            wanted = self._choose(index, frames, width * height, reader == "gif")
            pictures, times_s = self._decode(path, container, stream, wanted, index)
            rotation = self._pictures_turn(pictures)
            has_sound = bool(container.streams.audio)
        array = np.stack([_to_array(picture, rotation) for picture in pictures])
        whole, duration_s = duration_s == index.length_s, index.length_s
        rate_hz = len(index.times) / duration_s if duration_s > 0 else 1.0
        notes = []
        if whole and duration_s > LIMITS.video_seconds:
            notes.append(f"cut to the first {LIMITS.video_seconds:g} s")
        if has_sound:
            notes.append(SILENT)
        summary = f"{duration_s:.1f} s, {size_text(array.shape[2], array.shape[1])}, {rate_hz:.3g} frames/s"
        return Sample(
            self.name,
            path.name,
            array,
            summary,
            rate_hz,
            notes=notes,
            duration_s=duration_s,
            times_s=times_s,
            sound=has_sound,
        )

    def _index(self, path: Path, container: Any, stream: Any) -> _Index:
        """Walk through the packets, without decoding them, and rewind."""
        times, keys, end = [], [], 0
        for packet in container.demux(stream):
            if not packet.size:
                continue
            moment = packet.pts if packet.pts is not None else packet.dts
            if moment is None:
                moment = len(times)
            times.append(moment)
            end = max(end, moment + (packet.duration or 0))
            if packet.is_keyframe:
                keys.append(moment)
            if len(times) > LIMITS.video_frames:
                found = f"more than {LIMITS.video_frames:,} frames"
                raise refuse(path, found, self.expects, "use a shorter video")
        if not times:
            raise refuse(path, "a video without frames", self.expects, "save or download it again")
        unit = float(stream.time_base)
        ordered = np.sort(np.asarray(times))
        container.seek(int(ordered[0]), stream=stream)
        return _Index(ordered, np.sort(np.asarray(keys)), ordered[0], unit, float((end - ordered[0]) * unit))

    @staticmethod
    def _choose(index: _Index, frames: int, pixels: int, from_start: bool) -> np.ndarray:
        """Choose the times of the frames to keep: the middle of each of `frames` equal parts.

        Where that would mean decoding more than the limit, a frame moves towards its key frame.
        """
        last = index.times[0] + LIMITS.video_seconds / index.seconds_per_unit
        times = index.times[index.times <= last]
        count = min(frames, len(times))
        chosen = ((np.arange(count) + 0.5) * len(times) / count).astype(int)
        if not from_start and len(index.keys):
            key = np.searchsorted(times, index.keys[np.searchsorted(index.keys, times[chosen], "right") - 1])
            reach = max(1, int(LIMITS.video_decoded_pixels / (pixels * count)))
            chosen = np.minimum(chosen, np.maximum(key, 0) + reach) if len(times) > reach * count else chosen
        return times[np.unique(chosen)]

    def _decode(
        self, path: Path, container: Any, stream: Any, wanted: np.ndarray, index: _Index
    ) -> tuple[list[Any], np.ndarray]:
        """Decode the frames at the wanted times, seeking only where a key frame lies between two of them.

        Returns:
            The frames, and their times [T] in seconds from the first.
        """
        deadline = time.monotonic() + LIMITS.load_seconds
        pictures, shown, position, last = [], [], index.origin, None
        decoder = container.decode(stream)
        for moment in wanted:
            key = index.keys[index.keys <= moment]
            if len(key) and key[-1] > position:
                container.seek(int(key[-1]), stream=stream)
                decoder = container.decode(stream)
            for frame in decoder:
                last, position = frame, frame.pts if frame.pts is not None else position + 1
                if position >= moment:
                    break
                if time.monotonic() > deadline:
                    found = f"decoding takes longer than {LIMITS.load_seconds:g} s"
                    raise refuse(path, found, self.expects, "use a shorter or smaller video")
            if last is not None and (not pictures or pictures[-1] is not last):
                pictures.append(last)
                shown.append(position)
        if len(pictures) < max(1, 0.75 * len(wanted)):
            found = f"only {len(pictures)} of {len(wanted)} frames could be decoded"
            raise refuse(path, found, self.expects, "the file is damaged, so save or download it again")
        return pictures, (np.array(shown) - index.origin) * index.seconds_per_unit

    @staticmethod
    def _pictures_turn(pictures: list[Any]) -> int:
        """Return by how many quarter turns (counter-clockwise) the pictures are to be turned upright."""
        return round((getattr(pictures[0], "rotation", 0) or 0) / 90) % 4

    def soundtrack(self, path: str | Path) -> Sample:
        """Read a video's sound track.

        Args:
            path: the video file.

        Returns:
            A sample of kind audio.

        Raises:
            FileError: if the file is not a video or has no sound.
        """
        return Soundtrack().load(path)

    def from_memory(self, value: Any) -> Sample:
        """Turn frames, a list or an array of what `Image.from_memory` takes, into a sample."""
        image = Image()
        return Sample(self.name, IN_MEMORY, np.stack([image.rgb(frame) for frame in value]), "")

    def to_tensor(
        self,
        sample: Sample,
        frames: int = 5,
        crops: int = 1,
        size: int = 224,
        resize: int | None = None,
        mean: tuple[float, ...] = CLIP_MEAN,
        std: tuple[float, ...] = CLIP_STD,
    ) -> torch.Tensor:
        """Pick evenly spread frames, resize, cut and normalise them.

        Args:
            sample: what `load` returned.
            frames: number of frames; a shorter video repeats some.
            crops: squares a frame: 1 (centre) or 3 (start, centre and end of the longer side).
            size: side of the square, in pixels.
            resize: length of the shorter side before cutting; `size` if None.
            mean: mean a channel, in 0..1.
            std: standard deviation a channel, in 0..1.

        Returns:
            [frames * crops, 3, size, size] float32, the crops of one frame next to each other.
        """
        pictures = [sample.array[i] for i in _pick(len(sample.array), frames)]
        return to_pixels(pictures, size, resize, mean, std, crops)

    def coverage(self, sample: Sample, frames: int = 5, **settings) -> Coverage:
        """Say how many of the file's frames the model takes."""
        taken = len(set(_pick(len(sample.array), frames)))
        return Coverage(f"{taken:,}", f"{max(len(sample.array), round(sample.seconds * sample.rate_hz)):,}", "frames")

    def preview(self, sample: Sample, frames: int | None = None, **settings) -> Preview:
        """Show the frames the model takes, or up to 16 of those read, each at most 320 pixels wide and high."""
        from PIL import Image as PillowImage

        count = len(sample.array)
        shown = spread(count, 16) if frames is None else np.unique(_pick(count, frames))
        images = [PillowImage.fromarray(sample.array[i]) for i in shown]
        for image in images:
            image.thumbnail((320, 320))
        labels = () if sample.times_s is None else tuple(f"{sample.times_s[i]:.1f} s" for i in shown)
        return Preview("gallery", images, f"{sample.name}: {sample.summary}", labels)


def _pick(count: int, frames: int) -> np.ndarray:
    """Choose the middles of `frames` equal parts of `count` frames; of few frames some are chosen repeatedly."""
    return ((np.arange(frames) + 0.5) * count / frames).astype(int)


def _to_array(frame: Any, quarter_turns: int) -> np.ndarray:
    """Convert a decoded frame to [H, W, 3] uint8, upright, on white where it is transparent."""
    if any(component.is_alpha for component in frame.format.components):
        rgba = frame.to_ndarray(format="rgba").astype(np.uint16)
        alpha = rgba[..., 3:]
        array = ((rgba[..., :3] * alpha + 255 * (255 - alpha)) // 255).astype(np.uint8)
    else:
        array = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(array, quarter_turns))
