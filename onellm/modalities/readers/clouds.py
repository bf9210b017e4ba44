"""Point cloud files but ply: headers are checked, then Open3D (pcd) or NumPy (xyz, npy, npz) reads them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from onellm.modalities.base import Damaged, megabytes, refuse
from onellm.modalities.readers.arrays import pick, read_arrays
from onellm.modalities.readers.tables import split_marks
from onellm.utils.limits import LIMITS

__all__ = ["ADVICE", "Cloud", "check_count", "read_numpy", "read_pcd", "read_xyz", "scale_colours", "split_columns"]

ADVICE = "the file is cut short or damaged, so save or download it again"
_HEADER_BYTES = 65_536
_PCD_TYPES = {(kind, size) for kind in "IU" for size in (1, 2, 4, 8)} | {("F", 4), ("F", 8)}
_UNPACKED = 8  # times the size of a file
_LINE_CHARACTERS = 10_000
_COMMENTS = 1_000  # lines of a text file besides its points

Cloud = tuple[np.ndarray, np.ndarray | None]  # xyz [P, 3] and rgb [P, 3] in 0..1, or None


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
        many = f"{count:,}" if count < 1e15 else "countless"  # where a header has a number of hundreds of digits
        raise refuse(path, f"{many} {what}", f"at most {limit:,}", "thin it out")


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
    known = set(zip(header["TYPE"], sizes, strict=False)) <= _PCD_TYPES
    valid = known and all(1 <= count <= 4096 for count in counts)
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
        raise refuse(path, f"{body:,} of {promised:,} {unit} of data", expects, ADVICE)
    if match[1] == b"ascii":
        return _read_pcd_text(data[match.end() :], points, fields, header["TYPE"], counts)
    import open3d

    # the header has been checked, as Open3D trusts it
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.io.read_point_cloud(str(path), format="pcd", remove_nan_points=False)
    xyz = np.asarray(cloud.points, np.float32)
    if len(xyz) != points:
        raise refuse(path, f"{len(xyz):,} of {points:,} points", expects, ADVICE)
    return xyz, np.asarray(cloud.colors, np.float32) if cloud.has_colors() else None


def _read_pcd_text(body: bytes, points: int, fields: list[str], types: list[str], counts: list[int]) -> Cloud:
    """Read a pcd file's lines; Open3D makes points of memory that it never wrote where a line is too short."""
    used = range(sum(counts))
    table = np.loadtxt(io.BytesIO(body), np.float64, comments=None, usecols=used, max_rows=points, ndmin=2)
    if len(table) < points:
        raise Damaged(f"{len(table):,} of {points:,} points")
    starts = dict(zip(fields, np.cumsum([0, *counts]), strict=False))
    xyz = table[:, [starts[axis] for axis in "xyz"]].astype(np.float32)
    field = next((field for field in ("rgb", "rgba") if field in fields), None)
    if field is None:
        return xyz, None
    packed = table[:, starts[field]]  # blue in the lowest byte of an integer, or of a float that has its bits
    bits = packed.astype(np.float32).view(np.uint32) if types[fields.index(field)] == "F" else packed.astype(np.int64)
    return xyz, np.stack([bits >> shift & 255 for shift in (16, 8, 0)], axis=1).astype(np.float32) / 255


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
    if len(data) > (count + 1) * _LINE_CHARACTERS:
        raise refuse(path, f"{megabytes(len(data))} in {count + 1:,} lines", expects, "save a point a line")
    text, _ = split_marks(data.decode("utf-8-sig"))
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
        return array[:, :3].astype(np.float32), scale_colours(colours[:, :3].astype(np.float32))
    return split_columns(array)


def split_columns(table: np.ndarray) -> Cloud:
    """Split rows into coordinates and, where columns 4 to 6 can be colours, colours.

    Args:
        table: [P, 3 or more] numbers.

    Returns:
        xyz [P, 3] float32 and rgb [P, 3] float32 in 0..1, or None.
    """
    rgb = table[:, 3:6].astype(np.float32) if table.shape[1] >= 6 else None
    return table[:, :3].astype(np.float32), None if rgb is None else scale_colours(rgb)


def scale_colours(rgb: np.ndarray) -> np.ndarray | None:
    """Bring colours to 0..1.

    Args:
        rgb: [P, 3] float32 in 0..1, 0..255 or 0..65535.

    Returns:
        [P, 3] float32, or None if the values, such as normals or intensities, cannot be colours.
    """
    finite = rgb[np.isfinite(rgb)]
    if not finite.size or finite.min() < 0 or finite.max() > 65535:
        return None
    top = 1.0 if finite.max() <= 1 else 255.0 if finite.max() <= 255 else 65535.0
    return np.nan_to_num(rgb / np.float32(top), nan=0.5)
