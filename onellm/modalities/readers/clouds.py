"""Point clouds: pcd, text, NumPy and KITTI files; what a header promises is checked before anything is read.

Coordinates stay in double precision here; `Point` centres them before they become float32.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onellm.modalities.base import Damaged, megabytes, refuse
from onellm.modalities.readers.arrays import pick, read_arrays
from onellm.modalities.readers.tables import Table, decode_text, parse_number, parse_table
from onellm.utils.limits import LIMITS

__all__ = [
    "ADVICE", "Cloud", "are_normals", "check_count", "colour_triples", "column_role", "kitti_width", "read_kitti",
    "read_las", "read_numpy", "read_pcd", "read_text", "scale_colours", "split_columns",
]  # fmt: skip

ADVICE = "the file is cut short or damaged, so save or download it again"
_HEADER_BYTES = 65_536
_PCD_TYPES = {(kind, size) for kind in "IU" for size in (1, 2, 4, 8)} | {("F", 4), ("F", 8)}
_UNPACKED = 8  # times the size of a file
_LINE_CHARACTERS = 10_000
_COMMENTS = 1_000  # lines of a text file besides its points
_COLUMNS = "x y z or x y z r g b a line"
SH_0 = 0.28209479177387814  # the constant spherical harmonic, sqrt(1 / 4 pi), that a Gaussian splat's colour is times

# What writers call coordinates and colours, once words such as "diffuse", "scalar" or "vertex" are taken away.
_ROLES = {
    "x": "x", "px": "x", "easting": "x", "east": "x", "y": "y", "py": "y", "northing": "y", "north": "y",
    "z": "z", "pz": "z", "elevation": "z", "height": "z", "altitude": "z",
    "r": "r", "red": "r", "rf": "r", "g": "g", "green": "g", "gf": "g", "b": "b", "blue": "b", "bf": "b",
    "nx": "nx", "ny": "ny", "nz": "nz", "i": "intensity", "intensity": "intensity", "reflectance": "intensity",
}  # fmt: skip
_FILLERS = {
    "diffuse", "color", "colour", "colors", "colours", "vertex", "scalar", "point", "points", "pos", "position",
    "coord", "coordinate", "coordinates", "coords", "rgb", "field", "m", "mm", "cm",
}  # fmt: skip


@dataclass
class Cloud:
    """Points as a file has them.

    Attributes:
        xyz: [P, 3] float64 (or float32 where the file has no more).
        rgb: [P, 3] float32 in 0..1, or None.
        notes: what the person should know about how they were read.
        missing: whether points that are no numbers are usual in it, as where a depth camera saw nothing.
    """

    xyz: np.ndarray
    rgb: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    missing: bool = False


def column_role(title: str) -> str | None:
    """Tell a column or property by its name.

    Args:
        title: such as "diffuse_red", "X [m]" or "Points:0".

    Returns:
        "x", "y", "z", "r", "g", "b", "nx", "ny", "nz", "intensity" or None.
    """
    text = re.sub(r"[\[(].*?[\])]", " ", title[:100]).strip().lower()
    words = [word for word in re.split(r"[^a-z0-9]+", text) if word]
    if len(words) == 2 and words[0] in ("points", "point", "position") and words[1] in "012":
        return "xyz"[int(words[1])]
    if len(words) == 2 and words[0] in ("normal", "normals", "n") and words[1] in "xyz":
        return "n" + words[1]
    kept = [word for word in words if word not in _FILLERS] or words
    return _ROLES.get(kept[0]) if len(kept) == 1 else None


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
    row = sum(s * c for s, c in zip(sizes, counts, strict=True))
    body, promised, unit = len(data) - match.end(), points * row, "bytes"
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
        columns = _pcd_text(data[match.end() :], points, fields, counts)
    else:
        kinds = [f"<{'f' if t == 'F' else t.lower()}{s}" for t, s in zip(header["TYPE"], sizes, strict=True)]
        if match[1] == b"binary":
            columns = _pcd_rows(data[match.end() :], points, fields, kinds, counts)
        else:
            plain = unpack_lzf(data[match.end() + 8 : match.end() + promised], points * row)
            columns = _pcd_columns(plain, points, fields, kinds, counts)
    xyz = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
    types = dict(zip(fields, zip(header["TYPE"], sizes, strict=True), strict=False))
    return Cloud(xyz, _pcd_colours(columns, types), missing=height > 1)


def _pcd_text(body: bytes, points: int, fields: list[str], counts: list[int]) -> dict[str, np.ndarray]:
    """Return the first value of each field of a pcd file's lines, [P] float64 each."""
    used = range(sum(counts))
    table = np.loadtxt(io.BytesIO(body), np.float64, comments=None, usecols=used, max_rows=points, ndmin=2)
    if len(table) < points:
        raise Damaged(f"{len(table):,} of {points:,} points")
    starts = dict(zip(fields, np.cumsum([0, *counts]).tolist(), strict=False))
    return {name: table[:, start] for name, start in starts.items()}


