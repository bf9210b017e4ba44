"""Sounds as recorders, messengers and pipes write them."""

import struct

import av
import file_makers as make
import numpy as np
import pytest
import soundfile

from onellm.modalities import load
from onellm.modalities.detect import recognise

RATE_HZ = 16_000
WAVE = make.tone(1.0)


def power(sample):
    return float(np.sqrt(np.mean(np.square(sample.array))))


def encoded(path, codec, rate_hz=RATE_HZ, container=None, wave=WAVE, **options):
    """Encode a wave at 16 kHz with libavcodec."""
    with av.open(str(path), "w", format=container) as output:
        bits = int(options.pop("b", 64_000))
        stream = output.add_stream(codec, rate=rate_hz, layout="mono", options=options)
        stream.bit_rate = bits
        resampler = av.AudioResampler(
            stream.codec_context.format.name, "mono", rate_hz, stream.codec_context.frame_size
        )
        frame = av.AudioFrame.from_ndarray(wave[None], format="flt", layout="mono")
        frame.sample_rate = RATE_HZ
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(part))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "container"),
    [("a.aac", "aac", 16_000, "adts"), ("a.opus", "libopus", 48_000, "ogg"), ("a.mp4", "aac", 16_000, None),
     ("a.3gp", "aac", 16_000, None), ("a.mka", "libopus", 48_000, "matroska"), ("a.wma", "wmav2", 44_100, "asf"),
     ("a.mp2", "mp2", 16_000, None), ("a.ts", "aac", 16_000, None), ("a.ac3", "ac3", 32_000, None),
     ("a.wv", "wavpack", 16_000, None), ("a.caf", "alac", 16_000, None)],
)  # fmt: skip
def test_formats_of_libavcodec(tmp_path, name, codec, rate_hz, container):
    path = encoded(tmp_path / name, codec, rate_hz, container)
    sample = load("audio", path)
    assert "audio" in recognise(path)
    assert abs(sample.duration_s - 1) < 0.12 and sample.file_rate_hz == rate_hz
    assert abs(power(sample) - np.sqrt(np.mean(WAVE**2))) < 0.05 * power(sample) + 0.02


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.aiff", {"subtype": "PCM_24"}), ("a.aifc", {"format": "AIFF", "subtype": "FLOAT"}),
     ("a.au", {"subtype": "ULAW"}),
     ("a.caf", {"subtype": "PCM_16"}), ("a.w64", {"subtype": "PCM_16"}), ("a.sph", {"format": "NIST"}),
     ("a.wav", {"format": "RF64"}), ("b.wav", {"subtype": "PCM_24", "endian": "BIG"}),
     ("c.wav", {"subtype": "MS_ADPCM"}),
     ("d.wav", {"subtype": "DOUBLE"}), ("e.wav", {"subtype": "ALAW"}), ("f.wav", {"subtype": "PCM_U8"}),
     ("g.wav", {"subtype": "IMA_ADPCM"})],
)  # fmt: skip
def test_formats_of_libsndfile(tmp_path, name, options):
    soundfile.write(tmp_path / name, WAVE, RATE_HZ, **options)
    sample = load("audio", tmp_path / name)
    assert recognise(tmp_path / name) == ["audio"]
    assert abs(len(sample.array) - RATE_HZ) < 700 and sample.file_rate_hz == RATE_HZ
    assert abs(power(sample) - power_of(WAVE)) < 0.03


def power_of(wave):
    return float(np.sqrt(np.mean(np.square(wave))))


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFF0024, 0x80000000, 0xFFFFFFFF, 32000 + 8, 32000 - 32000])
def test_sizes_that_pipes_and_players_write(tmp_path, size):
    soundfile.write(tmp_path / "a.wav", WAVE, RATE_HZ)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, size)
    struct.pack_into("<I", data, 4, size)
    (tmp_path / "a.wav").write_bytes(data)
    sample = load("audio", tmp_path / "a.wav")
    assert len(sample.array) == RATE_HZ and abs(power(sample) - power_of(WAVE)) < 0.01
    assert ["read to its end" in note for note in sample.notes] == [True] * (size == 32008)


def test_a_wav_that_lacks_more_is_refused(tmp_path, refused):
    soundfile.write(tmp_path / "a.wav", WAVE, RATE_HZ)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:20_000])
    refused("audio", tmp_path / "a.wav", "bytes before its header says", "cut short")


def mp3_of_two_rates(folder):
    """Silence and a tone, whose frames have other bit rates, without the frame that holds the index."""
    silent = encoded(
        folder / "s.mp3", "libmp3lame", 44_100, wave=np.zeros(4 * RATE_HZ, np.float32), b="32000", write_xing="0"
    )
    loud = encoded(folder / "l.mp3", "libmp3lame", 44_100, b="320000")
    data = []
    for path in (silent, loud):
        with av.open(str(path)) as container:
            data += [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    return b"".join(data)


def test_an_mp3_of_variable_rate_without_an_index_is_whole(tmp_path):
    data = mp3_of_two_rates(tmp_path)
    for name, lead in (("a.mp3", b""), ("b.mp3", bytes(100) + b"\xff\xfbjunk")):
        (tmp_path / name).write_bytes(lead + data)
        sample = load("audio", tmp_path / name)
        assert recognise(tmp_path / name) == ["audio"]
        assert abs(sample.duration_s - 5.1) < 0.2 and abs(len(sample.array) / RATE_HZ - 5.1) < 0.2
        assert power_of(sample.array[: 3 * RATE_HZ]) < 0.001 < power_of(sample.array[-RATE_HZ // 2 :])


@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_channels_that_cancel_each_other(tmp_path, suffix):
    both = np.stack([WAVE, -WAVE])
    if suffix == "wav":
        soundfile.write(tmp_path / "a.wav", both.T, RATE_HZ)
    else:
        with av.open(str(tmp_path / "a.m4a"), "w", format="ipod") as output:
            stream = output.add_stream("aac", rate=RATE_HZ, layout="stereo")
            frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
            frame.sample_rate = RATE_HZ
            resampler = av.AudioResampler("fltp", "stereo", RATE_HZ, 1024)
            for part in (*resampler.resample(frame), *resampler.resample(None)):
                output.mux(stream.encode(part))
            output.mux(stream.encode())
    sample = load("audio", tmp_path / f"a.{suffix}")
    assert abs(power(sample) - power_of(WAVE)) < 0.02 and "cancel" in sample.notes[0]


def test_one_channel_of_many_is_no_cancelling(tmp_path):
    channels = np.zeros((RATE_HZ, 6), np.float32)
    channels[:, 2] = WAVE
    soundfile.write(tmp_path / "a.wav", channels, RATE_HZ)
    sample = load("audio", tmp_path / "a.wav")
    assert not sample.notes and abs(power(sample) - power_of(WAVE) / 6) < 0.002


def test_stereo_has_the_same_level_in_every_container(tmp_path):
    make.m4a(tmp_path / "a.m4a")
    soundfile.write(tmp_path / "a.flac", np.stack([0.5 * WAVE, 0.5 * WAVE]).T, RATE_HZ)
    assert abs(power(load("audio", tmp_path / "a.m4a")) - 0.25) < 0.02
    assert abs(power(load("audio", tmp_path / "a.flac")) - power_of(0.5 * WAVE)) < 0.01
