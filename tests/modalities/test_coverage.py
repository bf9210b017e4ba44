"""What `coverage` says of a file against what `to_tensor` takes of it, for the settings of both shipped models."""

import json
from pathlib import Path

import file_makers as make
import numpy as np
import pytest
import soundfile
from PIL import Image

from onellm.errors import FileError
from onellm.modalities import MODALITIES, Coverage, Sample, load

PACKAGE = Path(__file__).resolve().parents[2] / "onellm"
CONFIGS = {"tiny": PACKAGE / "pretrained/onellm-tiny/config.json", "7b": PACKAGE / "model/presets/onellm-7b.json"}
SETTINGS = {
    name: {modality: part.get("input", {}) for modality, part in json.loads(path.read_text())["modalities"].items()}
    for name, path in CONFIGS.items()
}
both = pytest.mark.parametrize("model", CONFIGS)


def coverage_and_tensor(modality, sample, settings):
    return MODALITIES[modality].coverage(sample, **settings), MODALITIES[modality].to_tensor(sample, **settings).numpy()


@both
@pytest.mark.parametrize("modality", ["image", "depth", "normal"])
def test_pixels(modality, model, tmp_path):
    settings = SETTINGS[model][modality]
    path = tmp_path / "a.png"
    if modality == "image":
        Image.fromarray(make.picture(1920, 1080)).save(path)
    elif modality == "depth":
        Image.fromarray(make.depth_mm(1920, 1080)).save(path)
    else:
        make.normal_png(path, 1000)
    covered, tensor = coverage_and_tensor(modality, load(modality, path), settings)
    height, width = tensor.shape[-2:]
    assert covered.used == f"{width} × {height}" and covered.unit == "pixels"
    assert covered.of == ("1,000 × 1,000" if modality == "normal" else "1,920 × 1,080")


def test_pixels_of_small_and_of_reduced_pictures(tmp_path):
    Image.fromarray(make.picture(64, 48)).save(tmp_path / "small.png")
    sample, image = load("image", tmp_path / "small.png"), MODALITIES["image"]
    assert image.coverage(sample, **SETTINGS["7b"]["image"]) == Coverage("48 × 48", "64 × 48", "pixels")
    assert image.coverage(sample, **SETTINGS["tiny"]["image"]).whole  # its second view cuts nothing off
    Image.fromarray(make.picture(3000, 300)).save(tmp_path / "large.png")
    assert image.coverage(load("image", tmp_path / "large.png"), size=224).of == "3,000 × 300"


@both
@pytest.mark.parametrize("frames", [3, 121])
def test_frames(model, frames, tmp_path):
    settings = SETTINGS[model]["video"]
    sample = load("video", make.video(tmp_path / "a.mp4", frames=frames))
    covered, tensor = coverage_and_tensor("video", sample, settings)
    brightness = {round(float(level), 4) for level in tensor.mean(axis=(1, 2, 3))}  # every frame has its own
    assert covered == Coverage(str(len(brightness)), str(frames), "frames")
    assert np.allclose(sample.times_s * sample.rate_hz, np.round(sample.times_s * sample.rate_hz), atol=0.01)
    preview = MODALITIES["video"].preview(sample, **settings)
    assert len(preview.content) == len(preview.labels) == len(brightness)


@both
@pytest.mark.parametrize("seconds", [0.4, 1.3, 5.0, 10.0, 30.0])
def test_seconds_of_sound(model, seconds):
    settings = SETTINGS[model]["audio"]
    rng = np.random.default_rng(0)
    sample = Sample("audio", "a.wav", rng.normal(0, 0.01, int(seconds * 16000)).astype(np.float32), "", 16000.0)
    audio = MODALITIES["audio"]
    covered, before = coverage_and_tensor("audio", sample, settings)
    parts = audio.heard(sample, **settings)
    assert covered == Coverage.seconds(sum(end - start for start, end in parts), seconds)
    inside = np.zeros(len(sample.array), bool)
    for start, end in parts:
        inside[round(start * 16000) : round(end * 16000)] = True
        middle = int((start + end) * 8000)  # a part that is heard changes the tensor; turned signs keep the level
        turned = np.where(abs(np.arange(len(inside)) - middle) < 100, -1, 1) * sample.array
        changed = audio.to_tensor(Sample("audio", "", turned, "", 16000.0), **settings).numpy()
        assert np.abs(changed - before).max() > 1e-3
    turned = np.where(inside, sample.array, -sample.array)
    unchanged = audio.to_tensor(Sample("audio", "", turned, "", 16000.0), **settings).numpy()
    assert np.abs(unchanged - before).max() < 1e-3
    assert audio.preview(sample, **settings).veiled == (sum(end - start for start, end in parts) < seconds - 0.02)


def test_seconds_of_a_sound_that_was_cut(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile(make.tone(1, 8000), 70), 8000)
    assert MODALITIES["audio"].coverage(load("audio", tmp_path / "a.wav")).of == "70.0"


@both
@pytest.mark.parametrize("count", [300, 8192, 20_000])
def test_points(model, count):
    cloud = np.random.default_rng(0).random((count, 6), np.float32)
    sample = Sample("point", "a.npy", cloud, "")
    covered, tensor = coverage_and_tensor("point", sample, SETTINGS[model]["point"])
    assert covered == Coverage(f"{len(np.unique(tensor, axis=0)):,}", f"{count:,}", "points")


@both
def test_voxels(model):
    settings = SETTINGS[model]["fmri"]
    shape = settings.get("grid", [settings["voxels"]])
    sample = Sample("fmri", "a.npy", np.random.default_rng(0).random((2, *shape), np.float32), "")
    covered, tensor = coverage_and_tensor("fmri", sample, settings)
    assert covered == Coverage(f"{tensor.size:,}", f"{tensor.size:,}", "voxels") and covered.whole
    wrong = Sample("fmri", "a.npy", np.ones((1, 5, 5, 5), np.float32), "")
    with pytest.raises(FileError) as told:
        MODALITIES["fmri"].coverage(wrong, **settings)
    with pytest.raises(FileError) as raised:
        MODALITIES["fmri"].to_tensor(wrong, **settings)
    assert str(told.value) == str(raised.value)


@both
@pytest.mark.parametrize(("rows", "rate_hz"), [(60, 50.0), (500, 50.0), (900, 100.0), (40, 31.7)])
def test_seconds_of_motion(model, rows, rate_hz):
    settings = SETTINGS[model]["imu"]
    sample = Sample("imu", "a.csv", np.ones((rows, 6), np.float32), "", rate_hz)
    covered, tensor = coverage_and_tensor("imu", sample, settings)
    taken = np.flatnonzero(np.abs(tensor).max(axis=0) > 0.05).size / settings["rate_hz"]
    assert abs(float(covered.used) - min(taken, rows / rate_hz)) <= 0.051
    assert covered.of == f"{rows / rate_hz:.1f}" and covered.unit == "seconds"
    assert MODALITIES["imu"].preview(sample, **settings).veiled == (float(covered.used) < float(covered.of))
