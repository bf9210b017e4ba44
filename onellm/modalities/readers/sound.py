"""Decoding sound with PyAV: what soundfile cannot read, and the sound track of a video."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onellm.modalities.base import Damaged, refuse
from onellm.modalities.readers import animations
from onellm.modalities.readers.pictures import STILL_BRANDS
from onellm.utils.limits import LIMITS

__all__ = ["CONTAINERS", "VIDEOS", "Track", "check_rate", "container_of", "decode", "length_of_mp3", "mixed"]

# First bytes (at an offset) of the containers that are opened, and libavformat's reader for each. The reader
# is always named: left to guess, libavformat also reads playlists, which fetch other files.
CONTAINERS = (
    (4, b"ftypavis", animations.READER),
    *((4, b"ftyp" + brand, None) for brand in STILL_BRANDS),  # pictures, which libavformat takes for videos
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (4, b"skip", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (8, b"AVI ", "avi"),
    (0, b"\0\0\x01\xba", "mpeg"),
    (0, b"\0\0\x01\xb3", "mpegvideo"),
    (0, b"FLV\1", "flv"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"GIF8", "gif"),
    (8, b"WEBP", animations.READER),
    (0, b"\x89PNG", animations.READER),
    (8, b"WAVE", "wav"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (8, b"AIFF", "aiff"),
    (8, b"AIFC", "aiff"),
    (0, b"caff", "caf"),
    (0, b".snd", "au"),
    (0, b"NIST_1A", "nistsphere"),
    (0, b"#!AMR", "amr"),
    (0, b"wvpk", "wv"),
    (0, b"MAC ", "ape"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xf0", "aac"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf8", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"\xff\xfa", "mp3"),
    (0, b"\xff\xf3", "mp3"),
    (0, b"\xff\xf2", "mp3"),
    (0, b"\xff\xe3", "mp3"),
    (0, b"\xff\xfd", "mp3"),
    (0, b"\xff\xfc", "mp3"),
    (0, b"\xff\xf5", "mp3"),
    (0, b"\xff\xf4", "mp3"),
    (0, b"\x0bw", "ac3"),
)
# readers of containers that hold pictures
VIDEOS = ("mov", "matroska", "avi", "gif", "mpeg", "mpegvideo", "mpegts", "flv", "asf", "ogg")
_UNTOLD = ("aac", "ac3", "mp3", "amr", "mpeg", "mpegts")  # readers that only estimate how long a sound is
_TS_BYTES = 188  # a packet of MPEG-TS; with a time before each it has 4 more
_HEAD_BYTES = 65_536
_LEAST_HZ = 100
_LATE_S = 0.05  # a sound that begins so much after its pictures begins with them
_CANCELLED = 0.1  # power of the mean of channels by that of unrelated ones; below it, they cancel each other


@dataclass
class Track:
    """A decoded sound track.

    Attributes:
        samples: [S] float32, mono, of at most the longest sound allowed.
        samples_rate_hz: rate of the samples.
        duration_s: duration of the whole track, 0 if unknown.
        rate_hz: rate the file has.
        channels: number of channels the file has.
        notes: what the person should know about how it was read.
    """

    samples: np.ndarray
    samples_rate_hz: int
    duration_s: float
    rate_hz: int
    channels: int
    notes: list[str] = field(default_factory=list)


def container_of(path: Path) -> str | None:
    """Name libavformat's reader for a file by its first bytes, or None."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    for at, magic, reader in CONTAINERS:
        if head[at : at + len(magic)] == magic:
            return _after_tag(head) if magic == b"ID3" else reader
    for start, step in ((0, _TS_BYTES), (4, _TS_BYTES + 4)):
        if len(head) > start + 2 * step and {head[start + i * step] for i in range(3)} == {0x47}:
            return "mpegts"
    return "mp3" if _mp3_start(head) is not None else None


def _after_tag(head: bytes) -> str:
    """Name the reader of what follows an ID3 tag: AAC and FLAC may have one, too."""
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    start = head[10 + size :][:4]
    if start == b"fLaC":
        return "flac"
    return "aac" if start[:1] == b"\xff" and start[1:2] and start[1] & 0xF6 == 0xF0 else "mp3"


_MP3_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}  # of layer III, by bit rate index, for MPEG-1 and for MPEG-2 and 2.5


def _mp3_start(head: bytes) -> int | None:
    """Find where four frames of an mp3 follow each other: what was cut from a stream begins anywhere."""
    start = head.find(b"\xff")
    while 0 <= start < len(head) // 2:
        position = start
        for _ in range(4):
            length = _mp3_length(head[position : position + 4])
            if not length:
                break
            position += length
        else:
            return start
        start = head.find(b"\xff", start + 1)
    return None


