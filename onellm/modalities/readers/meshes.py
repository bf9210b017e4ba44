"""Meshes: read with trimesh after a look at the header, and turned into points over their surface."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from onellm.modalities.base import Damaged, refuse
from onellm.modalities.readers import ply
from onellm.modalities.readers.clouds import ADVICE, Cloud, check_count, scale_colours
from onellm.utils.limits import LIMITS

__all__ = ["read_mesh"]

_MATERIAL_BYTES = 20_000_000
_NODES = 4_000
_COMMENTS = 10_000  # lines of a text file besides its points and faces
_COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def read_mesh(path: Path, layout: str, count: int, expects: str) -> tuple[Cloud, int]:
    """Read a mesh and sample its surface.

    Args:
        path: the file.
        layout: "ply", "obj", "off", "stl", "glb" or "gltf".
        count: number of points to sample.
        expects: what is expected, for the error.

    Returns:
        The points, and the number of triangles, 0 for mere points.

    Raises:
        FileError: if the mesh is broken, too large or refers to other places.
    """
    import trimesh

    if layout == "off":
        piece = _read_off(path, expects)
        return _sample(path, [piece], count, expects), len(piece.triangles)
    if layout == "obj":
        _check_obj(path, expects)
        content = _plain_obj(path.read_bytes())
        if not re.search(rb"(?m)^[ \t]*f[ \t]", content):
            return _bare_obj(path, content, expects), 0
    elif layout in ("glb", "gltf"):
        content, layout = (_glb_of(path, expects) if layout == "gltf" else path.read_bytes()), "glb"
        content = _check_glb(path, content, expects)
    else:
        if layout == "stl":
            _check_stl(path, expects)
        content = path.read_bytes()
    resolver = _same_folder(path) if layout == "obj" else None
    scene = trimesh.load_scene(io.BytesIO(content), file_type=layout, resolver=resolver, process=False)
    pieces, points, corners = [], [], 0
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        vertices = getattr(geometry, "vertices", None)
        if vertices is None or not len(vertices):
            continue
        corners += len(vertices)
        check_count(path, corners, expects, "corners", 3 * LIMITS.triangle_count)
        vertices = trimesh.transform_points(np.asarray(vertices, np.float64), matrix)
        if len(getattr(geometry, "faces", ())):
            faces = np.asarray(geometry.faces)
            pieces.append(Piece(_triangles(path, vertices, faces), faces, geometry.visual, len(vertices)))
            triangles = sum(len(piece.triangles) for piece in pieces)
            check_count(path, triangles, expects, "triangles", LIMITS.triangle_count)
        else:
            colours = getattr(geometry, "colors", None)
            coloured = colours is not None and len(colours) == len(vertices)
            points.append((vertices, np.asarray(colours)[:, :3] / 255 if coloured else None))
            check_count(path, sum(len(xyz) for xyz, _ in points), expects)
    if layout == "ply" and len(pieces) == 1:
        pieces[0].rgb = _ply_colours(path, pieces[0].vertices, expects)
    if pieces:
        return _sample(path, pieces, count, expects), sum(len(piece.triangles) for piece in pieces)
    if not points:
        raise refuse(path, "no triangles and no points", expects, "save or download it again")
    coloured = all(rgb is not None for _, rgb in points)
    xyz = np.concatenate([xyz for xyz, _ in points])
    return Cloud(xyz, np.concatenate([rgb for _, rgb in points]).astype(np.float32) if coloured else None), 0


@dataclass
class Piece:
    """A part of a mesh.

    Attributes:
        triangles: corners [F, 3, 3].
        faces: their indices [F, 3].
        visual: trimesh's colours or texture, or None.
        vertices: how many corners there are.
        rgb: colours of the corners [V, 3] in 0..1, or of the triangles [F, 3], that count more than `visual`.
        by_face: whether `rgb` are the triangles'.
    """

    triangles: np.ndarray
    faces: np.ndarray
    visual: Any
    vertices: int
    rgb: np.ndarray | None = None
    by_face: bool = False


def _ply_colours(path: Path, vertices: int, expects: str) -> np.ndarray | None:
    """Return the colours of a ply mesh's corners where trimesh does not know their names or their type."""
    header = ply.read_ply_header(path, expects)
    names = ply.colour_names(header.properties)
    usual = names == ("red", "green", "blue") and header.properties["red"] in ("uchar", "uint8")
    if not names or usual or header.before is None or header.vertices != vertices:
        return None
    return ply.read_ply(path, header, expects).rgb


