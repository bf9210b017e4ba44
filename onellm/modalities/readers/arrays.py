"""NumPy files: headers are checked before anything is decoded, and nothing is ever unpickled."""

from __future__ import annotations

import io
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from onellm.modalities.base import Damaged, megabytes, refuse
from onellm.modalities.readers.archives import open_zip

__all__ = ["Header", "pick", "read_arrays", "read_headers"]

_HEADER_BYTES = 12 + 10_000  # numpy reads none that is longer


@dataclass(frozen=True)
class Header:
    """What an array's header says of it.

    Attributes:
        shape: the array's shape.
        dtype: the type of its values.
        start: its first values [N], in the order of the file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    start: np.ndarray


def read_headers(path: Path, expects: str, count: int = 30_000) -> dict[str, Header]:
    """Read the headers and first values of the arrays of an .npy or .npz file.

    Args:
        path: the file; its content, not its suffix, tells which of the two it is.
        expects: what is expected, for the error.
        count: most values to read, of all together.

    Returns:
        Name to header, in the file's order; an .npy file's only array is called "".

    Raises:
        FileError: if an array is not numeric, or if there are too many.
    """

    def read(file: BinaryIO, count: int) -> Header:
        shape, dtype = _header(path, file, expects)
        data = file.read(min(count, math.prod(shape)) * dtype.itemsize)
        return Header(shape, dtype, np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype))

    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            return {"": read(file, count)}
    headers = {}
    with open_zip(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        for name in names:
            with archive.open(name) as file:
                headers[name[:-4]] = read(file, count // len(names))
    return headers


def read_arrays(path: Path, limit_bytes: int, expects: str) -> dict[str, np.ndarray]:
    """Read the numeric arrays of an .npy or .npz file.

    Args:
        path: the file; its content, not its suffix, tells which of the two it is.
        limit_bytes: most bytes all arrays may take when decoded.
        expects: what is expected, for the error.

    Returns:
        Name to array, in the file's order; an .npy file's only array is called "".

    Raises:
        FileError: if the arrays are too large, cut short, not numeric, or if there is none.
    """
    if zipfile.is_zipfile(path):
        return _read_npz(path, limit_bytes, expects)
    with open(path, "rb") as file:
        shape, dtype = _header(path, file, expects)
        _check_size(path, _count_bytes(shape, dtype), limit_bytes)
        present = os.path.getsize(path) - file.tell()
        _check_whole(path, _count_bytes(shape, dtype), present, expects)
        file.seek(0)
        return {"": np.lib.format.read_array(file, allow_pickle=False)}


def _read_npz(path: Path, limit_bytes: int, expects: str) -> dict[str, np.ndarray]:
    arrays = {}
    with open_zip(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        if not members:
            raise refuse(path, "a zip archive without arrays", expects, "save it with numpy.savez")
        _check_size(path, sum(member.file_size for member in members), limit_bytes)
        for member in members:
            with archive.open(member) as file:
                shape, dtype = _header(path, file, expects)
                _check_whole(path, _count_bytes(shape, dtype), member.file_size - file.tell(), expects)
            with archive.open(member) as file:
                arrays[member.filename[:-4]] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _header(path: Path, file: BinaryIO, expects: str) -> tuple[tuple[int, ...], np.dtype]:
    """Read an array's header and leave the file at its first value."""
    start = io.BytesIO(file.read(_HEADER_BYTES))  # a header may say that it has gigabytes
    try:
        version = np.lib.format.read_magic(start)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, _, dtype = read(start)
    except Exception as error:  # it is evaluated as Python, which fails in many ways
        raise Damaged("it has no NumPy header") from error
    if any(side < 0 for side in shape):
        raise Damaged(f"it has the shape {list(shape)[:8]}")
    file.seek(start.tell())
    if dtype.hasobject or dtype.kind not in "biuf":
        raise refuse(path, f"an array of {dtype.name} values", expects, "save the numbers as float32")
    return shape, dtype


def _count_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _check_size(path: Path, count_bytes: int, limit_bytes: int) -> None:
    if count_bytes > limit_bytes:
        found = f"the arrays take {megabytes(count_bytes)} when read"
        raise refuse(path, found, f"at most {megabytes(limit_bytes)}", "save a smaller part")


def _check_whole(path: Path, promised_bytes: int, present_bytes: int, expects: str) -> None:
    if promised_bytes > present_bytes:
        found = f"the header promises {megabytes(promised_bytes)} and the file holds {megabytes(present_bytes)}"
        raise refuse(path, found, expects, "the file is cut short, so save or download it again")
    if promised_bytes == 0:
        raise refuse(path, "an array without values", expects, "save it with its values")


def pick(arrays: dict[str, Any], *names: str) -> Any:
    """Return the first array (or header) that has one of the names (in any case), or None."""
    lower = {key.lower(): value for key, value in arrays.items()}
    return next((lower[name] for name in names if name in lower), None)
