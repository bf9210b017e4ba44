"""Where data lies: brace ranges, globs and addresses; shards elsewhere are fetched whole, once, into the cache."""

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from onellm.modalities.base import megabytes
from onellm.utils import atomic
from onellm.utils.paths import cache_folder
from train.data.example import DataError

TIMEOUT_S = 30
PIECE_BYTES = 1 << 20
CACHE_BYTES = 50_000_000_000  # of fetched shards; the ones not used for longest go first
_BRACES = re.compile(r"\{([^{}]*)\}")


def is_address(path: str) -> bool:
    """Tell an address such as https://... or hf://... from a path."""
    return "://" in path


def expand(path: str) -> list[str]:
    """List the files a path stands for: `{000..041}` counts, `{a,b}` lists, `*` matches.

    Raises:
        DataError: a pattern matches nothing.
    """
    paths = []
    for one in expand_braces(path):
        if not any(sign in one for sign in "*?[") or one.startswith("http"):  # an address's "?" opens its query
            paths.append(one)
            continue
        found = _remote_glob(one) if is_address(one) else sorted(glob.glob(one, recursive=True))
        if not found:
            raise DataError(f"{one}: no file matches; expected at least one; check the path.")
        paths += found
    return paths


def expand_braces(text: str) -> list[str]:
    """Replace brace ranges and lists, the leftmost one slowest: "a{08..10}" becomes a08, a09, a10."""
    match = _BRACES.search(text)
    if not match:
        return [text]
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if counted:
        width = len(counted[1])
        values = [f"{number:0{width}}" for number in range(int(counted[1]), int(counted[2]) + 1)]
    else:
        values = match[1].split(",")
    before, after = text[: match.start()], text[match.end() :]
    return [before + value + rest for value in values for rest in expand_braces(after)]


def local(path: str) -> Path:
    """Return a local copy of a file: itself, or one in the cache, fetched if need be.

    Raises:
        DataError: it cannot be fetched.
    """
    if not is_address(path):
        return Path(path)
    from filelock import FileLock

    folder = cache_folder() / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{hashlib.sha256(path.encode()).hexdigest()[:16]}-{os.path.basename(urlsplit(path).path)}"
    if not kept.exists():
        with FileLock(f"{kept}.lock"):
            if not kept.exists():
                with atomic.whole(kept) as part, open(part, "wb") as file:
                    file.writelines(_pieces(path))
                _make_room(folder, kept)
    os.utime(kept)
    return kept


def fetch_bytes(address: str, limit_bytes: int) -> bytes:
    """Fetch a file of limited size into memory.

    Raises:
        DataError: it cannot be fetched, or is too large.
    """
    data = bytearray()
    for piece in _pieces(address):
        data += piece
        if len(data) > limit_bytes:
            raise DataError(f"{address}: it has more than {megabytes(limit_bytes)}; expected less; use a smaller file.")
    return bytes(data)


def _pieces(address: str) -> Iterator[bytes]:
    """Yield the content of a file piece by piece: httpx for the web, fsspec for everything else.

    Raises:
        DataError: it cannot be fetched.
    """
    try:
        if address.startswith(("http://", "https://")):
            import httpx

            with httpx.stream("GET", address, timeout=TIMEOUT_S, follow_redirects=True) as answer:
                answer.raise_for_status()
                yield from answer.iter_bytes(PIECE_BYTES)
            return
        with _filesystem(address).open(address, "rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
    except Exception as error:
        raise _unreachable(address, error) from error


def _filesystem(address: str):
    import fsspec

    return fsspec.filesystem(address.partition("://")[0])


def _remote_glob(address: str) -> list[str]:
    try:
        files = _filesystem(address)
        return sorted(files.unstrip_protocol(found) for found in files.glob(address))
    except Exception as error:
        raise _unreachable(address, error) from error


def _make_room(folder: Path, newest: Path) -> None:
    """Remove the shards not used for longest until the rest fits."""
    files = sorted(folder.glob("*.tar"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in files)
    for file in files:
        if total > CACHE_BYTES and file != newest:
            total -= file.stat().st_size
            file.unlink(missing_ok=True)


def _unreachable(address: str, error: Exception) -> DataError:
    if isinstance(error, ImportError):
        advice = f"install the package that reads it ({str(error).splitlines()[0].rstrip('.')})"
    else:
        advice = "check the address and the connection, or fetch it by hand"
    reason = " ".join(str(error).split())[:150] or type(error).__name__
    return DataError(f"{address}: it cannot be fetched ({reason}); expected a readable file; {advice}.")
