"""Writing so that nothing is lost: a file or folder appears under its name when it is whole and safely on the disk.

A process may be killed and a disk may be full at any moment: what was there before stays, and what was begun lies
beside it under a hidden name until the next try or `clear` removes it.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onellm.errors import OneLLMError

UNFINISHED = ".part."  # before the name, so that its suffix still says what it is
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch and safetensors say that the disk is full in their own texts, without the error's number
FULL_TEXTS = ("No space left", "os error 28", "quota exceeded", "File too large", "file write failed", "unexpected pos")


class DiskFullError(OneLLMError):
    """A disk has no room for what is to be written.

    Attributes:
        path: what could not be written.
        needed_bytes: about what it takes; 0 where that is not known.
    """

    def __init__(self, path: Path, needed_bytes: int = 0, then: str = ""):
        """Word the error.

        Args:
            path: what could not be written; it need not exist.
            needed_bytes: about what it takes.
            then: what happens when the person starts again, such as "it goes on from step 4".
        """
        path = Path(path).absolute()
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        free = f"{shutil.disk_usage(existing).free / 1e6:,.1f} MB are free"
        need = f"{needed_bytes / 1e6:,.1f} MB are needed, {free}" if needed_bytes else free
        again = f"free some space and start again{f': {then}' if then else ''}"
        super().__init__(f"The disk with {path} is full: {need}; {again}.")
        self.path, self.needed_bytes = path, needed_bytes


def is_full(error: BaseException) -> bool:
    """Tell whether an error, whichever library's, says that the disk is full."""
    return getattr(error, "errno", None) in FULL or any(text in str(error) for text in FULL_TEXTS)


@contextmanager
def as_user_error(path: Path, needed_bytes: int = 0, then: Callable[[], str] = str) -> Iterator[None]:
    """Say to people that the disk of a path is full, whatever raises it in the block; see `DiskFullError`.

    Args:
        path: what is written.
        needed_bytes: about what it takes.
        then: is asked at the error what happens when the person starts again.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError) and then is not str:
            raise DiskFullError(error.path, error.needed_bytes, then()) from error
        if isinstance(error, OneLLMError) or not is_full(error):
            raise
        raise DiskFullError(path, needed_bytes, then()) from error


def beside(path: Path) -> Path:
    """Return the hidden path where `path` is made."""
    return path.with_name(f"{UNFINISHED}{path.name}")


@contextmanager
def whole(path: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """Lend a path beside `path`; the file or folder made there takes its place if the block ends well.

    A folder must be new, a file may replace another. Where several processes may write the same path, the caller
    lets one do so at a time.

    Args:
        path: what is to be made.
        needed_bytes: about what it takes, where that is known.

    Raises:
        DiskFullError: the disk is full; nothing is left of what was begun.
    """
    path = Path(path)
    part = beside(path)
    with as_user_error(path, needed_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
        try:
            yield part
            _flush(part)
            os.replace(part, path)
            _sync(path.parent)
        except BaseException:
            _remove(part)
            raise


@contextmanager
def filled(folder: Path, last: str, replaced: str = "", needed_bytes: int = 0) -> Iterator[Path]:
    """Lend a folder; the files made there go into `folder`, which may hold others, if the block ends well.

    Args:
        folder: where to.
        last: name of the file that says that the others are there: the first to go and the last to come.
        replaced: pattern of files that do not belong to the new ones.
        needed_bytes: about what all take, where that is known.

    Raises:
        DiskFullError: the disk is full; `folder` is as it was.
    """
    part = beside(folder / "files")
    with as_user_error(folder, needed_bytes):
        _remove(part)
        try:
            part.mkdir(parents=True)
            yield part
            _flush(part)
            for old in (folder / last, *(folder.glob(replaced) if replaced else ())):
                old.unlink(missing_ok=True)
            for file in sorted(part.iterdir(), key=lambda path: path.name == last):
                os.replace(file, folder / file.name)
            _sync(folder)
        finally:
            _remove(part)


def write(path: Path, content: str | bytes) -> None:
    """Write a small file, text as UTF-8; see `whole`."""
    content = content.encode() if isinstance(content, str) else content
    with whole(path, len(content)) as part:
        part.write_bytes(content)


def write_json(path: Path, content: Any, **options: Any) -> None:
    """Write a JSON file of readable lines; see `whole`. The options are those of `json.dumps`."""
    write(path, json.dumps(content, **{"indent": 1, "ensure_ascii": False, **options}) + "\n")


def append(path: Path, lines: str) -> None:
    """Add lines to a log; only the last can be cut short by a stop, and lacks its line break then."""
    with as_user_error(path, len(lines)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(lines)


def clear(folder: Path) -> None:
    """Remove what was begun in a folder by a process that was killed."""
    for left in folder.glob(f"{UNFINISHED}*"):
        _remove(left)


def discard(path: Path) -> None:
    """Remove a file or a folder, if it is there; a stop in between leaves no half of it under its name."""
    if path.exists():
        _remove(beside(path))
        _remove(path.rename(beside(path)))


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file, or a folder with all in it, is on the disk and not only on its way there."""
    if path.is_dir():
        for child in path.iterdir():
            _flush(child)
    _sync(path)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
