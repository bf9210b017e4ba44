"""What all kinds share: the checks before a file is opened, and broken files of every kind."""

import os
import random
import subprocess
import sys

import file_makers as make
import numpy as np
import pytest
import soundfile
from PIL import Image

from onellm.errors import FileError
from onellm.modalities import MODALITIES, load, modalities_of


def good_file(modality, folder):
    if modality == "image":
        noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(folder / "good.png")
        return folder / "good.png"
    if modality == "audio":
        soundfile.write(folder / "good.wav", make.tone(), 16000)
        return folder / "good.wav"
    if modality == "depth":
        noise = np.random.default_rng(0).integers(0, 9, (48, 64), np.uint16)
        Image.fromarray(make.depth_mm() + noise).save(folder / "good.png")
        return folder / "good.png"
    rows = make.motion()
    return {
        "video": lambda: make.video(folder / "good.mp4"),
        "point": lambda: make.ply(folder / "good.ply", "binary_little_endian"),
        "fmri": lambda: make.nifti(
            folder / "good.nii.gz", np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)
        ),
        "imu": lambda: make.csv(folder / "good.csv", "ax,ay,az,gx,gy,gz", rows),
        "normal": lambda: make.normal_png(folder / "good.png"),
    }[modality]()


def test_the_registry_has_the_eight_kinds_in_order():
    assert list(MODALITIES) == ["image", "video", "audio", "point", "fmri", "imu", "depth", "normal"]
    for name, modality in MODALITIES.items():
        assert modality.name == name and modality.title and modality.icon and modality.limit_bytes > 0
        assert all(suffix.startswith(".") for suffix in modality.suffixes) and modality.expects


def test_a_refusal_has_fields(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    for read in (MODALITIES["image"].load, lambda path: load("image", path)):
        with pytest.raises(FileError) as caught:
            read(tmp_path / "a.png")
        error = caught.value
        assert (error.found, error.advice) == ("the file is empty", "save or download it again")
        assert error.expected.startswith("a picture")
        assert str(error) == f"a.png: {error.found}; expected {error.expected}; {error.advice}."


def test_kinds_of_a_name():
    assert modalities_of("Scan.NII.GZ") == ["fmri"]
    assert modalities_of("/a/b.png") == ["image", "depth", "normal"]
    assert modalities_of("a.docx") == []


def test_importing_is_light():
    heavy = ["torch", "open3d", "librosa", "av", "nibabel", "plotly", "trimesh", "scipy", "PIL", "soundfile"]
    code = f"import sys, onellm.modalities; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_kind():
    with pytest.raises(FileError, match="one of: image, video"):
        load("smell", "a.png")


@pytest.mark.parametrize("modality", MODALITIES)
class TestEveryKind:
    def test_good_file_gives_sample_tensor_and_preview(self, modality, tmp_path):
        path = good_file(modality, tmp_path)
        sample = load(modality, str(path))
        assert sample.modality == modality and sample.name == path.name and sample.summary
        assert sample.array.size and sample.array.dtype in (np.uint8, np.float32)
        tensor = MODALITIES[modality].to_tensor(sample)
        assert tensor.dtype.is_floating_point and bool(tensor.isfinite().all())
        preview = MODALITIES[modality].preview(sample)
        assert preview.kind in ("image", "gallery", "plot") and path.name in preview.caption
        if preview.kind == "plot":
            assert len(preview.content.to_json()) < 1_000_000

    def test_loading_twice_gives_the_same(self, modality, tmp_path):
        path = good_file(modality, tmp_path)
        first, second = (MODALITIES[modality].to_tensor(load(modality, path)) for _ in range(2))
        assert bool((first == second).all())

    def test_missing_folder_and_pipe(self, modality, tmp_path, refused):
        suffix = MODALITIES[modality].suffixes[0]
        refused(modality, tmp_path / f"none{suffix}", "there is no such file")
        (tmp_path / f"folder{suffix}").mkdir()
        refused(modality, tmp_path / f"folder{suffix}", "this is a folder")
        os.mkfifo(tmp_path / f"pipe{suffix}")
        refused(modality, tmp_path / f"pipe{suffix}", "not a regular file")
        refused(modality, f"bad\0name{suffix}", "there is no such file")

    def test_suffix(self, modality, tmp_path, refused):
        (tmp_path / "a.docx").write_bytes(b"PK")
        refused(modality, tmp_path / "a.docx", "the name ends in .docx", MODALITIES[modality].expects)
        (tmp_path / "plain").write_bytes(b"x")
        refused(modality, tmp_path / "plain", "no suffix")

    def test_empty(self, modality, tmp_path, refused):
        for suffix in MODALITIES[modality].suffixes:
            path = tmp_path / f"a{suffix}"
            path.write_bytes(b"")
            refused(modality, path, "the file is empty")

    def test_other_content_under_a_known_suffix(self, modality, tmp_path, refused):
        for suffix in MODALITIES[modality].suffixes:
            path = tmp_path / f"a{suffix}"
            for content in (
                b"hello, this is a letter\n",
                b"%PDF-1.7\n" + bytes(range(256)),
                b"<html></html>",
                b"\0",
            ):
                path.write_bytes(content)
                refused(modality, path)

    def test_too_many_bytes(self, modality, tmp_path, refused):
        path = tmp_path / f"a{MODALITIES[modality].suffixes[0]}"
        with open(path, "wb") as file:
            file.truncate(MODALITIES[modality].limit_bytes + 1)
        refused(modality, path, "at most", "MB")

    def test_unknown_option(self, modality, tmp_path, refused):
        refused(modality, good_file(modality, tmp_path), "unknown option 'colour'", colour=1)

    def test_cut_short(self, modality, tmp_path, refused):
        path = good_file(modality, tmp_path)
        data = path.read_bytes()
        for share in (0.02, 0.3, 0.6, 0.9):
            path.write_bytes(data[: int(share * len(data))])
            if modality != "imu":  # a shorter table of numbers is a table of numbers
                refused(modality, path)

    def test_damaged_bytes_never_raise_anything_else(self, modality, tmp_path):
        path = good_file(modality, tmp_path)
        data, rng = path.read_bytes(), random.Random(0)
        for _ in range(25):
            damaged = bytearray(data)
            for _ in range(rng.randint(1, 8)):
                damaged[rng.randrange(min(len(data), 500))] = rng.randrange(256)
            path.write_bytes(damaged)
            try:
                sample = load(modality, path)
            except FileError as error:
                assert "\n" not in str(error)
            else:
                assert bool(MODALITIES[modality].to_tensor(sample).isfinite().all())

    def test_long_and_odd_names_are_shortened(self, modality, tmp_path, refused):
        path = tmp_path / ("a\n" + "b" * 150 + MODALITIES[modality].suffixes[0])
        path.write_bytes(b"")
        refused(modality, path, "…")


def test_a_file_of_another_kind_names_that_kind(tmp_path, refused):
    refused("audio", good_file("image", tmp_path), "give it as image or depth or normal")


def test_a_missing_reader_is_not_blamed_on_the_file(tmp_path, refused, monkeypatch):
    path = good_file("audio", tmp_path)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    refused("audio", path, "reader is not installed", "requirements.txt")
