"""Point clouds of the ply format, read with NumPy; its meshes are read elsewhere, after a look at their header."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onellm.modalities.base import Damaged, refuse
from onellm.modalities.readers.clouds import ADVICE, SH_0, Cloud, check_count, column_role, scale_colours
from onellm.utils.limits import LIMITS

__all__ = ["PlyHeader", "colour_names", "read_ply", "read_ply_header"]

_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "int8": "i1", "uint8": "u1", "short": "i2", "ushort": "u2", "int16": "i2",
    "uint16": "u2", "int": "i4", "uint": "u4", "int32": "i4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_SPLAT = ("f_dc_0", "f_dc_1", "f_dc_2")
_HEADER_BYTES = 65_536


@dataclass
class PlyHeader:
    """What a ply file says of itself.

    Attributes:
        vertices: number of points.
        faces: number of faces.
        properties: type of each property of a point.
        layout: "ascii", "binary_little_endian" or "binary_big_endian".
        start: where its data start, in bytes.
        before: what lies there before the points: lines if ascii, else bytes; None if that cannot be known.
    """

    vertices: int
    faces: int
    properties: dict[str, str]
    layout: str
    start: int
    before: int | None


def read_ply_header(path: Path, expects: str) -> PlyHeader:
    """Read a ply file's header and check that the file is long enough for what it promises.

    Args:
        path: the file.
        expects: what is expected, for the error.

    Returns:
        The header.

    Raises:
        FileError: if there are too many points or the file is too short.
    """
    with open(path, "rb") as file:
        data = file.read()
    match = re.match(rb"ply\r?\n(.*?)\nend_header\r?\n", data[:_HEADER_BYTES], re.DOTALL)
    if not match:
        raise Damaged("it has no ply header")
    layout, elements = "", []
    for line in match[1].decode("ascii", "replace").splitlines():
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format":
            layout = words[1]
        elif words[0] == "element" and words[2].isdigit():
            elements.append((words[1], int(words[2]), {}))
        elif words[0] == "property" and elements and words[-1] not in elements[-1][2]:
            elements[-1][2][words[-1]] = words[1:-1]
        else:
            raise Damaged(f"unknown header line {line[:40]!r}")
    names = [element[0] for element in elements]
    if len(set(names)) != len(names) or layout not in _PLY_ORDERS:
        raise Damaged("its ply header is damaged")
    by_name = {name: (count, properties) for name, count, properties in elements}
    vertices, properties = by_name.get("vertex", (0, {}))
    faces = by_name.get("face", (0, {}))[0]
    if any(kind[0] == "list" for kind in properties.values()) or not {"x", "y", "z"} <= set(properties):
        raise Damaged("its points lack x, y, z")
    check_count(path, vertices, expects)
    if faces:
        check_count(path, faces, expects, "faces", LIMITS.triangle_count)
    sizes = [count * _row_size(kinds, layout) for _, count, kinds in elements]
    promised, present = sum(sizes), len(data) - match.end()
    if layout == "ascii":
        present = data.count(b"\n", match.end()) + 1
    if present < promised:
        unit = "lines" if layout == "ascii" else "bytes"
        raise refuse(path, f"{present:,} of {promised:,} {unit} of data", expects, ADVICE)
    first = names.index("vertex")
    lists = any(kind[0] == "list" for _, _, kinds in elements[:first] for kind in kinds.values())
    before = None if lists and layout != "ascii" else sum(sizes[:first])
    kinds = {name: kind[0] for name, kind in properties.items()}
    return PlyHeader(vertices, faces, kinds, layout, match.end(), before)


def _row_size(properties: dict[str, list[str]], layout: str) -> int:
    """Return the fewest bytes a row of an element takes, or 1 if it is a line of text."""
    if layout == "ascii":
        return 1
    kinds = [kind[1] if kind[0] == "list" else kind[0] for kind in properties.values()]
    return sum(int(_PLY_TYPES[kind][1]) for kind in kinds)


def read_ply(path: Path, header: PlyHeader, expects: str) -> Cloud:
    """Read a ply file's points.

    Args:
        path: the file.
        header: its header, checked.
        expects: what is expected, for the error.

    Returns:
        The points.

    Raises:
        FileError: if fewer points are found than promised.
    """
    names = list(header.properties)
    if header.before is None:
        raise Damaged("its points come after lists")
    with open(path, "rb") as file:
        file.seek(header.start)
        if header.layout == "ascii":
            lines = itertools.islice(file, header.before, header.before + header.vertices)
            table = np.loadtxt(lines, np.float64, comments=None, usecols=range(len(names)), ndmin=2)
            columns = dict(zip(names, table.T, strict=True))
        else:
            file.seek(header.before, os.SEEK_CUR)
            order = _PLY_ORDERS[header.layout]
            row = np.dtype([(name, order + _PLY_TYPES[kind]) for name, kind in header.properties.items()])
            columns = np.frombuffer(file.read(header.vertices * row.itemsize), row)
    if len(columns["x"]) != header.vertices:
        raise refuse(path, f"{len(columns['x']):,} of {header.vertices:,} points", expects, ADVICE)
    xyz = np.stack([np.asarray(columns[axis], np.float64) for axis in "xyz"], axis=1)
    return Cloud(xyz, *_colours(columns, header.properties))


def colour_names(properties: dict[str, str]) -> tuple[str, ...]:
    """Return the names of the three properties that are colours, such as diffuse_red; none if there are none."""
    found: dict[str, str] = {}
    for name in ("red", "green", "blue", *properties):  # the usual names win
        role = column_role(name) if name in properties else None
        if role in ("r", "g", "b"):
            found.setdefault(role, name)
    return tuple(found[role] for role in "rgb") if len(found) == 3 else ()


def _colours(columns: Any, properties: dict[str, str]) -> tuple[np.ndarray | None, list[str]]:
    """Return colours [P, 3] float32 in 0..1 or None, and notes."""
    names = colour_names(properties)
    if names:
        rgb = np.stack([np.asarray(columns[name], np.float32) for name in names], axis=1)
        full = {"u1": 255, "u2": 65535}.get(_PLY_TYPES[properties[names[0]]])
        return (rgb / full if full else scale_colours(rgb)), []
    if {*_SPLAT} <= {*properties}:
        waves = np.stack([np.asarray(columns[name], np.float32) for name in _SPLAT], axis=1)
        note = "a Gaussian splat: its points are the splats' middles, their colours those of no direction"
        return (0.5 + np.float32(SH_0) * waves).clip(0, 1), [note]
    return None, []
