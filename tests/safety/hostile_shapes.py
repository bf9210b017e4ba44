"""Hostile point clouds and meshes."""

import base64
import json
import struct

import file_makers as make
import numpy as np
from hostile_files import hostile
from hostile_pictures import png, zlib_zeros

HUGE = 50_000_000

# ---- ply and pcd ----------------------------------------------------------------------------------------------------


def ply(*lines, layout="ascii", data=b""):
    return "\n".join(["ply", f"format {layout} 1.0", *lines, "end_header\n"]).encode() + data


XYZ = ("property float x", "property float y", "property float z")
FACES = "property list uchar int vertex_indices"
CORNERS = make.cube()[0].astype("<f4").tobytes()
TEXT = "\n".join(" ".join(map(str, corner)) for corner in make.cube()[0]).encode() + b"\n"
PLYS = {
    "9 billion points": ply("element vertex 9000000000", *XYZ, data=TEXT),
    "2^64 points": ply("element vertex 18446744073709551616", *XYZ, data=TEXT),
    "minus one point": ply("element vertex -1", *XYZ, data=TEXT),
    "two million points, no data": ply("element vertex 2000000", *XYZ, data=b"\n" * 2_000_000),
    "lines cut short": ply("element vertex 9", *XYZ, data=TEXT + b"0.5"),
    "lines too short": ply("element vertex 8", *XYZ, data=b"1 2\n" * 8),
    "words for numbers": ply("element vertex 8", *XYZ, data=b"a b c\n" * 8),
    "list as a coordinate": ply("element vertex 8", "property list int float x", *XYZ[1:], data=TEXT),
    "a property 10,000 times": ply("element vertex 8", *XYZ, *["property float x"] * 10_000, data=TEXT),
    "1,000 elements": ply(*[f"element e{i} 1" for i in range(1000)], "element vertex 8", *XYZ, data=TEXT),
    "face of 4 billion": ply(
        "element vertex 8", *XYZ, "element face 1", "property list uint int vertex_indices",
        layout="binary_little_endian", data=CORNERS + struct.pack("<4I", 2**32 - 1, 0, 1, 2),
    ),
    "face of minus one": ply(
        "element vertex 8", *XYZ, "element face 1", "property list int int vertex_indices",
        layout="binary_little_endian", data=CORNERS + struct.pack("<4i", -1, 0, 1, 2),
    ),
    "face of floats": ply(
        "element vertex 8", *XYZ, "element face 1", "property list float double vertex_indices",
        layout="binary_little_endian", data=CORNERS + struct.pack("<f3d", 3, 0, 1, 2),
    ),
    "corners that are not there": ply(
        "element vertex 8", *XYZ, "element face 2", FACES, data=TEXT + b"3 0 1 2147483647\n3 0 1 -5\n"
    ),
    "two lists in a face": ply(
        "element vertex 8", *XYZ, "element face 1", FACES, "property list uchar float texcoord",
        layout="binary_little_endian", data=CORNERS + b"\x03" + struct.pack("<3i", 0, 1, 2) + b"\xff" + bytes(20),
    ),
    "no numbers": ply(
        "element vertex 8", *XYZ, layout="binary_little_endian", data=np.full((8, 3), np.nan, "<f4").tobytes()
    ),
    "beyond numbers": ply("element vertex 8", *XYZ, data=b"1e999 -1e999 0\n" * 8),
    "no header": b"ply\n" + b"comment x\n" * 400_000,
    "no end": b"ply\n" + b"x" * 4_000_000,
}  # fmt: skip
for _name, _content in PLYS.items():
    hostile(f"{_name}.ply", "point")(lambda path, content=_content: content)


@hostile("a face of a million corners.ply", "point", fine="it makes a million triangles")
def wide_face(path):
    numbers = b" ".join(b"%d" % (i % 8) for i in range(1_000_000))
    return ply("element vertex 8", *XYZ, "element face 1", FACES, data=TEXT + b"1000000 " + numbers + b"\n")


