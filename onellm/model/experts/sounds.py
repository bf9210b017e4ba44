"""Sounds over time: what YAMNet hears in each part of a recording, and how long the recording is."""

import math
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from onellm.modalities import MODALITIES
from onellm.modalities.base import Sample
from onellm.model import base_parts
from onellm.model.experts.base import Expert, Finding

SHORT_S = 5.0  # up to this length, a sound is one thing
PART_S = 1.92  # four of YAMNet's hops are judged together
HOP_S = 0.48
LEVEL = 0.05  # root mean square that a sound is brought to
CERTAIN = 0.15  # mean probability of a name; below it a part has none
GENERAL = 0.1  # of its probability a general class keeps: any more special one goes before it
SILENT_PEAK = 1e-3  # -60 dB: nothing to hear
QUIET = 0.01  # of the loudest part's root mean square: a part is silence
SPEECH = slice(0, 6)  # classes of speech: people talking, a child, a voice made by a computer
BATCH = 16


@dataclass(frozen=True)
class Part:
    """Some seconds of a recording, what is heard in them, and how sure that is; no name where nothing is certain."""

    name: str
    start_s: float
    end_s: float
    score: float


@cache
def classes() -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of AudioSet's 521 classes as YAMNet orders them, and a weight of each.

    In the file, "-" marks a class that says nothing ("inside, small room"), "~" one that is general ("music").
    """
    lines = Path(__file__).with_name("sound_names.txt").read_text(encoding="utf-8").splitlines()
    weights = {" ": 1.0, "~": GENERAL, "-": 0.0}
    return tuple(line[1:] for line in lines), np.array([weights[line[0]] for line in lines], np.float32)


class Ear:
    """YAMNet, loaded at its first sound; what it heard last is kept, since two experts ask for it."""

    def __init__(self):
        self._net = self._last = None
        self._lock = threading.Lock()

    def probabilities(self, sample: Sample) -> np.ndarray:
        """Return the probability of each class in every 0.48 s, [N, 521] float32."""
        import torch

        with self._lock:
            if self._net is None:
                self._net = _load()
            if self._last is None or self._last[0] is not sample.array:
                patches = MODALITIES["audio"].to_tensor(sample, features="yamnet", level=LEVEL)
                with torch.inference_mode():
                    found = [self._net(batch)[0] for batch in patches.split(BATCH)]
                self._last = (sample.array, torch.cat(found).numpy())
            return self._last[1]


def _load():
    from safetensors.torch import load_file

    from onellm.model.backbones import YamNet

    net = YamNet().eval()
    net.load_state_dict(load_file(base_parts.fetch("yamnet") / "model.safetensors"))
    return net


EAR = Ear()


def is_silent(sample: Sample) -> bool:
    """Tell whether there is nothing to hear."""
    return float(np.abs(sample.array).max()) < SILENT_PEAK


def voice(sample: Sample, start: int, stop: int) -> float:
    """Return how sure YAMNet is, at its best moment, that somebody speaks between two samples, 0..1."""
    hop = HOP_S * sample.rate_hz
    probabilities = EAR.probabilities(sample)[max(0, math.floor(start / hop) - 1) : math.ceil(stop / hop) + 1]
    return float(probabilities[:, SPEECH].max(initial=0.0))


def over_time(sample: Sample) -> list[Part]:
    """Name what is heard in each part of a recording; neighbours of one name are one part."""
    names, weights = classes()
    probabilities = EAR.probabilities(sample)
    length_s, hops = sample.seconds, round(PART_S / HOP_S)
    rate_hz = len(sample.array) / length_s
    loudest, found = _rms(sample.array), []
    for first in range(0, len(probabilities), hops):
        start_s = first * HOP_S
        end_s = length_s if first + hops >= len(probabilities) else start_s + PART_S
        mean = probabilities[first : first + hops].mean(0)
        best = int((mean * weights).argmax())
        name, score = (names[best], float(mean[best])) if mean[best] >= CERTAIN else ("", 0.0)
        if _rms(sample.array[round(start_s * rate_hz) : round(end_s * rate_hz)]) < QUIET * loudest:
            name, score = "silence", 1.0
        if found and found[-1].name == name:
            before = found.pop()
            start_s, score = before.start_s, max(before.score, score)
        found.append(Part(name, start_s, end_s, score))
    return found


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.square(waveform).mean())) if waveform.size else 0.0


def _seconds(value: float) -> str:
    """Write a length as people do: tenths below ten seconds."""
    return f"{value:.1f}".removesuffix(".0") if value < 9.95 else f"{value:.0f}"


class Sounds(Expert):
    """Says what is heard when in a recording, and how long it is."""

    name = "sounds"
    modalities = ("audio",)
    base_parts = ("yamnet",)

    def find(self, sample: Sample) -> Finding:
        """Write "Sounds over time: 0-4 s dog barking, 4-9 s music. Length: 9 s."."""
        length = f"Length: {_seconds(sample.duration_s or sample.seconds)} s."
        if sample.seconds <= SHORT_S or is_silent(sample):
            return Finding(self.name, length)
        parts = [part for part in over_time(sample) if part.name]
        details = tuple(
            {"label": part.name, "start_s": round(part.start_s, 2), "end_s": round(part.end_s, 2), "score": part.score}
            for part in parts
        )
        if not parts:
            return Finding(self.name, length)
        heard = ", ".join(f"{part.start_s:.0f}-{part.end_s:.0f} s {part.name}" for part in parts)
        score = float(np.mean([part.score for part in parts]))
        return Finding(self.name, f"Sounds over time: {heard}. {length}", score, details)
