"""Mel spectrograms as the two published sound encoders expect them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["centres_khz", "count_steps", "fbank", "yamnet_log_mel"]

RATE_HZ = 16_000
FRAME = 400  # 25 ms
HOP = 160  # 10 ms
FFT = 512


def fbank(waveform: np.ndarray, bands: int = 128) -> np.ndarray:
    """Compute Kaldi's log mel filter bank (Hanning window, no energy, no dither).

    Args:
        waveform: [S] float32 at 16 kHz.
        bands: number of mel bands.

    Returns:
        [T, bands] float32, natural logarithm of band energy.

    Source: Kaldi's feature-fbank with HTK compatibility; each frame loses its mean and is pre-emphasised.
    """
    frames = _frames(waveform - waveform.mean())
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - 0.97 * before) * np.hanning(FRAME).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, FFT)).astype(np.float32) ** 2
    energy = power @ _filters(bands, 20.0, RATE_HZ / 2)
    return np.log(np.maximum(energy, np.finfo(np.float32).eps))


def yamnet_log_mel(waveform: np.ndarray) -> np.ndarray:
    """Compute YAMNet's log mel spectrogram.

    Args:
        waveform: [S] float32 at 16 kHz in -1..1.

    Returns:
        [T, 64] float32.

    Source: AudioSet's VGGish/YAMNet features: magnitude spectrum, 125 to 7,500 Hz, offset 0.001.
    """
    window = np.hanning(FRAME + 1)[:-1].astype(np.float32)  # periodic
    magnitude = np.abs(np.fft.rfft(_frames(waveform) * window, FFT)).astype(np.float32)
    return np.log(magnitude @ _filters(64, 125.0, 7500.0) + np.float32(0.001))


def count_steps(length: int) -> int:
    """Return how many steps of 10 ms a spectrogram of at least one frame of samples has."""
    return (length - FRAME) // HOP + 1


def _frames(waveform: np.ndarray) -> np.ndarray:
    """Cut a waveform of at least one frame into overlapping frames [T, 400]."""
    return np.lib.stride_tricks.sliding_window_view(waveform, FRAME)[::HOP]


def _mel(frequency_hz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(np.asarray(frequency_hz, np.float64) / 700.0)


@lru_cache(maxsize=8)
def _filters(bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Return [257, bands] float32 triangles, linear on the mel scale, peak 1; DC and Nyquist are left out."""
    edges = np.linspace(_mel(low_hz), _mel(high_hz), bands + 2)
    bins = _mel(np.arange(FFT // 2 + 1) * RATE_HZ / FFT)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters[[0, -1]] = 0.0
    return filters.astype(np.float32)


def centres_khz(bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Return the centre frequency of each band [bands] in kHz."""
    centres = np.linspace(_mel(low_hz), _mel(high_hz), bands + 2)[1:-1]
    return 0.7 * np.expm1(centres / 1127.0)
