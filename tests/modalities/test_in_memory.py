"""Arrays in memory become samples; what is no number in them is treated as it is in files."""

import numpy as np
import pytest
import torch
from file_makers import cloud, motion, normals, picture

from onellm.errors import FileError
from onellm.modalities import MODALITIES
from onellm.modalities.in_memory import from_memory

COLOURED = np.concatenate([cloud()[0], cloud()[1] / 255], axis=1)
ARRAYS = {
    "image": picture(),
    "video": np.stack([picture()] * 3),
    "audio": np.sin(np.arange(16_000) / 20),
    "point": COLOURED,
    "fmri": np.random.default_rng(0).normal(size=50),
    "imu": motion(),
    "depth": np.full((6, 8), 2.0),
    "normal": normals(),
}


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_modality(modality):
    for value in (ARRAYS[modality], torch.from_numpy(np.ascontiguousarray(ARRAYS[modality]))):
        sample = from_memory(modality, value)
        assert sample.modality == modality and np.isfinite(sample.array).all() and sample.array.size
    with pytest.raises(FileError, match="expected"):
        from_memory(modality, np.zeros((2, 3, 4, 5, 6)))


def test_what_is_no_number_does_not_turn_a_picture_black():
    values = (picture() / 255).astype(np.float32)
    whole = from_memory("image", values).array
    for hole in (np.nan, np.inf, -np.inf):
        values[3, 4] = hole
        array = from_memory("image", values).array.astype(int)
        array[3, 4] = whole[3, 4]
        assert np.abs(array - whole).max() == 0
    values[:] = np.nan
    assert from_memory("image", values).array.max() == 0


@pytest.mark.parametrize("modality", ["point", "fmri", "imu", "depth", "normal"])
def test_what_is_no_number_is_treated_as_in_a_file(modality, tmp_path):
    values = np.array(ARRAYS[modality], np.float32)
    values[2] = np.nan
    np.save(tmp_path / "a.npy", values)
    there = MODALITIES[modality].load(tmp_path / "a.npy").array
    here = from_memory(modality, values)
    assert here.array.shape == there.shape
    np.testing.assert_allclose(here.array, there, atol=2e-3)
    if modality != "depth":
        assert np.isfinite(here.array).all()
