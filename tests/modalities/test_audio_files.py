import struct

import numpy as np
import pytest
import soundfile
from file_makers import m4a, tone

from onellm.modalities import MODALITIES, load

AUDIO = MODALITIES["audio"]


def strongest_hz(samples):
    return float(np.abs(np.fft.rfft(samples)).argmax() * 16000 / len(samples))


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 2), (44100, 1)])
def test_formats_rates_and_channels(tmp_path, suffix, rate_hz, channels):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([tone(1.5, rate_hz)] * channels, axis=1), rate_hz)
    sample = load("audio", path)
    assert sample.array.dtype == np.float32 and sample.array.ndim == 1 and sample.rate_hz == 16000
    assert abs(len(sample.array) - 24000) < 1000 and abs(strongest_hz(sample.array) - 440) < 2
    assert 0.4 < np.abs(sample.array[4000:20000]).max() < 0.6
    names = {1: "mono", 2: "stereo"}
    assert sample.summary.endswith(f"s, {rate_hz / 1000:g} kHz, {names[channels]}")


def test_m4a(tmp_path):
    sample = load("audio", m4a(tmp_path / "a.m4a"))
    assert abs(len(sample.array) - 32000) < 200 and abs(strongest_hz(sample.array) - 440) < 2
    assert sample.summary == "2.0 s, 48 kHz, stereo"


def test_cut_m4a_is_refused(tmp_path, refused):
    path = m4a(tmp_path / "a.m4a")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused("audio", path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "MS_ADPCM"])
def test_kinds_of_wav(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", tone(), 16000, subtype=subtype)
    assert np.abs(load("audio", tmp_path / "a.wav").array[:15000] - tone()[:15000]).max() < 0.05


def test_many_channels_are_averaged(tmp_path):
    channels = np.zeros((16000, 6), np.float32)
    channels[:, 2] = tone()
    soundfile.write(tmp_path / "a.wav", channels, 16000)
    sample = load("audio", tmp_path / "a.wav")
    assert sample.summary.endswith("6 channels") and abs(float(np.abs(sample.array).max()) - 0.5 / 6) < 0.01


def test_long_sounds_are_cut(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile(tone(1, 8000), 70), 8000)
    sample = load("audio", tmp_path / "a.wav")
    assert len(sample.array) == 960_000 and "cut to the first 60 s" in sample.notes
    assert sample.summary.startswith("70.0 s")


def test_values_that_are_no_numbers(tmp_path, refused):
    samples = tone()
    samples[100:200] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    sample = load("audio", tmp_path / "a.wav")
    assert np.isfinite(sample.array).all() and any("not numbers" in note for note in sample.notes)
    soundfile.write(tmp_path / "b.wav", np.full(100, np.nan, np.float32), 16000, subtype="FLOAT")
    refused("audio", tmp_path / "b.wav", "not numbers")


def test_silence_and_unscaled_samples_are_noted(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    sample = load("audio", tmp_path / "a.wav")
    assert sample.notes == ["the sound is silent"]
    assert bool(AUDIO.to_tensor(sample, features="yamnet").isfinite().all())
    soundfile.write(tmp_path / "b.wav", tone() * 30000, 16000, subtype="FLOAT")
    sample = load("audio", tmp_path / "b.wav")
    assert np.abs(sample.array).max() <= 1 and "scaled down" in sample.notes[0]


def test_lying_headers(tmp_path, refused):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    struct.pack_into("<I", data, 24, 4_000_000_000)
    (tmp_path / "rate.wav").write_bytes(data)
    refused("audio", tmp_path / "rate.wav")
    struct.pack_into("<I", data, 24, 16000)
    struct.pack_into("<H", data, 22, 60000)
    (tmp_path / "channels.wav").write_bytes(data)
    refused("audio", tmp_path / "channels.wav")


def test_header_without_samples(tmp_path, refused):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    refused("audio", tmp_path / "a.wav", "no sound data")


def test_streamed_wav_with_open_length_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, 0xFFFFFFFF)
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(data)
    assert len(load("audio", tmp_path / "a.wav").array) == 16000


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_cut_files_are_refused(tmp_path, suffix, refused):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 60000).astype(np.float32), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    refused("audio", path)