@hostile("faces of all sizes.ply", "point")
def uneven_faces(path):
    body = b"".join(b"%d" % (3 + i % 60) + b" 1" * (3 + i % 60) + b"\n" for i in range(60_000))
    return ply("element vertex 8", *XYZ, "element face 60000", FACES, data=TEXT + body)


def pcd(points, layout, data, fields="x y z", size="4 4 4", kind="F F F", count="1 1 1"):
    head = f"VERSION .7\nFIELDS {fields}\nSIZE {size}\nTYPE {kind}\nCOUNT {count}\nWIDTH {points}\nHEIGHT 1\n"
    return f"# .PCD v.7\n{head}POINTS {points}\nDATA {layout}\n".encode() + data


PCDS = {
    "9 billion": pcd(9 * 10**9, "binary", CORNERS),
    "minus one": pcd(-1, "binary", CORNERS),
    "two million lines of nothing": pcd(2_000_000, "ascii", b"\n" * 2_000_000),
    "lines too short": pcd(8, "ascii", b"1 2\n" * 8),
    "words": pcd(8, "ascii", b"a b c\n" * 8),
    "unpacks to 4 GB": pcd(2_000_000, "binary_compressed", struct.pack("<2I", 3000, 4_096_000_000) + bytes(3000),
                           "x y z d", "4 4 4 4", "F F F F", "1 1 1 509"),
    "unpacks to 384 MB": pcd(2_000_000, "binary_compressed", struct.pack("<2I", 3000, 384_000_000) + bytes(3000),
                             "x y z d", "4 4 4 4", "F F F F", "1 1 1 45"),
    "packed noise": pcd(8, "binary_compressed", struct.pack("<2I", 90, 96) + b"\xff" * 90),
    "types of no kind": pcd(8, "binary", CORNERS, kind="Z Q ?"),
    "sizes of no kind": pcd(8, "binary", CORNERS, size="1 2 8"),
    "count below zero": pcd(8, "binary", CORNERS, count="1 1 -1"),
    "a field 5,000 times": pcd(8, "ascii", TEXT, " ".join(["x y z"] * 5000), " ".join(["4"] * 15_000),
                               " ".join(["F"] * 15_000), " ".join(["1"] * 15_000)),
}  # fmt: skip
for _name, _content in PCDS.items():
    hostile(f"{_name}.pcd", "point")(lambda path, content=_content: content)

# ---- text -----------------------------------------------------------------------------------------------------------