def _mp3_length(header: bytes) -> int:
    """Return how many bytes a frame of layer III takes by its header, 0 if it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2 or header[1] & 0x18 == 0x08:
        return 0
    first = header[1] & 0x18 == 0x18  # MPEG-1
    rate = (44_100, 48_000, 32_000, 0)[header[2] >> 2 & 3] // (1 if first else 2 if header[1] & 0x10 else 4)
    kbps = _MP3_KBPS[first][header[2] >> 4]
    return (144 if first else 72) * kbps * 1000 // rate + (header[2] >> 1 & 1) if rate and kbps else 0


def mixed(channels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Average the channels of a sound; where they cancel each other, take the loudest.

    Args:
        channels: [S, C] float32.
        notes: one is added if they cancel.

    Returns:
        [S] float32.
    """
    mean = channels.mean(axis=1)
    if channels.shape[1] < 2 or not len(mean):
        return mean
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.square(channels).mean(axis=0)
        if not float(np.square(mean).mean()) < _CANCELLED * float(powers.mean()) / channels.shape[1]:
            return mean
    loudest = int(powers.argmax())
    notes.append(f"its channels cancel each other: only channel {loudest + 1} of {channels.shape[1]} is used")
    return channels[:, loudest]


def length_of_mp3(path: Path) -> float | None:
    """Return how long an mp3 without an index lasts, by its frames, in seconds; None if it has an index.

    Decoders estimate it from the first frame's bit rate, which others need not have.
    """
    import av

    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[:3] != b"ID3" and any(name in head[:4096] for name in (b"Xing", b"Info", b"VBRI")):
        return None
    with av.open(str(path), format="mp3") as container:
        stream = container.streams.audio[0]
        units = sum(packet.duration or 0 for packet in container.demux(stream))
        return float(units * stream.time_base)


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
    if reader in (None, animations.READER):
        raise Damaged("not a sound in these formats")
    first = round((start_s or 0) * rate_hz)
    limit = first + int(LIMITS.audio_seconds * rate_hz)
    if stop_s is not None:
        limit = min(limit, round(stop_s * rate_hz))
    pieces, count, skipped, whole = [], 0, 0, False
    with av.open(str(path), format=reader) as container:
        if not container.streams.audio:
            raise refuse(path, "there is no sound in it", expects, "choose a file with sound")
        stream = container.streams.audio[0]
        declared_s = 0.0 if reader in _UNTOLD else _declared(container, stream)
        source_rate_hz, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        check_rate(path, source_rate_hz, channels)
        silence = _late(container, stream, rate_hz)
        if silence:
            pieces, count = [np.zeros((silence, channels), np.float32)], silence
            if count <= first:
                skipped, pieces = count, []
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate_hz)
        for frame in container.decode(stream):
            frame.pts = None
            for part in resampler.resample(frame):
                pieces.append(part.to_ndarray().T)
                count += len(pieces[-1])
                if count <= first:
                    skipped += len(pieces.pop())
            if count >= limit:
                break
        else:
            whole = True
            pieces += [part.to_ndarray().T for part in resampler.resample(None)]
        heard_s = (skipped + sum(map(len, pieces))) / rate_hz
        short = heard_s < 0.9 * min(declared_s, limit / rate_hz) - 0.2
        if short and not (stream.duration or _ends_before(container, heard_s)):
            short, declared_s = False, heard_s  # the pictures last longer
        elif whole and not short:
            declared_s = heard_s
    samples = np.concatenate(pieces)[first - skipped : limit - skipped] if pieces else np.zeros((0, 1), np.float32)
    if short:
        found = f"the sound ends after {heard_s:.1f} s of {declared_s:.1f} s"
        raise refuse(path, found, expects, "the file is cut short, so save or download it again")
    if start_s is not None or stop_s is not None:
        declared_s = len(samples) / rate_hz
    elif not whole and not declared_s:
        declared_s = _declared_loosely(path, reader)
    notes: list[str] = []
    return Track(mixed(samples, notes), rate_hz, declared_s, source_rate_hz, channels, notes)


def _declared(container: Any, stream: Any) -> float:
    """Return how long a file says that a track lasts, in seconds; 0 if it does not say so."""
    import av

    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _declared_loosely(path: Path, reader: str) -> float:
    """Walk through a file that does not say how long it is: return the sum of what its packets last, in seconds."""
    import av

    with av.open(str(path), format=reader) as container:
        stream = container.streams.audio[0]
        return float(sum((packet.duration or 0) for packet in container.demux(stream)) * stream.time_base)


def _late(container: Any, stream: Any, rate_hz: int) -> int:
    """Return by how many samples a sound begins after the pictures it belongs to, at most a minute."""
    pictures = next(iter(container.streams.video), None)
    if pictures is None or pictures.start_time is None or stream.start_time is None:
        return 0
    late_s = float(stream.start_time * stream.time_base - pictures.start_time * pictures.time_base)
    return round(late_s * rate_hz) if _LATE_S < late_s <= LIMITS.audio_seconds else 0


def _ends_before(container: Any, heard_s: float) -> bool:
    """Tell whether none of a file's pictures is shown after the sound's end: it is the file that ends there."""
    container.seek(0)
    for packet in container.demux(*container.streams.video):
        if packet.size and packet.pts is not None and float(packet.pts * packet.time_base) > heard_s + 1:
            return False
    return True
