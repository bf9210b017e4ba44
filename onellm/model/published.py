"""The published weights by name: found in a cache or downloaded, checked, converted once, kept.

The hub's library begins a broken download anew in the next process; 15 GB should go on where they stopped, so the files
are downloaded here, with its own `http_get`. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the like count as usual.
"""

import errno
import functools
import hashlib
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onellm.errors import ModelError, OneLLMError
from onellm.model.base_parts import cache_folder
from onellm.progress import Bar, Progress, Report, bar


@dataclass(frozen=True)
class Published:
    """A published model: its repository on the hub, and the files of it that are needed."""

    repository: str
    checkpoint: str
    tokenizer: str = "tokenizer.model"
    params: str = "params.json"
    revision: str = "main"

    @property
    def files(self) -> tuple[str, str, str]:
        """The files, the small ones first."""
        return self.params, self.tokenizer, self.checkpoint


PUBLISHED = {"onellm-7b": Published("csuhan/OneLLM-7B", "consolidated.00-of-01.pth")}


def place(name: str) -> Path:
    """Return where the converted model lies in the cache, or would lie."""
    return cache_folder() / "models" / name


def folder(name: str) -> Path | None:
    """Return the converted model's folder in the cache, or None where there is none."""
    return place(name) if (place(name) / "config.json").exists() else None


def here(name: str) -> Path | None:
    """Return where a model's weights are without a download: its folder, or the files in a cache; None if nowhere."""
    if (found := folder(name)) or name not in PUBLISHED:
        return found
    files = [_cached(name, file) for file in PUBLISHED[name].files]
    return files[-1].parent if all(files) else None


def download_bytes(name: str) -> int | None:
    """Ask the hub how much `fetch` would download; None where it does not answer within seconds."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    source = PUBLISHED[name]
    try:
        urls = [hf_hub_url(source.repository, file, revision=source.revision) for file in reversed(source.files)]
        return sum(get_hf_file_metadata(url, timeout=3).size or 0 for url in urls)
    except Exception:  # whatever it is, the hub has not answered
        return None


def available(name: str) -> bool:
    """Tell within seconds whether `fetch` has a chance: the model is in a cache, or the hub answers."""
    return here(name) is not None or name in PUBLISHED and download_bytes(name) is not None


def fetch(name: str, report: Report | None = None) -> Path:
    """Return the model's folder; download, check and convert the published files where the cache has none.

    Args:
        name: a name of `PUBLISHED`.
        report: told how far it is; by default bars are drawn on standard error.

    Raises:
        ModelError: the name is unknown, the hub cannot be reached, the disk is too small, or a file is not the
            published one. A broken download is kept and goes on next time.
    """
    from filelock import FileLock, Timeout

    if name not in PUBLISHED:
        raise ModelError(f"No model '{name}' is published; choose one of {', '.join(PUBLISHED)}.")
    downloads = cache_folder() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    lock = FileLock(downloads / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is fetching {name}; waiting for it", file=sys.stderr)
        _wait_for(lock, name, report)
    try:
        if found := folder(name):
            return found
        return _convert(name, report, *(_obtain(name, file, report) for file in PUBLISHED[name].files))
    except OneLLMError:
        raise
    except Exception as error:  # versions of the hub's library differ in their transport, and so in its errors
        raise _in_words(name, error) from error
    finally:
        lock.release()


def _wait_for(lock: Any, name: str, report: Report | None) -> None:
    """Wait for another process, telling so: whoever is told may give up."""
    from filelock import Timeout

    while not lock.is_locked:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            if report is not None:
                report(Progress("wait", name))


def _convert(name: str, report: Report | None, params: Path, tokenizer: Path, checkpoint: Path) -> Path:
    """Convert the files, then remove what was downloaded here (what lies in the hub's own cache is not ours)."""
    from onellm.model.checkpoint import convert

    out = convert(checkpoint, place(name), tokenizer, params, report=report)
    shutil.rmtree(cache_folder() / "downloads" / name, ignore_errors=True)
    return out


def _obtain(name: str, file: str, report: Report | None) -> Path:
    """Return a file that is the published one."""
    path = _cached(name, file)
    if path is None:
        return _download(name, file, report)
    blob = path.resolve()
    _check(
        blob, blob.name, PUBLISHED[name], file, report
    )  # the hub's cache names files by their hash, and never looks again
    return path


def _cached(name: str, file: str) -> Path | None:
    """Find a file that was completely downloaded before, here or by the hub's own tools."""
    from huggingface_hub import try_to_load_from_cache

    path = cache_folder() / "downloads" / name / file
    if path.exists():  # under its name it lies here only after its check
        return path
    source = PUBLISHED[name]
    found = try_to_load_from_cache(source.repository, file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def _download(name: str, file: str, report: Report | None) -> Path:
    """Download a file, from where an earlier try stopped, and check it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    source, here = PUBLISHED[name], cache_folder() / "downloads" / name
    here.mkdir(exist_ok=True)
    url = hf_hub_url(source.repository, file, revision=source.revision)
    metadata = get_hf_file_metadata(url)
    part = here / f"{metadata.etag}.part"  # named by content, so that parts of two versions are never joined
    with part.open("ab") as stream:
        size, done = metadata.size or 0, stream.tell()
        copies = 2 if file == source.checkpoint else 1  # it is converted beside itself
        free = shutil.disk_usage(here).free
        if free < copies * size - done:
            raise ModelError(
                f"{file} of {source.repository} needs {(copies * size - done) / 1e9:.1f} GB in {cache_folder()} and "
                f"{free / 1e9:.1f} GB are free; make room or set ONELLM_CACHE to a folder on another disk."
            )
        options = {"tqdm_class": functools.partial(Bar, report, "download")} if report else {}
        options |= {"resume_size": done, "expected_size": metadata.size, "displayed_filename": file}
        http_get(url, stream, headers=build_hf_headers(), **options)
    _check(part, metadata.etag, source, file, report)
    return part.replace(here / file)


def _check(path: Path, etag: str, source: Published, file: str, report: Report | None = None) -> None:
    """Compare a file with the hash the hub has of it: SHA-256 of large files, git's SHA-1 of others.

    Raises:
        ModelError: they differ; the file is removed.
    """
    if not re.fullmatch("[0-9a-f]{64}|[0-9a-f]{40}", etag):  # a mirror with names of its own
        return
    size = path.stat().st_size
    found = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    told = bar(report, "check", total=size, unit="B", unit_scale=True, desc=file if report else f"Checking {file}")
    with path.open("rb") as stream, told:
        while block := stream.read(1 << 22):
            found.update(block)
            told.update(len(block))
    if found.hexdigest() != etag:
        path.unlink()
        raise ModelError(
            f"{file} of {source.repository} was refused and removed: its hash is {found.hexdigest()[:12]}… instead of "
            f"{etag[:12]}…, so it is damaged or not the published one; try again, or set HF_ENDPOINT to another hub."
        )


def _in_words(name: str, error: Exception) -> ModelError:
    """Say why there is no model, and how to get it by hand."""
    from huggingface_hub import constants

    source = PUBLISHED[name]
    if getattr(error, "errno", None) == errno.ENOSPC:
        return ModelError(f"The disk of {cache_folder()} is full; make room or set ONELLM_CACHE to another folder.")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ModelError(
        f"{name} could not be fetched from {constants.ENDPOINT}/{source.repository} ({reason}); connect and try again "
        f"(a download goes on where it stopped), or get {', '.join(source.files)} by hand, run `python -m onellm "
        f"convert --checkpoint {source.checkpoint} --out DIR` beside them, and use --model DIR."
    )
