"""Meshes: read with trimesh after a look at the header, and turned into points over their surface."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from onellm.modalities.base import Damaged, refuse
from onellm.modalities.readers.clouds import ADVICE, Cloud, check_count
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
        layout: "ply", "obj", "off", "stl" or "glb".
        count: number of points to sample.
        expects: what is expected, for the error.

    Returns:
        xyz [P, 3] and rgb [P, 3] in 0..1, or None; and the number of triangles, 0 for mere points.

    Raises:
        FileError: if the mesh is broken, too large or refers to other places.
    """
    import trimesh

    if layout in _CHECKS:
        _CHECKS[layout](path, expects)
    with open(path, "rb") as file:
        scene = trimesh.load_scene(
            file, file_type=layout, resolver=_same_folder(path) if layout == "obj" else None, process=False
        )
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
            pieces.append((_triangles(path, vertices, np.asarray(geometry.faces)), geometry))
            check_count(path, sum(len(t) for t, _ in pieces), expects, "triangles", LIMITS.triangle_count)
        else:
            colours = getattr(geometry, "colors", None)
            coloured = colours is not None and len(colours) == len(vertices)
            points.append((vertices, np.asarray(colours)[:, :3] / 255 if coloured else None))
            check_count(path, sum(len(xyz) for xyz, _ in points), expects)
    if pieces:
        return _sample(path, pieces, count, expects), sum(len(triangles) for triangles, _ in pieces)
    if not points:
        raise refuse(path, "no triangles and no points", expects, "save or download it again")
    coloured = all(rgb is not None for _, rgb in points)
    xyz = np.concatenate([xyz for xyz, _ in points]).astype(np.float32)
    return (xyz, np.concatenate([rgb for _, rgb in points]).astype(np.float32) if coloured else None), 0


def _triangles(path: Path, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return corners [F, 3, 3]; a face with a corner that does not exist is an error."""
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise Damaged("a face refers to a missing point")
    return vertices[faces]


def _sample(path: Path, pieces: list[tuple[np.ndarray, Any]], count: int, expects: str) -> Cloud:
    """Sample all pieces together, each triangle by its area."""
    rng = np.random.default_rng(0)
    areas = []
    for triangles, _ in pieces:
        area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
        areas.append(np.where(np.isfinite(area) & (area < 1e30), area, 0))
    total = sum(float(area.sum()) for area in areas)
    if not total > 0:
        raise refuse(path, "a mesh without surface", expects, "save or download it again")
    shares = np.array([float(area.sum()) / total for area in areas])
    all_xyz, all_rgb, coloured = [], [], False
    for (triangles, geometry), area, number in zip(pieces, areas, rng.multinomial(count, shares), strict=True):
        if not number:
            continue
        chosen = rng.choice(len(area), number, p=area / area.sum())
        u, v = rng.random((2, number, 1))
        root = np.sqrt(u)
        weights = np.concatenate([1 - root, root * (1 - v), root * v], axis=1)  # uniform in the triangle
        all_xyz.append(np.einsum("pc,pcx->px", weights, triangles[chosen]))
        rgb = _colours(path, geometry, chosen, weights, expects)
        coloured |= rgb is not None
        all_rgb.append(np.full((number, 3), 0.5) if rgb is None else rgb)
    rgb = np.concatenate(all_rgb).astype(np.float32).clip(0, 1) if coloured else None
    return np.concatenate(all_xyz).astype(np.float32), rgb


def _colours(path: Path, mesh: Any, chosen: np.ndarray, weights: np.ndarray, expects: str) -> np.ndarray | None:
    """Return the colours [P, 3] of points in the chosen triangles, or None if the mesh has none."""
    visual = mesh.visual
    faces = np.asarray(mesh.faces)[chosen]
    if visual.kind == "vertex":
        return np.einsum("pc,pcx->px", weights, np.asarray(visual.vertex_colors)[faces][..., :3] / 255.0)
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[chosen, :3] / 255.0
    material = getattr(visual, "material", None)
    if visual.kind != "texture" or material is None:
        return None
    texture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    factor = getattr(material, "baseColorFactor", None)
    if texture is None or visual.uv is None or len(visual.uv) != len(mesh.vertices):
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


def _check_off(path: Path, expects: str) -> None:
    data = path.read_bytes().decode("ascii").encode()
    check_count(path, data.count(b"\n"), expects, "lines", LIMITS.point_count + LIMITS.triangle_count + _COMMENTS)
    lines = re.finditer(rb"^[ \t]*([^#\s][^#\r\n]*)", data, re.MULTILINE)  # one at a time: there may be millions
    head = next(lines)[1].split() if data.strip() else []
    if not head or not re.fullmatch(rb"(ST)?C?N?OFF", head[0]):
        raise Damaged("it has no OFF header")
    counts = head[1:] or next(lines)[1].split()
    vertices, faces = int(counts[0]), int(counts[1])
    check_count(path, vertices, expects)
    check_count(path, faces, expects, "faces", LIMITS.triangle_count)
    present = sum(1 for _ in lines)
    if present < vertices + faces:
        raise refuse(path, f"{present:,} of {vertices + faces:,} lines of data", expects, ADVICE)


def _check_obj(path: Path, expects: str) -> None:
    data = path.read_bytes()
    if b"\0" in data:
        raise Damaged("it is not text")
    check_count(path, len(re.findall(rb"(?m)^[ \t]*v[ \t]", data)), expects)
    faces = len(re.findall(rb"(?m)^[ \t]*f[ \t]", data))
    if not faces:
        raise refuse(path, "points without faces", expects, "save a cloud as ply or xyz")
    check_count(path, faces, expects, "faces", LIMITS.triangle_count)


def _check_glb(path: Path, expects: str) -> None:
    data = path.read_bytes()
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


_CHECKS = {"stl": _check_stl, "off": _check_off, "obj": _check_obj, "glb": _check_glb}
