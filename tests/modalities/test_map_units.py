"""Depth and normal maps as cameras, renderers and networks write them: units, unknown values, names, frames."""

import file_makers as make
import h5py
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from onellm.modalities import load
from onellm.modalities.detect import recognise

MM = make.depth_mm()
METRES = np.where(MM > 0, MM, 0) / np.float32(1000)


def right(sample):
    known = np.isfinite(sample.array)
    assert (known == (MM > 0)).all() and np.abs(sample.array - METRES)[known].max() < 2e-3, sample.notes
    return sample


def doubles(path, values):
    """Write a TIFF of 64-bit floats: one strip, no compression."""
    import struct

    height, width = values.shape
    data = values.astype("<f8").tobytes()
    tags = ((256, width), (257, height), (258, 64), (259, 1), (262, 1), (273, 8), (277, 1), (278, height),
            (279, len(data)), (339, 3))  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + table + bytes(4)
    )


def exr(path, **channels):
    channels = {name.replace("_", "."): np.ascontiguousarray(values) for name, values in channels.items()}
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels).write(str(path))


def pgm(path, form):
    head = b"%b\n# a comment\n64 48\n9000\n" % form
    text = " ".join(map(str, MM.ravel())).encode()
    path.write_bytes(head + (text if form == b"P2" else MM.astype(">u2").tobytes()))


def pfm(path):
    path.write_bytes(b"Pf\n64 48\n-1.0\n" + METRES[::-1].astype("<f4").tobytes())


def hdf(path):
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((3, 48, 64), np.uint8)
        file["depth"] = METRES
        file["elsewhere"] = h5py.ExternalLink("other.h5", "depth")


