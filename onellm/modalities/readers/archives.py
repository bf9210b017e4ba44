"""Zip archives from strangers: their list of files is limited before it is read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onellm.modalities.base import megabytes, refuse
from onellm.utils.limits import LIMITS

__all__ = ["open_zip"]

_NAME_BYTES = 512  # of one file's entry in the list: 46 and its name, which seldom has more than 255
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others' decoders take gigabytes when told to


class _ListTooLong(Exception):
    """An archive says that its list of files has this many bytes."""


class _Guarded(io.BufferedReader):
    """A file of which no more than `limit_bytes` are read at once.

    `zipfile` reads the list in one piece, of the length that the archive states, and makes an object of a
    kilobyte of each 46 bytes of it. To stop it there needs no second reader of the archive's end, which
    could be told another story than `zipfile` is.
    """

    limit_bytes: int | None = None

    def read(self, size: int | None = -1) -> bytes:
        if self.limit_bytes is not None and size is not None and size > self.limit_bytes:
            raise _ListTooLong(size)
        return super().read(size)


@contextmanager
def open_zip(path: Path, limit_names: int = LIMITS.archive_names) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive that somebody sent; to be used in a `with` statement.

    Args:
        path: the file.
        limit_names: most files it may hold.

    Yields:
        The archive. How large its files are when unpacked is for the caller to check.

    Raises:
        FileError: if it holds too many files, or one that is packed in an unusual way.
        BadZipFile: if it is damaged.
    """
    most = f"at most {limit_names:,} files"
    with _Guarded(io.FileIO(path)) as file:
        file.limit_bytes = limit_names * _NAME_BYTES
        try:
            archive = zipfile.ZipFile(file)
        except _ListTooLong as error:
            found = f"a zip archive whose list of files alone takes {megabytes(error.args[0])}"
            raise refuse(path, found, most, "put fewer into one archive") from error
        file.limit_bytes = None
        with archive:
            members = archive.infolist()
            if len(members) > limit_names:
                found = f"a zip archive of {len(members):,} files"
                raise refuse(path, found, most, "put fewer into one archive")
            if any(member.compress_type not in _METHODS for member in members):
                raise refuse(path, "a zip archive with unusual compression", "deflate, or none", "pack it anew")
            yield archive
