"""Fetching the published weights from a hub that runs here and speaks the real protocol.

The hub's library reads its environment when it is imported, so every fetch is a process of its own, as a user's is. Two
servers of warm processes have imported it, one with the hub and one offline; what they keep is removed after each test.
"""

import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from family_models import SYSTEMS, idefics, save, shake
from PIL import Image
from published_checkpoint import PARAMS, published_state, train_tokenizer
from warm_processes import Warm

REPOSITORY, CHECKPOINT = "csuhan/OneLLM-7B", "consolidated.00-of-01.pth"
CHUNK = 10 * 1024 * 1024  # what the hub's library writes at once: a broken connection costs less than this
COMMIT = "0123456789abcdef0123456789abcdef01234567"

FETCH = "from onellm.hub import published; print(published.fetch('onellm-7b'))"
AVAILABLE = "from onellm.hub import published; print(published.available('onellm-7b'))"
ANSWER = """
import torch
from onellm.auto import OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.hub import published
folder = published.fetch("onellm-7b")
model, processor = OneLLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32), OneLLMProcessor
processor = processor.from_pretrained(folder)
inputs = processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "what is this"}]}])
out = model.generate(**inputs, tokenizer=processor.tokenizer, max_new_tokens=4, min_new_tokens=4)
print(out.shape[1] - inputs["input_ids"].shape[1])
"""


