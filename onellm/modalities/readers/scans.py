"""Brain scans: NIfTI-1 and -2 (one file or a pair), Analyze, MGH and CIFTI, told by content and read with nibabel.

A header is checked before nibabel reads the values, as it trusts what a header says of sizes and places.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from onellm.modalities.base import Damaged, megabytes, refuse
from onellm.utils.limits import LIMITS

__all__ = ["Scan", "header_of", "layout_of", "read_head", "read_scan"]

_HEAD_BYTES = 540  # of the longest header, NIfTI-2's
_PACKED_BYTES = 65_536  # within which it is there; gzip allows a name of any length before it
_NIFTI1, _SINGLE = 348, 352  # bytes of a NIfTI-1 header, and where the values of a single file begin at the earliest
_NIFTI2_MAGIC = {b"n+2\0\r\n\x1a\n": "nifti2", b"ni2\0\r\n\x1a\n": "nifti2 pair"}
_MGH_START = 284  # of an MGH file's values
_MGH_TYPES = (0, 1, 3, 4)
_PAIR_ADVICE = "convert the pair to a single .nii file, or give both from one folder"


@dataclass
class Scan:
    """The content of a scan.

    Attributes:
        array: [R, X, Y, Z] float32, or [R, V] for a CIFTI file.
        interval_s: seconds between volumes, or None if the header does not say.
        notes: what the person should know about how it was read.
    """

    array: np.ndarray
    interval_s: float | None = None
    notes: list[str] = field(default_factory=list)


def read_head(path: Path) -> bytes:
    """Read the first 540 bytes of a file, unpacked if it is a gzip file; fewer if there are not so many."""
    with open(path, "rb") as file:
        head = file.read(_PACKED_BYTES)
    return zlib.decompressobj(31).decompress(head, _HEAD_BYTES) if head[:2] == b"\x1f\x8b" else head[:_HEAD_BYTES]


def layout_of(head: bytes) -> str | None:
    """Tell a scan's format by its first bytes.

    Args:
        head: the first 540 bytes, unpacked.

    Returns:
        "nifti1", "nifti1 pair", "nifti2", "nifti2 pair", "analyze", "mgh" or None.
    """
    if len(head) >= _NIFTI1 and head[:4] in (struct.pack("<i", 348), struct.pack(">i", 348)):
        return {b"n+1\0": "nifti1", b"ni1\0": "nifti1 pair"}.get(head[344:348], "analyze")
    if len(head) >= _HEAD_BYTES and head[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)):
        return _NIFTI2_MAGIC.get(head[4:12])
    if len(head) >= _MGH_START and head[:4] == struct.pack(">i", 1):
        *sides, code, _ = struct.unpack_from(">6i", head, 4)
        if all(1 <= side <= 1_000_000 for side in sides) and code in _MGH_TYPES:
            return "mgh"
    return None


def header_of(path: Path) -> Path:
    """Return where the header of a scan lies: beside the values (.img) of a pair, else in the file itself."""
    name = path.name.lower()
    for end in (".img", ".img.gz"):
        if name.endswith(end):
            stem = path.name[: -len(end)]
            beside = [path.with_name(stem + other) for other in (".hdr", ".HDR", ".hdr.gz")]
            return next((other for other in beside if other.is_file()), path)
    return path


def read_scan(path: Path, expects: str, orientation: str = "ras") -> Scan:
    """Read a scan.

    Args:
        path: the file; of a pair, either half.
        expects: what is expected, for the error.
        orientation: "ras" turns the axes to right, anterior, superior by the header; "file" leaves them.

    Returns:
        The scan.

    Raises:
        FileError: if it is no single volume or series, or too large, or half of a pair is missing.
    """
    head_path = header_of(path)
    head = read_head(head_path)
    layout = layout_of(head)
    if layout is None:
        if path.name.lower().endswith((".img", ".img.gz")):
            raise refuse(path, "values without their header (.hdr)", expects, _PAIR_ADVICE)
        raise Damaged("it has no header of NIfTI, Analyze or MGH")
    notes: list[str] = []
    if layout == "analyze" and path.name.lower().endswith((".nii", ".nii.gz")):  # its name says what its mark does not
        layout, head = "nifti1", head[:344] + b"n+1\0" + head[348:]
        notes.append("the header has no mark of its format: it was taken for a single NIfTI-1 file")
    header, affine = _HEADERS[layout.split()[0]](head)
    values = _values_of(head_path, expects) if layout == "analyze" or layout.endswith("pair") else path
    shape = _shape(path, header, expects)
    _check_start(values, header, layout, notes)
    with _open(values) as file:
        array = _read_values(file, header, shape)
    if len(shape) == 2 and layout == "nifti2" and len(header.get_data_shape()) > 4:
        return Scan(array, None, [*notes, "a CIFTI file: its rows are repetitions, its columns places of the brain"])
    array = array.reshape(*shape, *(1,) * (3 - len(shape)))
    if affine is None and orientation == "ras":
        notes.append("the header does not say how the head lies: the axes were left as they are in the file")
    elif orientation == "ras":
        array = _to_canonical(array, affine, notes)
    array = np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None]
    interval_s = _interval_s(header) if array.shape[0] > 1 else None
    return Scan(np.ascontiguousarray(array), interval_s, notes)


def _nifti1(head: bytes) -> tuple[Any, np.ndarray | None]:
    """Return a NIfTI-1 header and its affine [4, 4], or None where it has none."""
    import nibabel

    # without the extensions that may follow, which nibabel reads whole, however long they say they are
    single = head[344:348] == b"n+1\0"
    kind = nibabel.Nifti1Header if single else nibabel.nifti1.Nifti1PairHeader
    header = kind.from_fileobj(io.BytesIO(head[:_NIFTI1]))
    return header, _nifti_affine(header)


def _nifti2(head: bytes) -> tuple[Any, np.ndarray | None]:
    import nibabel

    single = head[4:7] == b"n+2"
    header = (nibabel.Nifti2Header if single else nibabel.nifti2.Nifti2PairHeader).from_fileobj(io.BytesIO(head))
    return header, _nifti_affine(header)


def _nifti_affine(header: Any) -> np.ndarray | None:
    return header.get_best_affine() if int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0 else None


def _analyze(head: bytes) -> tuple[Any, None]:
    """Return an Analyze header; how the head lies, its programs did not agree on."""
    import nibabel

    return nibabel.Spm99AnalyzeHeader.from_fileobj(io.BytesIO(head[:_NIFTI1])), None


def _mgh(head: bytes) -> tuple[Any, np.ndarray | None]:
    """Return an MGH header without what follows the values."""
    from nibabel.freesurfer.mghformat import MGHHeader

    header = MGHHeader(head[:_MGH_START].ljust(MGHHeader.template_dtype.itemsize, b"\0"), check=False)
    return header, header.get_affine() if int(header["goodRASFlag"]) == 1 else None


_HEADERS: dict[str, Callable[[bytes], tuple[Any, np.ndarray | None]]] = {
    "nifti1": _nifti1,
    "nifti2": _nifti2,
    "analyze": _analyze,
    "mgh": _mgh,
}


def _values_of(header_path: Path, expects: str) -> Path:
    """Return the .img file that belongs to a .hdr file."""
    stem = header_path.name.lower().removesuffix(".gz").removesuffix(".hdr").removesuffix(".img")
    stem = header_path.name[: len(stem)]
    beside = [header_path.with_name(stem + end) for end in (".img", ".IMG", ".img.gz")]
    found = next((other for other in beside if other.is_file()), None)
    if found is None:
        raise refuse(header_path, "a header whose values (.img) do not lie beside it", expects, _PAIR_ADVICE)
    return found


def _shape(path: Path, header: Any, expects: str) -> tuple[int, ...]:
    """Return the sides of the values, [X, Y], [X, Y, Z], [X, Y, Z, R] or a CIFTI file's [R, V]; and check them."""
    shape = tuple(int(side) for side in header.get_data_shape())
    dtype = header.get_data_dtype()
    if dtype.names or dtype.kind not in "biuf":
        raise refuse(path, f"values of type {dtype}", expects, "save the volume as float32")
    if min(shape, default=0) >= 1:
        if len(shape) == 6 and shape[:4] == (1, 1, 1, 1):
            shape = shape[4:]
        elif len(shape) > 4 and sum(side > 1 for side in shape[3:]) <= 1:  # repetitions in whatever dimension
            shape = (*shape[:3], max(shape[3:]))
        if len(shape) == 4 and shape[3] == 1:
            shape = shape[:3]
    if not 2 <= len(shape) <= 4 or min(shape, default=0) < 1:
        found = f"a volume of {' × '.join(map(str, shape))} values"
        raise refuse(path, found, "[X, Y, Z] or [X, Y, Z, R]", "save one volume or one series")
    count_bytes = max(4, dtype.itemsize) * math.prod(shape)
    if count_bytes > LIMITS.fmri_decoded_bytes:
        found = f"{' × '.join(map(str, shape))} values, which take {megabytes(count_bytes)} when read"
        raise refuse(path, found, f"at most {megabytes(LIMITS.fmri_decoded_bytes)}", "save fewer volumes")
    return shape