def _pcd_rows(
    body: bytes, points: int, fields: list[str], kinds: list[str], counts: list[int]
) -> dict[str, np.ndarray]:
    """Return the first value of each field of a binary pcd file, [P] each."""
    names = [str(number) for number in range(len(fields))]  # a field may be there twice, as padding
    row = np.dtype([(name, kind, (count,)) for name, kind, count in zip(names, kinds, counts, strict=True)])
    table = np.frombuffer(body, row, points)
    return {field_name: table[name][:, 0] for name, field_name in reversed(list(zip(names, fields, strict=True)))}


def _pcd_columns(
    body: bytes, points: int, fields: list[str], kinds: list[str], counts: list[int]
) -> dict[str, np.ndarray]:
    """Return the same of a compressed pcd file, whose fields follow one another."""
    columns, start = {}, 0
    for name, kind, count in zip(fields, kinds, counts, strict=True):
        values = np.frombuffer(body, kind, points * count, start)
        columns.setdefault(name, values.reshape(points, count)[:, 0])
        start += values.nbytes
    return columns


def _pcd_colours(columns: dict[str, np.ndarray], types: dict[str, tuple[str, int]]) -> np.ndarray | None:
    """Return [P, 3] float32 in 0..1 from a packed field or from three, or None."""
    name = next((name for name in ("rgb", "rgba") if types.get(name, ("", 0))[1] == 4), None)
    if name is not None:  # blue in the lowest byte of an integer, or of a float that has its bits
        packed = columns[name]
        if types[name][0] == "F":
            bits = packed.astype(np.float32).view(np.uint32)
        else:
            bits = packed.astype(np.int64)
        return np.stack([bits >> shift & 255 for shift in (16, 8, 0)], axis=1).astype(np.float32) / 255
    roles = {column_role(name): name for name in columns}
    if not {"r", "g", "b"} <= set(roles):
        return None
    rgb = np.stack([columns[roles[role]] for role in "rgb"], axis=1).astype(np.float32)
    return rgb / 255 if types[roles["r"]] == ("U", 1) else scale_colours(rgb)


