"""Speech: the words that are said in a recording, and in which language, by Whisper.

Whisper writes sentences where nobody speaks ("Thank you for watching."). What it wrote counts only where it is sure of
it, and where YAMNet, which knows sounds and no words, hears somebody speak too.
"""

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES
from onellm.modalities.base import Sample
from onellm.model import base_parts
from onellm.model.experts import sounds
from onellm.model.experts.base import Expert, Finding

if TYPE_CHECKING:
    from onellm.model.experts.whisper import Heard, Whisper

# YAMNet's probability of speech, at its best moment: below it nobody speaks, and Whisper is not asked. The most of 53
# sounds without speech was 0.24, the least of 91 spoken sentences 0.95.
VOICE = 0.3
PART = "whisper-base"


@dataclass(frozen=True)
class Transcript:
    """What is said in a recording.

    Attributes:
        text: "" where nobody speaks.
        language: in English, "French"; "" where nobody speaks.
        score: how sure Whisper is of its words, 0..1.
        windows: the parts of the recording whose words count, 30 s or less each.
        voice: whether somebody speaks; without a text, what is said could not be made out.
    """

    text: str
    language: str
    score: float
    windows: "tuple[Heard, ...]"
    voice: bool


class Listener:
    """Whisper, loaded at its first recording."""

    def __init__(self):
        self._whisper: Whisper | None = None
        self._lock = threading.Lock()

    def whisper(self) -> "Whisper":
        """Return the model."""
        import torch

        from onellm.model.experts.whisper import Whisper
        from onellm.model.runtime import kernels

        with self._lock:
            if self._whisper is None:
                dtype = torch.bfloat16 if kernels.has_tiles() else torch.float32
                self._whisper = Whisper(base_parts.fetch(PART), dtype)
            return self._whisper

    def listen(self, sample: Sample) -> Transcript:
        """Write down what is said in a recording."""
        from onellm.model.experts.whisper import windows

        spans = [] if sounds.is_silent(sample) else windows(sample.array)
        spoken = [span for span in spans if sounds.voice(sample, *span) >= VOICE]
        written = [self.whisper().listen(sample.array, *span) for span in spoken]
        said = tuple(part for part in written if part.is_sure)
        if not said:
            return Transcript("", "", 0.0, (), bool(spoken))
        longest = max(said, key=lambda part: len(part.text))
        weights = [len(part.text) for part in said]
        score = math.exp(np.average([part.log_probability for part in said], weights=weights))
        return Transcript(" ".join(part.text for part in said), language_name(longest.language), score, said, True)


LISTENER = Listener()


def language_name(code: str) -> str:
    """Return a language's name in English, such as "French" of "fr"."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return LANGUAGES[code].title()


def transcribe(waveform: np.ndarray, rate_hz: float) -> tuple[str, str]:
    """Write down what somebody dictates.

    Args:
        waveform: [S] or [S, channels], of any real type; whole numbers are taken relative to their type's largest.
        rate_hz: samples a second.

    Returns:
        The words, and the language's name in English; both "" where nobody speaks.

    Raises:
        OneLLMError: the recording is empty or Whisper cannot be fetched.
    """
    waveform = np.asarray(waveform)
    if not waveform.size:
        raise OneLLMError(found="the recording is empty", advice="press the microphone, speak, and press it again")
    if np.issubdtype(waveform.dtype, np.integer):
        waveform = waveform / np.iinfo(waveform.dtype).max
    mono = waveform.astype(np.float32).reshape(len(waveform), -1).mean(1)
    said = LISTENER.listen(MODALITIES["audio"].from_memory(mono, rate_hz))
    return said.text, said.language


class Speech(Expert):
    """Writes down what is said in a recording."""

    name = "speech"
    modalities = ("audio",)
    base_parts = (PART, "yamnet")

    def find(self, sample: Sample) -> Finding:
        """Write 'Speech (English): "Goodbye."', "Speech: none." "Speech: somebody speaks, unclearly." or "Silence."."""
        if sounds.is_silent(sample):
            return Finding(self.name, "Silence.")
        said = LISTENER.listen(sample)
        if not said.text:
            return Finding(self.name, "Speech: somebody speaks, unclearly." if said.voice else "Speech: none.")
        details = tuple(
            {
                "label": part.text,
                "language": language_name(part.language),
                "start_s": round(part.start_s, 2),
                "end_s": round(part.end_s, 2),
                "score": math.exp(part.log_probability),
            }
            for part in said.windows
        )
        text = said.text.replace('"', "'")
        return Finding(self.name, f'Speech ({said.language}): "{text}"', said.score, details)