def test_fbank_is_kaldis():
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    from onellm.modalities.readers import mel

    samples = np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32) + 0.05
    filters = mel_filter_bank(257, 128, 20, 8000, 16000, None, "kaldi", triangularize_in_mel_space=True)
    reference = spectrogram(
        (samples - samples.mean()).astype(np.float64),
        window_function(400, "hann", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    ).T
    ours = mel.fbank(samples)
    assert ours.shape == reference.shape == (123, 128)
    assert np.abs(ours - reference).max() < 2e-3


def test_fbank_tensor(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    tensor = AUDIO.to_tensor(load("audio", tmp_path / "a.wav"))
    assert tensor.shape == (1, 128, 1024)
    assert float(tensor[0, 0, 98]) == pytest.approx(4.2677393 / (2 * 4.5689974))  # 98 frames, then padding
    assert int(tensor[0, :, 50].argmax()) in range(20, 32)  # 440 Hz


def test_fbank_in_pieces():
    from onellm.modalities.base import Sample

    def pieces(seconds):
        sample = Sample("audio", "a.wav", tone(seconds), "", 16000.0)
        settings = {"frames": 204, "clips": 3, "clip_s": 2}
        return AUDIO.to_tensor(sample, **settings), AUDIO.heard(sample, **settings)

    tensor, heard = pieces(10.0)
    assert tensor.shape == (3, 1, 128, 204)
    assert [round(start, 1) for start, _ in heard] == [0.0, 4.0, 8.0] and round(heard[-1][1], 1) == 10.0
    assert float(tensor[1, 0, 0, 198]) == pytest.approx(4.2677393 / (2 * 4.5689974))  # 198 frames, then padding
    assert int(tensor[2, 0, :, 50].argmax()) in range(20, 32)  # 440 Hz
    tensor, heard = pieces(1.0)  # shorter than a piece: three times the same
    assert (tensor[0] == tensor[2]).all() and len(heard) == 1


def test_yamnet_patches():
    from onellm.modalities.base import Sample
    from onellm.modalities.readers import mel

    def patches(seconds, **settings):
        sample = Sample("audio", "a.wav", tone(seconds), "", 16000.0)
        return AUDIO.to_tensor(sample, features="yamnet", **settings)

    assert patches(0.975).shape == (1, 1, 96, 64)
    assert patches(0.3).shape == (1, 1, 96, 64)
    assert patches(1.455).shape == (2, 1, 96, 64)
    assert patches(1.3).shape == (2, 1, 96, 64)  # the rest gets a patch that ends with the sound
    assert patches(10.0).shape == (20, 1, 96, 64)
    assert patches(10.0, patches=4).shape == (4, 1, 96, 64)
    padded, repeated = patches(0.3)[0, 0], patches(0.3, short="repeat")[0, 0]
    assert float(padded[80].max()) == pytest.approx(np.log(0.001), abs=1e-4)
    assert float(repeated[80].max()) > 2
    centres = mel.centres_khz(64, 125.0, 7500.0)
    assert abs(centres[int(padded[5].argmax())] - 0.44) < 0.03
    # A sine of amplitude a gives a peak of about a/4 of the window's length in the magnitude spectrum.
    assert 3.5 < float(padded[5].max()) < np.log(0.5 * 400 / 4 * 2)


def test_short_sounds_and_wrong_settings():
    from onellm.modalities.base import Sample

    sample = Sample("audio", "a.wav", tone(0.001), "", 16000.0)
    assert AUDIO.to_tensor(sample).shape == (1, 128, 1024)
    assert AUDIO.preview(sample).kind == "plot"
    with pytest.raises(ValueError, match="fbank"):
        AUDIO.to_tensor(sample, features="mfcc")


def test_playlists_are_not_followed(tmp_path, refused):
    soundfile.write(tmp_path / "secret.wav", tone(), 16000)
    (tmp_path / "a.m4a").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'secret.wav'}\n")
    refused("audio", tmp_path / "a.m4a", "plain text")


def test_yamnet_level_and_delays():
    from onellm.modalities.base import Sample

    def patches(waveform, **settings):
        return AUDIO.to_tensor(Sample("audio", "a.wav", waveform, "", 16000.0), features="yamnet", **settings)

    loud, quiet = tone(0.5).astype(np.float32), (0.01 * tone(0.5)).astype(np.float32)
    assert float((patches(loud) - patches(quiet)).abs().max()) > 1
    assert float((patches(loud, level=0.05) - patches(quiet, level=0.05)).abs().max()) < 1e-3
    silent = np.zeros(8000, np.float32)
    assert bool((patches(silent, level=0.05) == patches(silent)).all())
    delayed = patches(loud, delays_s=(0.0, 0.2))
    assert delayed.shape == (2, 1, 96, 64)
    assert float((delayed[0, 0, :40] - delayed[1, 0, 20:60]).abs().max()) < 1e-3  # 20 steps of 10 ms later
    assert patches(np.tile(loud, 20), patches=4, delays_s=(0.0, 0.2, 0.4)).shape == (12, 1, 96, 64)