class Hub(http.server.ThreadingHTTPServer):
    """A repository's files, and what was asked for.

    Attributes:
        hashes: file -> the hash the hub claims, where it is not the true one.
        cut_after: how many bytes of the checkpoint a connection carries before it breaks; None for all.
        ranges: the checkpoint's requests, as (first byte, bytes sent).
        sent: the files that were sent, in turn.
    """

    daemon_threads = True

    def __init__(self, files, port=0):
        super().__init__(("127.0.0.1", port), Answer)
        self.files, self.hashes, self.cut_after, self.ranges = files, {}, None, []
        self.repository, self.sent = REPOSITORY, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        if self.path.partition("?")[0] == f"/api/models/{self.server.repository}/revision/main":
            self.tell({"id": self.server.repository, "siblings": [{"rfilename": file} for file in self.server.files]})
            return
        match = re.fullmatch(rf"/{self.server.repository}/resolve/(?:main|{COMMIT})/(.+)", self.path)
        content = self.server.files.get(match[1]) if match else None
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if match else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        large = not match[1].endswith(".json")
        true = hashlib.sha256(content) if large else hashlib.sha1(f"blob {len(content)}\0".encode() + content)
        etag = self.server.hashes.get(match[1], true.hexdigest())
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if large:
            self.send_header("X-Linked-Etag", f'"{etag}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.end_headers()
        if not body:
            return
        cut = self.server.cut_after if match[1] == CHECKPOINT else None
        sent = content[first:] if cut is None else content[first : first + cut]
        self.server.sent.append(match[1])
        if match[1] == CHECKPOINT:
            self.server.ranges.append((first, len(sent)))
        self.wfile.write(sent)
        self.wfile.flush()
        self.close_connection = len(sent) < len(content) - first

    def tell(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The repository: a random checkpoint of some 30 MB in the published layout, and what belongs to it."""
    folder = tmp_path_factory.mktemp("repository")
    torch.save(published_state(hidden_llm=84_000), folder / CHECKPOINT)
    train_tokenizer(folder / "tokenizer.model")
    (folder / "params.json").write_text(json.dumps(PARAMS))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Where the hub is, and where its library and ours keep what they fetch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("kept")
    return SimpleNamespace(port=port, url=f"http://127.0.0.1:{port}", hf=folder / "hf", cache=folder / "cache")


@pytest.fixture(scope="module")
def servers(places):
    """Servers of processes that know only this hub and these caches: on the way to it, and offline."""
    environment = os.environ | {
        "HF_ENDPOINT": places.url,
        "HF_HOME": str(places.hf),
        "HF_HUB_DISABLE_XET": "1",
        "ONELLM_CACHE": str(places.cache),
    }
    modules = ("torch", "onellm.auto", "onellm.chat.load", "onellm.hub.convert", "onellm.hub.published")
    started = {
        offline: Warm(modules, environment | ({"HF_HUB_OFFLINE": "1"} if offline else {})) for offline in (False, True)
    }
    yield started
    for server in started.values():
        server.close()


@pytest.fixture
def hub(files, places):
    server = Hub(dict(files), places.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def python(places, servers):
    """Run code in a new process."""

    def run(code, offline=False):
        caught = f"import sys; from onellm.errors import OneLLMError\ntry:\n{indented(code)}\n{CATCH}"
        return servers[offline].run(code=caught)

    yield run
    for folder in (places.hf, places.cache):
        shutil.rmtree(folder, ignore_errors=True)


CATCH = "except OneLLMError as error:\n    print(error, file=sys.stderr)\n    sys.exit(1)"


def indented(code):
    return "\n".join(f"    {line}" for line in code.strip().splitlines())


def test_fetch_answer_and_offline(hub, python, places):
    """Downloaded, converted, loaded, answered; then the hub goes and everything still works."""
    done = python(ANSWER)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
    assert "Converting" in done.stderr and CHECKPOINT in done.stderr  # progress of both
    assert hub.ranges == [(0, len(hub.files[CHECKPOINT]))]
    assert not (places.cache / "downloads" / "onellm-7b").exists()  # the copy that was converted is gone
    hub.shutdown()
    done = python(f"{FETCH}\n{AVAILABLE}", offline=True)
    assert done.stdout == f"{places.cache / 'models' / 'onellm-7b'}\nTrue\n", done.stderr
    assert len(hub.ranges) == 1


def test_a_cancelled_download_goes_on_next_time(hub, python, places):
    """Whoever is told how far it is may end it; what arrived stays, and no bars are drawn."""
    told = f"""
from onellm.hub import published
from onellm.utils.progress import Cancelled
def report(progress):
    print(progress.what, progress.detail, progress.done <= progress.total, progress.unit)
    if progress.what == "download" and progress.done >= {2 * CHUNK} and STOP:
        raise Cancelled("Loading was cancelled.")
published.fetch("onellm-7b", report)
"""
    done = python(f"STOP = True\n{told}")
    assert (done.returncode, done.stderr) == (1, "Loading was cancelled.\n")
    assert set(done.stdout.splitlines()) >= {f"download {CHECKPOINT} True bytes", "check tokenizer.model True bytes"}
    (part,) = (places.cache / "downloads" / "onellm-7b").glob("*.part")
    kept = part.stat().st_size
    assert CHUNK <= kept < len(hub.files[CHECKPOINT])
    done = python(f"STOP = False\n{told}")
    assert (done.returncode, done.stderr) == (0, "") and "convert Converting True bytes" in done.stdout
    assert hub.ranges[-1] == (kept, len(hub.files[CHECKPOINT]) - kept)


def test_a_broken_download_goes_on(hub, python):
    """A process dies with a third of the file; two others at once get the rest, over a connection that breaks again.

    No byte is sent twice, one of the two downloads while the other waits, and both get the model.
    """
    size, hub.cut_after = len(hub.files[CHECKPOINT]), CHUNK
    die = (
        "import os, huggingface_hub.file_download as library\n"
        "get = library.http_get\n"
        "def http_get(url, stream, **options):\n"
        "    library.time = type('Clock', (), {'sleep': lambda _: os.kill(os.getpid(), 9)})\n"
        "    get(url, stream, **options)\n"
        "library.http_get = http_get\n"
    )
    assert python(die + FETCH).returncode == -9
    assert hub.ranges == [(0, CHUNK)]
    results = []
    threads = [threading.Thread(target=lambda: results.append(python(FETCH))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.returncode for done in results] == [0, 0], [done.stderr for done in results]
    assert results[0].stdout == results[1].stdout
    arrived = 0
    for first, count in hub.ranges:
        assert first == arrived
        arrived += count
    assert arrived == size and len(hub.ranges) == 4


def test_a_wrong_hash_is_refused(hub, python, places):
    hub.hashes[CHECKPOINT] = "0" * 64
    done = python(FETCH)
    assert done.returncode == 1
    assert f"{CHECKPOINT} of {REPOSITORY} was refused and removed" in done.stderr
    assert not list((places.cache).rglob("*.p*t*")) and not (places.cache / "models").exists()


def test_the_hubs_own_cache_is_used_and_checked(hub, python, places):
    """What the hub's own tools have downloaded is not downloaded again, nor removed, but checked."""
    download = "from huggingface_hub import hf_hub_download\n" + "".join(
        f"print(hf_hub_download('{REPOSITORY}', '{file}'))\n" for file in hub.files
    )
    paths = [Path(line) for line in python(download).stdout.split()]
    path = next(path for path in paths if path.name == CHECKPOINT)
    hub.shutdown()
    whole = path.read_bytes()
    path.resolve().write_bytes(whole[:-1] + b"!")
    done = python(f"{AVAILABLE}\n{FETCH}", offline=True)
    assert done.returncode == 1 and done.stdout == "True\n" and "was refused and removed" in done.stderr
    assert not path.exists()
    path.resolve().write_bytes(whole)
    done = python(FETCH, offline=True)
    assert done.returncode == 0 and len(hub.ranges) == 1, done.stderr
    assert path.exists()


def test_without_hub_and_cache_it_says_what_to_do(hub, python):
    hub.files.pop("tokenizer.model")
    done = python(f"{AVAILABLE}\n{FETCH}")
    assert done.stdout == "False\n" and "could not be fetched" in done.stderr  # a file is missing
    hub.shutdown()
    hub.server_close()
    for offline in (False, True):
        done = python(f"{AVAILABLE}\n{FETCH}", offline)
        assert (done.returncode, done.stdout) == (1, "False\n")
        assert f"could not be fetched from {hub.url}/{REPOSITORY}" in done.stderr
        assert "python -m onellm convert --checkpoint" in done.stderr
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_small_disk_and_an_unknown_name(hub, python):
    full = (
        "import shutil\nfrom collections import namedtuple\n"
        "shutil.disk_usage = lambda _: namedtuple('usage', 'total used free')(1, 1, 1000)\n"
    )
    done = python(full + FETCH)
    assert done.returncode == 1 and "and 0.0 GB are free; make room" in done.stderr
    done = python("from onellm.hub import published; published.fetch('onellm-8b')")
    assert done.returncode == 1 and "choose one of onellm-7b" in done.stderr


# ---- folders of transformers -----------------------------------------------------------------------------------------

FAMILY = {
    "instructblip-vicuna-7b": ("Salesforce/instructblip-vicuna-7b", "onellm"),
    "idefics-9b": ("HuggingFaceM4/idefics-9b-instruct", "idefics"),
}
SAY = """
import json, onellm
from onellm.hub import published
print(json.loads((published.fetch(NAME) / "config.json").read_text())["model_type"])
print(bool(onellm.load(NAME, quantize="none").ask("what is this", image=PICTURE, max_new_tokens=3) is not None))
"""


@pytest.mark.parametrize("name", FAMILY)
def test_folders_of_transformers(name, hub, python, places, tmp_path):
    """In several files, beside a form that is not wanted: fetched by name, made into a model if need be, asked."""
    repository, modality = FAMILY[name]
    theirs = idefics() if name == "idefics-9b" else SYSTEMS[name]()
    folder = save(shake(theirs), tmp_path / "theirs", max_shard_size="40KB")
    weights = sorted(path.name for path in folder.glob("model-*.safetensors"))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    unwanted = {"README.md": b"#", "pytorch_model.bin": b"0" * 99, "pytorch_model.bin.index.json": b"{}"}
    hub.files, hub.repository = files | unwanted, repository
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    code = f"NAME, PICTURE = {name!r}, {str(tmp_path / 'red.png')!r}\n{SAY}"
    done = python(code)
    assert (done.returncode, done.stdout) == (0, f"{modality}\nTrue\n"), done.stderr
    assert len(weights) > 2 and sorted(hub.sent) == sorted(files)  # each once, and nothing else
    assert not list((places.cache / "downloads").glob("*/*"))