TEXTS = {
    "50 MB in one line": lambda: b"1 " * (HUGE // 2 - 1),
    "25 million lines": lambda: b"1\n" * (HUGE // 2 - 1),
    "50 million line ends": lambda: b"\n" * (HUGE - 1),
    "50 million old line ends": lambda: b"\r" * (HUGE - 1),
    "50 million odd line ends": lambda: b"\x1c" * (HUGE - 1),
    "50 million commas": lambda: b"," * (HUGE - 1),
    "one number of 50 MB": lambda: b"1" * (HUGE - 1),
    "12 million comments": lambda: b"#a\n#\n" * (HUGE // 8),
    "two million empty points": lambda: b"1 2\n" * 2_000_000,
    "beyond numbers": lambda: b"1e999 -1e999 nan\n" * 900,
    "all widths": lambda: b"".join(b"1 " * i + b"1\n" for i in range(900)),
}
for _name, _make in TEXTS.items():
    hostile(f"{_name}.xyz", "point")(lambda path, make=_make: make())


CUBE = make.cube()
VERTICES = "".join("v {} {} {}\n".format(*corner) for corner in CUBE[0]).encode()
OBJS = {
    "a face of a million corners": lambda: VERTICES + b"f" + b" 1 2 3 4" * 250_000 + b"\n",
    "corners that are not there": lambda: VERTICES + b"f 1 2 99999999999\nf 0 0 0\nf -9 -99 -1\n",
    "3 million points": lambda: b"v 1 2 3\n" * 3_000_000 + b"f 1 2 3\n",
    "5 million faces": lambda: VERTICES + b"f 1 2 3\n" * 5_000_000,
    "no numbers": lambda: b"v nan nan nan\n" * 9 + b"f 1 2 3\n",
    "one line": lambda: b"v 1 2 3 f 1 2 3 " * 600_000,
    "a million groups": lambda: VERTICES + b"usemtl a\nf 1 2 3\ng b\nf 2 3 4\n" * 100_000,
    "lines that go on": lambda: VERTICES + b"f 1 2 \\\n3\\\n" * 100_000,
    "texture corners that are not there": lambda: VERTICES + b"vt 0 0\nf 1/9 2/9 3/9\nf 1//9 2//9 3//9\n",
}
for _name, _make in OBJS.items():
    _fine = _name in ("a face of a million corners", "a million groups", "texture corners that are not there")
    hostile(f"{_name}.obj", "point", fine="it has a surface" if _fine else "")(lambda path, make=_make: make())

for _name, _target in {
    "above": "../../../../../../etc/passwd", "root": "/etc/passwd", "device": "/dev/zero", "web": "http://127.0.0.1:9/m",
    "itself": "materials of itself.obj", "nothing": " ", "pipe": "/proc/self/fd/0",
}.items():  # fmt: skip
    hostile(f"materials of {_name}.obj", "point", fine="the mesh is read without its materials")(
        lambda path, target=_target: f"mtllib {target}\nusemtl red\n".encode() + VERTICES + b"f 1 2 3\nf 4 5 6\n"
    )

OFFS = {
    "9 billion": lambda: b"OFF\n9000000000 1 0\n0 0 0\n",
    "minus": lambda: b"OFF\n-8 -8 0\n0 0 0\n",
    "25 million lines": lambda: b"OFF\n1 1 1\n" + b"1\n" * 24_000_000,
    "a face of a million corners": lambda: b"OFF\n8 1 0\n" + VERTICES.replace(b"v ", b"") + b"1000000" + b" 1" * 10**6,
    "corners that are not there": lambda: b"OFF\n8 1 0\n" + VERTICES.replace(b"v ", b"") + b"3 0 1 4294967295\n",
    "no numbers": lambda: b"OFF\n8 1 0\n" + b"nan inf x\n" * 8 + b"3 0 1 2\n",
    "colours": lambda: b"COFF\n8 1 0\n" + b"0 0 0 9999999 -1 nan\n" * 8 + b"3 0 1 2 300 -1 nan\n",
    "one line": lambda: b"OFF " * 5_000_000,
}
for _name, _make in OFFS.items():
    hostile(f"{_name}.off", "point")(lambda path, make=_make: make())

STLS = {
    "4 billion": lambda: bytes(80) + struct.pack("<I", 2**32 - 1) + bytes(500),
    "no numbers": lambda: bytes(80) + struct.pack("<I", 9) + (np.full(12, np.nan, "<f4").tobytes() + b"\0\0") * 9,
    "beyond numbers": lambda: bytes(80) + struct.pack("<I", 9) + (np.full(12, 3e38, "<f4").tobytes() + b"\0\0") * 9,
    "text without numbers": lambda: b"solid a\nfacet normal x y z\nvertex a b c\nendsolid\n",
    "text of 50 MB": lambda: b"solid a\nfacet\n" + b"vertex 1 1 1\n" * 3_800_000 + b"endsolid\n",
    "solid but not": lambda: b"solid" + bytes(75) + struct.pack("<I", 2) + bytes(100),
}
for _name, _make in STLS.items():
    hostile(f"{_name}.stl", "point", slow=_name == "text of 50 MB")(lambda path, make=_make: make())

# ---- glb ------------------------------------------------------------------------------------------------------------


def glb(change, colours=None):
    """Make a glb file of the cube and change its JSON; what `change` returns, if anything, is the JSON."""

    def write(path):
        made = make.mesh(path, colours).read_bytes()
        length = struct.unpack_from("<I", made, 12)[0]
        tree = json.loads(made[20 : 20 + length])
        text = change(tree) or json.dumps(tree).encode()
        text += b" " * (-len(text) % 4)
        rest = made[20 + length :]
        head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
        return head + struct.pack("<I4s", len(text), b"JSON") + text + rest

    return write


def chain(count, ring=False):
    """Return a change: each node is the next one's parent; in a ring, the last one the first one's."""

    def change(tree):
        tree["nodes"] = [{"children": [i + 1], "translation": [0, 0, 0]} for i in range(count)]
        tree["nodes"].append({"mesh": 0, **({"children": [0]} if ring else {})})
        tree["scenes"] = [{"nodes": [0]}]

    return change


def fan(count):
    def change(tree):
        tree["nodes"] = [{"mesh": 0} for _ in range(count)]
        tree["scenes"] = [{"nodes": list(range(count))}]

    return change


def bomb(data, mime="image/png"):
    def change(tree):
        tree["images"] = [{"uri": f"data:{mime};base64,{base64.b64encode(data).decode()}"}]

    return change


def accessor(**values):
    return lambda tree: tree["accessors"][0].update(values)


def zeros(tree):
    for one in tree["accessors"]:
        one.pop("bufferView", None)
        one.update(count=16_000_000, type="MAT4")


BOMB = png(13_400, 13_400, bits=1, pixels=zlib_zeros(13_400 * 1676))
GLBS = {
    "file outside": lambda tree: tree["buffers"][0].update(uri="../../../../etc/passwd"),
    "address outside": lambda tree: tree["buffers"][0].update(uri="http://127.0.0.1:9/a"),
    "picture outside": lambda tree: tree.update(images=[{"uri": "file:///etc/passwd"}]),
    "data that is a bomb": lambda tree: tree["buffers"][0].update(
        uri="data:application/octet-stream;base64," + "A" * 9_000_000, byteLength=10**9
    ),
    "no base64": lambda tree: tree["buffers"][0].update(uri="data:,%%%"),
    "accessor of a billion": accessor(count=10**9),
    "accessor below zero": accessor(count=-1),
    "accessor of no type": accessor(componentType=9, type="VEC99"),
    "accessor elsewhere": accessor(byteOffset=2**40),
    "accessor of text": accessor(count="many"),
    "zeros of 1 GB": zeros,
    "views that lie": lambda tree: (
        [view.update(byteOffset=-5, byteLength=2**33) for view in tree["bufferViews"]] and None
    ),
    "a million nodes": fan(300_000),
    "matrix of no numbers": lambda tree: tree["nodes"][-1].update(matrix=[float("nan")] * 16),
    "huge matrix": lambda tree: tree["nodes"][-1].update(matrix=[1e300] * 16),
    "long matrix": lambda tree: tree["nodes"][-1].update(matrix=[1.0] * 900_000),
    "no tree": lambda tree: b"[" * 100_000 + b"]" * 100_000,
    "other tree": lambda tree: b"[]",
    "text of 20 MB": lambda tree: json.dumps({"asset": {"version": "2.0"}, "extras": ["x"] * 4_000_000}).encode(),
    "scene that is not there": lambda tree: tree.update(scene=99),
    "mesh that is not there": lambda tree: tree["nodes"][-1].update(mesh=99),
    "child of itself": lambda tree: tree["nodes"][0].update(children=[0]),
    "packed": lambda tree: tree.update(extensionsRequired=["KHR_draco_mesh_compression"]),
}
for _name, _change in GLBS.items():
    hostile(f"{_name}.glb", "point")(glb(_change))
hostile("texture of 179 million pixels.glb", "point", fine="the mesh is read without it")(glb(bomb(BOMB), "texture"))
hostile("texture that is text.glb", "point", fine="the mesh is read without it")(
    glb(bomb(b"#EXTM3U\n/etc/passwd"), "texture")
)
hostile("nodes in a ring.glb", "point")(glb(chain(50, ring=True)))
hostile("a chain of 3,900 nodes.glb", "point", fine="so many are allowed")(glb(chain(3_900)))
hostile("the cube 3,900 times.glb", "point", fine="so many are allowed")(glb(fan(3_900)))


@hostile("header that lies.glb", "point")
def lying_glb(path):
    return struct.pack("<4sIII4s", b"glTF", 2, 2**32 - 1, 2**32 - 1, b"JSON") + b"{}"
