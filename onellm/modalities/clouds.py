"""Point cloud files: headers are checked, then Open3D (ply, pcd) or NumPy (xyz, npy, npz) reads them."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onellm.limits import LIMITS
from onellm.modalities.arrays import pick, read_arrays
from onellm.modalities.base import Damaged, megabytes, refuse

__all__ = ["PlyHeader", "check_count", "read_numpy", "read_pcd", "read_ply", "read_ply_header", "read_xyz"]

_ADVICE = "the file is cut short or damaged, so save or download it again"
_PLY_BYTES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2,
    "int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8,
}  # fmt: skip
_HEADER_BYTES = 65_536
_UNPACKED = 8  # times the size of a file
_LINE_CHARACTERS = 10_000
_COMMENTS = 1_000  # lines of a text file besides its points

Cloud = tuple[np.ndarray, np.ndarray | None]  # xyz [P, 3] and rgb [P, 3] in 0..1, or None


@dataclass
class PlyHeader:
    """What a ply file says of itself.

    Attributes:
        vertices: number of points.
        faces: number of faces.
        properties: type of each property of a point.
    """

    vertices: int
    faces: int
    properties: dict[str, str]


def check_count(path: Path, count: int, expects: str, what: str = "points", limit: int = LIMITS.point_count) -> None:
    """Refuse a file with no or too many points.

    Args:
        path: the file.
        count: number of points it has or promises.
        expects: what is expected, for the error.
        what: what is counted.
        limit: most there may be.

    Raises:
        FileError: if there are none or more than the limit.
    """
    if count < 1:
        raise refuse(path, f"no {what}", expects, "save or download it again")
    if count > limit:
        raise refuse(path, f"{count:,} {what}", f"at most {limit:,}", "thin it out")


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
        elif words[0] == "property" and elements:
            elements[-1][2][words[-1]] = words[1:-1]
        else:
            raise Damaged(f"unknown header line {line[:40]!r}")
    names = [element[0] for element in elements]
    if len(set(names)) != len(names) or layout not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise Damaged("its ply header is damaged")
    by_name = {name: (count, properties) for name, count, properties in elements}
    vertices, properties = by_name.get("vertex", (0, {}))
    faces = by_name.get("face", (0, {}))[0]
    if any(kind[0] == "list" for kind in properties.values()) or not {"x", "y", "z"} <= set(properties):
        raise Damaged("its points lack x, y, z")
    check_count(path, vertices, expects)
    if faces:
        check_count(path, faces, expects, "faces", LIMITS.triangle_count)
    promised = sum(count * _row_bytes(kinds, layout) for _, count, kinds in elements)
    if layout == "ascii":
        promised, present = sum(e[1] for e in elements), data.count(b"\n", match.end()) + 1
    else:
        present = len(data) - match.end()
    if present < promised:
        unit = "lines" if layout == "ascii" else "bytes"
        raise refuse(path, f"{present:,} of {promised:,} {unit} of data", expects, _ADVICE)
    return PlyHeader(vertices, faces, {name: kind[0] for name, kind in properties.items()})


def _row_bytes(properties: dict[str, list[str]], layout: str) -> int:
    """Return the fewest bytes a row of an element takes."""
    if layout == "ascii":
        return 1
    return sum(_PLY_BYTES[kind[1] if kind[0] == "list" else kind[0]] for kind in properties.values())


def read_ply(path: Path, header: PlyHeader, expects: str) -> Cloud:
    """Read a ply file without faces.

    Args:
        path: the file.
        header: its header, checked.
        expects: what is expected, for the error.

    Returns:
        xyz [P, 3] and rgb [P, 3] in 0..1, or None.

    Raises:
        FileError: if fewer points are found than promised.
    """
    xyz, rgb = _read_open3d(path, "ply", header.vertices, expects)
    if rgb is not None and header.properties.get("red", "uchar") in ("float", "float32", "double", "float64"):
        rgb = rgb * 255  # Open3D divides by 255 whatever the type
        rgb = rgb / 255 if rgb.max() > 1.5 else rgb
    return xyz, rgb


def read_pcd(path: Path, expects: str) -> Cloud:
    """Read a pcd file.

    Args:
        path: the file.
        expects: what is expected, for the error.

    Returns:
        xyz [P, 3] and rgb [P, 3] in 0..1, or None.

    Raises:
        FileError: if there are too many points, or fewer than promised.
    """
    data = path.read_bytes()
    match = re.search(rb"(?:^|\n)DATA (ascii|binary|binary_compressed)[ \r]*\n", data[:_HEADER_BYTES])
    if not match:
        raise Damaged("it has no pcd header")
    lines = data[: match.start()].decode("ascii", "replace").splitlines()
    header = {words[0]: words[1:] for words in map(str.split, lines) if words and words[0] != "#"}
    fields, sizes = header["FIELDS"], [int(size) for size in header["SIZE"]]
    counts = [int(count) for count in header.get("COUNT", ["1"] * len(fields))]
    width, height = int(header["WIDTH"][0]), int(header["HEIGHT"][0])
    points = int(header.get("POINTS", [width * height])[0])
    lengths = {len(fields), len(sizes), len(counts), len(header["TYPE"])}
    valid = all(size in (1, 2, 4, 8) for size in sizes) and all(1 <= count <= 4096 for count in counts)
    if len(lengths) != 1 or not valid or points != width * height or not {"x", "y", "z"} <= set(fields):
        raise Damaged("its pcd header is damaged")
    check_count(path, points, expects)
    body, row = len(data) - match.end(), sum(s * c for s, c in zip(sizes, counts, strict=True))
    promised, unit = points * row, "bytes"
    if match[1] == b"ascii":
        promised, body, unit = points, data.rstrip().count(b"\n", match.end()) + 1, "lines"
    elif match[1] == b"binary_compressed":
        packed, plain = np.frombuffer(data[match.end() : match.end() + 8].ljust(8, b"\0"), "<u4").tolist()
        if plain != points * row:
            raise Damaged("its compressed size is wrong")
        if plain > _UNPACKED * LIMITS.point_bytes:
            found = f"points that take {megabytes(plain)} when unpacked"
            raise refuse(path, found, f"at most {megabytes(_UNPACKED * LIMITS.point_bytes)}", "thin them out")
        promised = packed + 8
    if body < promised:
        raise refuse(path, f"{body:,} of {promised:,} {unit} of data", expects, _ADVICE)
    return _read_open3d(path, "pcd", points, expects)


def _read_open3d(path: Path, layout: str, count: int, expects: str) -> Cloud:
    """Read with Open3D; the header must have been checked, as Open3D trusts it."""
    import open3d

    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.io.read_point_cloud(str(path), format=layout, remove_nan_points=False)
    xyz = np.asarray(cloud.points, np.float32)
    if len(xyz) != count:
        raise refuse(path, f"{len(xyz):,} of {count:,} points", expects, _ADVICE)
    return xyz, np.asarray(cloud.colors, np.float32) if cloud.has_colors() else None


def read_xyz(path: Path, expects: str) -> Cloud:
    """Read a text file with a point a line: x y z, then maybe r g b.

    Args:
        path: the file; spaces, commas, semicolons or tabs split its columns, a line of names is skipped.
        expects: what is expected, for the error.

    Returns:
        xyz [P, 3] and rgb [P, 3] in 0..1, or None.

    Raises:
        FileError: if there are too many points.
    """
    data = path.read_bytes()
    count = max(data.count(b"\n"), data.count(b"\r"))  # before millions of lines become millions of objects
    if count > LIMITS.point_count + _COMMENTS:
        raise refuse(path, f"{count:,} lines", f"at most {LIMITS.point_count:,} points", "thin it out")
    text = data.decode("utf-8-sig")
    for separator in ",;\t":
        text = text.replace(separator, " ")
    # not splitlines(), which also splits at characters that were not counted
    lines = [line for line in io.StringIO(text, newline=None) if line.strip() and line.lstrip()[0] not in "#/"]
    longest = max(map(len, lines), default=0)
    if longest > _LINE_CHARACTERS:
        raise refuse(path, f"a line of {longest:,} characters", "x y z or x y z r g b a line", "save a point a line")
    if lines and not _is_numbers(lines[0]):
        lines = lines[1:]
    if len(lines) > 1 and len(lines[0].split()) == 1 and len(lines[1].split()) >= 3:
        lines = lines[1:]  # some writers put the number of points first
    check_count(path, len(lines), expects)
    if not _is_numbers(lines[0]):
        raise Damaged("its lines are not numbers")
    table = np.loadtxt(lines, dtype=np.float64, ndmin=2)
    if table.shape[1] < 3:
        raise refuse(path, f"{table.shape[1]} columns", "x y z or x y z r g b a line", "save it with all three")
    return split_columns(table)


def _is_numbers(line: str) -> bool:
    try:
        return bool([float(word) for word in line.split()])
    except ValueError:
        return False


def read_numpy(path: Path, expects: str) -> Cloud:
    """Read an npy or npz file: one array [P, 3], [P, 6] (or turned), or xyz and rgb apart.

    Args:
        path: the file.
        expects: what is expected, for the error.

    Returns:
        xyz [P, 3] and rgb [P, 3] in 0..1, or None.

    Raises:
        FileError: if the arrays have other shapes, or there are too many points.
    """
    arrays = read_arrays(path, LIMITS.point_count * 9 * 8, expects)
    array = pick(arrays, "", "points", "xyz", "pc", "point", "pcd", "vertices", "coords", "data", "arr_0")
    if array is None and len(arrays) == 1:
        array = next(iter(arrays.values()))
    if array is None:
        found = f"arrays called {', '.join(arrays)[:100]}"
        raise refuse(path, found, "xyz [P, 3] and rgb [P, 3], or points [P, 6]", "rename them")
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2 and array.shape[1] not in range(3, 10) and array.shape[0] in (3, 6):
        array = array.T
    if array.ndim != 2 or array.shape[1] not in range(3, 10):
        found = f"an array of shape {list(array.shape)}"
        raise refuse(path, found, "[P, 3] or [P, 6]: x, y, z, r, g, b", "save it in this order")
    check_count(path, len(array), expects)
    colours = pick(arrays, "rgb", "colors", "colours", "color", "colour")
    if colours is not None and colours.shape in ((len(array), 3), (len(array), 4)):
        return array[:, :3].astype(np.float32), _scale_colours(colours[:, :3].astype(np.float32))
    return split_columns(array)


def split_columns(table: np.ndarray) -> Cloud:
    """Split rows into coordinates and, where columns 4 to 6 can be colours, colours.

    Args:
        table: [P, 3 or more] numbers.

    Returns:
        xyz [P, 3] float32 and rgb [P, 3] float32 in 0..1, or None.
    """
    rgb = table[:, 3:6].astype(np.float32) if table.shape[1] >= 6 else None
    return table[:, :3].astype(np.float32), None if rgb is None else _scale_colours(rgb)


def _scale_colours(rgb: np.ndarray) -> np.ndarray | None:
    """Bring colours to 0..1; None if the values, such as normals or intensities, cannot be colours."""
    finite = rgb[np.isfinite(rgb)]
    if not finite.size or finite.min() < 0 or finite.max() > 65535:
        return None
    top = 1.0 if finite.max() <= 1 else 255.0 if finite.max() <= 255 else 65535.0
    return np.nan_to_num(rgb / np.float32(top), nan=0.5)
