"""Whisper: the words of a recording, and signs of whether there are any.

Greedy decoding, a window of 30 s at a time. Source: Radford et al., Robust Speech Recognition via Large-Scale Weak
Supervision, 2022, section 4.5 and OpenAI's transcribe.py for the three signs.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

RATE_HZ = 16_000
WINDOW_S = 30
CUT_S = 5  # a window ends at the quietest moment of its last seconds
# Whisper's own code has -1.0; of 61 recordings of people in five languages what lay below -0.7 was wrong throughout.
LOG_PROBABILITY = -0.7
COMPRESSION = 2.4  # as in Whisper's own code
MOST_TOKENS = 224  # of a window; the decoder knows 448 positions
LOOP = 24  # tokens of a text of up to six, said again and again
TOKENS_HZ = 12  # nobody speaks faster


@dataclass(frozen=True)
class Heard:
    """What Whisper takes one window of a recording for.

    Attributes:
        text: the words, "" if it wrote none.
        language: code of the likeliest language, "en".
        start_s: where the window begins.
        end_s: where it ends.
        no_speech: probability that nobody speaks, 0..1, as the model itself says.
        log_probability: mean of the tokens' natural logarithms of probability.
        compression: how many times shorter zlib makes the text; what repeats itself is above 2.4.
    """

    text: str
    language: str
    start_s: float
    end_s: float
    no_speech: float
    log_probability: float
    compression: float

    @property
    def is_sure(self) -> bool:
        """Whether the words count."""
        words = any(character.isalnum() for character in self.text)
        sure = self.compression <= COMPRESSION and self.log_probability >= LOG_PROBABILITY
        return words and sure


class Whisper:
    """A converted Whisper of any size; see `base_parts.conversions.whisper`."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32):
        """Load it.

        Args:
            folder: of the base part.
            dtype: of weights and activations.
        """
        from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

        self.model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.features = WhisperFeatureExtractor.from_pretrained(folder)
        settings = self.model.generation_config
        self.languages = {number: name.strip("<|>") for name, number in settings.lang_to_id.items()}
        ids = self.tokenizer.convert_tokens_to_ids
        self.start, self.end = settings.decoder_start_token_id, settings.eos_token_id
        self.no_speech, self.transcribe = ids("<|nocaptions|>"), settings.task_to_id["transcribe"]
        self.plain = settings.no_timestamps_token_id
        vocabulary = self.model.config.vocab_size
        self.never = torch.zeros(vocabulary, dtype=dtype)  # added to logits
        self.never[settings.suppress_tokens] = -torch.inf
        self.never[self.plain :] = -torch.inf  # times
        self.never_first = self.never.clone()
        self.never_first[settings.begin_suppress_tokens] = -torch.inf

    @torch.inference_mode()
    def listen(self, waveform: np.ndarray, start: int = 0, stop: int | None = None) -> Heard:
        """Write down what is said between two samples that are at most 30 s apart, see `windows`.

        A short recording is followed by silence up to 30 s, on which Whisper was taught. With less of it the encoder
        has less to do, but of 63 recordings of some seconds about half were doubtful then (words came twice, or for
        ever), and hearing these again with all of it took what had been saved.

        Args:
            waveform: [S] float32 at 16 kHz, about -1..1.
            start: the first sample.
            stop: behind the last one; None for the end.
        """
        waveform = waveform[start:stop]
        bank = self.features(waveform, sampling_rate=RATE_HZ, return_tensors="pt").input_features
        states = self.model.model.encoder(bank.to(self.model.dtype)).last_hidden_state
        most = min(MOST_TOKENS, 16 + TOKENS_HZ * len(waveform) // RATE_HZ)
        tokens, language, no_speech, log_probability = self._decode(states, most)
        text = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        encoded = text.encode()
        return Heard(
            text,
            language,
            start / RATE_HZ,
            (start + len(waveform)) / RATE_HZ,
            no_speech,
            log_probability,
            len(encoded) / len(zlib.compress(encoded)) if encoded else 0.0,
        )

    def _decode(self, states: torch.Tensor, most: int) -> tuple[list[int], str, float, float]:
        """Decode greedily.

        Args:
            states: [1, T, D], the encoder's.
            most: tokens.

        Returns:
            The tokens, the language's code, the probability of no speech, and the mean log probability.
        """
        from transformers import DynamicCache, EncoderDecoderCache

        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        first = self._logits([self.start], states, cache).float()
        no_speech = float(first.softmax(-1)[self.no_speech])
        known = list(self.languages)
        language = known[int(first[known].argmax())]
        logits = self._logits([language, self.transcribe, self.plain], states, cache)
        tokens, total = [], 0.0
        while len(tokens) < most and not _repeats(tokens):
            scores = (logits + (self.never if tokens else self.never_first)).float().log_softmax(-1)
            token = int(scores.argmax())
            total += float(scores[token])
            if token == self.end:
                break
            tokens.append(token)
            logits = self._logits([token], states, cache)
        return tokens, self.languages[language], no_speech, total / (len(tokens) + 1)

    def _logits(self, tokens: list[int], states: torch.Tensor, cache: Any) -> torch.Tensor:
        """Return the logits [V] behind the last of `tokens`, and remember all of them."""
        out = self.model.model.decoder(
            input_ids=torch.tensor([tokens]), encoder_hidden_states=states, past_key_values=cache, use_cache=True
        )
        return self.model.proj_out(out.last_hidden_state[:, -1])[0]


def _repeats(tokens: list[int]) -> bool:
    """Tell whether the last tokens repeat themselves, as they do for ever where the network has lost its way."""
    return any(len(tokens) >= LOOP and tokens[-LOOP:-period] == tokens[-LOOP + period :] for period in range(1, 7))


def windows(waveform: np.ndarray) -> list[tuple[int, int]]:
    """Cut a recording into windows of at most 30 s, each ending at the quietest moment of its last seconds.

    Args:
        waveform: [S] at 16 kHz.

    Returns:
        First and last sample of each.
    """
    found, start, hop = [], 0, int(0.02 * RATE_HZ)
    while len(waveform) - start > WINDOW_S * RATE_HZ:
        stop = start + WINDOW_S * RATE_HZ
        tail = waveform[stop - CUT_S * RATE_HZ : stop]
        power = np.square(tail[: len(tail) // hop * hop].reshape(-1, hop)).mean(1)
        smooth = np.convolve(power, np.ones(10) / 10, "same")  # 0.2 s
        stop = stop - len(tail) + int(smooth.argmin()) * hop + hop // 2
        found.append((start, stop))
        start = stop
    return [*found, (start, len(waveform))]
