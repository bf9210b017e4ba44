import struct

import file_makers as make
import numpy as np
import pytest
from file_makers import cloud, mesh, ply

from onellm.modalities import MODALITIES, load
from onellm.modalities.detect import recognise

POINT = MODALITIES["point"]
LAYOUTS = ["ascii", "binary_little_endian", "binary_big_endian"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("float_colours", [False, True])
def test_ply_clouds(tmp_path, layout, float_colours):
    sample = load("point", ply(tmp_path / "a.ply", layout, float_colours=float_colours))
    xyz, rgb = cloud()
    assert sample.array.shape == (500, 6) and sample.array.dtype == np.float32
    assert np.abs(sample.array[:, :3] - xyz).max() < 1e-5
    assert np.abs(sample.array[:, 3:] - rgb / 255).max() < 0.005
    assert sample.summary == "500 points, coloured" and not sample.notes


def test_colourless_cloud_is_grey_and_says_so(tmp_path):
    sample = load("point", ply(tmp_path / "a.ply", coloured=False))
    assert (sample.array[:, 3:] == 0.5).all() and "no colours" in sample.notes[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ply_meshes_are_sampled_with_colours(tmp_path, layout):
    sample = load("point", ply(tmp_path / "a.ply", layout, faces=True))
    assert len(sample.array) == 16384 and "12 triangles" in sample.summary
    # The cube's colours are its coordinates.
    assert np.abs(sample.array[:, 3:] - sample.array[:, :3]).max() < 0.01


@pytest.mark.parametrize("data", ["ascii", "binary", "compressed"])
def test_pcd(tmp_path, data):
    import open3d

    xyz, rgb = cloud()
    made = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(xyz))
    made.colors = open3d.utility.Vector3dVector(rgb / 255)
    path = tmp_path / "a.pcd"
    open3d.io.write_point_cloud(str(path), made, write_ascii=data == "ascii", compressed=data == "compressed")
    array = load("point", path).array
    assert np.abs(array[:, :3] - xyz).max() < 1e-5 and np.abs(array[:, 3:] - rgb / 255).max() < 0.01


@pytest.mark.parametrize(
    ("separator", "header"), [(" ", ""), (",", "x,y,z,r,g,b\n"), ("\t", "# made here\n"), (" ", "500\n")]
)
def test_xyz(tmp_path, separator, header):
    xyz, rgb = cloud()
    rows = [separator.join(map(str, row)) for row in np.c_[xyz, rgb]]
    (tmp_path / "a.xyz").write_text(header + "\n".join(rows))
    array = load("point", tmp_path / "a.xyz").array
    assert np.abs(array[:, :3] - xyz).max() < 1e-5 and np.abs(array[:, 3:] - rgb / 255).max() < 1e-5


def test_xyz_with_normals_has_no_colours(tmp_path):
    np.savetxt(tmp_path / "a.xyz", np.random.default_rng(0).normal(size=(50, 6)))
    assert load("point", tmp_path / "a.xyz").summary == "50 points, without colours"


def test_numpy_arrays(tmp_path):
    xyz, rgb = cloud()
    variants = {
        "six.npy": np.c_[xyz, rgb / 255],
        "bytes.npy": np.c_[xyz, rgb].astype(np.float64),
        "turned.npy": np.c_[xyz, rgb / 255].T,
        "batch.npy": np.c_[xyz, rgb / 255][None],
    }
    for name, array in variants.items():
        np.save(tmp_path / name, array)
        assert np.abs(load("point", tmp_path / name).array - np.c_[xyz, rgb / 255]).max() < 1e-5, name
    np.savez(tmp_path / "a.npz", xyz=xyz, rgb=rgb)
    assert np.abs(load("point", tmp_path / "a.npz").array - np.c_[xyz, rgb / 255]).max() < 1e-5
    np.save(tmp_path / "three.npy", xyz)
    assert "without colours" in load("point", tmp_path / "three.npy").summary


def test_obj_with_materials_and_y_up(tmp_path):
    sample = load("point", make.obj(tmp_path / "a.obj"))
    y = sample.array[:, 1]
    # The first six triangles (x = 0, x = 1, y = 0) are red; y up becomes z up.
    red = sample.array[:, 3] > 0.5
    assert 0.4 < red.mean() < 0.6 and set(np.unique(sample.array[:, 3:])) <= {0.0, 1.0}
    assert y.min() >= -1 and y.max() <= 0
    straight = load("point", tmp_path / "a.obj", up="z").array
    assert straight[:, 1].min() >= 0


def test_obj_with_texture_beside_it(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4), (0, 200, 0)).save(tmp_path / "t.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd t.png\n")
    text = "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    (tmp_path / "a.obj").write_text(text)
    assert np.abs(load("point", tmp_path / "a.obj").array[:, 3:] - [0, 200 / 255, 0]).max() < 0.01