def _plain_obj(content: bytes) -> bytes:
    """Write an obj file's colours of corners, where they go up to 255, as parts of 1."""
    first = re.search(rb"(?m)^[ \t]*v[ \t][^\n]*", content)
    if not first or len(first[0][:1000].split()) != 7:
        return content
    corner = rb"(?m)^([ \t]*v(?:[ \t]+[-+.\deE]+){3})((?:[ \t]+[.\deE+-]+){3})[ \t]*\r?$"
    colours = [[float(value) for value in match[2].split()] for match in re.finditer(corner, content)]
    top = max(map(max, colours), default=0)
    if not 1 < top <= 255:
        return content
    return re.sub(corner, lambda m: m[1] + b"".join(b" %.5f" % (float(v) / 255) for v in m[2].split()), content)


def _bare_obj(path: Path, content: bytes, expects: str) -> Cloud:
    """Read an obj file without faces as points."""
    corner = rb"(?m)^[ \t]*v((?:[ \t]+[-+.\deE]+){3,7})[ \t]*\r?$"
    rows = [match[1].split() for match in re.finditer(corner, content)]
    check_count(path, len(rows), expects)
    width = 6 if all(len(row) == 6 for row in rows) else 3
    table = np.array([row[:width] for row in rows], np.float64)
    rgb = table[:, 3:].clip(0, 1).astype(np.float32) if width == 6 else None
    return Cloud(table[:, :3], rgb, ["an obj file without faces: its corners are the points"])


