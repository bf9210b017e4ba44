"""Videos: [T, H, W, 3] uint8, frames spread evenly over the video."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
from onellm.modalities.readers import animations, sound
from onellm.modalities.readers.pictures import CLIP_MEAN, CLIP_STD, millions, size_text, to_pixels
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch

SILENT = "the sound track is not part of what is seen; choose to have it heard, or add it as audio"
# the largest picture of 16:9 within the limit; codecs fill sides up to a multiple of 8 or 16
_HEIGHT = int((LIMITS.video_pixels * 9 / 16) ** 0.5) // 16 * 16
_WIDTH = _HEIGHT * 16 // 9
_HOLD = 2  # a frame that is shown for so many times as long as is usual is held
_EVEN = 1.5  # longest to shortest frame of a video of few frames, in which each counts once
_BY_DECODING_TIME = ("mpeg", "mpegts")  # readers that seek by when packets are decoded, not by when they are shown
_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # codec -> the decoder that reads its transparency


@dataclass
class _Index:
    """Where the frames of a video are, and which part of it is to be read.

    Attributes:
        times: of the frames that are shown, in order, in stream units.
        keys: times of the video's key frames.
        seeks: where to seek for each of them.
        begin: time of the part's begin.
        end: time of the part's end.
        seconds_per_unit: of the stream.
        origin: time of the video's first frame that is shown.
    """

    times: np.ndarray
    keys: np.ndarray
    seeks: np.ndarray
    begin: float
    end: float
    seconds_per_unit: float
    origin: int

    @property
    def length_s(self) -> float:
        """How long the part lasts."""
        return max(0.0, float((self.end - self.begin) * self.seconds_per_unit))

    @property
    def inside(self) -> np.ndarray:
        """Times of the part's frames; where none begins in it, of the one that is still shown."""
        inside = self.times[(self.times >= self.begin) & (self.times < self.end)]
        return inside if len(inside) else self.times[self.times <= self.begin][-1:]

    def between(self, start_s: float, stop_s: float) -> _Index:
        """Return a part."""
        begin, end = (self.origin + time_s / self.seconds_per_unit for time_s in (start_s, stop_s))
        return replace(self, begin=begin, end=min(end, self.end))

    def choose(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Choose the frames that are shown in the middles of `count` equal parts of the time.

        Of a video of fewer frames, all are chosen once; where one of them is held, it is chosen as often as it is
        met.

        Returns:
            Indices into `times`, in order, and the moments they are shown at, in stream units.
        """
        inside = self.inside
        gaps = np.diff(inside, append=max(self.end, inside[-1]))
        usual = float(np.median(gaps))
        first = int(np.searchsorted(self.times, inside[0]))
        if len(inside) <= count and gaps.max() <= _EVEN * gaps.min():
            return first + np.arange(len(inside)), inside
        moments = self.begin + (np.arange(count) + 0.5) * (self.end - self.begin) / count
        # times are rounded to the stream's unit, so a frame may seem to begin a little late
        chosen = np.searchsorted(self.times, moments + max(0.05 * usual, 1), "right") - 1
        chosen = chosen.clip(0, len(self.times) - 1)
        times = self.times[chosen]
        return chosen, np.where(moments - times > _HOLD * usual, moments, times)


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
        f"a video (mp4, mov, webm, mkv, avi, mpg, ts, ogv, flv, gif or webp) of up to {megabytes(LIMITS.video_bytes)} "
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
        if reader == animations.READER:
            return self._animation(path, frames, start_s, stop_s)
        if reader not in sound.VIDEOS:
            raise Damaged("not a video in these formats")
        notes: list[str] = []
        with av.open(str(path), format=reader) as container:
            stream = self._stream(path, container)
            index = self._index(path, container, stream)
            whole = index
            if start_s is not None or stop_s is not None:
                index = index.between(start_s or 0, whole.length_s if stop_s is None else stop_s)
            pixels = stream.codec_context.width * stream.codec_context.height
            if reader == "gif":
                self._check_animation(path, len(index.times), pixels)
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"max_pixels": str(LIMITS.video_pixels)}  # frames may be larger than that
            wanted, moments = self._choose(index, frames, pixels, reader == "gif")
            pictures = self._decode(path, container, stream, wanted, index, notes)
            aspect = float(stream.sample_aspect_ratio or 1)
            has_sound = bool(container.streams.audio)
        array, size = _arrays(pictures, aspect, notes)
        if index is whole and whole.length_s > LIMITS.video_seconds:
            notes.append(f"cut to the first {LIMITS.video_seconds:g} s")
        if has_sound:
            notes.append(SILENT)
        times_s = (moments - index.origin) * index.seconds_per_unit
        return self._sample(path, array, size, len(index.inside), index.length_s, times_s, notes, has_sound)

    def _sample(
        self,
        path: Path,
        array: np.ndarray,
        size: tuple[int, int],
        count: int,
        duration_s: float,
        times_s: np.ndarray,
        notes: list[str],
        has_sound: bool = False,
    ) -> Sample:
        """Describe the frames that were read, of `count`."""
        rate_hz = count / duration_s if duration_s > 0 else 1.0
        return Sample(
            self.name,
            path.name,
            array,
            f"{duration_s:.1f} s, {size_text(*size)}, {rate_hz:.3g} frames/s",
            rate_hz,
            notes=notes,
            duration_s=duration_s,
            times_s=times_s,
            sound=has_sound,
        )

    def _stream(self, path: Path, container: Any) -> Any:
        """Return the first track of pictures; the cover of a sound is none."""
        covers = stream_disposition().attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            advice = "give it as audio" if container.streams.audio else "choose a file with video"
            raise refuse(path, "there is no moving picture in it", self.expects, advice)
        width, height = streams[0].codec_context.width, streams[0].codec_context.height
        if width * height > LIMITS.video_pixels:
            found = f"the video has {size_text(width, height)}"
            raise refuse(path, found, f"at most {_WIDTH:,} × {_HEIGHT:,} pixels", "make it smaller")
        return streams[0]

    def _check_animation(self, path: Path, count: int, pixels: int) -> None:
        """Refuse an animation that takes too long: it can only be decoded from its start."""
        if count * pixels > LIMITS.gif_decoded_pixels:
            found = f"an animation of {count:,} frames of {millions(pixels)}"
            expected = f"at most {millions(LIMITS.gif_decoded_pixels)} in all"
            raise refuse(path, found, expected, "save it as mp4, or shorten it")

    def _animation(self, path: Path, frames: int, start_s: float | None, stop_s: float | None) -> Sample:
        """Read evenly spread frames of an animated picture."""
        with animations.opened(path, LIMITS.video_pixels) as image:
            count = getattr(image, "n_frames", 1)
            self._check_animation(path, count, image.width * image.height)
            times, end = animations.times_ms(image, LIMITS.video_frames)
            index = _Index(times, times[:1], times[:1], 0, end, 0.001, 0)
            if start_s is not None or stop_s is not None:
                index = index.between(start_s or 0, index.length_s if stop_s is None else stop_s)
            chosen, moments = index.choose(frames)
            array, size = animations.frames(image, chosen), image.size
        return self._sample(path, array, size, len(index.inside), index.length_s, moments / 1000, [])

    def _index(self, path: Path, container: Any, stream: Any) -> _Index:
        """Walk through the packets, without decoding them, and rewind."""
        times, keys, seeks, end = [], [], [], 0
        reader = sound.container_of(path)
        for count, packet in enumerate(container.demux(stream)):
            if not packet.size:
                continue
            moment = packet.pts if packet.pts is not None else packet.dts
            if moment is None:
                moment = count
            if not packet.is_discard:  # an edit list hides it
                times.append(moment)
                end = max(end, moment + (packet.duration or 0))
            if packet.is_keyframe:
                keys.append(moment)
                seeks.append(packet.dts if reader in _BY_DECODING_TIME and packet.dts is not None else moment)
            if count > LIMITS.video_frames:
                found = f"more than {LIMITS.video_frames:,} frames"
                raise refuse(path, found, self.expects, "use a shorter video")
        if not times:
            raise refuse(path, "a video without frames", self.expects, "save or download it again")
        unit = float(stream.time_base)
        ordered = np.sort(np.asarray(times))
        usual = float(np.median(np.diff(ordered))) if len(ordered) > 1 else 1 / float(stream.average_rate or 1) / unit
        if end <= ordered[-1] or reader != "mov" and end < ordered[-1] + usual / 2:
            end = ordered[-1] + usual  # the last frame does not say how long it is shown
        self._check_length(path, container, stream, (end - ordered[0]) * unit)
        order = np.argsort(keys)
        starts = np.asarray(seeks)[order]
        container.seek(int(min(ordered[0], *starts[:1])), stream=stream)
        return _Index(ordered, np.asarray(keys)[order], starts, ordered[0], end, unit, ordered[0])

    def _check_length(self, path: Path, container: Any, stream: Any, length_s: float) -> None:
        """Refuse a file that ends before its header says; pictures may well end before the sound does."""
        import av

        if stream.duration and stream.time_base:
            declared_s = float(stream.duration * stream.time_base)
        else:
            declared_s = (container.duration or 0) / av.time_base
        least_s = 0.9 * min(declared_s, 1e5) - 1 / max(float(stream.average_rate or 1), 1)
        if length_s >= least_s:
            return
        container.seek(0)
        ends_s = [length_s]
        for packet in container.demux(*(other for other in container.streams if other.type in ("audio", "subtitle"))):
            if packet.size and packet.pts is not None:
                ends_s.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if max(ends_s) < least_s:
            found = f"the video ends after {length_s:.1f} s of {declared_s:.1f} s"
            raise refuse(path, found, self.expects, "the file is cut short, so save or download it again")

    @staticmethod
    def _choose(index: _Index, frames: int, pixels: int, from_start: bool) -> tuple[np.ndarray, np.ndarray]:
        """Choose the times of the frames to keep, and the moments they are shown at.

        Where that would mean decoding more than the limit, a frame moves towards its key frame.
        """
        index = replace(index, end=min(index.end, index.begin + LIMITS.video_seconds / index.seconds_per_unit))
        chosen, moments = index.choose(frames)
        times = index.times
        if not from_start and len(index.keys):
            before = np.searchsorted(index.keys, times[chosen], "right") - 1
            key = np.searchsorted(times, index.keys[np.maximum(before, 0)])
            reach = max(1, int(LIMITS.video_decoded_pixels / (pixels * len(chosen))))
            if len(index.inside) > reach * len(chosen):
                near = np.minimum(chosen, key + reach)
                moments = np.where(near < chosen, times[near], moments)
                chosen = near
        return times[chosen], moments

    def _decode(
        self, path: Path, container: Any, stream: Any, wanted: np.ndarray, index: _Index, notes: list[str]
    ) -> list[Any]:
        """Decode the frames at the wanted times, seeking only where a key frame lies between two of them."""
        deadline = time.monotonic() + LIMITS.load_seconds
        pictures, position, last = [], index.keys[0] if len(index.keys) else index.origin, None
        decoder = _frames(container, stream)
        for moment in wanted:
            key = int(np.searchsorted(index.keys, moment, "right")) - 1
            if key >= 0 and index.keys[key] > position:
                container.seek(int(index.seeks[key]), stream=stream)
                decoder = _frames(container, stream)
            if last is not None and position >= moment:  # it is held
                pictures.append(last)
                continue
            for frame in decoder:
                last, position = frame, frame.pts if frame.pts is not None else position + 1
                if position >= moment:
                    break
                if time.monotonic() > deadline:
                    found = f"decoding takes longer than {LIMITS.load_seconds:g} s"
                    raise refuse(path, found, self.expects, "use a shorter or smaller video")
            if last is not None:
                pictures.append(last)
        decoded, distinct = len(set(map(id, pictures))), len(set(wanted))
        if decoded < max(1, 0.75 * distinct):
            found = f"only {decoded} of {distinct} frames could be decoded"
            raise refuse(path, found, self.expects, "the file is damaged, so save or download it again")
        if len(pictures) < len(wanted):
            raise refuse(path, "its first frames cannot be decoded", self.expects, "save or download it again")
        return pictures

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
        picked = _pick(len(sample.array), frames)
        taken = len(set(picked) if sample.times_s is None else set(sample.times_s[picked]))
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


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decode a track from where the container stands; VP8 and VP9 with their transparency."""
    import av

    name = _ALPHA.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        yield from container.decode(stream)
        return
    decoder = av.CodecContext.create(name, "r")
    decoder.options = {"max_pixels": str(LIMITS.video_pixels)}
    for packet in container.demux(stream):
        yield from decoder.decode(packet if packet.size else None)


def _arrays(pictures: list[Any], aspect: float, notes: list[str]) -> tuple[np.ndarray, tuple[int, int]]:
    """Convert decoded frames to what is shown: upright, with square pixels, on white where they are transparent.

    Args:
        pictures: the frames.
        aspect: width of a pixel by its height.
        notes: one is added if they are transparent, or reduced.

    Returns:
        [T, H, W, 3] uint8, and the width and height they are shown in.
    """
    first = pictures[0]
    width, height = first.width, first.height
    if 0.2 < aspect < 5 and aspect != 1:
        width = max(1, round(width * aspect))
        notes.append(f"its pixels are not square: shown {width:,} pixels wide, as players do")
    scale = min(1.0, (LIMITS.video_frame_pixels / (width * height)) ** 0.5)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1:
        notes.append(f"its frames were reduced to {size_text(*size)}")
    turns = round((getattr(first, "rotation", 0) or 0) / 90) % 4
    if any(component.is_alpha for component in first.format.components):
        notes.append("transparent parts are shown white")
    array = np.stack([_to_array(picture, size, turns) for picture in pictures])
    return array, (height, width) if turns % 2 else (width, height)


def _to_array(frame: Any, size: tuple[int, int], quarter_turns: int) -> np.ndarray:
    """Convert a decoded frame to [H, W, 3] uint8 of a width and height, upright, on white where it is transparent."""
    if (frame.width, frame.height) == size:
        size = (None, None)
    alpha = any(component.is_alpha for component in frame.format.components)
    array = frame.reformat(*size, format="rgba" if alpha else "rgb24").to_ndarray()
    if alpha:
        rgba = array.astype(np.uint16)
        array = ((rgba[..., :3] * rgba[..., 3:] + 255 * (255 - rgba[..., 3:])) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.rot90(array, quarter_turns))


def stream_disposition() -> Any:
    """Return PyAV's names of what a track is for."""
    import av

    return av.stream.Disposition
