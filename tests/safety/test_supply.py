"""What comes from elsewhere is what it says: packages, weights, and nothing in them runs."""

import ast
import hashlib
import json
import pickle
import re
import struct
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.torch import load_file

import onellm
from onellm.errors import ModelError, OneLLMError
from train.checkpoints import check_shards, check_trainer
from train.recipe import Recipe, build
from train.trainer import run

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PYTHONS = ("3.11", "3.12", "3.13")
SOURCES = [path for folder in ("onellm", "train") for path in sorted((ROOT / folder).rglob("*.py"))]


def locked(python):
    """The packages of the lock that a Linux PC with this Python gets: name -> version."""
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    here |= {"platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
    here |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    found = {}
    for line in re.findall(r"^([A-Za-z0-9][^\\\n]*)", LOCK, re.MULTILINE):
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate(here):
            name, version = canonicalize_name(need.name), re.fullmatch(r"==(\S+)", str(need.specifier))[1]
            assert name not in found, f"{name} is locked twice for Python {python}"
            found[name] = version
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_the_requirements(python):
    versions = locked(python)
    lines = [line for name in ("requirements.txt", "requirements-dev.txt") for line in (ROOT / name).open()]
    needs = [Requirement(line.strip()) for line in lines if not line.startswith("#")]
    missing = [str(n) for n in needs if not n.specifier.contains(versions.get(canonicalize_name(n.name), "0"))]
    assert needs and missing == [], "run `make lock`"


def test_every_locked_file_has_a_hash_and_no_address(figure):
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    code = re.sub(r"^\s*#.*$", "", LOCK, flags=re.MULTILINE)
    assert not re.search(r"://|\s@\s|index-url|find-links|^-", code, re.MULTILINE)
    figure("locked packages", len(entries), "all with SHA-256 hashes, for Python 3.11 to 3.13")


def test_both_ways_to_install_check_the_hashes():
    installs = [line for name in ("Makefile", "Dockerfile") for line in (ROOT / name).open() if "pip install" in line]
    checked = [line for line in installs if "--require-hashes" in line and "requirements.lock" in line]
    assert len(checked) == 2
    assert [line for line in installs if line not in checked and "uv==$(UV_VERSION)" not in line] == []


def test_the_shipped_weights_are_the_ones_that_were_trained():
    for sums in (ROOT / "onellm/pretrained").glob("*/SHA256SUMS"):
        listed = {name: digest for digest, name in (line.split() for line in sums.open())}
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sums.parent.iterdir()}
        found.pop(sums.name)
        assert found == listed, f"if new weights are meant: cd {sums.parent} and sha256sum the files into {sums.name}"
    assert listed


