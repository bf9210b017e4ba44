"""The parts of a model by name: what a recipe may train, where a new model's pretrained parts come from."""

import fnmatch
from typing import Any

import torch
from torch import nn

from onellm.errors import ModelError

# name in a recipe -> patterns of parameter names
PARTS = {
    "tokenizers": ["tokenizers.*"],
    "encoder": ["encoder.*", "encoders.*"],
    "encoder_adapters": ["encoder.adapters.*", "encoders.*.adapters.*"],
    "projector": ["projector.*"],
    "experts": ["projector.experts.*"],
    "routers": ["projector.routers.*"],
    "queries": ["projector.queries.*"],
    "projections": ["projector.input_proj.*", "projector.output_proj.*"],
    "tags": ["projector.start_tags.*", "projector.end_tags.*"],
    "language_model": ["language_model.*"],
    "adapter": ["language_model.*lora_*", "adapters.*"],
}
# solved in closed form when the data is opened, not trained step by step
SOLVED = ["tokenizers.*.nouns.classifier.*"]


def freeze(model: nn.Module, trained: list[str]) -> int:
    """Let the named parts train and nothing else; a frozen stem never does, nor the LLM below an adapter's name.

    Args:
        model: a OneLLM.
        trained: keys of `PARTS`.

    Returns:
        The number of trained parameters.

    Raises:
        ModelError: a part has no parameter here.
    """
    for part in trained:
        if not any(matches(name, PARTS[part]) for name, _ in model.named_parameters()):
            hint = "give the recipe an 'adapter'" if part == "adapter" else "leave it out"
            raise ModelError(f"The part '{part}' has no parameters in this model; {hint}.")
    patterns = [pattern for part in trained for pattern in PARTS[part]]
    for name, parameter in model.named_parameters():
        wanted = matches(name, patterns) and not matches(name, SOLVED)
        if parameter.is_floating_point():  # quantised weights can't be asked for gradients
            parameter.requires_grad = wanted
            if wanted:
                parameter.data = parameter.data.float()
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def matches(name: str, patterns: list[str]) -> bool:
    """Tell whether a parameter's name fits one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@torch.no_grad()
def copy_from_image(model: nn.Module, kind: str) -> None:
    """Start a kind's queries, projections and tags from the image's, as the paper does (section 3.3)."""
    projector = model.projector
    projector.input_proj[kind].load_state_dict(projector.input_proj["image"].state_dict())
    projector.output_proj[kind].load_state_dict(projector.output_proj["image"].state_dict())
    for parameters in (projector.queries, projector.start_tags, projector.end_tags):
        parameters[kind].copy_(parameters["image"])


def load_language_model(model: nn.Module, source: str) -> None:
    """Copy a pretrained causal LLM's weights into a model.

    Args:
        model: a OneLLM whose `text_config` fits.
        source: a folder, or a name on the hub.

    Raises:
        ModelError: it cannot be had, or is of another size.
    """
    from transformers import AutoModelForCausalLM

    try:
        found = AutoModelForCausalLM.from_pretrained(
            source, dtype=model.dtype, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The LLM '{source}' cannot be loaded ({_first_line(error)}); give a model folder with safetensors."
        ) from error
    _copy(model.language_model, found.state_dict(), f"the LLM '{source}'")


def load_encoder(model: nn.Module, source: str) -> None:
    """Copy open_clip's visual transformer into the universal encoder, and its patches into the image's tokenizer.

    Args:
        model: a OneLLM whose encoder and image tokenizer fit.
        source: "architecture/tag" or "architecture/path of a file", as open_clip's `create_model` takes them.

    Raises:
        ModelError: it cannot be had, or is of another size.
    """
    import open_clip

    architecture, _, weights = source.partition("/")
    try:
        visual = open_clip.create_model(
            architecture, pretrained=weights or None, load_weights=bool(weights), weights_only=True
        ).visual
    except (RuntimeError, OSError, ValueError) as error:
        raise ModelError(
            f"The encoder '{source}' cannot be loaded ({_first_line(error)}); give architecture/tag, or "
            "architecture/file of open_clip."
        ) from error
    found = dict(visual.state_dict())
    tokenizer = model.tokenizer_for("image")
    positions = {"conv.weight": found.pop("conv1.weight"), "positions": found.pop("positional_embedding")}
    _copy(tokenizer, positions, f"the encoder '{source}'")
    _copy(model.encoder, found, f"the encoder '{source}'")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@torch.no_grad()
def _copy(module: nn.Module, found: dict[str, Any], what: str) -> None:
    """Copy every tensor of a module from where it is found; linear weights that are joined here are joined."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        if "lora_" in name or name.startswith("adapters."):
            continue
        name = name.replace(".base_layer", "")
        if name not in found and name.endswith("lm_head.weight"):
            continue  # tied to the embedding
        if name not in found or found[name].shape != tensor.shape:
            shape = list(found[name].shape) if name in found else "nothing"
            raise ModelError(
                f"{what} has {shape} for '{name}' where {list(tensor.shape)} is expected; use one that fits."
            )
        tensor.copy_(found[name])
