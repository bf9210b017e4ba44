"""What is said and heard in recordings: the rules without a network, and the real networks where they were fetched."""

from pathlib import Path

import numpy as np
import pytest

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES
from onellm.model import base_parts
from onellm.model.experts import EXPERTS, find_all, sounds, speech
from onellm.model.experts.whisper import Heard, _repeats, windows

RATE_HZ = 16_000
FOLDER = Path(__file__).parent / "spoken"  # sentences of our own, spoken by espeak-ng
SPOKEN = [
    ("kitchen", "English", ["turn off", "the light in the kitchen"]),
    ("manzanas", "Spanish", ["rojas en el mercado"]),
]
needs_whisper = pytest.mark.skipif(
    not all(base_parts.folder(part) for part in ("whisper-base", "yamnet")), reason="Whisper was not fetched"
)


def sample_of(waveform):
    return MODALITIES["audio"].from_memory(np.asarray(waveform, np.float32), RATE_HZ)


def heard(text="Hello there.", no_speech=0.1, log_probability=-0.2, compression=1.0):
    return Heard(text, "en", 0.0, 1.0, no_speech, log_probability, compression)


# ---- rules -----------------------------------------------------------------------------------------------------------


def test_silence_is_said_without_loading_anything(monkeypatch):
    monkeypatch.setattr(base_parts, "fetch", None)
    found, notes = find_all(["sounds", "speech"], sample_of(np.zeros(32_000)))
    assert [finding.text for finding in found] == ["Length: 2 s.", "Silence."] and not notes


def test_an_expert_without_its_part_costs_a_note(monkeypatch, tmp_path):
    monkeypatch.setattr(speech, "LISTENER", speech.Listener())
    monkeypatch.setattr(speech, "PART", "whisper-huge")
    monkeypatch.setattr(sounds, "voice", lambda *_: 1.0)
    found, notes = find_all(["sounds", "speech"], sample_of(np.sin(np.arange(32_000))))
    assert [finding.text for finding in found] == ["Length: 2 s."]
    assert len(notes) == 1 and notes[0].startswith("speech could not look at ")
    assert "whisper-huge' is not known" in notes[0]


def test_what_is_not_said_is_not_written():
    assert heard().is_sure
    assert not heard(log_probability=-1.5).is_sure
    assert not heard(compression=3.0).is_sure  # it repeats itself
    assert not heard(text="♪ ♪").is_sure


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [([1, 2, 3, 4, 5], False), ([1, 2, 3, 4] * 2, False), ([7, 8] * 12, True), ([7, 8] * 11 + [7, 9], False)],
)
def test_repeating_tokens_are_noticed(tokens, loops):
    assert _repeats(tokens) == loops


def test_a_long_recording_is_cut_where_it_is_quiet():
    waveform = np.random.default_rng(0).normal(0, 0.1, 70 * RATE_HZ).astype(np.float32)
    quiet = (27.3, 55.0)
    for second in quiet:
        waveform[int((second - 0.2) * RATE_HZ) : int((second + 0.2) * RATE_HZ)] = 0
    found = windows(waveform)
    assert found[0][0] == 0 and found[-1][1] == len(waveform)
    assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]
    assert [end / RATE_HZ for _, end in found[:-1]] == pytest.approx(quiet, abs=0.15)
    assert all(end - start <= 30 * RATE_HZ for start, end in found)
    assert windows(waveform[:RATE_HZ]) == [(0, RATE_HZ)]


def test_every_class_of_sounds_has_a_name_and_general_ones_weigh_less():
    names, weights = sounds.classes()
    assert len(names) == len(weights) == 521 and all(names) and set(np.unique(weights)) == {0, np.float32(0.1), 1}
    weight = dict(zip(names, weights, strict=True))
    assert (weight["music"], weight["dog barking"], weight["speech"]) == (np.float32(0.1), 1, np.float32(0.1))


def test_sounds_over_time_join_and_name_silence(monkeypatch):
    """Four seconds of a dog, two of nothing, six of music: from the probabilities on."""
    names, _ = sounds.classes()
    probabilities = np.zeros((25, 521), np.float32)
    probabilities[:8, names.index("dog barking")] = 0.6
    probabilities[12:, names.index("music")] = 0.9
    monkeypatch.setattr(sounds.EAR, "probabilities", lambda sample: probabilities)
    waveform = np.random.default_rng(0).normal(0, 0.1, 12 * RATE_HZ)
    waveform[int(3.84 * RATE_HZ) : int(5.76 * RATE_HZ)] = 0
    finding = EXPERTS["sounds"].find(sample_of(waveform))
    assert finding.text == "Sounds over time: 0-4 s dog barking, 4-6 s silence, 6-12 s music. Length: 12 s."
    assert [detail["label"] for detail in finding.details] == ["dog barking", "silence", "music"]
    short = EXPERTS["sounds"].find(sample_of(waveform[: 2 * RATE_HZ]))
    assert (short.text, short.score) == ("Length: 2 s.", None)


@pytest.mark.parametrize("value", [np.zeros(0), np.zeros((0, 2), np.int16)])
def test_an_empty_dictation_is_a_sentence(value):
    with pytest.raises(OneLLMError, match="the recording is empty; press the microphone"):
        speech.transcribe(value, 48_000)


# ---- the networks ----------------------------------------------------------------------------------------------------


@needs_whisper
def test_a_hum_a_tone_and_noise_are_no_speech():
    rng, seconds = np.random.default_rng(0), np.arange(3 * RATE_HZ) / RATE_HZ
    for waveform in (np.sin(2 * np.pi * 440 * seconds), 0.2 * rng.normal(size=len(seconds))):
        assert EXPERTS["speech"].find(sample_of(0.3 * waveform)).text == "Speech: none."


@needs_whisper
@pytest.mark.parametrize("name", ["dog", "meow", "owl", "train"])
def test_example_sounds_are_no_speech(name):
    from onellm.utils.paths import EXAMPLES

    found, notes = find_all(["sounds", "speech"], MODALITIES["audio"].load(EXAMPLES / "audio" / f"{name}.ogg"))
    assert not notes and found[1].text == "Speech: none." and "Length: " in found[0].text


@needs_whisper
@pytest.mark.parametrize(("name", "language", "words"), SPOKEN)
def test_what_is_said_is_written_down(name, language, words):
    sample = MODALITIES["audio"].load(FOLDER / f"{name}.flac")
    finding = EXPERTS["speech"].find(sample)
    assert finding.text.startswith(f"Speech ({language}): ")
    assert finding.text.endswith('"') and all(word in finding.text for word in words)
    assert 0.3 < finding.score <= 1 and finding.details[0]["language"] == language


@needs_whisper
def test_dictation_takes_what_browsers_send():
    """Stereo, 48 kHz, 16 bits; the same words."""
    name, language, words = SPOKEN[0]
    array = MODALITIES["audio"].load(FOLDER / f"{name}.flac").array
    stereo = np.repeat((np.repeat(array, 3) * 32_767).astype(np.int16)[:, None], 2, axis=1)
    text, found = speech.transcribe(stereo, 48_000)
    assert found == language and all(word in text for word in words)
    assert speech.transcribe(np.zeros((48_000, 2), np.int16), 48_000) == ("", "")