def test_no_pickle_is_shipped():
    names = [path for folder in ("onellm", "train", "examples") for path in (ROOT / folder).rglob("*")]
    assert not [path for path in names if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")]


def calls():
    """Yield every call in the project: (where, dotted name, keyword -> value)."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), given


def test_no_call_lets_a_file_run_code():
    """Pickles are read as tensors alone, arrays without objects, and nothing of a hub's code is run."""
    wrong, seen = [], set()
    for where, name, given in calls():
        if name == "torch.load":
            right = given.get("weights_only") is True
        elif name in ("np.load", "np.lib.format.read_array"):
            right = not given.get("allow_pickle")
        elif name.startswith("Auto") and name.endswith(".from_pretrained"):
            right = given.get("trust_remote_code") is False
        elif name in ("pickle.load", "pickle.loads", "eval", "exec", "yaml.load", "torch.jit.load"):
            right = False
        else:
            continue
        seen.add(name)
        if not right:
            wrong.append(f"{where}: {name}")
    assert wrong == []
    assert {"torch.load", "np.load", "AutoTokenizer.from_pretrained"} <= seen


@pytest.fixture
def folder(model, processor, tmp_path):
    """A whole little model folder."""
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class Evil:
    """A pickle that would make a file if it were loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00-of-01.pth"])
def test_a_folder_of_pickled_weights_is_refused(folder, tmp_path, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(ModelError, match=rf"a pickle \({name}\), which can hold code.* python -m onellm convert "):
        onellm.load(str(folder))
    assert not (tmp_path / "ran").exists()


def beyond_the_end(header):
    next(iter(header.values()))["data_offsets"] = [0, 1 << 40]


def of_100_gb(header):
    entry = next(iter(header.values()))
    entry["shape"] = [25_000_000_000]
    entry["data_offsets"] = [0, 100_000_000_000]


def other_keys(header):
    for name in list(header):
        header[f"other.{name}"] = header.pop(name)


def other_shape(header):
    entry = next(entry for entry in header.values() if len(entry["shape"]) == 2)
    entry["shape"] = entry["shape"][::-1] if entry["shape"][0] != entry["shape"][1] else [entry["shape"][0] ** 2]


@pytest.mark.parametrize("lie", [beyond_the_end, of_100_gb, other_keys, other_shape], ids=lambda lie: lie.__name__)
@pytest.mark.parametrize("mode", ["none", "int8"])
def test_a_header_that_lies_gives_words(folder, lie, mode):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    lie(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(ModelError, match="copy or convert them again"):
        onellm.load(str(folder), quantize=mode)


@pytest.mark.parametrize("length", [1 << 60, 99_000_000, 3])
def test_a_header_of_another_length_gives_words(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(ModelError, match="copy or convert them again"):
        onellm.load(str(folder))


def test_a_strangers_checkpoint_runs_nothing(settings, tmp_path):
    recipe = build(Recipe, settings | {"steps": 2})
    run(recipe, tmp_path / "runs")
    last = tmp_path / "runs/toy/checkpoints/checkpoint-2"
    for name in ("optimizer.pt", "rng_state.pth"):
        kept = (last / name).read_bytes()
        torch.save({"state": Evil(tmp_path / "ran")}, last / name)
        with pytest.raises(OneLLMError, match="checkpoint-2 holds something else .* maybe code, and was not read"):
            run(build(Recipe, settings | {"steps": 3}), tmp_path / "runs")
        (last / name).write_bytes(kept)
    assert not (tmp_path / "ran").exists()


def test_a_strangers_shards_run_nothing(tmp_path):
    """A checkpoint in shards is described by a pickle; one that PyTorch wrote is read, another refused."""
    described = tmp_path / "checkpoint-2" / "optimizer_0" / ".metadata"
    tensors = {"weight": torch.ones(2, 3), "step": torch.tensor(4), "rate": 0.1}
    torch.distributed.checkpoint.save(tensors, checkpoint_id=described.parent, no_dist=True)
    check_shards(described.parents[1])
    described.write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(pickle.UnpicklingError, match="asks for"):
        check_shards(described.parents[1])
    for module, name in (("torch", "hub.load"), ("torch.distributed.checkpoint.metadata", "os.system")):
        texts = [b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)]
        described.write_bytes(b"\x80\x04" + b"".join(texts) + b"\x93.")
        with pytest.raises(pickle.UnpicklingError, match="asks for"):
            check_shards(described.parents[1])
    assert not (tmp_path / "ran").exists()


def test_an_llm_that_is_a_pickle_is_refused(settings, toy, tmp_path):
    llm = Path(toy["parts"]["language_model"])
    torch.save(load_file(llm / "model.safetensors"), llm / "pytorch_model.bin")
    (llm / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded .*model.safetensors.* give a model folder with safetensors"):
        run(build(Recipe, settings), tmp_path / "runs")


def test_a_changed_trainer_is_named_with_its_version():
    """The names and arguments of private methods are checked when the module is imported."""
    from transformers import Trainer

    class Other(Trainer):
        def _save_checkpoint(self, model):
            pass

    check_trainer()
    with pytest.raises(
        OneLLMError, match=r"transformers 9.9: Trainer._save_checkpoint takes \['self', 'model'\]; expected"
    ):
        check_trainer(Other, "9.9")
    with pytest.raises(OneLLMError, match="transformers 9.9: Trainer._save takes nothing: it is gone"):
        check_trainer(object, "9.9")
