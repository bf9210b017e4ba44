import gzip

import numpy as np
import pytest
from file_makers import nifti

from onellm.modalities import MODALITIES, load
from onellm.modalities.detect import recognise

FMRI = MODALITIES["fmri"]
RNG = np.random.default_rng(0)
VOLUME = RNG.normal(size=(9, 8, 7)).astype(np.float32)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_nifti_volumes(tmp_path, name, dtype):
    values = (VOLUME * 20).astype(np.int16).clip(0 if dtype == np.uint8 else -99, 99).astype(dtype)
    sample = load("fmri", nifti(tmp_path / name, values))
    assert sample.array.shape == (1, 9, 8, 7) and sample.array.dtype == np.float32
    assert np.array_equal(sample.array[0], values.astype(np.float32))
    assert sample.summary == "9 × 8 × 7 voxels"


def test_scaled_nifti(tmp_path):
    import nibabel

    image = nibabel.Nifti1Image((VOLUME * 100).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.01, 0)
    nibabel.save(image, tmp_path / "a.nii")
    assert np.abs(load("fmri", tmp_path / "a.nii").array[0] - VOLUME).max() < 0.02


def test_single_slice(tmp_path):
    sample = load("fmri", nifti(tmp_path / "a.nii.gz", VOLUME[:, :, :1]))
    assert sample.array.shape == (1, 9, 8, 1)
    assert len(FMRI.preview(sample).content.data) == 1


def test_few_volumes_are_repetitions(tmp_path):
    repetitions = RNG.normal(size=(9, 8, 7, 3)).astype(np.float32)
    path = nifti(tmp_path / "a.nii", repetitions)
    sample = load("fmri", path)
    assert sample.array.shape == (3, 9, 8, 7) and "3 repetitions" in sample.summary
    assert np.allclose(FMRI.to_tensor(sample).numpy(), repetitions.mean(axis=3).reshape(-1), atol=1e-6)
    one = FMRI.to_tensor(load("fmri", path, volumes=1)).numpy()
    assert np.allclose(one, repetitions[..., 1].reshape(-1))


def raw_run(volumes=40):
    """A run with a drift and an active corner in volumes 10 to 13."""
    run = 1000 + RNG.normal(0, 5, (9, 8, 7, volumes)) + 0.8 * np.arange(volumes)
    run[:3, :3, :3, 10:14] += 60
    return run.astype(np.float32)


def test_raw_runs_are_detrended_and_scored(tmp_path):
    path = nifti(tmp_path / "a.nii", raw_run(), spacing_s=2.5)
    sample = load("fmri", path)
    assert sample.array.shape == (1, 9, 8, 7)
    assert "40 volumes, one each 2.5 s" in sample.summary
    assert any("volume 1" in note for note in sample.notes)
    picked = load("fmri", path, volumes="10:14")
    assert picked.array.shape == (4, 9, 8, 7)
    mean = FMRI.to_tensor(picked, grid=(9, 8, 7)).numpy().reshape(9, 8, 7)
    assert mean[:3, :3, :3].mean() > 2 and abs(mean[4:].mean()) < 0.3
    drift = load("fmri", path, volumes="30:40").array[:, 4:].mean()
    assert abs(drift) < 0.2


def test_standardising_matches_a_plain_computation():
    from onellm.modalities.fmri import _standardise

    run = np.moveaxis(raw_run(), 3, 0).copy()
    run[:, 0, 0, 0] = 7
    flat = run.reshape(40, -1).astype(np.float64)
    design = np.stack([np.ones(40), np.arange(40)], axis=1)
    rest = flat - design @ np.linalg.lstsq(design, flat, rcond=None)[0]
    with np.errstate(invalid="ignore"):
        expected = rest / rest.std(axis=0)
    expected[:, 0] = 0
    _standardise(run)
    assert np.abs(run.reshape(40, -1) - expected).max() < 1e-2


def test_raw_looking_volumes_are_noted(tmp_path):
    sample = load("fmri", nifti(tmp_path / "a.nii", (1000 + 20 * VOLUME).astype(np.float32)))
    assert "raw signal" in sample.notes[0]


@pytest.mark.parametrize(("shape", "loaded"), [((500,), (1, 500)), ((3, 500), (3, 500)), ((9, 8, 7), (1, 9, 8, 7))])
def test_numpy(tmp_path, shape, loaded):
    array = RNG.normal(size=shape)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", betas=array, subject=1)
    for name in ("a.npy", "a.npz"):
        sample = load("fmri", tmp_path / name)
        assert sample.array.shape == loaded and sample.array.dtype == np.float32
        assert len(FMRI.preview(sample).content.to_json()) < 1_000_000