def test_obj_reads_no_file_elsewhere(tmp_path):
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4), (0, 200, 0)).save(tmp_path / "secret.png")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    for target in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        (tmp_path / "in" / "a.mtl").write_text(f"newmtl m\nKd 1 1 1\nmap_Kd {target}\n")
        text = "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
        (tmp_path / "in" / "a.obj").write_text(text)
        array = load("point", tmp_path / "in" / "a.obj").array
        assert np.abs(array[:, 3:] - [0, 200 / 255, 0]).max() > 0.2


def test_plain_obj_off_and_stl(tmp_path):
    for path in (
        make.obj(tmp_path / "a.obj", False),
        make.off(tmp_path / "a.off"),
        mesh(tmp_path / "a.stl", None),
    ):
        sample = load("point", path)
        assert sample.array.shape == (16384, 6) and (sample.array[:, 3:] == 0.5).all()
        low, high = np.abs(sample.array[:, :3]).min(axis=0), np.abs(sample.array[:, :3]).max(axis=0)
        assert (low < 0.01).all() and (high > 0.99).all() and (high <= 1).all()


def test_ascii_stl(tmp_path):
    (tmp_path / "a.stl").write_text(make.stl_text())
    assert "12 triangles" in load("point", tmp_path / "a.stl").summary


@pytest.mark.parametrize(
    ("colours", "expected"),
    [("face", (0, 1, 0)), ("texture", (250 / 255, 10 / 255, 20 / 255)), ("material", (0, 0, 1))],
)
def test_glb_colours(tmp_path, colours, expected):
    array = load("point", mesh(tmp_path / "a.glb", colours)).array
    assert np.abs(array[:, 3:] - expected).max() < 0.03


def test_glb_vertex_colours_and_points(tmp_path):
    import trimesh

    array = load("point", mesh(tmp_path / "a.glb"), up="z").array
    assert np.abs(array[:, 3:] - array[:, :3]).max() < 0.02
    xyz, rgb = cloud()
    trimesh.Scene(trimesh.PointCloud(xyz, rgb)).export(tmp_path / "b.glb")
    assert load("point", tmp_path / "b.glb").summary == "500 points, coloured"


def test_samples_are_even_over_the_surface(tmp_path):
    array = load("point", mesh(tmp_path / "a.stl", None, z_scale=10)).array
    ends = (array[:, 2] < 1e-6) | (array[:, 2] > 10 - 1e-6)
    assert abs(ends.mean() - 2 / 42) < 0.01  # two ends of area 1, four sides of area 10


def test_to_tensor_is_a_centred_unit_ball(tmp_path):
    import torch

    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((20000, 3)) * 7 + 100)
    sample = load("point", tmp_path / "a.npy")
    tensor = POINT.to_tensor(sample)
    assert tensor.shape == (8192, 6) and tensor.dtype == torch.float32
    assert float(tensor[:, :3].mean(dim=0).abs().max()) < 1e-4
    assert float(tensor[:, :3].norm(dim=1).max()) == pytest.approx(1, abs=1e-5)
    assert len(torch.unique(tensor, dim=0)) > 8180
    small = load("point", ply(tmp_path / "a.ply"))
    assert len(torch.unique(POINT.to_tensor(small, points=1024), dim=0)) == 500


