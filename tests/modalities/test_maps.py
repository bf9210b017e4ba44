"""Shading of maps: normals from depth, and what the lamp does."""

import numpy as np
import pytest

from onellm.modalities import MODALITIES, load, maps


def plane(slope_right: float, side: int = 40) -> np.ndarray:
    """Depth in metres of a plane that recedes by `slope_right` metres a metre to the right."""
    focal = 0.5 * side / np.tan(np.radians(maps.FIELD_OF_VIEW_DEG / 2))
    right = (np.arange(side) + 0.5 - side / 2) / focal
    return np.tile(2 / (1 - slope_right * right), (side, 1)).astype(np.float32)


@pytest.mark.parametrize("slope", [0.0, 0.5, -1.0])
def test_normals_of_a_plane(slope):
    normals = maps.normals_of(plane(slope))
    wanted = np.array([slope, 0, 1]) / np.hypot(slope, 1)
    assert np.abs(normals - wanted).max() < 1e-3


def test_an_outline_does_not_bend_towards_what_lies_behind():
    depth = np.full((20, 20), 5.0, np.float32)
    depth[5:15, 5:15] = 1.0
    assert np.abs(maps.normals_of(depth) - [0, 0, 1]).max() < 1e-3


def test_unknown_pixels_have_no_normal_and_are_background():
    depth = plane(0)
    depth[:10] = np.nan
    normals = maps.normals_of(depth)
    assert not normals[:10].any() and np.allclose(np.linalg.norm(normals[10:], axis=2), 1, atol=1e-5)
    grey = maps.shade(normals)
    assert grey.shape == (40, 40, 3) and grey.dtype == np.uint8
    assert (grey[:10] == round(maps.BACKGROUND * 255)).all() and (grey[10:] < grey[0, 0]).all()


def test_what_faces_the_lamp_is_brighter():
    faces = np.array([[maps.LAMP, [0, 0, 1], [-0.6, -0.4, 0.7]]], np.float32)
    bright, middle, dark = maps.shade(faces)[0, :, 0].astype(int)
    assert bright > middle > dark


def test_shrink_averages_known_pixels():
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert maps.shrink(values, 4) is values
    values[0, 0] = np.nan
    small = maps.shrink(values, 2)
    assert small.shape == (2, 2) and small[0, 0] == pytest.approx((1 + 4 + 5) / 3) and small[1, 1] == 12.5
    values[:2, :2] = np.nan
    assert np.isnan(maps.shrink(values, 2)[0, 0]) and not np.isnan(maps.shrink(values, 2)[0, 1])


def test_looks_of_a_depth_map_and_of_its_normals_agree(tmp_path):
    depth = plane(-0.5)
    np.save(tmp_path / "depth.npy", depth)
    np.save(tmp_path / "normal.npy", maps.normals_of(depth))
    shaded = {
        modality: MODALITIES[modality].to_tensor(
            load(modality, tmp_path / f"{modality}.npy"), size=32, looks=("shaded", "coded")
        )
        for modality in ("depth", "normal")
    }
    assert shaded["depth"].shape == shaded["normal"].shape == (2, 3, 32, 32)
    assert float((shaded["depth"][0] - shaded["normal"][0]).abs().max()) < 0.05
    coded = MODALITIES["depth"].to_tensor(load("depth", tmp_path / "depth.npy"), size=32)
    assert bool((coded[0] == shaded["depth"][1]).all())