def test_published_vector_and_size_mismatch(tmp_path):
    np.save(tmp_path / "a.npy", RNG.normal(size=(3, 15724)))
    sample = load("fmri", tmp_path / "a.npy")
    assert FMRI.to_tensor(sample, voxels=15724).shape == (15724,)
    with pytest.raises(Exception, match="15,724 voxels; expected 800"):
        FMRI.to_tensor(sample, voxels=800)
    volume = load("fmri", nifti(tmp_path / "a.nii", VOLUME))
    with pytest.raises(Exception, match="9 × 8 × 7 voxels; expected 40 × 20 × 1"):
        FMRI.to_tensor(volume, grid=(40, 20, 1))


def test_bombs_are_refused_from_the_header(tmp_path, refused):
    path = nifti(tmp_path / "a.nii", np.zeros((2, 2, 2), np.float32))
    header = bytearray(path.read_bytes()[:352])
    header[40:56] = np.array([4, 1000, 1000, 1000, 10, 1, 1, 1], np.int16).tobytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(bytes(header) + bytes(1_000_000)))
    refused("fmri", tmp_path / "bomb.nii.gz", "1000 × 1000 × 1000", "at most 512 MB")
    header[40:56] = np.array([3, 200, 200, 200, 1, 1, 1, 1], np.int16).tobytes()
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(bytes(header) + bytes(1000)))
    refused("fmri", tmp_path / "short.nii.gz")
    header[40:56] = np.array([3, -5, 200, 200, 1, 1, 1, 1], np.int16).tobytes()
    (tmp_path / "minus.nii").write_bytes(bytes(header) + bytes(1000))
    refused("fmri", tmp_path / "minus.nii")


def test_npz_bomb_and_lying_npy(tmp_path, refused):
    np.savez_compressed(tmp_path / "a.npz", np.zeros(200_000_000, np.float32))
    refused("fmri", tmp_path / "a.npz", "800 MB", "at most 512 MB")
    np.save(tmp_path / "a.npy", np.zeros(1000, np.float32))
    data = (tmp_path / "a.npy").read_bytes().replace(b"(1000,)", b"(9000,)")
    (tmp_path / "a.npy").write_bytes(data)
    refused("fmri", tmp_path / "a.npy", "cut short")


def test_nothing_is_unpickled(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object))
    refused("fmri", tmp_path / "a.npy", "object values")
    np.savez(tmp_path / "a.npz", a=np.array(["text"]))
    refused("fmri", tmp_path / "a.npz")


def test_values_that_are_no_numbers_or_all_the_same(tmp_path, refused):
    volume = VOLUME.copy()
    volume[0] = np.nan
    sample = load("fmri", nifti(tmp_path / "a.nii", volume))
    assert np.isfinite(sample.array).all() and "not numbers" in sample.notes[0]
    refused("fmri", nifti(tmp_path / "a.nii", np.full((4, 4, 4), np.nan, np.float32)), "no value is a number")
    refused("fmri", nifti(tmp_path / "a.nii", np.ones((4, 4, 4), np.float32)), "all of them 1")


def test_colour_volumes_and_wrong_options(tmp_path, refused):
    import nibabel

    colours = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii")
    refused("fmri", tmp_path / "a.nii", "save the volume as float32")
    path = nifti(tmp_path / "b.nii", raw_run())
    for wrong in ("40", "5:3", "5:99", "a", "-1", "1:2:3"):
        refused("fmri", path, "the option volumes", volumes=wrong)


def test_preview_has_three_planes_and_a_slider(tmp_path):
    sample = load("fmri", nifti(tmp_path / "a.nii.gz", RNG.normal(size=(80, 96, 70)).astype(np.float32)))
    figure = FMRI.preview(sample).content
    assert sum(trace.visible for trace in figure.data) == 3
    assert len(figure.layout.sliders[0].steps) == 24
    assert len(figure.to_json()) < 1_000_000


def saved_as(kind, values, path, affine=None):
    """Write values [X, Y, Z, …] with nibabel's class `kind`."""
    import nibabel

    nibabel.save(getattr(nibabel, kind)(values, np.diag([3, 3, 3, 1]) if affine is None else affine), path)
    return path


