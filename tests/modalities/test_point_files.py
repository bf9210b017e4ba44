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


MAP = np.array([448262.0, 5411932.0, 313.0])
BLUE = np.array([0.1, 0.2, 0.9])


def map_rows():
    """Points of a cloud of 3 m on a map, in millimetres exact."""
    return MAP + np.round(cloud()[0], 3)


def as_ply(path, rows, properties, faces=()):
    """Write a binary ply file of float64 rows whose columns have these types and names."""
    codes = {"double": "<f8", "float": "<f4", "uchar": "u1", "ushort": "<u2", "int": "<i4"}
    lines = [f"property {kind} {name}" for kind, name in properties]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"] if len(faces) else []
    head = "\n".join(["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}", *lines, "end_header\n"])
    table = np.zeros(len(rows), [(name, codes[kind]) for kind, name in properties])
    for column, (_, name) in enumerate(properties):
        table[name] = rows[:, column]
    body = b"".join(struct.pack("<B3i", 3, *face) for face in faces)
    path.write_bytes(head.encode() + table.tobytes() + body)
    return path


XYZ64 = [("double", axis) for axis in "xyz"]
XYZ = [("float", axis) for axis in "xyz"]


@pytest.mark.parametrize("name", ["a.xyz", "a.csv", "a.ply", "a.npy", "a.npz", "a.obj", "a.pcd", "text.pcd"])
def test_map_coordinates_keep_their_digits(tmp_path, name):
    path, rows = tmp_path / name, map_rows()
    if path.suffix in (".xyz", ".csv"):
        np.savetxt(path, rows, fmt="%.3f", delimiter="," if path.suffix == ".csv" else " ")
    elif path.suffix == ".ply":
        as_ply(path, rows, XYZ64)
    elif path.suffix == ".obj":
        path.write_text("".join("v {} {} {}\n".format(*row) for row in rows))
    elif path.suffix == ".pcd":
        text = name == "text.pcd"
        head = f"VERSION 0.7\nFIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {len(rows)}\nHEIGHT 1\n"
        body = "\n".join("{:.3f} {:.3f} {:.3f}".format(*row) for row in rows).encode() if text else rows.tobytes()
        path.write_bytes(head.encode() + f"DATA {'ascii' if text else 'binary'}\n".encode() + body)
    else:
        (np.save if path.suffix == ".npy" else np.savez)(path, rows)
    sample = load("point", path, up="z")
    assert np.abs(sample.array[:, :3] - sample.array[0, :3] - (rows - rows[0])).max() < 1e-5
    assert "far from 0" in sample.notes[-2] and np.abs(sample.array[:, :3]).max() < 4


def test_near_coordinates_are_left_as_they_are(tmp_path):
    xyz = cloud()[0] + 100
    np.save(tmp_path / "a.npy", xyz)
    assert np.array_equal(load("point", tmp_path / "a.npy").array[:, :3], xyz)


@pytest.mark.parametrize("compressed", [False, True])
def test_pcd_of_doubles_with_other_fields(tmp_path, compressed):
    xyz, rgb = cloud()
    labels = np.arange(500, dtype="<u4")
    packed = (rgb.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)).astype("<u4")
    head = "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z label rgb _\nSIZE 8 8 8 4 4 1\nTYPE F F F U F U\nCOUNT 1 1 1 1 1 3\n"
    columns = [*xyz.astype("<f8").T, labels, packed, np.zeros((500, 3), np.uint8)]
    if compressed:
        plain = b"".join(np.ascontiguousarray(column).tobytes() for column in columns)
        parts = [plain[at : at + 32] for at in range(0, len(plain), 32)]
        body = b"".join(bytes([len(part) - 1]) + part for part in parts)
        body = struct.pack("<2I", len(body), len(plain)) + body
    else:
        body = b"".join(
            xyz[i].astype("<f8").tobytes() + labels[i].tobytes() + packed[i].tobytes() + bytes(3) for i in range(500)
        )
    layout = "binary_compressed" if compressed else "binary"
    (tmp_path / "a.pcd").write_bytes(f"{head}WIDTH 500\nHEIGHT 1\nPOINTS 500\nDATA {layout}\n".encode() + body)
    array = load("point", tmp_path / "a.pcd").array
    assert np.abs(array[:, :3] - xyz).max() < 1e-6 and np.abs(array[:, 3:] - rgb / 255).max() < 1e-6