def _check_start(path: Path, header: Any, layout: str, notes: list[str]) -> None:
    """Check where the values begin; in a single file they cannot lie within the header."""
    start = header.get_data_offset()
    if not -(2**31) <= start <= LIMITS.fmri_decoded_bytes:
        raise Damaged(f"its values are said to start at byte {start:,}")
    least = {"nifti1": _SINGLE, "nifti2": _HEAD_BYTES + 4}.get(layout, 0)
    if 0 <= start < least:
        header.set_data_offset(least)
        if layout == "nifti1" or start:
            notes.append(f"the header says that the values begin at byte {start}: they were read from byte {least}")
    elif start < 0:
        raise Damaged(f"its values are said to start at byte {start:,}")


def _open(path: Path) -> BinaryIO:
    """Open a file, unpacked if it is a gzip file, whatever its name."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else open(path, "rb")


def _read_values(file: BinaryIO, header: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the scaled values float32 in a shape that has as many."""
    import nibabel

    values = np.asarray(nibabel.arrayproxy.ArrayProxy(file, header, mmap=False), np.float32)
    return values.reshape(shape, order="F")


def _to_canonical(array: np.ndarray, affine: np.ndarray, notes: list[str]) -> np.ndarray:
    """Turn and flip the axes of [X, Y, Z] or [X, Y, Z, R] to right, anterior, superior."""
    from nibabel import orientations

    if not np.isfinite(affine).all():
        return array
    turn = orientations.io_orientation(affine)
    if np.isnan(turn).any() or (turn == [[0, 1], [1, 1], [2, 1]]).all():
        return array
    axes = "".join(orientations.aff2axcodes(affine))
    notes.append(
        f"the axes were turned from the file's {axes} to right, anterior, superior; "
        "the option orientation=file leaves them as they are"
    )
    return orientations.apply_orientation(array, turn)


def _interval_s(header: Any) -> float | None:
    """Return the seconds between volumes, or None; more than 100 s are milliseconds whatever the unit says."""
    if not hasattr(header, "get_xyzt_units") or len(header.get_zooms()) < 4:
        return None
    interval = float(header.get_zooms()[3])
    interval /= {"msec": 1e3, "usec": 1e6}.get(header.get_xyzt_units()[1], 1.0)
    if not np.isfinite(interval) or interval <= 0:
        return None
    return interval / 1000 if interval > 100 else interval
