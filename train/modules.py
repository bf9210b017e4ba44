"""The modules of a model by name: what a recipe may train, where a new model's pretrained parts come from."""

import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from onellm.errors import ModelError
from onellm.modalities import MODALITIES

# name in a recipe -> patterns of parameter names
PARTS = {
    "tokenizers": ["tokenizers.*"],
    "encoder": ["encoder.*", "encoders.*"],
    "projector": ["projector.*"],
    "experts": ["projector.experts.*"],
    "routers": ["projector.routers.*"],
    "queries": ["projector.queries", "projector.queries.*"],
    "projections": ["projector.input_proj.*", "projector.output_proj.*"],
    "output": ["projector.output_proj.*", "projector.projection.*", "projector.layers.[!0-9]*"],  # onto the LLM's width
    "qformer": ["projector.qformer.*"],
    "contrast": ["projector.contrast.*"],
    "abstractor": ["projector.layers.[0-9]*"],
    "tags": ["projector.start_tags.*", "projector.end_tags.*"],
    "language_model": ["language_model.*"],
    "adapter": ["language_model.*lora_*", "adapters.*"],
    "encoder_adapters": ["encoder.adapters.*", "encoders.*.adapters.*"],
    "rows": ["rows.*"],
    "outputs": ["outputs.*"],
}
# a modality's name stands for what belongs to that modality alone
PARTS |= {
    modality: [
        f"tokenizers.{modality}.*",
        f"encoders.{modality}.*",
        f"projector.*.{modality}",
        f"projector.*.{modality}.*",
    ]
    for modality in MODALITIES
}
# solved in closed form when the data is opened, not trained step by step
SOLVED = ["tokenizers.*.nouns.classifier.*"]


