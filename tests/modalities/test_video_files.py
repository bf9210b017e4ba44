import struct

import numpy as np
import pytest
from file_makers import gif, tone, video
from PIL import Image

from onellm.modalities import MODALITIES, load

FORMATS = [
    ("a.mp4", "libx264"),
    ("a.mov", "libx264"),
    ("a.mkv", "mpeg4"),
    ("a.webm", "libvpx-vp9"),
    ("a.avi", "mpeg4"),
]


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_formats_give_evenly_spread_frames(tmp_path, name, codec):
    sample = load("video", video(tmp_path / name, codec))
    assert sample.array.shape == (16, 48, 64, 3) and sample.array.dtype == np.uint8
    levels = sample.array.mean(axis=(1, 2, 3))
    steps = np.diff(levels)
    assert (steps > 5).all() and (steps < 22).all()  # 200 levels over 30 frames, about two frames a step
    assert abs(sample.rate_hz - 10) < 0.5 and sample.summary.startswith("3.0 s, 64 × 48 pixels")


@pytest.mark.parametrize("gop", [1, 5, 250])
def test_frames_are_the_right_ones_however_key_frames_lie(tmp_path, gop):
    sample = load("video", video(tmp_path / "a.mp4", frames=100, gop=gop), frames=4)
    levels = sample.array.mean(axis=(1, 2, 3))
    expected = 20 + 200 * np.array([12, 37, 62, 87]) / 99
    assert np.abs(levels - expected).max() < 6


def test_fewer_frames_than_asked_for(tmp_path):
    sample = load("video", video(tmp_path / "a.mp4", frames=3))
    assert len(sample.array) == 3
    assert MODALITIES["video"].to_tensor(sample, frames=5).shape == (5, 3, 224, 224)


def test_animated_gif(tmp_path):
    sample = load("video", gif(tmp_path / "a.gif"))
    assert sample.array.shape == (8, 30, 40, 3) and abs(sample.rate_hz - 10) < 1
    assert np.abs(sample.array[5, 10, 10].astype(int) - (150, 100, 50)).max() < 12


def test_transparent_gif_is_put_on_white(tmp_path):
    sample = load("video", gif(tmp_path / "a.gif", frames=2, transparent=True))
    assert tuple(sample.array[0, 5, 5]) == (255, 255, 255) and tuple(sample.array[1, 5, 5]) == (255, 0, 0)


def test_still_gif_is_one_frame(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.gif")
    assert load("video", tmp_path / "a.gif").array.shape == (1, 10, 20, 3)


def test_suffix_and_container_may_differ(tmp_path):
    video(tmp_path / "a.mp4").rename(tmp_path / "a.avi")
    assert len(load("video", tmp_path / "a.avi").array) == 16


def test_soundtrack(tmp_path):
    for name, codec in (("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")):
        sample = MODALITIES["video"].soundtrack(video(tmp_path / name, codec, sound=True))
        assert sample.modality == "audio" and sample.rate_hz == 16000
        assert abs(len(sample.array) / 16000 - 3) < 0.1
        spectrum = np.abs(np.fft.rfft(sample.array[8000:24000]))
        assert abs(int(spectrum.argmax()) - 440) <= 1
        assert any("sound track" in note for note in load("video", tmp_path / name).notes)
    assert abs(float(np.abs(sample.array).max()) - float(np.abs(tone()).max())) < 0.2


def test_soundtrack_of_a_silent_video(tmp_path):
    with pytest.raises(Exception, match="there is no sound in it"):
        MODALITIES["video"].soundtrack(video(tmp_path / "a.mp4"))


def test_to_tensor_crops_clip_by_clip(tmp_path):
    sample = load("video", video(tmp_path / "a.mp4", size=(128, 48)))
    sample.array[..., 0] = np.linspace(0, 255, 128).astype(np.uint8)  # red grows to the right
    tensor = MODALITIES["video"].to_tensor(sample, frames=5, crops=3, size=32)
    assert tensor.shape == (15, 3, 32, 32)
    red = tensor[:, 0].mean(dim=(1, 2)).reshape(5, 3)
    assert bool((red[:, 0] < red[:, 1]).all() and (red[:, 1] < red[:, 2]).all())
    blue = tensor[:, 2].mean(dim=(1, 2)).reshape(5, 3)[:, 1]
    assert bool((blue[1:] > blue[:-1]).all())


def test_preview_is_a_gallery(tmp_path):
    preview = MODALITIES["video"].preview(load("video", video(tmp_path / "a.mp4", size=(640, 480))))
    assert preview.kind == "gallery" and len(preview.content) == 16
    assert max(preview.content[0].size) == 320


def test_frames_option(tmp_path, refused):
    path = video(tmp_path / "a.mp4")
    assert len(load("video", path, frames=5).array) == 5
    refused("video", path, "the option frames is 0", frames=0)


def test_long_gif_is_refused_before_decoding(tmp_path, refused, monkeypatch):
    from onellm.modalities import video as module
    from onellm.utils.limits import Limits

    monkeypatch.setattr(module, "LIMITS", Limits(gif_decoded_pixels=8 * 30 * 40 - 1))
    refused("video", gif(tmp_path / "a.gif"), "8 frames")


def test_long_videos_are_cut(tmp_path, monkeypatch):
    from onellm.modalities import video as module
    from onellm.utils.limits import Limits

    path = video(tmp_path / "a.mp4")
    monkeypatch.setattr(module, "LIMITS", Limits(video_seconds=1.5))
    sample = MODALITIES["video"].load(path)
    assert "cut to the first 1.5 s" in sample.notes
    assert sample.array.mean(axis=(1, 2, 3)).max() < 20 + 200 * 0.55


def test_costly_videos_move_frames_to_their_key_frames(tmp_path, monkeypatch):
    from onellm.modalities import video as module
    from onellm.utils.limits import Limits

    path = video(tmp_path / "a.mp4", frames=100, gop=20)
    monkeypatch.setattr(module, "LIMITS", Limits(video_decoded_pixels=5 * 2 * 64 * 48))
    levels = MODALITIES["video"].load(path, frames=5).array.mean(axis=(1, 2, 3))
    assert np.abs(levels - (20 + 200 * np.array([2, 22, 42, 62, 82]) / 99)).max() < 8


def test_playlists_are_not_followed(tmp_path, refused):
    secret = video(tmp_path / "secret.mp4")
    for text in (f"#EXTM3U\n#EXTINF:1,\n{secret}\n", f"ffconcat version 1.0\nfile {secret}\n"):
        (tmp_path / "list.mp4").write_text(text)
        refused("video", tmp_path / "list.mp4", "plain text")


def test_turned_phone_videos_are_upright(tmp_path):
    path = video(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # a quarter turn clockwise for display
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(data)
    assert load("video", path).array.shape == (16, 64, 48, 3)
