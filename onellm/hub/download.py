"""Files of a published model on the hub: found in a cache or downloaded, and checked.

The hub's library begins a broken download anew in the next process; 15 GB should go on where they stopped, so the files
are downloaded here, with its own `http_get`. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the like count as usual.
"""

import functools
import hashlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onellm.errors import ModelError
from onellm.hub import tensor_files
from onellm.utils.paths import cache_folder
from onellm.utils.progress import Bar, Report, bar

SMALL = (".json", ".txt", ".model")  # suffixes of what stands beside weights


@dataclass(frozen=True)
class Published:
    """A published model: its repository on the hub, and the files of it that are needed.

    Attributes:
        repository: on the hub.
        files: the small ones first; empty for a folder of transformers, whose files the hub lists.
        convert: whether a model folder is made of it; what is not converted is loaded as it is.
        revision: of the repository.
    """

    repository: str
    files: tuple[str, ...] = ()
    convert: bool = True
    revision: str = "main"


def download_folder(name: str) -> Path:
    """Return where a model's files lie while it is fetched."""
    return cache_folder() / "downloads" / name


def needed(source: Published, listed: Iterable[str]) -> list[str]:
    """Choose the files of a folder of transformers: what is small, then its weights in the safest form.

    Raises:
        ModelError: there are no weights, or only a pickle of what is to be loaded as it is.
    """
    listed = set(listed)
    form = next((file for file in tensor_files.NAMES if file in listed), None)
    if form is None or not source.convert and "safetensors" not in form:
        raise ModelError(f"{source.repository} holds no weights that can be read; expected is {tensor_files.NAMES[0]}.")
    stem, suffix = form.removesuffix(".index.json").rsplit(".", 1)
    weights = (
        {form}
        if not form.endswith(".json")
        else {file for file in listed if file.startswith(f"{stem}-") and file.endswith(f".{suffix}")}
    )
    indices = {file for file in listed if file.endswith(".index.json")} - {form}
    small = {file for file in listed if file.endswith(SMALL) and file.count("/") <= 1} - indices
    return [*sorted(small), *sorted(weights - small)]


def listed_here(name: str, source: Published) -> list[str]:
    """Return the files of a folder of transformers that lies complete in a cache; none if it does not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repository, "config.json", revision=source.revision)
    for folder in (download_folder(name), *([Path(found).parent] if isinstance(found, str) else [])):
        try:
            if (folder / "config.json").exists() and all(file.exists() for file in tensor_files.files_of(folder)):
                files = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
                return needed(source, list(files))
        except ModelError:  # only small files have come, or weights in a form that is not read
            continue
    return []


def cached(name: str, source: Published, file: str) -> Path | None:
    """Find a file that was completely downloaded before, here or by the hub's own tools."""
    from huggingface_hub import try_to_load_from_cache

    path = download_folder(name) / file
    if path.exists():  # under its name it lies here only after its check
        return path
    found = try_to_load_from_cache(source.repository, file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def check_room(name: str, source: Published, files: Iterable[str]) -> None:
    """Make sure that the disk has room for what is missing, and for the model that is made beside it.

    Raises:
        ModelError: it has not.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    here = download_folder(name)
    needed = -sum(part.stat().st_size for part in here.glob("*.part"))
    for file in files:
        path = cached(name, source, file)
        if path is not None:
            size = path.stat().st_size
        else:
            size = get_hf_file_metadata(hf_hub_url(source.repository, file, revision=source.revision)).size or 0
        needed += size * ((path is None) + source.convert)
    free = shutil.disk_usage(here.parent).free
    if free < needed:
        raise ModelError(
            f"{name} of {source.repository} needs {needed / 1e9:.1f} GB in {cache_folder()} and {free / 1e9:.1f} GB "
            "are free; make room or set ONELLM_CACHE to a folder on another disk."
        )


def obtain(name: str, source: Published, file: str, report: Report | None) -> Path:
    """Return a file that is the published one."""
    path = cached(name, source, file)
    if path is None:
        return _download(name, source, file, report)
    blob = path.resolve()
    # the hub's cache names files by their hash, and does not check again
    _check(blob, blob.name, source, file, report)
    if not source.files:  # then all of them have to lie in one folder
        here = download_folder(name) / file
        if not here.exists():
            here.parent.mkdir(parents=True, exist_ok=True)
            here.symlink_to(blob)
    return path


def _download(name: str, source: Published, file: str, report: Report | None) -> Path:
    """Download a file, from where an earlier try stopped, and check it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    here = download_folder(name)
    (here / file).parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(source.repository, file, revision=source.revision)
    metadata = get_hf_file_metadata(url)
    part = here / f"{metadata.etag}.part"  # named by content, so that parts of two versions are never joined
    with part.open("ab") as stream:
        options = {"tqdm_class": functools.partial(Bar, report, "download")} if report else {}
        options |= {"resume_size": stream.tell(), "expected_size": metadata.size, "displayed_filename": file}
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
    options = {"total": size, "unit": "B", "unit_scale": True, "desc": file if report else f"Checking {file}"}
    progress_bar = bar(report, "check", **options)
    with path.open("rb") as stream, progress_bar:
        while block := stream.read(1 << 22):
            found.update(block)
            progress_bar.update(len(block))
    if found.hexdigest() != etag:
        path.unlink()
        raise ModelError(
            f"{file} of {source.repository} was refused and removed: its hash is {found.hexdigest()[:12]}… instead of "
            f"{etag[:12]}…, so it is damaged or not the published one; try again, or set HF_ENDPOINT to another hub."
        )
