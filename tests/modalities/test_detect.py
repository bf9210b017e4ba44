"""A file's kind by its content: every file the makers write, the bundled examples, and files that are none."""

import json
import os
import time
from pathlib import Path

import file_makers as make
import numpy as np
import pytest
import soundfile
from PIL import Image

from onellm.errors import FileError
from onellm.modalities import MODALITIES, load
from onellm.modalities.detect import recognise

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def saved(path, values):
    Image.fromarray(values).save(path)
    return path


def array(path, values):
    np.save(path, values)
    return path


def arrays(path, **values):
    np.savez(path, **values)
    return path


def sound(path, **options):
    soundfile.write(path, make.tone(), 16000, **options)
    return path


RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 255, (48, 64, 3), np.uint8)
BALL = make.normals()
BYTES = np.where(BALL.any(axis=2, keepdims=True), (BALL + 1) * 127.5, 0).astype(np.uint8)
COLOURED = np.concatenate([make.cloud()[0], make.cloud()[1] / 255], axis=1)
MOTION = make.motion()
VOLUME = RNG.normal(size=(9, 8, 7)).astype(np.float32)
FILES = {
    "photo.png": (lambda p: saved(p, NOISE), ["image", "normal"]),
    "photo.jpg": (lambda p: saved(p, NOISE), ["image"]),
    "photo.webp": (lambda p: saved(p, NOISE), ["image"]),
    "photo.bmp": (lambda p: saved(p, NOISE), ["image"]),
    "photo.tiff": (lambda p: saved(p, NOISE), ["image", "normal"]),
    "gradient.png": (lambda p: saved(p, make.picture()), ["image", "normal"]),
    "grey.png": (lambda p: saved(p, NOISE[..., 0]), ["image", "depth"]),
    "grey_as_colour.png": (lambda p: saved(p, np.repeat(NOISE[..., :1], 3, axis=2)), ["image", "depth"]),
    "millimetres.png": (lambda p: saved(p, make.depth_mm()), ["depth", "image"]),
    "millimetres.tif": (lambda p: saved(p, make.depth_mm()), ["depth", "image"]),
    "metres.tiff": (lambda p: saved(p, make.depth_mm() / np.float32(1000)), ["depth", "image"]),
    "metres.exr": (lambda p: make.exr(p, make.depth_mm() / np.float32(1000)), ["depth"]),
    "metres.npy": (lambda p: array(p, make.depth_mm() / 1000), ["depth", "fmri"]),
    "normals.png": (lambda p: make.normal_png(p), ["normal", "image"]),
    "normals.npy": (lambda p: array(p, BALL), ["normal", "fmri"]),
    "turned.npy": (lambda p: array(p, BALL.transpose(2, 0, 1)), ["normal", "fmri"]),
    "bytes.npy": (
        lambda p: array(p, BYTES),
        ["normal", "fmri"],
    ),
    "still.gif": (lambda p: make.gif(p, frames=1), ["image", "video"]),
    "moving.gif": (lambda p: make.gif(p), ["video", "image"]),
    "film.mp4": (lambda p: make.video(p), ["video"]),
    "film.mkv": (lambda p: make.video(p, sound=True), ["video", "audio"]),
    "film.webm": (lambda p: make.video(p, "libvpx-vp9", sound=True), ["video", "audio"]),
    "film.avi": (lambda p: make.video(p, "mpeg4"), ["video"]),
    "voice.webm": (make.webm_sound, ["audio"]),
    "tone.m4a": (lambda p: make.m4a(p), ["audio"]),
    "tone.wav": (sound, ["audio"]),
    "tone.flac": (sound, ["audio"]),
    "tone.ogg": (sound, ["audio"]),
    "tone.mp3": (sound, ["audio"]),
    "cloud.ply": (lambda p: make.ply(p, "binary_little_endian"), ["point"]),
    "cloud.npy": (lambda p: array(p, COLOURED), ["point", "imu"]),
    "xyz.npy": (lambda p: array(p, COLOURED[:, :3]), ["point"]),
    "cloud.npz": (lambda p: arrays(p, xyz=COLOURED[:, :3], rgb=COLOURED[:, 3:]), ["point"]),
    "cloud.xyz": (lambda p: make.csv(p, None, COLOURED, " "), ["point"]),
    "mesh.obj": (make.obj, ["point"]),
    "mesh.off": (make.off, ["point"]),
    "mesh.stl": (make.mesh, ["point"]),
    "mesh.glb": (make.mesh, ["point"]),
    "scan.nii.gz": (lambda p: make.nifti(p, VOLUME), ["fmri"]),
    "scan.nii": (lambda p: make.nifti(p, VOLUME), ["fmri"]),
    "scan.npy": (lambda p: array(p, VOLUME), ["fmri"]),
    "voxels.npy": (lambda p: array(p, VOLUME.ravel()), ["fmri"]),
    "repeated.npy": (lambda p: array(p, np.abs(RNG.normal(size=(3, 900)))), ["point"]),
    "responses.npz": (lambda p: arrays(p, betas=VOLUME.ravel()), ["fmri"]),
    "motion.csv": (lambda p: make.csv(p, "time,ax,ay,az,gx,gy,gz", np.c_[np.arange(200), MOTION]), ["imu"]),
    "bare.csv": (lambda p: make.csv(p, None, MOTION), ["imu", "point"]),
    "points.csv": (lambda p: make.csv(p, "x,y,z", COLOURED[:, :3]), ["point"]),
    "points.txt": (lambda p: make.csv(p, None, COLOURED[:, :3], " "), ["point"]),
    "comma.csv": (lambda p: make.csv(p, "ax;ay;az;gx;gy;gz", MOTION, ";"), ["imu"]),
    "motion.npy": (lambda p: array(p, MOTION), ["imu", "point"]),
    "timed.npy": (lambda p: array(p, np.c_[np.arange(200), MOTION]), ["imu", "point"]),
    "motion.npz": (lambda p: arrays(p, acc=MOTION[:, :3], gyro=MOTION[:, 3:]), ["imu"]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_all_kinds(name, tmp_path):
    make_file, modalities = FILES[name]
    path = make_file(tmp_path / name)
    assert recognise(path) == modalities
    assert load(modalities[0], path).modality == modalities[0]


def test_bundled_examples():
    for entry in json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8")):
        for modality, name in entry["files"].items():
            started_s = time.perf_counter()
            assert recognise(EXAMPLES / name)[0] == modality
            assert time.perf_counter() - started_s < 2  # the first one imports its reader


def test_content_counts_and_the_name_only_keeps_readers_away(tmp_path):
    path = saved(tmp_path / "a.jpg", NOISE)
    assert recognise(path.rename(tmp_path / "a.png")) == ["image"]
    path = make.video(tmp_path / "a.mp4")
    assert recognise(path.rename(tmp_path / "a.mov")) == ["video"]
    path = saved(tmp_path / "b.png", make.depth_mm())
    assert recognise(path.rename(tmp_path / "b.jpg")) == ["image"]  # a depth map is never read from a .jpg
    path = sound(tmp_path / "a.wav")
    with pytest.raises(FileError, match=r"the content is audio and the name ends in .png; expected one of .wav"):
        recognise(path.rename(tmp_path / "c.png"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("letter.txt", b"Dear reader,\nthis is a letter.\n", "plain text"),
        ("letter.csv", b"name,age\nAda,36\nAlan,41\n", "plain text"),
        ("report.pdf", b"%PDF-1.7\n" + bytes(range(256)), "a PDF document"),
        ("photo.png", b"\0\0\0\x18ftypheic" + bytes(200), "a HEIC picture"),
        ("empty.png", b"", "empty"),
        ("noise.png", bytes(range(256)) * 9, "data"),
        ("cut.png", b"\x89PNG\r\n\x1a\n", "a PNG picture that is damaged"),
        ("letter.docx", b"PK\x03\x04" + bytes(100), "a zip archive"),
        ("objects.npy", b"\x93NUMPY\x01\0", "a NumPy array that is damaged"),
        ("note.gz", b"\x1f\x8b" + bytes(30), "a gzip file"),
        ("points.exe", b"1,2,3\n4,5,6\n", "the content is point cloud and the name ends in .exe"),
    ],
)
def test_files_that_are_none(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError) as caught:
        recognise(tmp_path / name)
    text = str(caught.value)
    assert words in text and "expected" in text and text.endswith(".") and "\n" not in text, text


def test_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, words in (
        ("none.png", "no such"),
        ("bad\0.png", "no such"),
        ("", "folder"),
        ("pipe.png", "not a regular"),
    ):
        with pytest.raises(FileError, match=words):
            recognise(tmp_path / path)


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    for name, (make_file, _) in FILES.items():
        path = make_file(tmp_path / name)
        data = path.read_bytes()
        for _ in range(6):
            damaged = bytearray(data)
            for place in RNG.integers(0, min(len(data), 400), 5):
                damaged[place] = RNG.integers(256)
            path.write_bytes(damaged)
            try:
                assert set(recognise(path)) <= set(MODALITIES)
            except FileError as error:
                assert "\n" not in str(error)


def test_it_is_fast(tmp_path):
    path = saved(tmp_path / "a.png", np.kron(NOISE, np.ones((20, 25, 1), np.uint8)))
    recognise(path)
    started_s = time.perf_counter()
    recognise(path)
    assert time.perf_counter() - started_s < 0.2  # 960 × 1,600 pixels; 20 ms on an idle machine