@pytest.mark.parametrize(
    ("kind", "name"),
    [("Nifti2Image", "a.nii"), ("Nifti2Image", "a.nii.gz"), ("MGHImage", "a.mgz"), ("MGHImage", "a.mgh"),
     ("Nifti1Pair", "a.hdr"), ("Nifti1Pair", "a.img"), ("Nifti2Pair", "a.img"), ("Spm99AnalyzeImage", "a.img")],
)  # fmt: skip
def test_formats_of_scans(tmp_path, kind, name):
    sample = load("fmri", saved_as(kind, VOLUME, tmp_path / name))
    assert np.array_equal(sample.array[0], VOLUME)
    assert recognise(tmp_path / name) == ["fmri"]


def test_halves_of_a_pair_without_the_other_are_refused(tmp_path, refused):
    saved_as("Nifti1Pair", VOLUME, tmp_path / "a.hdr")
    (tmp_path / "a.img").rename(tmp_path / "b.img")
    refused("fmri", tmp_path / "a.hdr", "do not lie beside it", "convert the pair to a single .nii")
    refused("fmri", tmp_path / "b.img", "without their header", "convert the pair to a single .nii")


def test_the_content_says_whether_it_is_packed(tmp_path):
    path = nifti(tmp_path / "a.nii", VOLUME)
    packed, plain = gzip.compress(path.read_bytes()), path.read_bytes()
    (tmp_path / "packed.nii").write_bytes(packed)
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    (tmp_path / "packed.img").write_bytes(packed)
    for name in ("packed.nii", "plain.nii.gz", "packed.img"):
        assert np.array_equal(load("fmri", tmp_path / name).array[0], VOLUME), name
        assert recognise(tmp_path / name) == ["fmri"]


@pytest.mark.parametrize("shape", [(9, 8, 1, 7, 1), (9, 8, 1, 1, 7), (9, 8, 1, 1, 1, 7)])
def test_repetitions_in_any_dimension(tmp_path, shape):
    path = saved_as("Nifti1Image", VOLUME.reshape(shape), tmp_path / "a.nii")
    assert np.array_equal(load("fmri", path).array, np.moveaxis(VOLUME[:, :, None], 3, 0))


def test_two_dimensions_of_repetitions_are_refused(tmp_path, refused):
    path = saved_as("Nifti1Image", RNG.normal(size=(4, 4, 4, 2, 3)), tmp_path / "a.nii")
    refused("fmri", path, "4 × 4 × 4 × 2 × 3", "save one volume")


def test_cifti_rows_are_repetitions(tmp_path):
    import nibabel
    from nibabel import cifti2

    values = RNG.normal(size=(3, 50)).astype(np.float32)
    axis = cifti2.BrainModelAxis.from_mask(np.ones(50, bool), name="CIFTI_STRUCTURE_CORTEX_LEFT")
    nibabel.save(cifti2.Cifti2Image(values, (cifti2.ScalarAxis(list("abc")), axis)), tmp_path / "a.dscalar.nii")
    assert np.array_equal(load("fmri", tmp_path / "a.dscalar.nii").array, values)


def test_values_never_begin_within_the_header(tmp_path):
    path = nifti(tmp_path / "a.nii", VOLUME)
    data = bytearray(path.read_bytes())
    data[108:112] = np.float32(0).tobytes()
    path.write_bytes(data)
    sample = load("fmri", path)
    assert np.array_equal(sample.array[0], VOLUME) and "read from byte 352" in sample.notes[0]


def test_axes_are_turned_by_the_header(tmp_path):
    affine = np.array([[-3.0, 0, 0, 9], [0, 0, 3, -9], [0, 3, 0, 4], [0, 0, 0, 1]])  # left, superior, anterior
    path = saved_as("Nifti1Image", VOLUME, tmp_path / "a.nii.gz", affine)
    sample = load("fmri", path)
    assert np.array_equal(sample.array[0], VOLUME[::-1].transpose(0, 2, 1)) and "LSA" in sample.notes[0]
    assert np.array_equal(load("fmri", path, orientation="file").array[0], VOLUME)


def test_masks_are_noted(tmp_path):
    sample = load("fmri", nifti(tmp_path / "a.nii", (VOLUME > 0).astype(np.uint8)))
    assert "mask" in sample.notes[0]


def test_intervals_in_milliseconds_that_are_called_seconds(tmp_path):
    assert "one each 2.5 s" in load("fmri", nifti(tmp_path / "a.nii", raw_run(), spacing_s=2500)).summary