def test_organised_clouds_may_lack_most_points(tmp_path):
    xyz = cloud()[0].astype("<f4")
    xyz[:400] = np.nan
    head = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 50\nHEIGHT 10\nDATA binary\n"
    (tmp_path / "a.pcd").write_bytes(head.encode() + xyz.tobytes())
    sample = load("point", tmp_path / "a.pcd")
    assert len(sample.array) == 100 and "400 points that are not numbers" in sample.notes[0]


TABLES = {
    "//X Y Z Nx Ny Nz R G B\n500\n": ("xyz nnn rgb", " "),
    "# r g b x y z\n": ("rgb xyz", " "),
    "X;Y;Z;Intensity;Red;Green;Blue\n": ("xyz i rgb", ";"),
    "//X,Y,Z,Rf,Gf,Bf,Scalar field\n": ("xyz RGB i", ","),
    '"Points:0","Points:1","Points:2","scalar_intensity"\n': ("xyz i", ","),
    "": ("xyz i rgb", " "),
    "500\n": ("xyz i rgb", " "),
    "\n": ("xyz nnn rgb", "\t"),
    "\n\n": ("xyz rgb nnn", " "),
    "\n\n\n": ("xyz rgb i", " "),
    "\n\n\n\n": ("xyz i", " "),
    "\n\n\n\n\n": ("xyz nnn i", " "),
}


@pytest.mark.parametrize("header", TABLES)
def test_columns_by_name_or_by_value(tmp_path, header):
    layout, mark = TABLES[header]
    xyz, rgb = cloud()
    normals = np.random.default_rng(0).normal(size=(500, 3))
    normals = np.abs(normals / np.linalg.norm(normals, axis=1, keepdims=True))  # which colours could be by their range
    parts = {"xyz": xyz, "rgb": rgb, "RGB": rgb / 255, "nnn": normals, "i": np.random.default_rng(1).random((500, 1))}
    table = np.concatenate([parts[part] for part in layout.split()], axis=1)
    (tmp_path / "a.txt").write_text(header + "\n".join(mark.join(f"{v:.6g}" for v in row) for row in table))
    sample = load("point", tmp_path / "a.txt")
    assert np.abs(sample.array[:, :3] - xyz).max() < 1e-5
    expected = rgb / 255 if "rgb" in layout.lower() else np.full((500, 3), 0.5)
    assert np.abs(sample.array[:, 3:] - expected).max() < 1e-5, sample.notes


def test_normals_and_intensity_are_no_colours_and_said_so(tmp_path):
    np.savetxt(tmp_path / "a.xyz", np.c_[cloud()[0], np.tile([0, 0, 1], (500, 1))])
    assert "normals, not colours" in load("point", tmp_path / "a.xyz").notes[0]
    np.save(tmp_path / "a.npy", np.c_[cloud()[0], np.tile([0, 0.6, 0.8], (500, 1))])
    assert "normals, not colours" in load("point", tmp_path / "a.npy").notes[0]