def test_points_that_are_no_numbers(tmp_path, refused):
    xyz = np.random.default_rng(0).random((100, 3))
    xyz[:10] = np.nan
    np.save(tmp_path / "a.npy", xyz)
    sample = load("point", tmp_path / "a.npy")
    assert len(sample.array) == 90 and "10 points that are not numbers" in sample.notes[0]
    xyz[:90] = np.inf
    np.save(tmp_path / "a.npy", xyz)
    refused("point", tmp_path / "a.npy", "90 of 100 points are not numbers")


def test_headers_that_lie(tmp_path, refused):
    path = ply(tmp_path / "a.ply", "binary_little_endian")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"vertex 500", b"vertex 900000"))
    refused("point", path, "bytes of data")
    path.write_bytes(data.replace(b"vertex 500", b"vertex 9000000000"))
    refused("point", path, "at most 2,000,000")
    path.write_bytes(data[:-7])
    refused("point", path, "cut short")
    head = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
    head += "WIDTH 1000000\nHEIGHT 1\nPOINTS 1000000\nDATA binary\n"
    (tmp_path / "a.pcd").write_bytes(head.encode() + bytes(1200))
    refused("point", tmp_path / "a.pcd", "1,200 of 12,000,000 bytes")
    (tmp_path / "a.stl").write_bytes(bytes(80) + struct.pack("<I", 1_000_000) + bytes(50))
    refused("point", tmp_path / "a.stl", "1 of 1,000,000 triangles")
    (tmp_path / "a.off").write_text("OFF\n800 12 0\n0 0 0\n")
    refused("point", tmp_path / "a.off", "1 of 812 lines")


def test_faces_without_corners(tmp_path, refused):
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 9\n")
    refused("point", tmp_path / "a.off")
    (tmp_path / "b.off").write_text("OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n")
    refused("point", tmp_path / "b.off", "without surface")
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\n")
    refused("point", tmp_path / "a.obj", "without faces")
    np.save(tmp_path / "a.npy", np.ones((50, 3)))
    refused("point", tmp_path / "a.npy", "all in one place")


def test_glb_that_reaches_out_or_is_a_bomb(tmp_path, refused):
    path = tmp_path / "a.glb"
    make.glb_with(mesh(path), lambda tree: tree["buffers"][0].update(uri="../../secret.bin"))
    refused("point", path, "a reference to another file")
    make.glb_with(mesh(path), lambda tree: tree["accessors"][0].update(count=10**9))
    refused("point", path)

    def zeros(tree):
        for accessor in tree["accessors"]:
            accessor.pop("bufferView", None)
            accessor["count"] = 20_000_000

    make.glb_with(mesh(path), zeros)
    refused("point", path)
    make.glb_with(mesh(path), lambda tree: tree.update(extensionsRequired=["KHR_draco_mesh_compression"]))
    refused("point", path, "KHR_draco_mesh_compression", "without compression")
    data = mesh(path).read_bytes()
    path.write_bytes(data[:-100])
    refused("point", path, "cut short")


def test_wrong_shapes_and_options(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.zeros((10, 12)))
    refused("point", tmp_path / "a.npy", "[10, 12]", "[P, 3] or [P, 6]")
    refused("point", ply(tmp_path / "a.ply"), "y or z", up="x")


def test_preview_is_small(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((50000, 6)))
    preview = POINT.preview(load("point", tmp_path / "a.npy"))
    assert preview.kind == "plot" and len(preview.content.data[0].x) == 8000
    assert len(preview.content.to_json()) < 1_000_000


@pytest.mark.parametrize("separator", [";", "\t", " ", "; "])
@pytest.mark.parametrize("header", [True, False])
def test_decimal_commas(tmp_path, separator, header):
    xyz, _ = cloud()
    rows = [separator.join(f"{v:.5f}".replace(".", ",") for v in row) for row in xyz]
    rows[0] = separator.join(["1", "2", "3"])
    (tmp_path / "a.xyz").write_text("\n".join([separator.join("xyz")] * header + rows))
    sample = load("point", tmp_path / "a.xyz")
    assert "without colours" in sample.summary and np.abs(sample.array[1:, :3] - xyz[1:]).max() < 1e-4
    assert recognise(tmp_path / "a.xyz") == ["point"]
