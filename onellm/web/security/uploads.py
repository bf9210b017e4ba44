"""Files for a while: whose they are, which ones a visitor may name, and when they go."""

import contextlib
import contextvars
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from onellm.errors import FileError
from onellm.modalities.base import display_name
from onellm.utils.limits import LIMITS
from onellm.web.security import visitors
from onellm.web.security.quotas import FILE_BYTES, QUOTAS

OURS = "made"  # the folder of files that the app itself writes
EMPTY_S = 60.0  # longer than an upload may take to begin
GRADIOS = re.compile(
    r"[0-9a-f]{64}|tmp\w{8}"
)  # an upload's folder; one that was being received when the app was killed


@dataclass
class _Owners:
    """Whose a file is.

    Attributes:
        visitors: who may use it; None is the app itself.
        unclaimed: how often it was uploaded without a cookie, and not yet used in a session.
    """

    visitors: set[str | None] = field(default_factory=set)
    unclaimed: int = 0


_owners: dict[str, _Owners] = {}  # by the file's path with every link resolved
_lock = threading.Lock()


def choose_folder() -> None:
    """Make the upload folder, one that nobody else on this machine can read; to be called before Gradio is imported."""
    given = os.environ.get("GRADIO_TEMP_DIR")
    chosen = Path(given) if given else Path(tempfile.gettempdir()) / "onellm-uploads"
    with contextlib.suppress(FileExistsError):
        chosen.mkdir(mode=0o700, parents=True)
    if not given:
        found = chosen.lstat()
        if stat.S_ISDIR(found.st_mode) and (os.name == "nt" or found.st_uid == os.getuid()):
            chosen.chmod(0o700)
        else:  # somebody else was here before
            chosen = Path(tempfile.mkdtemp(prefix="onellm-uploads-"))
        os.environ["GRADIO_TEMP_DIR"] = str(chosen)


def folder() -> Path:
    """Return the upload folder with every link resolved."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio").resolve()


def check(path: str) -> str:
    """Check that a path which came with a request is an upload of the visitor's own.

    What was uploaded without a cookie belongs to the session that uses it first. Outside of requests there is no
    visitor, and what lies in the folder may be used unless it is somebody's.

    Args:
        path: what the request named.

    Returns:
        The file's path with every link resolved.

    Raises:
        FileError: it is none, or is gone; the message is the same, as it must not say what else is there.
    """
    real, visitor = _inside(path), visitors.current()
    if real is not None:
        with _lock:
            owners = _owners.get(real)
            allowed = visitor is None if owners is None else visitor in owners.visitors
            if not allowed and owners is not None and owners.unclaimed and visitor is not None:
                allowed = True
                if visitor != visitors.NOBODY:
                    owners.visitors.add(visitor)
                    owners.unclaimed -= 1
        if allowed:
            _use(real)
            return real
    minutes = LIMITS.upload_lifetime_s // 60
    raise FileError(
        f"{display_name(path)}: this is no upload of yours, or no longer (uploads are kept for {minutes} minutes); "
        "upload the file itself."
    )


def may_fetch(path: str, visitor: str) -> bool:
    """Tell whether a file may be sent to a visitor who names its path.

    Visitors without a cookie cannot be told from each other, so what was brought without one, or made for such a
    visitor, is sent to all of them who know its path, which nobody can guess.
    """
    real = _inside(path)
    if real is None:
        return False
    with _lock:
        owners = _owners.get(real)
        if owners is None:
            return False
        allowed = visitor in owners.visitors
        if visitor == visitors.NOBODY:
            known = map(visitors.has_cookie, owners.visitors - {None})
            allowed = allowed or owners.unclaimed > 0 or not all(known)
    if allowed:
        _use(real)
    return allowed


def give(paths: Iterable[str], visitor: str | None) -> None:
    """Note whose files are.

    Args:
        paths: files in the upload folder; others are nobody's.
        visitor: NOBODY if they were uploaded without a cookie; None, outside of requests, changes nothing.
    """
    if visitor is None:
        return
    for path in paths:
        real = _inside(path)
        if real is None:
            continue
        with _lock:
            owners = _owners.setdefault(real, _Owners())
            if visitor == visitors.NOBODY:
                owners.unclaimed += 1
            else:
                owners.visitors.add(visitor)


def fresh(name: str, size: int = 0) -> Path:
    """Return a path for a file of the app's own that the page can fetch; it is the present visitor's.

    Args:
        name: of the file.
        size: bytes it may have, which count as brought by the visitor.

    Raises:
        QuotaError: there is no room for it.
    """
    visitor, root = visitors.current(), folder()
    QUOTAS.check(visitor or "", size, root)
    QUOTAS.spend(visitor or "", size + FILE_BYTES)
    parent = root / OURS / secrets.token_urlsafe(16)
    parent.mkdir(parents=True)
    with _lock:
        _owners[str(parent / name)] = _Owners({visitor})
    return parent / name


def placer() -> Callable[[str, int], Path]:
    """Return `fresh` for the present visitor, to be called in any thread."""
    visitor = contextvars.copy_context()
    return lambda name, size: visitor.run(fresh, name, size)


def sweep() -> None:
    """Remove what has not been used for as long as uploads are kept, also what an earlier process left."""
    oldest_s, root = time.time() - LIMITS.upload_lifetime_s, folder()
    for path in (*root.glob(f"{OURS}/*"), *(path for path in root.glob("*") if GRADIOS.fullmatch(path.name))):
        with contextlib.suppress(OSError):
            found = path.lstat()
            empty = stat.S_ISREG(found.st_mode) and not found.st_size  # what Gradio leaves behind of an upload
            if found.st_mtime < (time.time() - EMPTY_S if empty else oldest_s):
                _remove(path)
    for file in tuple(_owners):
        if not os.path.exists(os.path.dirname(file)):  # a fresh file may not have been written yet
            with _lock:
                _owners.pop(file, None)


def keep_swept() -> None:
    """Sweep from time to time, in a thread of its own, as long as the process lives."""

    def run() -> None:
        while True:
            sweep()
            time.sleep(LIMITS.upload_lifetime_s / 6)

    threading.Thread(target=run, name="sweeper", daemon=True).start()


def clear() -> None:
    """Remove what was brought to this process; another one may use the same folder."""
    for path in tuple(_owners):
        if Path(path).parent != folder():
            _remove(Path(path).parent)


def _inside(path: str) -> str | None:
    """Return a path with every link resolved; None if no file in the upload folder is there."""
    try:
        real = Path(path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    return str(real) if real.is_file() and folder() in real.parents else None


def _use(real: str) -> None:
    """Keep a file for another lifetime: the age of its folder counts."""
    with contextlib.suppress(OSError):
        os.utime(Path(real).parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
