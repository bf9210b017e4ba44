"""Decoding sound with PyAV: what librosa cannot read, and the sound track of a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onellm.modalities.base import Damaged, refuse
from onellm.utils.limits import LIMITS

__all__ = ["CONTAINERS", "VIDEOS", "Track", "check_rate", "container_of", "decode"]

# First bytes (at an offset) of the containers that are opened, and libavformat's reader for each. The reader
# is always named: left to guess, libavformat also reads playlists, which fetch other files.
CONTAINERS = (
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (4, b"skip", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (8, b"AVI ", "avi"),
    (0, b"GIF8", "gif"),
    (8, b"WAVE", "wav"),
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"\xff\xf3", "mp3"),
    (0, b"\xff\xf2", "mp3"),
)
VIDEOS = ("mov", "matroska", "avi", "gif")  # readers of containers that hold pictures
_LEAST_HZ = 100


@dataclass
class Track:
    """A decoded sound track.

    Attributes:
        samples: [S] float32, mono, of at most the longest sound allowed.
        samples_rate_hz: rate of the samples.
        duration_s: duration of the whole track, 0 if unknown.
        rate_hz: rate the file has.
        channels: number of channels the file has.
    """

    samples: np.ndarray
    samples_rate_hz: int
    duration_s: float
    rate_hz: int
    channels: int


def container_of(path: Path) -> str | None:
    """Name libavformat's reader for a file by its first bytes, or None."""
    with open(path, "rb") as file:
        head = file.read(16)
    return next((reader for at, magic, reader in CONTAINERS if head[at : at + len(magic)] == magic), None)


def check_rate(path: Path, rate_hz: int, channels: int) -> None:
    """Refuse what no recorder writes: at such rates a small file takes gigabytes.

    Args:
        path: the file.
        rate_hz: its samples a second.
        channels: its number of channels.

    Raises:
        FileError: if there are too few or too many of them.
    """
    if rate_hz < _LEAST_HZ or not 1 <= channels * rate_hz <= LIMITS.audio_values_hz:
        found = f"the header says {rate_hz:,} Hz and {channels} channels"
        raise refuse(path, found, "a usual rate and channel count", "save it as 48,000 Hz stereo")


def decode(path: Path, rate_hz: int, expects: str, start_s: float | None = None, stop_s: float | None = None) -> Track:
    """Decode a file's first sound track, or the part of it between two times, to mono.

    Args:
        path: the file.
        rate_hz: sample rate to resample to.
        expects: what is expected, for the error.
        start_s: where the part begins; with it or `stop_s`, the part is the track.
        stop_s: where it ends.

    Returns:
        The track, its samples at `rate_hz`.

    Raises:
        FileError: if there is no sound track, or it ends before its header says.
    """
    import av

    reader = container_of(path)
    if reader is None:
        raise Damaged("not a sound in these formats")
    first = round((start_s or 0) * rate_hz)
    limit = first + int(LIMITS.audio_seconds * rate_hz)
    if stop_s is not None:
        limit = min(limit, round(stop_s * rate_hz))
    pieces, count, skipped = [], 0, 0
    with av.open(str(path), format=reader) as container:
        if not container.streams.audio:
            raise refuse(path, "there is no sound in it", expects, "choose a file with sound")
        stream = container.streams.audio[0]
        duration_s = float(stream.duration * stream.time_base) if stream.duration else 0.0
        if not duration_s and container.duration:
            duration_s = container.duration / av.time_base
        source_rate_hz, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        check_rate(path, source_rate_hz, channels)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
        for frame in container.decode(stream):
            frame.pts = None
            for part in resampler.resample(frame):
                pieces.append(part.to_ndarray()[0])
                count += len(pieces[-1])
                if count <= first:
                    skipped += len(pieces.pop())
            if count >= limit:
                break
        else:
            pieces += [part.to_ndarray()[0] for part in resampler.resample(None)]
    samples = np.concatenate(pieces)[first - skipped : limit - skipped] if pieces else np.zeros(0, np.float32)
    if (skipped + sum(map(len, pieces))) / rate_hz < 0.9 * min(duration_s, limit / rate_hz) - 0.2:
        found = f"the sound ends after {(skipped + len(samples)) / rate_hz:.1f} s of {duration_s:.1f} s"
        raise refuse(path, found, expects, "the file is cut short, so save or download it again")
    if start_s is not None or stop_s is not None:
        duration_s = len(samples) / rate_hz
    return Track(samples, rate_hz, duration_s, source_rate_hz, channels)