def _triangles(path: Path, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return corners [F, 3, 3]; a face with a corner that does not exist is an error."""
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise Damaged("a face refers to a missing point")
    return vertices[faces]


def _sample(path: Path, pieces: list[Piece], count: int, expects: str) -> Cloud:
    """Sample all pieces together, each triangle by its area."""
    rng = np.random.default_rng(0)
    areas = []
    for triangles in (piece.triangles for piece in pieces):
        area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
        areas.append(np.where(np.isfinite(area) & (area < 1e30), area, 0))
    total = sum(float(area.sum()) for area in areas)
    if not total > 0:
        raise refuse(path, "a mesh without surface", expects, "save or download it again")
    shares = np.array([float(area.sum()) / total for area in areas])
    all_xyz, all_rgb, coloured = [], [], False
    for piece, area, number in zip(pieces, areas, rng.multinomial(count, shares), strict=True):
        if not number:
            continue
        chosen = rng.choice(len(area), number, p=area / area.sum())
        u, v = rng.random((2, number, 1))
        root = np.sqrt(u)
        weights = np.concatenate([1 - root, root * (1 - v), root * v], axis=1)  # uniform in the triangle
        all_xyz.append(np.einsum("pc,pcx->px", weights, piece.triangles[chosen]))
        rgb = _colours(path, piece, chosen, weights, expects)
        coloured |= rgb is not None
        all_rgb.append(np.full((number, 3), 0.5) if rgb is None else rgb)
    rgb = np.concatenate(all_rgb).astype(np.float32).clip(0, 1) if coloured else None
    return Cloud(np.concatenate(all_xyz), rgb)


def _colours(path: Path, piece: Piece, chosen: np.ndarray, weights: np.ndarray, expects: str) -> np.ndarray | None:
    """Return the colours [P, 3] of points in the chosen triangles, or None if the mesh has none."""
    visual, faces = piece.visual, piece.faces[chosen]
    if piece.rgb is not None:
        return piece.rgb[chosen] if piece.by_face else np.einsum("pc,pcx->px", weights, piece.rgb[faces])
    if visual is None:
        return None
    if visual.kind == "vertex":
        return np.einsum("pc,pcx->px", weights, np.asarray(visual.vertex_colors)[faces][..., :3] / 255.0)
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[chosen, :3] / 255.0
    material = getattr(visual, "material", None)
    if visual.kind != "texture" or material is None:
        return None
    texture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    factor = getattr(material, "baseColorFactor", None)
    if texture is None or visual.uv is None or len(visual.uv) != piece.vertices:
        if factor is None and getattr(material, "name", None) in (None, "material_0") and not _has_diffuse(material):
            return None
        return np.broadcast_to(np.asarray(material.main_color)[:3] / 255.0, (len(chosen), 3))
    if texture.width * texture.height > LIMITS.image_pixels:
        found = f"a texture of {texture.width:,} × {texture.height:,} pixels"
        raise refuse(path, found, expects, "make the texture smaller")
    pixels = np.asarray(texture.convert("RGB"))
    uv = np.einsum("pc,pcx->px", weights, np.asarray(visual.uv, np.float64)[faces][..., :2])
    uv = np.nan_to_num(uv, posinf=0, neginf=0) % 1.0
    x = (uv[:, 0] * (texture.width - 1)).round().astype(int)
    y = ((1 - uv[:, 1]) * (texture.height - 1)).round().astype(int)
    rgb = pixels[y, x] / 255.0
    return rgb if factor is None else rgb * (np.asarray(factor, np.float64)[:3] / 255.0)


def _has_diffuse(material: Any) -> bool:
    """Tell a material that was read from one that trimesh made up."""
    diffuse = getattr(material, "diffuse", None)
    return diffuse is not None and not np.allclose(np.asarray(diffuse)[:3], 102, atol=1)


def _same_folder(path: Path) -> Any:
    """Return a resolver that opens small plain files beside the mesh, and nothing else."""
    from trimesh.resolvers import Resolver

    class SameFolder(Resolver):
        """Materials and textures that lie beside an obj file."""

        def __init__(self) -> None:
            pass

        def get(self, name: str) -> bytes:
            name = name.strip()
            beside = path.parent / name
            plain = name and Path(name).name == name and beside.is_file() and not beside.is_symlink()
            if not plain or beside.stat().st_size > _MATERIAL_BYTES:
                raise FileNotFoundError(name)
            return beside.read_bytes()

        def keys(self) -> list[str]:
            return []

        def write(self, name: str, data: bytes) -> None:
            raise PermissionError(name)

        def namespaced(self, namespace: str) -> Resolver:
            return self

    return SameFolder()


def _check_stl(path: Path, expects: str) -> None:
    data = path.read_bytes()
    if data[:5].lower() == b"solid" and b"facet" in data[:2000]:
        if b"endsolid" not in data[-2000:]:
            raise refuse(path, "text that stops before endsolid", expects, ADVICE)
        return
    if len(data) < 84:
        raise Damaged("it has no stl header")
    triangles = struct.unpack_from("<I", data, 80)[0]
    if len(data) - 84 < 50 * triangles:
        raise refuse(path, f"{(len(data) - 84) // 50:,} of {triangles:,} triangles", expects, ADVICE)
    check_count(path, triangles, expects, "triangles", LIMITS.triangle_count)


def _read_off(path: Path, expects: str) -> Piece:
    """Read an OFF mesh: colours of its corners (COFF) or its faces, counts also behind the first word."""
    data = path.read_bytes().decode("utf-8-sig").encode()
    check_count(path, data.count(b"\n"), expects, "lines", LIMITS.point_count + LIMITS.triangle_count + _COMMENTS)
    lines = re.finditer(rb"^[ \t]*([^#\s][^#\r\n]*)", data, re.MULTILINE)  # one at a time: there may be millions
    first = next(lines, None)
    head = re.match(rb"(ST)?(C)?(N)?(4)?OFF(?![A-Za-z])[ \t]*(.*)", first[1]) if first else None
    if not head or head[4]:
        raise Damaged("it has no OFF header")
    counts = head[5].split() or next(lines)[1].split()
    vertices, count = int(counts[0]), int(counts[1])
    check_count(path, vertices, expects)
    check_count(path, count, expects, "faces", LIMITS.triangle_count)
    rows = [match[1] for match in lines]
    if len(rows) < vertices + count:
        raise refuse(path, f"{len(rows):,} of {vertices + count:,} lines of data", expects, ADVICE)
    table = np.loadtxt(rows[:vertices], np.float64, comments=None, ndmin=2)
    if table.shape[1] < 3:
        raise Damaged("its points lack x, y, z")
    rgb = None
    start = 6 if head[3] else 3
    if head[2] and table.shape[1] >= start + 3:
        rgb = scale_colours(table[:, start : start + 3].astype(np.float32))
    parts, colours, total = [], [], 0
    for row in rows[vertices : vertices + count]:
        words = row.split()
        sides = int(words[0])
        if not 0 <= sides < len(words):
            raise Damaged("a face lacks corners")
        total += max(0, sides - 2)
        check_count(path, max(1, total), expects, "triangles", LIMITS.triangle_count)
        if sides >= 3:  # a fan of triangles
            polygon = [int(word) for word in words[1 : sides + 1]]
            parts += zip([polygon[0]] * (sides - 2), polygon[1:], polygon[2:], strict=False)
            colours += [words[sides + 1 : sides + 4]] * (sides - 2)
    if not parts:
        raise refuse(path, "a mesh without surface", expects, "save or download it again")
    faces, by_face = np.array(parts), False
    if rgb is None and all(len(colour) == 3 for colour in colours):
        rgb, by_face = scale_colours(np.array(colours, np.float32)), True
        by_face = rgb is not None
    return Piece(_triangles(path, table[:, :3], faces), faces, None, vertices, rgb, by_face)


def _check_obj(path: Path, expects: str) -> None:
    data = path.read_bytes()
    if b"\0" in data:
        raise Damaged("it is not text")
    check_count(path, max(1, data.count(b"\nv ")), expects)  # quick, and never too many
    check_count(path, max(1, data.count(b"\nf ")), expects, "faces", LIMITS.triangle_count)
    check_count(path, len(re.findall(rb"(?m)^[ \t]*v[ \t]", data)), expects)
    faces = len(re.findall(rb"(?m)^[ \t]*f[ \t]", data))
    check_count(path, max(1, faces), expects, "faces", LIMITS.triangle_count)


def _glb_of(path: Path, expects: str) -> bytes:
    """Pack a gltf file whose buffers are in it, as data URIs, or beside it, as a glb file."""
    tree = json.loads(path.read_bytes())
    if not isinstance(tree, dict) or "asset" not in tree:
        raise Damaged("it is not glTF 2.0")
    body, starts = b"", []
    for buffer in tree.get("buffers", []):
        uri = str(buffer.get("uri", ""))
        data = _data_of(path, uri, expects)
        starts.append(len(body))
        body += data + b"\0" * (-len(data) % 4)
    for view in tree.get("bufferViews", []):
        view["byteOffset"] = int(view.get("byteOffset", 0)) + starts[view.get("buffer", 0)]
        view["buffer"] = 0
    for image in tree.get("images", []):
        uri = str(image.get("uri", "data:"))
        if not uri.startswith("data:"):
            picture = _data_of(path, uri, expects)
            image["uri"] = "data:application/octet-stream;base64," + base64.b64encode(picture).decode()
    tree["buffers"] = [{"byteLength": len(body)}]
    return _pack_glb(tree, body)


def _data_of(path: Path, uri: str, expects: str) -> bytes:
    """Return the bytes a URI holds, or those of a small plain file beside the mesh."""
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    try:
        return _same_folder(path).get(unquote(uri))
    except FileNotFoundError as error:
        raise refuse(path, "a reference to another file", "all data in one file", "export it as glb") from error


def _pack_glb(tree: dict, body: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    body += b"\0" * (-len(body) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(body))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body


def _check_glb(path: Path, data: bytes, expects: str) -> bytes:
    """Check a glb file; return it with colours of 16 bits or floats as bytes, as trimesh expects them."""
    if len(data) < 20 or data[:4] != b"glTF":
        raise Damaged("it has no glb header")
    version, length, json_length = struct.unpack_from("<III", data, 4)
    if length > len(data) or json_length + 20 > len(data):
        raise refuse(path, f"{len(data):,} of {length:,} bytes", expects, ADVICE)
    if version != 2 or data[16:20] != b"JSON":
        raise Damaged("it is not glTF 2.0")
    tree = json.loads(data[20 : 20 + json_length])
    for item in tree.get("buffers", []) + tree.get("images", []):
        if not str(item.get("uri", "data:")).startswith("data:"):
            raise refuse(path, "a reference to another file", "all data in the glb itself", "export it as one file")
    packed = [e for e in tree.get("extensionsRequired", []) if "draco" in e or "meshopt" in e]
    if packed:
        raise refuse(path, f"compression ({packed[0]})", "an uncompressed glb", "export it without compression")
    if len(tree.get("nodes", [])) > _NODES:
        raise refuse(path, f"{len(tree['nodes']):,} nodes", f"at most {_NODES:,}", "join the parts of the mesh")
    accessors = tree.get("accessors", [])
    numbers = sum(int(accessor["count"]) * _COLUMNS[accessor["type"]] for accessor in accessors)
    check_count(path, numbers, expects, "numbers", 12 * LIMITS.triangle_count)
    return _byte_colours(tree, data, 20 + json_length)


def _byte_colours(tree: dict, data: bytes, end: int) -> bytes:
    """Rewrite the colours of corners that are 16-bit integers or floats as bytes behind the glb's other values."""
    primitives = [part for mesh in tree.get("meshes", []) for part in mesh.get("primitives", [])]
    wanted = {part.get("attributes", {}).get("COLOR_0") for part in primitives} - {None}
    wanted = [index for index in sorted(wanted) if tree["accessors"][index].get("componentType") in _COLOUR_TYPES]
    if not wanted or data[end + 4 : end + 8] != b"BIN\0":
        return data
    body = data[end + 8 : end + 8 + struct.unpack_from("<I", data, end)[0]]
    for index in wanted:
        accessor = tree["accessors"][index]
        if "bufferView" not in accessor or "sparse" in accessor:
            continue
        view = tree["bufferViews"][accessor["bufferView"]]
        dtype, full = _COLOUR_TYPES[accessor["componentType"]]
        width, count = _COLUMNS[accessor["type"]], int(accessor["count"])
        row = np.dtype(dtype).itemsize * width
        start = int(view.get("byteOffset", 0)) + int(accessor.get("byteOffset", 0))
        stride = int(view.get("byteStride", 0)) or row
        if count < 1 or start < 0 or stride < row or start + stride * (count - 1) + row > len(body):
            raise Damaged("its colours lie beyond its end")
        values = np.ndarray((count, width), dtype, body, start, (stride, np.dtype(dtype).itemsize))
        levels = np.nan_to_num(values.astype(np.float64) / full).clip(0, 1)
        plain = np.zeros((count, 4), np.uint8)
        plain[:, :width] = np.round(levels * 255)
        plain[:, 3] = 255 if width == 3 else plain[:, 3]
        body += b"\0" * (-len(body) % 4)
        tree["bufferViews"].append({"buffer": 0, "byteOffset": len(body), "byteLength": plain.nbytes})
        body += plain.tobytes()
        place = len(tree["bufferViews"]) - 1
        tree["accessors"][index] = {
            "bufferView": place, "componentType": 5121, "count": count, "normalized": True, "type": "VEC4",
        }  # fmt: skip
    tree["buffers"][0]["byteLength"] = len(body)
    return _pack_glb(tree, body)


_COLOUR_TYPES = {5123: ("<u2", 65535), 5126: ("<f4", 1)}
