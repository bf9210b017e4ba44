"""Loading a model: base parts, weights brought to where they are to stay, layers for the device, the processor."""

import copy
import functools
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onellm.errors import ModelError, OneLLMError
from onellm.hub import published, registry
from onellm.hub.convert import generation_of
from onellm.hub.llm import with_llm
from onellm.model import base_parts
from onellm.model.runtime import quantization
from onellm.utils import oom
from onellm.utils.progress import Report, reading

if TYPE_CHECKING:
    from onellm.model.configuration import OneLLMConfig


@dataclass
class LoadedModel:
    """A model in memory with what a conversation needs beside it.

    Attributes:
        model: what `model.interface.MediaLanguageModel` describes.
        processor: its processor; None where random weights came without one.
        name: for people, with how its weights are kept.
        origin: a name of `registry.MODELS` or a folder.
        quantize: how its weights are kept.
        lighter: options of the command line with which it would take less memory; empty if there are none.
    """

    model: Any
    processor: Any
    name: str
    origin: str
    quantize: str
    lighter: str


def load_model(
    name: str | None = None,
    *,
    llm: str | None = None,
    quantize: str | None = None,
    device_map: str | dict | None = None,
    max_memory: dict | None = None,
    random_weights: bool = False,
    plain: bool = False,
    on_progress: Report | None = None,
) -> LoadedModel:
    """Load a model and its processor; for the arguments and errors see `chat.load.load`."""
    if name is None and llm is not None:
        name = registry.SMALL
    if name is None:
        choice = registry.choose(quantize)
        print(choice.reason, file=sys.stderr, flush=True)
        options = {
            "device_map": device_map,
            "max_memory": max_memory,
            "random_weights": random_weights,
            "plain": plain,
            "on_progress": on_progress,
        }
        try:
            return load_model(choice.name, quantize=choice.quantize, **options)
        except ModelError as error:  # its LLM could not be fetched, for example
            if choice.name == registry.TINY:
                raise
            print(f"{error} Using {registry.TINY} instead.", file=sys.stderr, flush=True)
        return load_model(registry.TINY, quantize=quantize, **options)
    name, device = registry.ALIASES.get(str(name), str(name)), registry.device_here()
    own = device_map is None and not plain
    mode = quantization.mode_for(quantize or (registry.default_mode(name, device) if own else None), device)
    if mode == "int8" and not own:
        raise ModelError("--quantize int8 works on the whole model in memory; leave --offload and --plain out.")
    config, folder = registry.find(name, random_weights)
    label = name if name in registry.MODELS else Path(name).resolve().name
    tokenizer = None
    if llm is not None:
        config, tokenizer = with_llm(config, llm, on_progress)
        label += f" with {Path(llm).name}"
    if device_map is None:
        quantization.check_fits(label, config, mode, device)
    if folder is None and not random_weights:
        folder = published.fetch(name, on_progress)
        if llm is None:
            config = registry.read_folder_config(folder / "config.json")
    if device == "cpu" and mode in ("8bit", "4bit"):
        print(f"--quantize {mode} is very slow on a CPU; int8 is faster there.", file=sys.stderr, flush=True)
    lighter = _lighter(name, config, mode, device, device_map)
    instead = f", or use {lighter}" if lighter else ""
    with oom.as_user_error(lambda: f"The memory ran out while {label} was loaded; close other programs{instead}."):
        for part in {} if random_weights else config.base_parts.values():
            base_parts.fetch(part, on_progress)
        model = build(config, folder, mode, device, device_map, max_memory, random_weights, on_progress)
        if tokenizer is not None:
            model.generation_config = generation_of(config)
            model.projector.anchor.spell(tokenizer)
        if device == "cpu" and own and mode in ("none", "int8"):
            import torch

            if torch.backends.mkldnn.is_available():
                from onellm.model.runtime.cpu import optimise

                model = optimise(model, mode == "int8", on_progress)
        if tokenizer is None:
            processor = load_processor(config, folder, random_weights)
        else:
            from onellm.model.auto import OneLLMProcessor

            processor = OneLLMProcessor.from_config(tokenizer, config)
    notes = [note for note, holds in ((mode, mode != "none"), ("random weights", random_weights)) if holds]
    label += f" ({', '.join(notes)})" if notes else ""
    return LoadedModel(model, processor, label, name, mode, lighter)


def _lighter(name: str, config: "OneLLMConfig", mode: str, device: str, device_map: str | dict | None) -> str:
    """Name the options with which less memory is needed than a model takes; "" if there are none."""
    ways = []
    if device_map is None:
        needed = quantization.estimate(config, mode, quantization.dtype_for(device))
        ways = quantization.smaller(config, mode, device, needed.total - 1)
        if mode == "none":
            ways.append("--offload (slow)")
    if name != "onellm-tiny":
        ways.append("--model onellm-tiny")
    return " or ".join(ways)


