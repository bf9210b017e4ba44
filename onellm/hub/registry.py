"""Which models there are, which one suits this machine, and how one is loaded."""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onellm.errors import ModelError, OneLLMError
from onellm.model.runtime import quantization
from onellm.utils import zerogpu

if TYPE_CHECKING:
    from onellm.model.configuration import OneLLMConfig

PRETRAINED = Path(__file__).parents[1] / "pretrained"


MODELS = {
    "onellm-small": "trained and shipped with this package, with Qwen2.5-Coder-1.5B: converses about files",
    "onellm-tiny": "trained and shipped with this package; names the main thing in a file",
    "onellm-tiny-draw": "trained and shipped with this package; draws small pictures of things it knows by heart",
    "onellm-7b": "the published OneLLM, csuhan/OneLLM-7B",
    "blip2-opt-2.7b": "BLIP-2 with OPT-2.7B: short answers about pictures",
    "blip2-flan-t5-xl": "BLIP-2 with FlanT5-XL: short answers about pictures",
    "instructblip-vicuna-7b": "InstructBLIP with Vicuna-7B: reads the question with the picture",
    "llava-1.5-7b": "LLaVA-1.5 with Vicuna-7B: follows instructions about pictures",
    "idefics-9b": "IDEFICS, an open Flamingo with LLaMA-7B: chats about pictures and text in turns",
    "llava-1-7b": "the first LLaVA, with Vicuna-7B: follows instructions about pictures",
    "minigpt4-7b": "MiniGPT-4 with Vicuna-7B: describes pictures at length",
    "mplug-owl-7b": "mPLUG-Owl with LLaMA-7B: converses about pictures",
    "vl-vicuna-7b": "VL-Vicuna, BLIP-2 moved to Vicuna-7B: follows instructions about pictures",
    "lavin-7b": "LaVIN with LLaMA-7B: answers questions of science with or without a picture",
    "pandagpt-7b": "PandaGPT with Vicuna-7B: follows instructions about pictures, videos and sounds",
}
# what runs on a CPU unless another mode is asked for: measured to answer alike, and faster (docs/performance.md)
MEASURED_ON_CPU = {"onellm-small": "int8", "onellm-tiny": "int8"}
SMALL, TINY = "onellm-small", "onellm-tiny"
ALIASES = {"csuhan/OneLLM-7B": "onellm-7b"}


@dataclass(frozen=True)
class Choice:
    """A model chosen for this machine.

    Attributes:
        name: one of `MODELS`.
        quantize: how its weights are kept; None for the device's default.
        reason: one line for people that says which and why.
    """

    name: str
    quantize: str | None
    reason: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model is loaded, and how."""
    known = ", ".join(MODELS)
    parser.add_argument("--model", metavar="M", help=f"{known}, or a model folder; by default what suits this machine")
    parser.add_argument(
        "--llm",
        metavar="L",
        help="another LLM behind onellm-small's perception: a name, a folder or a repository of the hub",
    )
    parser.add_argument(
        "--quantize",
        choices=quantization.CPU_MODES,
        help="bits of the weights: less memory, slightly worse answers; int8 is for the CPU",
    )
    for name in ("model", "llm", "quantize"):
        if given := os.environ.get(f"ONELLM_{name.upper()}"):
            parser.set_defaults(**{name: given})
    parser.add_argument(
        "--offload", action="store_true", help="keep what does not fit on the GPU in main memory, or on disk; slow"
    )


def choose(quantize: str | None = None) -> Choice:
    """Choose the model for this machine: the published 7B, quantised, where a GPU allows, else a small one.

    Args:
        quantize: how weights are to be kept; by default 4bit for the 7B and the device's default for the others.
    """
    device, name, mode = device_here(), "onellm-7b", quantize or "4bit"
    if device == "cpu":
        return _choose_small(quantize, device, "there is no CUDA GPU here")
    try:
        needed = quantization.check_fits(name, preset_config(name), quantization.mode_for(mode, device), device)
    except ModelError as error:
        return _choose_small(quantize, device, error.found)
    if not weights_available(name):
        return _choose_small(
            quantize, device, f"the weights of {name} are not in the cache and the hub does not answer"
        )
    return Choice(name, mode, f"Using {name} with --quantize {mode}: it needs {needed} and the GPU has them free.")


def _choose_small(quantize: str | None, device: str, why: str) -> Choice:
    """Choose onellm-small where the memory allows, else onellm-tiny; `why` is what speaks against a larger one."""
    mode = quantization.mode_for(quantize or default_mode(SMALL, device), device)
    try:
        needed = quantization.check_fits(SMALL, preset_config(SMALL), mode, device)
    except ModelError as error:
        return Choice(TINY, quantize, f"Using {TINY}: {why}, and {error.found}.")
    return Choice(SMALL, quantize, f"Using {SMALL}: {why}; it needs {needed}.")


def folder_of(name: str) -> Path:
    """Return the folder of a model, a name of `MODELS` or a path; what is not here is fetched.

    Raises:
        ModelError: there is no such model, or it cannot be fetched.
    """
    from onellm.hub import published

    name = ALIASES.get(str(name), str(name))
    return find(name)[1] or published.fetch(name)


def device_here() -> str:
    """Return the device a model runs on."""
    zerogpu.prepare()
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def default_mode(name: str, device: str) -> str | None:
    """Return how a model's weights are kept unless another way is asked for."""
    import torch

    return MEASURED_ON_CPU.get(name) if device == "cpu" and torch.backends.mkldnn.is_available() else None