NAMES = [("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize(("kind", "full"), [("uchar", 255), ("ushort", 65535), ("float", 1), ("int", 255)])
@pytest.mark.parametrize("mesh_too", [False, True])
def test_ply_colours_of_all_names_and_types(tmp_path, names, kind, full, mesh_too):
    corners, triangles, rgb = make.cube()
    properties = [*XYZ, ("float", "nx"), *[(kind, name) for name in names]]
    rows = np.c_[corners, np.zeros(8), rgb / 255 * full]
    array = load("point", as_ply(tmp_path / "a.ply", rows, properties, triangles if mesh_too else ())).array
    assert np.abs(array[:, 3:] - array[:, :3]).max() < 0.01


def test_splats_have_the_colours_of_their_first_wave(tmp_path):
    rows = np.c_[cloud()[0], np.tile((BLUE - 0.5) / 0.28209479, (500, 1)), np.ones(500)]
    properties = [*XYZ, *[("float", f"f_dc_{i}") for i in range(3)], ("float", "opacity")]
    sample = load("point", as_ply(tmp_path / "a.ply", rows, properties))
    assert np.abs(sample.array[:, 3:] - BLUE).max() < 1e-3 and "splat" in sample.notes[0]


@pytest.mark.parametrize("first", ["OFF {} {} 0", "OFF{} {} 0", "# a\nOFF\n# b\n\n{} {}", "COFF\n{} {} 0"])
@pytest.mark.parametrize("faces", [False, True])
def test_off_headers_and_colours(tmp_path, first, faces):
    corners, triangles, rgb = make.cube()
    coloured = first.startswith("COFF")
    pairs = zip(corners, rgb, strict=True)
    lines = [" ".join(map(str, [*corner, *(list(colour) + [255]) * coloured])) for corner, colour in pairs]
    lines += ["3 {} {} {}".format(*triangle) + " 0 0 255" * faces for triangle in triangles]
    (tmp_path / "a.off").write_text(first.format(8, 12) + "\n" + "\n".join(lines) + "\n")
    sample = load("point", tmp_path / "a.off")
    expected = sample.array[:, :3] if coloured else [0, 0, 1] if faces else 0.5
    assert len(sample.array) == 16384 and np.abs(sample.array[:, 3:] - expected).max() < 0.01


@pytest.mark.parametrize("full", [1, 255])
def test_obj_colours_of_corners(tmp_path, full):
    corners, triangles, rgb = make.cube()
    pairs = zip(corners, rgb / 255 * full, strict=True)
    lines = ["v {} {} {} {} {} {}".format(*corner, *colour) for corner, colour in pairs]
    (tmp_path / "points.obj").write_text("\n".join(lines))
    (tmp_path / "mesh.obj").write_text("\n".join([*lines, *("f {} {} {}".format(*(t + 1)) for t in triangles)]))
    array = load("point", tmp_path / "mesh.obj", up="z").array
    assert np.abs(array[:, 3:] - array[:, :3]).max() < 0.01 and len(array) == 16384
    sample = load("point", tmp_path / "points.obj", up="z")
    assert np.abs(sample.array[:, 3:] - sample.array[:, :3]).max() < 0.01 and len(sample.array) == 8


@pytest.mark.parametrize(("component", "dtype", "full"), [(5123, "<u2", 65535), (5126, "<f4", 1)])
@pytest.mark.parametrize("width", [3, 4])
def test_glb_colours_of_corners(tmp_path, component, dtype, full, width):
    path = mesh(tmp_path / "a.glb")
    rgb = np.c_[make.cube()[2] / 255 * full, np.full(8, full)][:, :width].astype(dtype)

    def recolour(tree):
        index = tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]
        start = tree["buffers"][0]["byteLength"]
        tree["bufferViews"].append({"buffer": 0, "byteOffset": start, "byteLength": rgb.nbytes})
        tree["buffers"][0]["byteLength"] += rgb.nbytes
        view = len(tree["bufferViews"]) - 1
        tree["accessors"][index] = {"bufferView": view, "componentType": component, "count": 8,
                                    "type": f"VEC{width}", "normalized": component == 5123}  # fmt: skip

    data = path.read_bytes()
    start = 20 + struct.unpack_from("<I", data, 12)[0]
    body = data[start + 8 :] + rgb.tobytes()
    path.write_bytes(data[:start] + struct.pack("<I4s", len(body), b"BIN\0") + body)
    array = load("point", make.glb_with(path, recolour), up="z").array
    assert np.abs(array[:, 3:] - array[:, :3]).max() < 0.02


def test_gltf_with_its_data_inside_or_beside(tmp_path, refused):
    import trimesh

    corners, triangles, _ = make.cube()
    files = trimesh.Scene(trimesh.Trimesh(corners * [1, 2, 3], triangles)).export(file_type="gltf")
    for name, data in files.items():
        (tmp_path / name.replace("model", "a")).write_bytes(data)
    assert np.allclose(np.ptp(load("point", tmp_path / "a.gltf").array[:, :3], axis=0), [1, 3, 2], atol=0.01)
    assert recognise(tmp_path / "a.gltf") == ["point"]
    for path in tmp_path.glob("*.bin"):
        path.unlink()
    refused("point", tmp_path / "a.gltf", "a reference to another file", "export it as glb")


def test_npz_names_and_shapes(tmp_path):
    xyz, rgb = cloud()
    normals = np.tile([0.0, 0, 1], (500, 1))
    for arrays in (
        {"pos": xyz, "normal": normals},
        {"coord": xyz, "color": rgb, "label": np.zeros((500, 3))},
        {"my_scan": xyz, "normals": normals, "faces": np.zeros((9, 3), int)},
        {"points": xyz, "colors": (rgb.astype(np.uint16) * 257).T},
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        sample = load("point", tmp_path / "a.npz")
        coloured = "color" in arrays or "colors" in arrays
        assert np.array_equal(sample.array[:, :3], xyz) and sample.coloured == coloured, arrays.keys()
        assert not coloured or np.abs(sample.array[:, 3:] - rgb / 255).max() < 1e-5


def test_structured_scans_are_placed_by_their_matrix(tmp_path):
    xyz, rgb = cloud()
    rows = "\n".join("{:.5f} {:.5f} {:.5f} 0.5 {} {} {}".format(*p, *c) for p, c in zip(xyz, rgb, strict=True))
    head = "251\n2\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n0 1 0 0\n-1 0 0 0\n0 0 1 0\n10 20 30 1\n"
    (tmp_path / "a.ptx").write_text(head + "0 0 0 0.5 0 0 0\n" * 2 + rows + "\n")
    array = load("point", tmp_path / "a.ptx").array
    turned = np.stack([10 - xyz[:, 1], 20 + xyz[:, 0], 30 + xyz[:, 2]], axis=1)
    assert np.abs(array[:, :3] - turned).max() < 1e-4 and np.abs(array[:, 3:] - rgb / 255).max() < 1e-5


def test_laser_scans_without_a_header(tmp_path, refused):
    table = np.c_[cloud()[0] * 20, np.random.default_rng(0).random(500)].astype("<f4")
    table.tofile(tmp_path / "000001.bin")
    sample = load("point", tmp_path / "000001.bin")
    assert np.array_equal(sample.array[:, :3], table[:, :3]) and "laser scan" in sample.notes[0]
    assert recognise(tmp_path / "000001.bin") == ["point"]
    (tmp_path / "a.bin").write_bytes(np.random.default_rng(0).bytes(1600))
    refused("point", tmp_path / "a.bin", "none of a laser scan")


@pytest.mark.parametrize("name", ["a.ply", "a.pcd", "a.xyz"])
def test_content_counts_more_than_the_name(tmp_path, name):
    xyz, rgb = cloud()
    path = ply(tmp_path / name)
    assert np.abs(load("point", path).array[:, :3] - xyz).max() < 1e-5
    assert recognise(path) == ["point"]


@pytest.mark.parametrize("name", ["a.las", "a.laz"])
@pytest.mark.parametrize("full", [255, 65535])
def test_las_keeps_its_digits_and_colours(tmp_path, refused, name, full):
    import laspy

    xyz, rgb = map_rows(), cloud()[1]
    las = laspy.create(point_format=2, file_version="1.2")
    las.header.offsets, las.header.scales = np.floor(xyz.min(axis=0)), np.full(3, 0.001)
    las.x, las.y, las.z = xyz.T
    las.red, las.green, las.blue = (rgb.astype(np.float64) / 255 * full).astype(np.uint16).T
    las.write(tmp_path / name)
    sample = load("point", tmp_path / name)
    assert np.abs(sample.array[:, :3] - sample.array[0, :3] - (xyz - xyz[0])).max() < 1e-3
    assert np.abs(sample.array[:, 3:] - rgb / 255).max() < 1e-4
    assert recognise(tmp_path / name) == ["point"]
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    refused("point", tmp_path / name)


@pytest.mark.parametrize(("name", "head"), [("a.pts", "500\n"), ("a.txt", "500\n"), ("a.pts", "")])
def test_pts_has_an_intensity_before_its_colours(tmp_path, name, head):
    xyz, rgb = cloud()
    intensity = np.random.default_rng(0).integers(0, 255, 500)
    rows = "\n".join(" ".join(f"{value:.6g}" for value in row) for row in np.c_[xyz, intensity, rgb])
    (tmp_path / name).write_text(head + rows)
    assert np.abs(load("point", tmp_path / name).array[:, 3:] - rgb / 255).max() < 1e-5
