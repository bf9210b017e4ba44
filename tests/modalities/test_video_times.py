"""Videos whose time is not their frames' number: variable rates, held frames, edit lists, tracks of other lengths."""

import struct
from fractions import Fraction

import av
import file_makers as make
import numpy as np
import pytest
from PIL import Image

from onellm.modalities import MODALITIES, load
from onellm.modalities.detect import recognise


def timed(path, times_ms, codec="libx264", sound_s=0.0, sound_late_s=0.0, **options):
    """A video whose frames are shown at the given times; each one's level is a fiftieth of its time in ms."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in options.items():
            setattr(stream.codec_context, name, value)
        tone = container.add_stream("libopus" if path.suffix in (".mkv", ".webm") else "aac", rate=48000)
        for time_ms in times_ms:
            image = np.full((48, 64, 3), time_ms / 50, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for start in range(round(sound_late_s * 48000), round(sound_s * 48000), 960):
            wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(start, start + 960) / 48000).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            for part in av.AudioResampler(format=tone.codec_context.format.name, layout="stereo").resample(frame):
                container.mux(tone.encode(part))
        container.mux(tone.encode())
    return path


def levels(sample):
    return sample.array.astype(float).mean(axis=(1, 2, 3))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_of_a_variable_rate_come_from_all_of_the_time(tmp_path, name):
    times_ms = [*range(0, 5000, 1000), *range(5000, 6000, 50)]
    sample = load("video", timed(tmp_path / name, times_ms), frames=5)
    assert np.abs(levels(sample) - np.array([0, 1000, 3000, 4000, 5400]) / 50).max() < 4
    assert np.abs(sample.times_s - [0.6, 1.8, 3, 4.2, 5.4]).max() < 0.06 and abs(sample.duration_s - 6) < 0.1


def test_a_held_frame_is_taken_as_often_as_it_is_met(tmp_path):
    sample = load("video", timed(tmp_path / "a.mkv", [0, 1000, *range(4000, 5000, 100)]), frames=5)
    assert np.abs(levels(sample) - np.array([0, 1000, 1000, 1000, 4500]) / 50).max() < 4
    assert MODALITIES["video"].coverage(sample, frames=5).used == "5"
    three = load("video", timed(tmp_path / "b.mp4", [0, 500, 4000]), frames=4, stop_s=4)
    assert np.abs(levels(three) - np.array([500, 500, 500, 500]) / 50).max() < 4


def test_an_edit_list_cuts_the_start(tmp_path):
    data = make.video(tmp_path / "a.mp4", frames=40, rate=10).read_bytes()
    at = data.index(b"elst") + 12
    shown, begins, rate = struct.unpack(">Iii", data[at : at + 12])
    scale = struct.unpack(">I", data[(mdhd := data.index(b"mdhd") + 16) : mdhd + 4])[0]
    changed = struct.pack(">Iii", shown // 4, begins + 3 * scale, rate)
    (tmp_path / "a.mp4").write_bytes(data[:at] + changed + data[at + 12 :])
    sample = load("video", tmp_path / "a.mp4", frames=5)
    assert abs(sample.duration_s - 1) < 0.01 and np.abs(sample.times_s - [0.1, 0.3, 0.5, 0.7, 0.9]).max() < 0.01
    assert np.abs(levels(sample) - (20 + 200 * np.array([31, 33, 35, 37, 39]) / 39)).max() < 6


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mp4"])
def test_pictures_may_end_before_the_sound(tmp_path, name):
    codec = "libvpx" if name == "a.webm" else "libx264"
    path = timed(tmp_path / name, range(0, 1000, 100), codec, sound_s=6)
    sample = load("video", path, frames=5)
    assert abs(sample.duration_s - 1) < 0.12 and len(sample.array) == 5
    assert abs(load("audio", path, track=True).duration_s - 6) < 0.1


def test_the_sound_may_end_before_the_pictures_or_begin_after_them(tmp_path):
    path = timed(tmp_path / "a.mkv", range(0, 5000, 100), sound_s=2, sound_late_s=1)
    assert abs(load("video", path, frames=5).duration_s - 5) < 0.05
    sound = load("audio", path, track=True)
    assert np.abs(sound.array[:15000]).max() < 0.01 < np.abs(sound.array[17000:30000]).max()
    assert abs(len(sound.array) / 16000 - 2) < 0.1


def test_a_cut_file_is_still_refused(tmp_path, refused):
    path = make.video(tmp_path / "a.mkv", frames=200, size=(320, 240), sound=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    refused("video", path, "the video ends after", "cut short")


def test_pixels_that_are_not_square(tmp_path):
    path = timed(tmp_path / "a.mp4", range(0, 1000, 100), sample_aspect_ratio=Fraction(4, 3))
    sample = load("video", path)
    assert sample.array.shape[1:3] == (48, 85) and "85 pixels wide" in sample.notes[0]


def test_transparency_of_vp9_is_put_on_white(tmp_path):
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        image = np.full((48, 64, 4), (255, 0, 0, 0), np.uint8)
        image[:, 32:, 3] = 255
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba")))
        container.mux(stream.encode())
    sample = load("video", tmp_path / "a.webm", frames=3)
    assert sample.array.shape == (3, 48, 64, 3) and "transparent" in sample.notes[0]
    assert sample.array[:, :, :24].min() > 245 and np.abs(sample.array[2, 24, 56] - np.array([255, 0, 0])).max() < 12


def test_large_frames_are_reduced(tmp_path, refused):
    sample = load("video", make.video(tmp_path / "a.mp4", frames=2, size=(2560, 1440)))
    assert sample.array.shape == (2, 1084, 1927, 3) and "2,560 × 1,440" in sample.summary
    assert "reduced" in sample.notes[0]
    path = make.video(tmp_path / "b.mp4", "mpeg4", frames=2, size=(4400, 2400))
    refused("video", path, "4,400 × 2,400", "pixels")


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.m4v", "libx264", 10), ("a.mpg", "mpeg2video", 25), ("a.ts", "libx264", 10), ("a.flv", "flv", 10),
     ("a.wmv", "wmv2", 10), ("a.3gp", "mpeg4", 10), ("a.mts", "mpeg2video", 25)],
)  # fmt: skip
def test_containers(tmp_path, name, codec, rate):
    path = tmp_path / name.replace(".mts", ".ts")
    path = make.video(path, codec, frames=4 * rate, rate=rate, gop=8).rename(tmp_path / name)
    sample = load("video", path, frames=4)
    assert recognise(path)[0] == "video"
    assert abs(sample.duration_s - 4) < 0.15 and np.abs(sample.times_s - [0.5, 1.5, 2.5, 3.5]).max() < 0.15
    assert np.abs(levels(sample) - (20 + 200 * np.array([0.5, 1.5, 2.5, 3.5]) / 4)).max() < 12


@pytest.mark.parametrize("name", ["a.webp", "a.apng"])
def test_animated_pictures(tmp_path, name):
    frames = [Image.new("RGB", (40, 30), (level, 0, 0)) for level in (50, 150, 250)]
    form = "WEBP" if name == "a.webp" else "PNG"
    frames[0].save(tmp_path / name, form, save_all=True, append_images=frames[1:], duration=[150, 300, 550])
    sample = load("video", tmp_path / name, frames=5)
    assert np.abs(sample.array[:, 5, 5, 0] - np.array([50, 150, 250, 250, 250])).max() < 6
    assert abs(sample.duration_s - 1) < 0.01 and sample.array.shape == (5, 30, 40, 3)


def test_a_cover_is_no_video(tmp_path, refused):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        tone, cover = container.add_stream("aac", rate=48000), container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(make.picture(), format="rgb24")))
        container.mux(cover.encode())
        make._encode_tone(container, tone, 1.0)
    path = tmp_path / "a.mp4"
    assert recognise(path) == ["audio"] and abs(load("audio", path).duration_s - 1) < 0.1
    refused("video", path, "no moving picture", "give it as audio")
