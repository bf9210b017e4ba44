"""Depth and normal maps."""

import file_makers as make
import numpy as np
import pytest
from PIL import Image

from onellm.modalities import MODALITIES, load

DEPTH, NORMAL = MODALITIES["depth"], MODALITIES["normal"]
METRES = make.depth_mm() / np.float32(1000)


def depth_files(folder):
    Image.fromarray(make.depth_mm()).save(folder / "mm.png")
    Image.fromarray(make.depth_mm()).save(folder / "mm.tiff")
    Image.fromarray(METRES).save(folder / "float.tiff")
    np.save(folder / "single.npy", METRES)
    np.save(folder / "double.npy", METRES.astype(np.float64)[None])
    make.exr(folder / "a.exr", METRES)
    return ["mm.png", "mm.tiff", "float.tiff", "single.npy", "double.npy", "a.exr"]


def test_depth_formats_give_metres(tmp_path):
    for name in depth_files(tmp_path):
        sample = load("depth", tmp_path / name)
        assert sample.array.shape == (48, 64) and sample.array.dtype == np.float32, name
        assert np.isnan(sample.array[:5, :5]).all(), name
        assert np.nanmax(np.abs(sample.array - METRES)) < 1e-3 or np.isnan(METRES).any(), name
        assert np.abs(sample.array - METRES)[6:].max() < 1e-3, name
        assert sample.summary == "64 × 48 pixels, 1 to 3 m", name


def test_depth_scale(tmp_path, refused):
    Image.fromarray(make.depth_mm()).save(tmp_path / "a.png")
    assert abs(float(np.nanmax(load("depth", tmp_path / "a.png", scale=1 / 5000).array)) - 0.6) < 1e-3
    refused("depth", tmp_path / "a.png", "the option scale", scale=-1)