def build(
    config: "OneLLMConfig",
    folder: Path | None,
    mode: str,
    device: str,
    device_map: str | dict | None,
    max_memory: dict | None,
    random_weights: bool,
    on_progress: Report | None,
) -> Any:
    """Build a model and give it its weights.

    Args:
        config: what it is.
        folder: where its weights lie; None with random ones.
        mode: how they are kept.
        device: where they are, unless `device_map` says it.
        device_map: as for `load`.
        max_memory: as for `load`.
        random_weights: draw them.
        on_progress: called for every tensor.

    Raises:
        ModelError: the weights cannot be read, are not whole, or do not fit.
    """
    import torch
    from safetensors import SafetensorError

    from onellm.hub.random_weights import random_state
    from onellm.model.auto import model_class

    dtype, offload = quantization.dtype_for(device), tempfile.TemporaryDirectory(prefix="onellm-")
    if mode == "int8":  # quantised from 16 bits layer by layer: the model never has to fit in 32
        dtype = torch.bfloat16 if random_weights else "auto"
        if config.base_parts and not random_weights:
            dtype = config.text_config.dtype or dtype  # the LLM's, whose precision the folder's need not be
    weights: dict[str, Any] = {"pretrained_model_name_or_path": folder}
    if random_weights:
        config = copy.deepcopy(config)
        config.base_parts = {}
        where = device if device_map is None else "cpu"
        weights = {"pretrained_model_name_or_path": None, "state_dict": random_state(config, dtype, where)}
    if folder is not None and not random_weights:
        _refuse_pickles(folder)
    try:
        with reading(on_progress, functools.partial(_source, _shards(folder), config.base_parts)):
            model, found = model_class(config).from_pretrained(
                **weights,
                config=config,
                dtype=dtype,
                device_map=device_map or {"": device},
                max_memory=max_memory,
                offload_folder=offload.name,
                quantization_config=quantization.quantization_config(mode, device),
                output_loading_info=True,
                use_safetensors=True,
            )
    except OneLLMError:
        raise
    except ValueError as error:
        if "dispatched on the CPU" not in str(error):
            raise
        raise ModelError(
            f"Not all of the model fits on the GPU with --quantize {mode}, and quantised weights cannot be offloaded; "
            "use --offload without --quantize, or --model onellm-tiny."
        ) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        if oom.ran_out(error):  # `load_model` says so
            raise
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ModelError(f"The weights in {folder} cannot be read ({reason}); copy or convert them again.") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(
            f"The weights in {folder} lack {len(missing)} tensors that config.json asks for, {missing[0]} for example; "
            "copy or convert them again."
        )
    if mode == "int8" and config.base_parts:
        _perceive_in_full(model, folder)
    model.offload_folder = offload  # lives as long as the model
    return model.eval()


def _perceive_in_full(model: Any, folder: Path) -> None:
    """Give all but the LLM the precision of their files again; they came in that of the LLM."""
    import torch
    from safetensors.torch import load_file

    tensors = model.base_tensors(but="language_model")
    for file in base_parts.weight_files(folder):
        tensors |= load_file(file)
    for name, module in model.named_children():
        if name != "language_model":
            module.float()
    values = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if not name.startswith("language_model."):
                values[name].copy_(tensor)


def _refuse_pickles(folder: Path) -> None:
    """Refuse weights that are kept as a pickle, whatever it is called: loading one can run what a stranger wrote.

    Raises:
        ModelError: there is one, and no safetensors.
    """
    pickles = [path for path in sorted(folder.glob("*")) if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]
    if pickles and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"The weights in {folder} are a pickle ({pickles[0].name}), which can hold code, so they were not read; "
            "expected safetensors; make a folder of the published checkpoint with python -m onellm convert "
            "--checkpoint FILE.pth --tokenizer tokenizer.model --out FOLDER."
        )


def _shards(folder: Path | None) -> dict[str, str]:
    """Return the shard of each tensor of a model folder; nothing where it is all in one file."""
    try:
        return json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    except (TypeError, OSError, ValueError, KeyError):  # no folder, one file, or one that from_pretrained will refuse
        return {}


def _source(shards: dict[str, str], parts: dict[str, str], tensor: str) -> str:
    """Return the shard or the base part that a tensor comes from."""
    return shards.get(tensor) or next((part for name, part in parts.items() if tensor.startswith(f"{name}.")), "")


def load_processor(config: "OneLLMConfig", folder: Path | None, random_weights: bool) -> Any:
    """Load the processor of a model folder; a model with random weights may have none.

    Raises:
        ModelError: the folder has no readable tokenizer.
    """
    from onellm.model.auto import OneLLMProcessor

    if random_weights and (folder is None or not (folder / "tokenizer_config.json").exists()):
        return None
    if config.model_type != "onellm":  # a folder of transformers, whose own processor is another one
        from onellm.hub.base_tokenizer import load_tokenizer

        return OneLLMProcessor.from_config(load_tokenizer(folder, config), config)
    try:
        return OneLLMProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The folder {folder} has no readable tokenizer; convert the model again with --tokenizer tokenizer.model."
        ) from error
