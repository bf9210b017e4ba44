"""Sounds: [S] float32, mono, 16 kHz."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
    to_numpy,
)
from onellm.modalities.plots import COLOURS, spread, style, veil
from onellm.modalities.readers import mel, sound
from onellm.modalities.readers.sound import Track
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch

RATE_HZ = mel.RATE_HZ
_EMPTY_BYTES = 4096  # of a file without sound, at most
_OFF_BYTES = 64  # by which a wav file's header may be off
_OPEN_BYTES = 0x40000000  # no file that is read is as large: what writes to a pipe sets such sizes
_PIECES = 10_000  # of a wav file, before its sound
SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".m4a", ".webm", ".opus", ".oga", ".aac", ".aif", ".aiff", ".aifc", ".caf",
    ".amr", ".wma", ".mka", ".m4b", ".m4r", ".mpga", ".mp2", ".weba", ".au", ".snd", ".w64", ".rf64", ".sph", ".wv",
    ".ape", ".ac3",
)  # fmt: skip
# a sound may lie in what is a video's container
VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".ogv", ".flv", ".wmv",
    ".3gp", ".3g2", ".qt", ".vob",
)  # fmt: skip
PATCH_FRAMES = 96  # YAMNet looks at 0.96 s at a time
PATCH_HOP = 48
PATCH_SAMPLES = (PATCH_FRAMES - 1) * mel.HOP + mel.FRAME
FBANK_FRAMES = 1024
# Mean and standard deviation of AudioSet's filter banks (AST, ImageBind, OneLLM); the latter counts twice.
FBANK_MEAN = -4.2677393
FBANK_STD = 4.5689974


_LARGE = tuple(suffix for suffix in VIDEO_SUFFIXES if suffix not in SUFFIXES)


class Audio(Modality):
    """Sound files, read with soundfile; m4a, webm (browsers record it) and what it cannot read, with PyAV.

    Canonical array: [S] float32 at 16 kHz, the mean of all channels, about -1..1, at most 60 s.
    """

    name = "audio"
    title = "Audio"
    icon = "🔊"
    libraries = ("soundfile", "librosa.core.audio", "av")
    suffixes = (*SUFFIXES, *VIDEO_SUFFIXES)
    layout = ("[S]", 1, None)
    unit = "amplitude, full scale is -1..1"
    expects = f"a sound (wav, flac, mp3, ogg, opus, m4a, aac, aiff or webm) of up to {megabytes(LIMITS.audio_bytes)}"

    def load(self, path: str | os.PathLike, track: bool = False, **options) -> Sample:
        """Read a sound file or, with `track`, the sound track of a video; for the rest see `Modality.load`."""
        track = track or Path(path).name.lower().endswith(_LARGE)
        reader = Soundtrack() if track and not isinstance(self, Soundtrack) else self
        return super(Audio, reader).load(path, **options)

    def read(self, path: Path, start_s: float | None = None, stop_s: float | None = None) -> Sample:
        """Read a sound of any rate and channel count.

        Args:
            path: the file.
            start_s: where to begin, in seconds from the start.
            stop_s: where to end.

        Returns:
            A sample whose array is [S] float32 at 16 kHz, the first 60 s.
        """
        check_times(path, start_s, stop_s)
        notes: list[str] = []
        _check_whole(path, self.expects, notes)
        track = self._decode(path, start_s, stop_s)
        track.notes[:0] = notes
        return self.sample(path, track)

    def from_memory(self, value: Any, rate_hz: float | None = None) -> Sample:
        """Turn a waveform [S] into a sample; `rate_hz` samples a second, 16,000 by default."""
        array, rate = self.check_layout(np.asarray(to_numpy(value), np.float32)), int(rate_hz or RATE_HZ)
        return self.sample(Path(IN_MEMORY), Track(array, rate, len(array) / rate, rate, 1))

    def sample(self, path: Path, track: Track) -> Sample:
        """Check a decoded track, bring it to 16 kHz and describe it.

        Args:
            path: the file it comes from.
            track: the track.

        Returns:
            The sample.

        Raises:
            FileError: if there is nothing to hear.
        """
        samples = track.samples
        notes = list(track.notes)
        finite = np.isfinite(samples)
        if not samples.size or not finite.any():
            found = "values that are not numbers" if samples.size else "no sound data"
            raise refuse(path, found, self.expects, "save or download it again")
        if not finite.all():
            samples = np.where(finite, samples, 0)
            notes.append("values that are not numbers were read as silence")
        peak = float(np.abs(samples).max())
        if peak > 4:  # a float file that was never scaled to -1..1
            samples = samples / peak
            notes.append(f"scaled down from a peak of {peak:,.0f}")
        if peak < 1e-4:
            notes.append("the sound is silent")
        if track.samples_rate_hz != RATE_HZ:
            import librosa

            samples = librosa.resample(samples, orig_sr=track.samples_rate_hz, target_sr=RATE_HZ)
        duration_s = max(track.duration_s, len(samples) / RATE_HZ)
        if duration_s > LIMITS.audio_seconds + 0.1:
            notes.append(f"cut to the first {LIMITS.audio_seconds:g} s")
        channels = {1: "mono", 2: "stereo"}.get(track.channels, f"{track.channels} channels")
        summary = f"{duration_s:.1f} s, {track.rate_hz / 1000:g} kHz, {channels}"
        array = samples.astype(np.float32)
        return Sample(
            self.name,
            path.name,
            array,
            summary,
            float(RATE_HZ),
            notes=notes,
            duration_s=duration_s,
            file_rate_hz=float(track.rate_hz),
        )

    def _decode(self, path: Path, start_s: float | None, stop_s: float | None) -> Track:
        """Decode at most the longest sound allowed, at its own rate."""
        import soundfile

        if sound.container_of(path) is None:  # libsndfile takes anything for samples where the name is that of some
            raise Damaged("not a sound in these formats")
        try:
            info = soundfile.info(str(path))
        except soundfile.LibsndfileError:
            return sound.decode(path, RATE_HZ, self.expects, start_s, stop_s)
        if not info.frames and path.stat().st_size > _EMPTY_BYTES:  # a pipe left the size 0
            return sound.decode(path, RATE_HZ, self.expects, start_s, stop_s)
        sound.check_rate(path, info.samplerate, info.channels)
        file_s = (sound.length_of_mp3(path) if info.format == "MP3" else None) or info.duration
        # not librosa.load: it looks for other programs that might read the file, and starts them
        begin_s = min(start_s or 0, file_s)
        longest_s = LIMITS.audio_seconds if stop_s is None else min(LIMITS.audio_seconds, stop_s - begin_s)
        channels, rate_hz = soundfile.read(
            path,
            frames=max(0, round(longest_s * info.samplerate)),
            start=round(begin_s * info.samplerate),
            dtype="float32",
            always_2d=True,
        )
        notes: list[str] = []
        samples = sound.mixed(channels, notes)
        wanted_s = min(file_s - begin_s, longest_s)
        if len(samples) / rate_hz < 0.98 * wanted_s - 0.1:
            found = f"the sound ends after {len(samples) / rate_hz:.1f} s of {file_s:.1f} s"
            raise refuse(path, found, self.expects, "the file is cut short, so save or download it again")
        duration_s = file_s if start_s is None and stop_s is None else len(samples) / rate_hz
        return Track(samples, int(rate_hz), duration_s, info.samplerate, info.channels, notes)

    def to_tensor(
        self,
        sample: Sample,
        features: str = "fbank",
        patches: int | None = None,
        short: str = "pad",
        frames: int = FBANK_FRAMES,
        level: float | None = None,
        delays_s: tuple[float, ...] = (0.0,),
        clips: int = 1,
        clip_s: float | None = None,
    ) -> torch.Tensor:
        """Turn a sound into a spectrogram.

        Args:
            sample: what `load` returned.
            features: "fbank" for the published OneLLM's filter bank, "yamnet" for YAMNet's patches.
            patches: yamnet: most patches a delay, evenly kept; all if None.
            short: yamnet: "pad" a sound below 0.975 s with silence, or "repeat" it.
            frames: fbank: length it is cut or padded to, in steps of 10 ms.
            level: yamnet: root mean square the sound is brought to, peaks beyond 1 cut; as it is if None.
            delays_s: yamnet: silences of this length, in seconds, go before the sound, and the patches of all are
                joined, since what YAMNet says of a short sound depends on where it lies in a patch.
            clips: fbank: how many pieces of the sound, evenly spread over it.
            clip_s: fbank: length of a piece in seconds; the whole sound if None.

        Returns:
            fbank: [1, 128, frames] float32, or [clips, 1, 128, frames] where there are several. yamnet:
            [N, 1, 96, 64] float32, one patch each 0.48 s.
        """
        import torch

        if features == "fbank":
            pieces = _pieces(len(sample.array), clips, clip_s)
            banks = [_fbank(sample.array[start:stop], frames) for start, stop in pieces]
            return torch.from_numpy(np.stack(banks) if clips > 1 else banks[0])
        if features == "yamnet":
            waveform = sample.array if level is None else _levelled(sample.array, level)
            silences = [np.zeros(round(delay * RATE_HZ), np.float32) for delay in delays_s]
            delayed = [_yamnet(np.concatenate([silence, waveform]), patches, short) for silence in silences]
            return torch.from_numpy(np.concatenate(delayed))
        raise ValueError(f"features is {features!r}; expected 'fbank' or 'yamnet'")

    def coverage(self, sample: Sample, **settings) -> Coverage:
        """Say how many seconds of the sound the model takes."""
        return Coverage.seconds(sum(end - start for start, end in self.heard(sample, **settings)), sample.seconds)

    def heard(
        self,
        sample: Sample,
        features: str = "fbank",
        patches: int | None = None,
        frames: int = FBANK_FRAMES,
        delays_s: tuple[float, ...] = (0.0,),
        clips: int = 1,
        clip_s: float | None = None,
        **settings,
    ) -> list[tuple[float, float]]:
        """List which parts of a sound `to_tensor` takes.

        Args:
            sample: what `load` returned.
            features: see `to_tensor`.
            patches: see `to_tensor`.
            frames: see `to_tensor`.
            delays_s: see `to_tensor`.
            clips: see `to_tensor`.
            clip_s: see `to_tensor`.
            **settings: do not matter here.

        Returns:
            Start and end of each part in seconds, in order, without overlap.
        """
        length = len(sample.array)
        if features == "fbank":
            windows = [
                (0, start // mel.HOP, min(frames, mel.count_steps(max(stop - start, mel.FRAME))))
                for start, stop in _pieces(length, clips, clip_s)
            ]
        else:
            delays = [round(delay * RATE_HZ) for delay in delays_s]
            windows = [(d, start, PATCH_FRAMES) for d in delays for start in _patch_starts(d + length, patches)]
        parts: list[tuple[float, float]] = []
        for start, end in sorted(_span(*window, length) for window in windows):
            if parts and start <= parts[-1][1]:
                start, end = parts[-1][0], max(end, parts.pop()[1])
            if end > start:
                parts.append((start, end))
        return parts

    def preview(self, sample: Sample, **settings) -> Preview:
        """Show the waveform over seconds, a mel spectrogram below; what the model does not take is veiled."""
        from plotly import graph_objects
        from plotly.subplots import make_subplots

        seconds, low, high = _envelope(sample.array, 1200)
        spectrum = mel.yamnet_log_mel(_at_least(sample.array, mel.FRAME, "pad"))
        columns = spread(len(spectrum), 500)
        levels = 8.686 * spectrum[columns].T  # natural logarithm of a magnitude to dB
        levels = np.clip(levels - levels.max(), -70, 0)
        figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.5, 0.5])
        figure.add_scatter(
            x=np.concatenate([seconds, seconds[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor=COLOURS[2],
            line={"color": COLOURS[2], "width": 0.6},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_trace(
            graph_objects.Heatmap(
                x=((columns + 1) * 0.01).astype(np.float32),
                y=mel.centres_khz(64, 125.0, 7500.0).astype(np.float32),
                z=levels.astype(np.int8),
                colorscale="Magma",
                showscale=False,
                hovertemplate="%{x:.2f} s, %{y:.1f} kHz, %{z} dB<extra></extra>",
            ),
            row=2,
            col=1,
        )
        style(figure, 340)
        peak = max(float(np.abs(sample.array).max()), 1e-3)
        figure.update_yaxes(title="amplitude", range=[-1.05 * peak, 1.05 * peak], nticks=5, row=1, col=1)
        figure.update_yaxes(title="kHz", type="log", tickvals=[0.25, 0.5, 1, 2, 4], showgrid=False, row=2, col=1)
        figure.update_xaxes(range=[0, len(sample.array) / RATE_HZ])
        figure.update_xaxes(title="seconds", showgrid=False, row=2, col=1)
        veiled = veil(figure, self.heard(sample, **settings) if settings else [], len(sample.array) / RATE_HZ)
        return Preview("plot", figure, f"{sample.name}: {sample.summary}", veiled=veiled)


class Soundtrack(Audio):
    """Reads the sound tracks of videos."""

    suffixes = (*VIDEO_SUFFIXES, ".gif", ".webp", ".apng")
    expects = "a video with a sound track"
    limit_bytes = LIMITS.video_bytes

    def read(self, path: Path, start_s: float | None = None, stop_s: float | None = None) -> Sample:
        """Decode the sound track."""
        check_times(path, start_s, stop_s)
        if sound.container_of(path) not in sound.VIDEOS:
            return super().read(path, start_s, stop_s)
        return self.sample(path, sound.decode(path, RATE_HZ, self.expects, start_s, stop_s))


def _fbank(waveform: np.ndarray, frames: int) -> np.ndarray:
    """Return [1, 128, frames] float32, normalised; padding is the value 0 before normalising."""
    bank = mel.fbank(_at_least(waveform, mel.FRAME, "pad"))[:frames]
    bank = np.pad(bank, ((0, frames - len(bank)), (0, 0)))
    return ((bank - FBANK_MEAN) / (2 * FBANK_STD)).T[None].astype(np.float32)


def _pieces(length: int, clips: int, clip_s: float | None) -> list[tuple[int, int]]:
    """Spread pieces evenly over `length` samples: first and last sample of each; where they are long they overlap."""
    size = length if clip_s is None else min(length, round(clip_s * RATE_HZ))
    starts = [round((length - size) * index / max(1, clips - 1)) for index in range(clips)]
    return [(start, start + size) for start in starts]


def _levelled(waveform: np.ndarray, level: float) -> np.ndarray:
    """Bring a waveform to a root mean square; one that is silent stays so."""
    loudness = float(np.sqrt(np.mean(np.square(waveform))))
    return waveform if loudness < 1e-5 else np.clip(waveform * (level / loudness), -1, 1).astype(np.float32)


def _yamnet(waveform: np.ndarray, patches: int | None, short: str) -> np.ndarray:
    """Return [N, 1, 96, 64] float32; a rest of half a hop or more gets a last patch of its own."""
    if short not in ("pad", "repeat"):
        raise ValueError(f"short is {short!r}; expected 'pad' or 'repeat'")
    starts = _patch_starts(len(waveform), patches)
    spectrum = mel.yamnet_log_mel(_at_least(waveform, PATCH_SAMPLES, short))
    return np.stack([spectrum[start : start + PATCH_FRAMES] for start in starts])[:, None]


def _patch_starts(length: int, patches: int | None) -> list[int]:
    """Return the first step of each of YAMNet's patches of a waveform of `length` samples."""
    steps = mel.count_steps(max(length, PATCH_SAMPLES))
    starts = list(range(0, steps - PATCH_FRAMES + 1, PATCH_HOP))
    rest = steps - PATCH_FRAMES - starts[-1]
    if rest >= PATCH_HOP // 2:
        starts.append(starts[-1] + rest)
    return starts if patches is None else [starts[i] for i in spread(len(starts), patches)]