def unpack_lzf(data: bytes, length: int) -> bytes:
    """Unpack what LZF packed (liblzf by M. Lehmann, which PCL uses).

    Args:
        data: the packed bytes.
        length: how many there are unpacked.

    Returns:
        As many bytes.

    Raises:
        Damaged: they are not what LZF writes.
    """
    out, place, end = bytearray(), 0, len(data)
    while place < end and len(out) < length:
        control = data[place]
        place += 1
        if control < 32:  # that many and one bytes as they are
            out += data[place : place + control + 1]
            place += control + 1
            continue
        count = control >> 5
        if count == 7:
            count += data[place] if place < end else 0
            place += 1
        if place >= end:
            break
        back = len(out) - ((control & 31) << 8) - data[place] - 1
        place += 1
        if back < 0:
            raise Damaged("its compressed points refer to what is not there")
        count += 2
        part = out[back : back + count]
        out += part if len(part) == count else (part * (count // len(part) + 1))[:count]
    if len(out) != length:
        raise Damaged("its compressed points are cut short")
    return bytes(out)


def read_text(path: Path, expects: str) -> Cloud:
    """Read a text file with a point a line (xyz, txt, csv, pts, asc), or a structured scan (ptx).

    Names of columns say what they are; without names, there are x, y, z first, and colours and normals are told by
    their values.

    Args:
        path: the file; spaces, commas, semicolons or tabs split its columns.
        expects: what is expected, for the error.

    Returns:
        The points.

    Raises:
        FileError: if there are too many points.
    """
    data = path.read_bytes()
    count = max(data.count(b"\n"), data.count(b"\r"))  # before millions of lines become millions of objects
    if count > LIMITS.point_count + _COMMENTS:
        raise refuse(path, f"{count:,} lines", f"at most {LIMITS.point_count:,} points", "thin it out")
    if len(data) > (count + 1) * _LINE_CHARACTERS:
        raise refuse(path, f"{megabytes(len(data))} in {count + 1:,} lines", expects, "save a point a line")
    text = decode_text(data)
    longest = max(map(len, text.split("\n")), default=0)
    if longest > 2 * _LINE_CHARACTERS:
        raise refuse(path, f"a line of {longest:,} characters", _COLUMNS, "save a point a line")
    if [len(line.split()) for line in text[:2000].split("\n")[:10]] == _PTX:
        return _read_ptx(path, text, expects)
    table = parse_table(text)
    if table is None:
        raise Damaged("its lines are not numbers")
    check_count(path, len(table.rows), expects)
    if table.width < 3:
        raise refuse(path, f"{table.width} columns", _COLUMNS, "save it with all three")
    roles: dict[str, int] = {}
    for column, title in enumerate(table.header or ()):
        if role := column_role(title):
            roles.setdefault(role, column)
    if {"x", "y", "z"} <= set(roles):
        wanted = [roles[name] for name in ("x", "y", "z", "r", "g", "b") if name in roles]
        numbers = table.numbers(wanted)
        rgb = None
        if {"r", "g", "b"} <= set(roles):
            rgb = scale_colours(numbers[:, 3:6].astype(np.float32))
        return Cloud(numbers[:, :3], rgb, table.notes)
    counted = any(re.fullmatch(r"\s*\d+\s*", line) for line in table.preamble[-1:])
    first = 4 if path.suffix.lower() == ".pts" or counted else 3  # where pts has colours: behind an intensity
    cloud = split_columns(table.numbers(_numeric_columns(table)), first)
    names = ", ".join(table.header or ())
    if names:
        table.notes.append(f"the columns {names[:80]} are not x, y, z by name: the first three were taken")
    return Cloud(cloud.xyz, cloud.rgb, table.notes + cloud.notes)


def _numeric_columns(table: Table) -> list[int]:
    """List the columns of a table whose first rows are numbers; the first three must be."""
    probe = [table.cells(line) for line in table.rows[:20]]
    numeric = [
        column
        for column in range(table.width)
        if all(parse_number(cells[column]) is not None for cells in probe if len(cells) == table.width)
    ]
    if numeric[:3] != [0, 1, 2]:
        raise Damaged("its first three columns are not numbers")
    return numeric


_PTX = [1, 1, 3, 3, 3, 3, 4, 4, 4, 4]  # words a line of its header


def _read_ptx(path: Path, text: str, expects: str) -> Cloud:
    """Read structured scans: ten lines of a header with a 4 x 4 matrix, then a line a point, 0 0 0 where it is none."""
    lines = [line for line in text.splitlines() if line.strip()]
    parts, colours, start = [], [], 0
    while start < len(lines):
        count = int(lines[start]) * int(lines[start + 1])
        check_count(path, sum(map(len, parts)) + count, expects)
        matrix = np.loadtxt(lines[start + 6 : start + 10], np.float64, ndmin=2)
        rows = lines[start + 10 : start + 10 + count]
        if len(rows) < count:
            raise refuse(path, f"{len(rows):,} of {count:,} points", expects, ADVICE)
        table = np.loadtxt(rows, np.float64, ndmin=2)
        table = table[(table[:, :3] != 0).any(axis=1)]
        parts.append(table[:, :3] @ matrix[:3, :3] + matrix[3, :3])
        colours.append(table[:, 4:7] / 255 if table.shape[1] >= 7 else None)
        start += 10 + count
    rgb = None if any(part is None for part in colours) else np.concatenate(colours).astype(np.float32)
    xyz = np.concatenate(parts)
    check_count(path, len(xyz), expects)
    return Cloud(xyz, rgb)


def read_las(path: Path, expects: str) -> Cloud:
    """Read a las or laz file with laspy: scaled and moved in double precision; colours of 16 bits, or 8 in their place.

    Raises:
        FileError: if there are too many points, or fewer than promised.
    """
    import laspy

    with laspy.open(path, laz_backend=laspy.LazBackend.Lazrs) as reader:  # without threads
        header = reader.header
        check_count(path, header.point_count, expects)
        row = header.point_format.size
        if not header.are_points_compressed and path.stat().st_size - header.offset_to_point_data < (
            header.point_count * row
        ):
            raise refuse(path, f"fewer than the {header.point_count:,} points it promises", expects, ADVICE)
        points = reader.read_points(header.point_count)
    if len(points) != header.point_count:
        raise refuse(path, f"{len(points):,} of {header.point_count:,} points", expects, ADVICE)
    xyz = np.stack([np.asarray(points[axis], np.float64) for axis in "xyz"], axis=1)
    names = set(header.point_format.dimension_names)
    if not {"red", "green", "blue"} <= names:
        return Cloud(xyz)
    rgb = np.stack([np.asarray(points[name]) for name in ("red", "green", "blue")], axis=1).astype(np.float32)
    if not rgb.any():
        return Cloud(xyz, None, ["the file has room for colours, but all are 0"])
    eight = rgb.max() <= 255
    notes = ["its colours have 8 bits where the format has 16: they were read so"] if eight else []
    return Cloud(xyz, rgb / np.float32(255 if eight else 65535), notes)


def read_kitti(path: Path, expects: str) -> Cloud:
    """Read a laser scan without a header: x, y, z, intensity float32 a point (KITTI), or one more (nuScenes).

    Raises:
        FileError: the numbers are none of a scan.
    """
    width = kitti_width(path)
    if width is None:
        raise Damaged("its numbers are none of a laser scan")
    table = np.fromfile(path, "<f4").reshape(-1, width)
    check_count(path, len(table), expects)
    return Cloud(table[:, :3], None, [f"taken for a laser scan of {width} numbers a point: x, y, z, intensity"])


def kitti_width(path: Path) -> int | None:
    """Tell how many float32 numbers a point has in a laser scan without a header, by its first ones; None if none."""
    values = np.fromfile(path, "<f4", 20_000)
    for width in (4, 5):
        if not len(values) or path.stat().st_size % (4 * width):
            continue
        table = values[: len(values) // width * width].reshape(-1, width)
        if not np.isfinite(table).all() or np.abs(table[:, :3]).max() >= 1000:
            continue
        if 0 <= table[:, 3].min() and table[:, 3].max() <= 255 and (np.abs(table[:, :3]) > 0.01).mean() > 0.5:
            return width
    return None


def read_numpy(path: Path, expects: str) -> Cloud:
    """Read an npy or npz file: one array [P, 3], [P, 6] (or turned), or xyz and rgb apart.

    Args:
        path: the file.
        expects: what is expected, for the error.

    Returns:
        The points.

    Raises:
        FileError: if the arrays have other shapes, or there are too many points.
    """
    arrays = read_arrays(path, LIMITS.point_count * 9 * 8, expects)
    array = pick(arrays, *POINT_NAMES)
    if array is None:
        array = by_shape(arrays)
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
    colours = pick(arrays, *COLOUR_NAMES)
    if colours is not None and colours.ndim == 2 and colours.shape[0] in (3, 4) and colours.shape[1] == len(array):
        colours = colours.T
    if colours is not None and colours.shape in ((len(array), 3), (len(array), 4)):
        rgb = colours[:, :3].astype(np.float32)
        full = {"u1": 255, "u2": 65535}.get(colours.dtype.str[1:])
        return Cloud(array[:, :3].astype(np.float64), rgb / np.float32(full) if full else scale_colours(rgb))
    return split_columns(array)


POINT_NAMES = (
    "", "points", "xyz", "pc", "point", "pcd", "pos", "position", "positions", "coord", "coords", "coordinates",
    "vertices", "verts", "cloud", "point_cloud", "pointcloud", "data", "arr_0",
)  # fmt: skip
COLOUR_NAMES = ("rgb", "rgbs", "colors", "colours", "color", "colour", "point_colors", "vertex_colors", "rgba")
_OTHER_NAMES = re.compile(r"norm|rgb|colou?r|face|label|feat|index|idx|seg|quat|rot|scale", re.IGNORECASE)


def by_shape(arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return the only array, or the only one with three to nine columns whose name is not of something else."""
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    fitting = [
        array
        for name, array in arrays.items()
        if array.ndim == 2 and array.shape[1] in range(3, 10) and not _OTHER_NAMES.search(name)
    ]
    return fitting[0] if len(fitting) == 1 else None


def split_columns(table: np.ndarray, first: int = 3) -> Cloud:
    """Split rows without names into coordinates and, where there are such, colours.

    Args:
        table: [P, 3 or more] numbers: x, y, z, and whatever follows.
        first: the column at which colours start if they could at several.

    Returns:
        The points. Unit vectors are normals, not colours; whole numbers of 0 to 255 after them, or after an
        intensity, are colours.
    """
    xyz, notes = table[:, :3].astype(np.float64), []
    width = table.shape[1]
    normals = [start for start in (3, 6) if width >= start + 3 and are_normals(table[:, start : start + 3])]
    if normals:
        notes.append(f"columns {normals[0] + 1} to {normals[0] + 3} are vectors of length 1: normals, not colours")
    starts = [start for start in colour_triples(table) if start not in normals]
    start = first if first in starts else next(iter(starts), None)
    if start is None:
        if width == 4:
            notes.append("the fourth column is no colour, but an intensity or a label: it was left out")
        return Cloud(xyz, None, notes)
    if start != 3 or width > 6:
        notes.append(f"columns {start + 1} to {start + 3} were taken for colours")
    return Cloud(xyz, scale_colours(table[:, start : start + 3].astype(np.float32)), notes)


def are_normals(vectors: np.ndarray) -> bool:
    """Tell whether nearly all vectors [P, 3] have length 1, and not just as pure red, green and blue have."""
    lengths = np.linalg.norm(vectors[:: max(1, len(vectors) // 20_000)].astype(np.float64), axis=1)
    return bool((np.abs(lengths - 1) < 0.02).mean() > 0.9)


def colour_triples(table: np.ndarray) -> list[int]:
    """List the columns of rows [P, width] at which colours may start, the likeliest first."""
    width = table.shape[1]
    few = np.asarray(table[:: max(1, len(table) // 20_000)], np.float64)
    few = few[np.isfinite(few).all(axis=1)]
    if not len(few):
        return []
    whole = [
        start
        for start in (3, 4, 6)
        if width >= start + 3
        and 0 <= few[:, start : start + 3].min()
        and 1 < few[:, start : start + 3].max() <= 65535
        and (few[:, start : start + 3] == np.round(few[:, start : start + 3])).all()
    ]
    parts = [
        start
        for start in (3, 6)
        if width in (start + 3, start + 4, 9)
        and 0 <= few[:, start : start + 3].min()
        and few[:, start : start + 3].max() <= (1 if width > 6 else 65535)
    ]
    return [*whole, *(start for start in parts if start not in whole)]


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