def freeze(model: nn.Module, trained: list[str]) -> int:
    """Let the named modules train and nothing else; a frozen backbone never does, nor the LLM below an adapter's name.

    Args:
        model: a OneLLM.
        trained: keys of `PARTS`.

    Returns:
        The number of trained parameters.

    Raises:
        ModelError: a part has no parameter here, or quantised ones.
    """
    for part in trained:
        if not any(matches(name, PARTS[part]) for name, _ in model.named_parameters()):
            hint = "give the recipe an 'adapter'" if part == "adapter" else "leave it out"
            raise ModelError(f"The part '{part}' has no parameters in this model; {hint}.")
    patterns = [pattern for part in trained for pattern in PARTS[part]]
    for name, parameter in model.named_parameters():
        wanted = matches(name, patterns) and not matches(name, SOLVED)
        if wanted and not parameter.is_floating_point():
            raise ModelError(f"{name} is quantised and cannot train; set 'quantize: none', or train less.")
        if parameter.is_floating_point():  # quantised weights can't be asked for gradients
            parameter.requires_grad = wanted
            if wanted:
                parameter.data = parameter.data.float()
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def matches(name: str, patterns: list[str]) -> bool:
    """Tell whether a parameter's name fits one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@torch.no_grad()
def copy_from_image(model: nn.Module, modality: str) -> None:
    """Start a modality's queries, projections and tags from the image's, as the paper does (section 3.3)."""
    projector = model.projector
    projector.input_proj[modality].load_state_dict(projector.input_proj["image"].state_dict())
    projector.output_proj[modality].load_state_dict(projector.output_proj["image"].state_dict())
    for parameters in (projector.queries, *(getattr(projector, f"{tag}_tags") for tag in projector.tags)):
        parameters[modality].copy_(parameters["image"])


# parts that a new model may take from another one -> what of it
TAKEN = {"encoder": ["tokenizers.*", "encoder.*", "encoders.*"], "qformer": ["projector.*"]}
NEW = [*PARTS["encoder_adapters"], *PARTS["output"], *PARTS["tags"]]  # these always start anew


@torch.no_grad()
def copy_part(model: nn.Module, part: str, folder: Path) -> None:
    """Copy a part from a model folder; only its tensors are read.

    Args:
        model: a OneLLM.
        part: "encoder" (with the tokenizers) or "qformer" (the projector without its last layer, which is the LLM's).
        folder: of another OneLLM.

    Raises:
        ModelError: it lacks a tensor, or has one of another size.
    """
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if matches(name, TAKEN[part])]
            found |= {name: tensors.get_tensor(name) for name in names}
    if "projector.qformer.layernorm.weight" in model.state_dict():  # one that reads no text has its norm elsewhere
        found = {name.replace("qformer.embeddings.layernorm", "qformer.layernorm"): found[name] for name in found}
    wanted = {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if matches(name, TAKEN[part]) and not matches(name, NEW)
    }
    _copy(wanted, found, f"the model {folder}")


def remove_lora(model: nn.Module) -> None:
    """Take LoRA off the LLM, which is then what it was before.

    Raises:
        ModelError: the adapter is of another type.
    """
    if model.config.adapter.get("type", "lora") != "lora":
        raise ModelError("Only LoRA can be left out of a model; start from the model without its adapter.")
    llm = model.language_model
    for name, module in list(llm.named_modules()):
        if hasattr(module, "lora_A"):
            llm.set_submodule(name, module.base_layer)
    del llm.peft_config  # PEFT's note that it was here
    model.config.adapter = None


def load_language_model(model: nn.Module, source: str) -> None:
    """Copy a pretrained LLM's weights into a model.

    Args:
        model: a OneLLM whose `text_config` fits.
        source: a folder, or a name on the hub.

    Raises:
        ModelError: it cannot be had, or is of another size.
    """
    found = read_language_model(source, model.dtype).state_dict()
    _copy(model.language_model.state_dict(keep_vars=True), found, f"the LLM '{source}'")


def read_language_model(source: str, dtype: torch.dtype | str) -> nn.Module:
    """Load a pretrained LLM, causal or with an encoder.

    Args:
        source: a folder, or a name on the hub.
        dtype: of its weights; "auto" for that of the file.

    Raises:
        ModelError: it cannot be had.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        build = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        return build.from_pretrained(source, dtype=dtype, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The LLM '{source}' cannot be loaded ({_first_line(error)}); give a model folder with safetensors."
        ) from error


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
    _copy(tokenizer.state_dict(keep_vars=True), positions, f"the encoder '{source}'")
    _copy(model.encoder.state_dict(keep_vars=True), found, f"the encoder '{source}'")


def load_qformer(model: nn.Module, source: str) -> None:
    """Start a querying transformer that reads text as a BERT; what looks at the features stays random.

    Args:
        model: a OneLLM with such a projector; its vocabulary has one token more, which begins a generated text.
        source: a folder, or a name on the hub.

    Raises:
        ModelError: it cannot be had, or is of another size.
    """
    from transformers import BertModel

    try:
        bert = BertModel.from_pretrained(source, trust_remote_code=False, use_safetensors=True).state_dict()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The BERT '{source}' cannot be loaded ({_first_line(error)}); give a model folder with safetensors."
        ) from error
    wanted = model.projector.qformer.state_dict(keep_vars=True)
    pretrained = bert["embeddings.word_embeddings.weight"]
    more = wanted["embeddings.word_embeddings.weight"][len(pretrained) :].to(pretrained)
    found = {"embeddings.word_embeddings.weight": torch.cat([pretrained, more])}
    for name in wanted.keys() - found:
        theirs = name.replace("_query.", ".").replace("attention.attention.", "attention.self.")
        theirs = theirs.replace("embeddings.layernorm.", "embeddings.LayerNorm.")
        found[name] = wanted[name] if "crossattention" in name else bert.get(theirs)
    _copy(wanted, {name: tensor for name, tensor in found.items() if tensor is not None}, f"the BERT '{source}'")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@torch.no_grad()
def _copy(wanted: dict[str, torch.Tensor], found: dict[str, Any], what: str) -> None:
    """Fill every wanted tensor, but those of adapters, with the one of its name."""
    for name, tensor in wanted.items():
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