def _span(delay: int, start: int, steps: int, length: int) -> tuple[float, float]:
    """Return which seconds of a waveform of `length` samples the steps from `start` cover, `delay` samples later."""
    first = start * mel.HOP - delay
    last = first + (steps - 1) * mel.HOP + mel.FRAME
    return max(0, first) / RATE_HZ, min(length, last) / RATE_HZ


def _at_least(waveform: np.ndarray, length: int, short: str) -> np.ndarray:
    """Lengthen a waveform to `length` samples with silence, or by repeating it."""
    if len(waveform) >= length:
        return waveform
    return np.resize(waveform, length) if short == "repeat" else np.pad(waveform, (0, length - len(waveform)))


def _envelope(waveform: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times in seconds and the lowest and highest sample about each."""
    columns = min(columns, len(waveform))
    edges = np.linspace(0, len(waveform), columns, endpoint=False).astype(int)
    low, high = np.minimum.reduceat(waveform, edges), np.maximum.reduceat(waveform, edges)
    return (edges / RATE_HZ).astype(np.float32), low.astype(np.float32), high.astype(np.float32)


def _check_whole(path: Path, expects: str, notes: list[str]) -> None:
    """Refuse a wav or ogg file that is shorter than its header says: decoders take it for a shorter sound.

    A header that is only a little off is believed to be wrong, and that is noted.
    """
    data = path.read_bytes()
    missing = 0
    if data[:4] in (b"RIFF", b"RIFX") and data[8:12] == b"WAVE":
        missing = _missing_wav(data, ">I" if data[:4] == b"RIFX" else "<I")
    elif data[:4] == b"OggS":
        missing = _missing_ogg(data)
    if missing > (_OFF_BYTES if data[:3] == b"RIF" else 0):
        found = f"the file ends {missing:,} bytes before its header says"
        raise refuse(path, found, expects, "the file is cut short, so save or download it again")
    if missing:
        notes.append(f"the file ends {missing:,} bytes before its header says: read to its end")


def _missing_wav(data: bytes, size_format: str) -> int:
    """Count the bytes that lack from the data chunk; streams that left its size open lack none."""
    position = 12
    for _ in range(_PIECES):
        if position + 8 > len(data):
            return 0
        name, size = data[position : position + 4], struct.unpack_from(size_format, data, position + 4)[0]
        if name == b"data":
            return 0 if size >= _OPEN_BYTES else max(0, position + 8 + size - len(data))
        position += 8 + size + size % 2
    raise Damaged(f"it starts with {_PIECES:,} pieces that are no sound")


def _missing_ogg(data: bytes) -> int:
    """Count the bytes that lack from the last page."""
    start = data.rfind(b"OggS")
    if start + 27 > len(data):
        return start + 27 - len(data)
    table = data[start + 27 : start + 27 + data[start + 26]]
    return max(0, start + 27 + data[start + 26] + sum(table) - len(data))