def preset_config(name: str) -> "OneLLMConfig":
    """Return the configuration of a model of `MODELS`, with or without its weights."""
    from onellm.model.configuration import OneLLMConfig

    file = PRETRAINED / name / "config.json"
    return read_folder_config(file) if file.exists() else OneLLMConfig.from_preset(name)


def weights_available(name: str) -> bool:
    """Whether the weights of a model of `MODELS` are here or can be fetched."""
    if (PRETRAINED / name / "config.json").exists():
        return True
    from onellm.hub import published

    return published.available(name)


def find(name: str, random_weights: bool = False) -> tuple["OneLLMConfig", Path | None]:
    """Find a model: its configuration, and its folder unless that has to be fetched or there is none.

    Raises:
        ModelError: there is none, or it is not a OneLLM.
    """
    from onellm.model.configuration import PRESETS

    if name in MODELS or random_weights and name in PRESETS:
        folder = PRETRAINED / name
        if not folder.exists() and not random_weights:
            from onellm.hub import published

            folder = published.folder(name)
        if folder is None or not folder.exists():
            return preset_config(name), None
        return read_folder_config(folder / "config.json"), folder
    path = Path(name)
    if random_weights and path.suffix == ".json" and path.exists():
        return read_folder_config(path), None
    convert = "python -m onellm convert --checkpoint FILE.pth --tokenizer tokenizer.model --out FOLDER"
    if path.is_file():
        advice = f"make one of a published checkpoint: {convert}"
        raise ModelError(found=f"{name} is a file and a model is a folder", advice=advice)
    if not path.is_dir():
        advice = f"give one of {', '.join(MODELS)} or the path of a model folder"
        raise ModelError(found=f"There is no model '{name}'", advice=advice)
    if not (path / "config.json").exists():
        hint = f"make a folder of the checkpoint in it: {convert}" if list(path.glob("*.pth")) else "give another one"
        raise ModelError(found=f"The folder {name} has no config.json, so it is no model folder", advice=hint)
    return read_folder_config(path / "config.json"), path


def read_folder_config(file: Path) -> "OneLLMConfig":
    """Read a configuration and make sure that it describes a OneLLM."""
    from onellm.model.configuration import read_config

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        kind = content.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        found = f"{file} is no readable configuration ({error})"
        raise ModelError(found=found, advice="copy or convert the model again") from error
    if kind not in ("onellm", "idefics") and not (kind is None and "modalities" in content):
        raise ModelError(
            found=f"{file} describes a model of type '{kind}', not a OneLLM",
            advice=f"give one of {', '.join(MODELS)} or a folder that python -m onellm convert has written",
        )
    try:
        return read_config(content)
    except OneLLMError:
        raise
    except Exception as error:  # whatever a wrong field leads to
        found = f"{file} is no OneLLM configuration ({error})"
        raise ModelError(found=found, advice="copy or convert the model again") from error