RGB = np.random.default_rng(0).random((48, 64), np.float32)
FAR = np.where(METRES > 0, METRES, np.float32(1e10))
DEPTHS = {
    "u2.npy": lambda p: np.save(p, MM),
    "i4.npy": lambda p: np.save(p, MM.astype(np.int32)),
    "millimetres.npy": lambda p: np.save(p, MM.astype(np.float32)),
    "named.npz": lambda p: np.savez(p, rgb=np.zeros((48, 64, 3)), depth=METRES),
    "a.npz": lambda p: np.savez(p, METRES),
    "double.tif": lambda p: doubles(p, METRES),
    "a.pgm": lambda p: pgm(p, b"P5"),
    "text.pgm": lambda p: pgm(p, b"P2"),
    "a.pfm": pfm,
    "a.h5": hdf,
    "z.exr": lambda p: exr(p, R=RGB, G=RGB, B=RGB, Z=FAR),
    "v.exr": lambda p: exr(p, V=FAR),
    "layer.exr": lambda p: exr(p, Main_R=RGB, Main_G=RGB, Main_B=RGB, Depth_Z=FAR),
    "grey.exr": lambda p: exr(p, R=METRES, G=METRES, B=METRES),
    "one.exr": lambda p: exr(p, R=0 * METRES, G=METRES, B=0 * METRES),
    "ends.png": lambda p: Image.fromarray(np.where(MM > 0, MM, 65535).astype(np.uint16)).save(p),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_files_give_metres_and_say_what_was_assumed(tmp_path, name):
    DEPTHS[name](tmp_path / name)
    sample = right(load("depth", tmp_path / name))
    assert "depth" in recognise(tmp_path / name)
    assert any("scale" in note for note in sample.notes)


def test_half_floats(tmp_path):
    exr(tmp_path / "a.exr", Z=np.where(METRES > 0, METRES, 65504).astype(np.float16))
    sample = right(load("depth", tmp_path / "a.exr"))
    assert any("65,504" in note for note in sample.notes)


def test_sixteen_bits_beside_alpha_keep_their_bits(tmp_path):
    import av

    values = np.repeat(MM[..., None], 3, axis=2)
    with av.open(str(tmp_path / "a.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb48be"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb48be")))
        container.mux(stream.encode())
    right(load("depth", tmp_path / "a.png"))


def test_scales_by_name_and_by_option(tmp_path):
    for name, factor in (("rgbd_tum_1.png", 5), ("1305031102.160407.png", 5), ("kitti_0001.png", 0.256)):
        Image.fromarray((MM * factor).astype(np.uint16)).save(tmp_path / name)
        sample = load("depth", tmp_path / name)
        assert abs(float(np.nanmax(sample.array)) - 3) < 0.02 and "name" in sample.notes[0]
    Image.fromarray(MM * 5).save(tmp_path / "a.png")
    assert "millimetres" in load("depth", tmp_path / "a.png").notes[0]
    sample = load("depth", tmp_path / "a.png", scale=1 / 5000)
    assert abs(float(np.nanmax(sample.array)) - 3) < 0.02 and not any("scale" in note for note in sample.notes)


def test_inverse_depth(tmp_path):
    inverse = np.where(METRES > 0, 1 / np.maximum(METRES, 1e-3), 0).astype(np.float32)
    np.savez(tmp_path / "a.npz", disparity=inverse)
    np.save(tmp_path / "b.npy", inverse)
    for name, options in (("a.npz", {}), ("b.npy", {"inverse": True})):
        sample = load("depth", tmp_path / name, **options)
        known = np.isfinite(sample.array)
        assert sample.relative and np.abs(sample.array[known] * 3 - METRES[known]).max() < 0.01
        assert np.abs(load("depth", tmp_path / name, scale=1, **options).array[known] - METRES[known]).max() < 0.01
    full = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    Image.fromarray(full).save(tmp_path / "c.png")
    assert any("inverse" in note for note in load("depth", tmp_path / "c.png").notes)


def test_colours_in_an_exr_are_no_depth(tmp_path, refused):
    exr(tmp_path / "a.exr", R=RGB, G=RGB / 2, B=RGB / 3)
    refused("depth", tmp_path / "a.exr", "colour", "Z")


def test_an_h5_reads_no_file_elsewhere(tmp_path, refused):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["depth"] = METRES
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["depth"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "depth")
    refused("depth", tmp_path / "a.h5", "no array of numbers")


BALL = make.normals()
KNOWN = BALL.any(axis=2)


def hills(side=96):
    """Normals of a smooth surface that fills the picture: x right, y up."""
    x, y = np.meshgrid(np.linspace(-2, 2, side), np.linspace(2, -2, side))
    dx, dy = np.cos(x) * np.cos(y), -np.sin(x) * np.sin(y)
    normals = np.stack([-dx, -dy, np.ones_like(x)], axis=2)
    return (normals / np.linalg.norm(normals, axis=2, keepdims=True)).astype(np.float32)


def coded(normals):
    return ((normals + 1) * 127.5 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("surface", ["ball", "hills"])
@pytest.mark.parametrize(
    ("change", "said"),
    [((1, 1, 1), None), ((1, -1, 1), "points down"), ((1, -1, -1), "z points away"), ((1, 1, -1), "z points away")],
)
def test_frames_are_told_by_what_one_surface_can_be(tmp_path, surface, change, said):
    normals = BALL if surface == "ball" else hills()
    np.save(tmp_path / "a.npy", normals * np.float32(change))
    sample = load("normal", tmp_path / "a.npy")
    assert np.abs(sample.array - normals).max() < 0.02
    assert not sample.notes if said is None else said in sample.notes[0]


def test_frames_by_option_and_where_nothing_can_be_told(tmp_path, refused):
    Image.fromarray(coded(hills() * np.float32([1, -1, 1]))).save(tmp_path / "a.png")
    assert load("normal", tmp_path / "a.png", y="up").notes == []
    assert np.abs(load("normal", tmp_path / "a.png", y="down").array - hills()).max() < 0.02
    refused("normal", tmp_path / "a.png", "the option z", z="up")
    noise = np.random.default_rng(0).normal(0, 0.1, (64, 64, 3)) + [0, 0, 1]
    np.save(tmp_path / "b.npy", noise / np.linalg.norm(noise, axis=2, keepdims=True))
    assert "cannot be told" in load("normal", tmp_path / "b.npy").notes[0]


def test_red_and_blue_may_be_swapped(tmp_path):
    Image.fromarray(coded(hills())[..., ::-1]).save(tmp_path / "a.png")
    sample = load("normal", tmp_path / "a.png")
    assert np.abs(sample.array - hills()).max() < 0.02 and "swapped" in sample.notes[0]


@pytest.mark.parametrize("name", ["a.webp", "a.jpg", "a.tif", "a.tga", "a.bmp"])
def test_pictures_of_normals(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {"quality": 98, "subsampling": 0} if name == "a.jpg" else {}
    Image.fromarray(coded(hills())).save(tmp_path / name, **options)
    assert np.abs(load("normal", tmp_path / name).array - hills()).max() < 0.05
    assert name == "a.tga" or recognise(tmp_path / name)[0] == "normal"


NORMALS = {
    "half.npy": lambda: ((hills() + 1) / 2).astype(np.float16),
    "grey.npy": lambda: (BALL + 1) / 2,
    "u2.npy": lambda: ((hills() + 1) * 32767.5).astype(np.uint16),
    "i2.npy": lambda: np.round(hills() * 32767).astype(np.int16),
    "i1.npy": lambda: np.round(hills() * 127).astype(np.int8),
}


@pytest.mark.parametrize("name", NORMALS)
def test_ranges_of_arrays(tmp_path, name):
    np.save(tmp_path / name, NORMALS[name]())
    sample, expected = load("normal", tmp_path / name), BALL if name == "grey.npy" else hills()
    assert np.abs(sample.array - expected).max() < 0.02
    assert (sample.array.any(axis=2) == expected.any(axis=2)).all()


@pytest.mark.parametrize("names", ["XYZ", "RGB"])
def test_normals_in_an_exr(tmp_path, names):
    values = hills() if names == "XYZ" else (hills() + 1) / 2
    exr(tmp_path / "a.exr", **{name: values[..., index] for index, name in enumerate(names)})
    assert np.abs(load("normal", tmp_path / "a.exr").array - hills()).max() < 0.01
    assert "normal" in recognise(tmp_path / "a.exr")
