"""Files that lie inside something else: written to a temporary file when a loader opens them, gone when dropped."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from multiprocessing.util import get_temp_dir
from pathlib import Path


class LazyFile(os.PathLike):
    """A path whose file is made on first use, so that any of the app's loaders reads a tar member or a table's cell.

    It holds no data itself and can be pickled. The file lives as long as the object; what a killed process leaves
    goes with the temporary folder of the process that started it.

    Args:
        name: the file's name; its suffix tells the loaders what it is.
        content: returns its bytes; a picklable callable.
    """

    def __init__(self, name: str, content: Callable[[], bytes]):
        self.name, self.content = os.path.basename(name) or "file", content
        self._path: str | None = None

    def __fspath__(self) -> str:
        if self._path is None:
            data = self.content()
            folder = tempfile.mkdtemp(dir=get_temp_dir())
            self._path = os.path.join(folder, self.name)
            Path(self._path).write_bytes(data)
            weakref.finalize(self, _remove, folder, os.getpid())
        return self._path

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"LazyFile({self.name!r})"

    def __reduce__(self) -> tuple:
        return LazyFile, (self.name, self.content)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Return the content of a file, without a temporary file where it is a lazy one."""
    return path.content() if isinstance(path, LazyFile) else Path(path).read_bytes()


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # a forked worker must not take its parent's files away
        shutil.rmtree(folder, ignore_errors=True)