def test_depth_of_eight_bits_is_relative(tmp_path):
    Image.fromarray((make.depth_mm() // 12).astype(np.uint8)).save(tmp_path / "a.png")
    sample = load("depth", tmp_path / "a.png")
    assert "relative" in sample.notes[0] and "relative" in sample.summary
    assert 0.9 < np.nanmax(sample.array) <= 1


def test_colour_pictures_are_no_depth(tmp_path, refused):
    Image.fromarray(make.picture()).save(tmp_path / "a.png")
    refused("depth", tmp_path / "a.png", "a picture in colour", "16-bit png or npy")


def test_depth_values_that_are_unknown(tmp_path, refused):
    values = METRES.copy()
    values[10:, :] = np.nan
    values[9, :] = -np.inf
    np.save(tmp_path / "a.npy", values)
    sample = load("depth", tmp_path / "a.npy")
    assert np.isnan(sample.array[9:]).all() and "of the pixels have no depth" in sample.notes[-1]
    tensor = DEPTH.to_tensor(sample, mean=(0, 0, 0), std=(1, 1, 1))
    assert bool(tensor.isfinite().all())
    np.save(tmp_path / "a.npy", np.zeros((5, 5)))
    refused("depth", tmp_path / "a.npy", "no pixel has a depth")


def test_depth_tensor_is_bright_near_and_dark_far(tmp_path):
    np.save(tmp_path / "a.npy", METRES)
    tensor = DEPTH.to_tensor(load("depth", tmp_path / "a.npy"), size=48, mean=(0, 0, 0), std=(1, 1, 1))
    assert tensor.shape == (1, 3, 48, 48)
    row = tensor[0, 0, 40]
    assert bool((row[1:] <= row[:-1] + 0.01).all()) and float(row[0]) > 0.7 and 0.08 < float(row[-1]) < 0.3
    flat = DEPTH.to_tensor(load("depth", flat_map(tmp_path)))
    assert bool(flat.isfinite().all())


def flat_map(folder):
    np.save(folder / "flat.npy", np.full((20, 20), 2.0))
    return folder / "flat.npy"


@pytest.mark.parametrize("modality", ["depth", "normal"])
def test_picture_beside_the_map_comes_first(modality, tmp_path, refused):
    path = tmp_path / "map.png"
    if modality == "depth":
        Image.fromarray(make.depth_mm(64, 64)).save(path)
    else:
        make.normal_png(path)
    Image.new("RGB", (128, 128), (255, 0, 0)).save(tmp_path / "photo.jpg")
    sample = load(modality, path, picture=tmp_path / "photo.jpg")
    assert sample.picture.shape == (128, 128, 3) and not any("proportions" in note for note in sample.notes)
    tensor = MODALITIES[modality].to_tensor(sample, mean=(0, 0, 0), std=(1, 1, 1))
    assert tensor.shape == (2, 3, 224, 224)
    assert float(tensor[0, 0].mean()) > 0.98 and float(tensor[0, 1].mean()) < 0.02
    Image.new("RGB", (300, 100)).save(tmp_path / "wide.png")
    assert "proportions" in load(modality, path, picture=tmp_path / "wide.png").notes[-1]
    refused(modality, path, "nothing.png", picture=tmp_path / "nothing.png")


def test_large_maps_are_refused_from_the_header(tmp_path, refused):
    Image.new("I;16", (6000, 3000)).save(tmp_path / "a.png")
    refused("depth", tmp_path / "a.png", "6,000 × 3,000", "at most 10 million pixels")
    np.save(tmp_path / "a.npy", np.zeros((4000, 2600), np.uint8))
    refused("depth", tmp_path / "a.npy", "at most 10 million pixels")
    refused("normal", tmp_path / "a.npy")
    Image.new("RGB", (6000, 3000)).save(tmp_path / "b.png")
    refused("normal", tmp_path / "b.png", "at most 10 million pixels")


def test_shapes_that_are_no_maps(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.ones((10, 10, 7)))
    refused("depth", tmp_path / "a.npy", "[10, 10, 7]", "[H, W]")
    refused("normal", tmp_path / "a.npy", "[10, 10, 7]", "[H, W, 3]")


def test_normal_formats(tmp_path):
    ball = make.normals()
    make.normal_png(tmp_path / "a.png")
    np.save(tmp_path / "signed.npy", ball)
    np.save(tmp_path / "turned.npy", ball.transpose(2, 0, 1))
    np.save(tmp_path / "scaled.npy", 2.5 * 0.5 * ball)
    known = np.any(ball != 0, axis=2, keepdims=True)
    np.save(tmp_path / "bytes.npy", np.where(known, np.round((ball + 1) * 127.5), 0).astype(np.uint8))
    for name in ("a.png", "signed.npy", "turned.npy", "scaled.npy", "bytes.npy"):
        sample = load("normal", tmp_path / name)
        assert sample.array.shape == (64, 64, 3) and sample.array.dtype == np.float32
        assert np.abs(sample.array - ball).max() < 0.02, name
        lengths = np.linalg.norm(sample.array, axis=2)
        assert np.allclose(lengths[known[..., 0]], 1, atol=1e-5) and (lengths[~known[..., 0]] == 0).all()
    full = make.normals()[20:44, 20:44]
    np.save(tmp_path / "unit.npy", (full + 1) / 2)
    assert np.abs(load("normal", tmp_path / "unit.npy").array - full).max() < 1e-5


def test_normal_directions(tmp_path):
    make.normal_png(tmp_path / "a.png")
    array = load("normal", tmp_path / "a.png").array
    assert array[5, 32, 1] > 0.7 and array[32, 60, 0] > 0.7 and array[32, 32, 2] > 0.99
    assert load("normal", tmp_path / "a.png", y="down").array[5, 32, 1] < -0.7
    tensor = NORMAL.to_tensor(load("normal", tmp_path / "a.png"), size=64, mean=(0, 0, 0), std=(1, 1, 1))
    assert tensor.shape == (1, 3, 64, 64)
    assert np.abs(tensor[0, :, 32, 32].numpy() - [0.5, 0.5, 1]).max() < 0.02
    assert float(tensor[0, :, 0, 0].abs().max()) < 0.05


def test_photographs_and_grey_maps_are_no_normals(tmp_path, refused):
    grey = np.random.default_rng(0).normal(128, 30, (40, 40, 1)).clip(0, 255)
    Image.fromarray(np.repeat(grey, 3, axis=2).astype(np.uint8)).save(tmp_path / "a.png")
    refused("normal", tmp_path / "a.png", "vectors of length 1", "give photographs as image")
    Image.new("L", (40, 40), 100).save(tmp_path / "b.png")
    refused("normal", tmp_path / "b.png", "without three colours")
    Image.new("RGB", (40, 40)).save(tmp_path / "c.png")
    refused("normal", tmp_path / "c.png", "no pixel has a normal")
    make.normal_png(tmp_path / "d.png")
    refused("normal", tmp_path / "d.png", "the option y", y="left")


def test_previews(tmp_path):
    make.normal_png(tmp_path / "n.png")
    preview = NORMAL.preview(load("normal", tmp_path / "n.png"))
    assert preview.kind == "image" and preview.content.mode == "RGBA"
    Image.fromarray(make.depth_mm(1000, 900)).save(tmp_path / "d.png")
    preview = DEPTH.preview(load("depth", tmp_path / "d.png"))
    assert preview.kind == "plot" and len(preview.content.to_json()) < 1_000_000
    assert preview.content.data[0].colorbar.ticksuffix == " m"
