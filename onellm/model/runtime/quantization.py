"""Quantisation, and how much memory a model will take, estimated from its configuration before anything is loaded.

`none` is bfloat16 (float16 on older GPUs) on a GPU and float32 on a CPU. `8bit` and `4bit` are bitsandbytes': the
linear layers of the LLM and of the experts are quantised; encoder, projections, head and adapters stay as they are.
`int8` is the CPU's own 8 bits (`onellm.model.runtime.cpu`).
"""

import importlib.util
import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onellm.errors import ModelError

if TYPE_CHECKING:
    import torch

    from onellm.model.configuration import OneLLMConfig

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that nothing here uses

MODES = ("none", "8bit", "4bit")
CPU_MODES = ("none", "int8", "8bit", "4bit")

# Parts, by the names of their modules, that bitsandbytes leaves alone. Measured on onellm-tiny: quantised adapters ruin
# the answers about files, and a head in 4bit costs three more points in text; experts cost nothing beside the LLM.
# docs/performance.md has the table.
PRECISE = (
    *("stems", "tokenizers", "encoder", "encoders", "adapters", "outputs"),
    *("projector.routers", "projector.input_proj", "projector.output_proj", "projector.projection"),
    r"projector\.layers\.[a-z]+",  # a modality's own, onto the LLM; numbers are inside the abstractor and resampler
    *("lm_head", r".*\.lora_[AB]"),
    *("model.vision_model", "model.perceiver_resampler"),  # of models with gated layers
)

# what LLMs call the hidden width of their feed-forward layers
HIDDEN = ("intermediate_size", "ffn_dim", "d_ff", "n_inner")

BLOCK, NESTED_BLOCK = 64, 256  # bitsandbytes: weights a scale in 4bit, scales a scale of scales


def mode_for(quantize: str | None, device: str) -> str:
    """Return how the weights will be kept on a device; None stands for "none".

    Raises:
        ModelError: there is no such mode, or not on this device, or bitsandbytes is missing for it.
    """
    import torch

    modes = CPU_MODES if device == "cpu" else MODES
    mode = quantize or "none"
    if mode not in modes:
        where = "the CPU" if device == "cpu" else "a GPU"
        found = f"Weights cannot be quantised as '{mode}' on {where}"
        raise ModelError(found=found, advice=f"use one of {', '.join(modes)}")
    if mode == "int8" and not torch.backends.mkldnn.is_available():
        found = "This build of torch has no oneDNN, which --quantize int8 needs"
        raise ModelError(found=found, advice="use --quantize none")
    if mode in ("8bit", "4bit"):
        _require_bitsandbytes(mode, device)
    return mode


def _require_bitsandbytes(mode: str, device: str) -> None:
    """Make sure that bitsandbytes is installed and built for the device."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            found=f"--quantize {mode} needs bitsandbytes, which is not installed",
            advice="pip install bitsandbytes, or leave the option out",
        )
    try:
        from bitsandbytes import cextension

        built = device == "cpu" or isinstance(cextension.lib, cextension.CudaBNBNativeLibrary)
    except Exception:  # a broken installation has many ways to say so
        built = False
    if not built:
        raise ModelError(
            found=f"--quantize {mode}: the installed bitsandbytes has no build for this GPU's CUDA (python -m "
            "bitsandbytes says more)",
            advice="install one that has, or use --quantize none",
        )


def dtype_for(device: str) -> "torch.dtype":
    """Return the type that weights have unless they are quantised: on a CPU float32, bfloat16 is far slower there."""
    import torch

    if device == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def stored_dtype(config: "OneLLMConfig") -> "torch.dtype":
    """Return the type that a model's weights have in its files."""
    import torch

    if config.base_parts:
        return getattr(config.text_config, "dtype", None) or torch.float32
    return getattr(config, "dtype", None) or torch.bfloat16


def quantization_config(mode: str | None, device: str) -> Any:
    """Describe a mode to `from_pretrained`.

    Args:
        mode: "8bit" or "4bit"; others need no description.
        device: where the weights will be.

    Returns:
        A `BitsAndBytesConfig`, or None.
    """
    if mode not in ("8bit", "4bit"):
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_8bit=mode == "8bit",
        load_in_4bit=mode == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype_for(device),
        llm_int8_skip_modules=list(PRECISE),
    )


@dataclass(frozen=True)
class Estimate:
    """Memory in bytes that a model takes.

    Attributes:
        weights: part of the model -> its weights as they are kept.
        cache: keys and values of a whole context.
        working: activations of the largest step and unpacked weights.
        loading: weights as they are read, where they all must be there before they become smaller.
    """

    weights: dict[str, int]
    cache: int
    working: int
    loading: int = 0

    @property
    def total(self) -> int:
        """The most it takes at any time."""
        return max(sum(self.weights.values()) + self.cache + self.working, self.loading)

    def __str__(self) -> str:
        return f"{self.total / 1e9:.1f} GB"


def estimate(
    config: "OneLLMConfig", quantize: str = "none", dtype: "torch.dtype | None" = None, context: int = 2048
) -> Estimate:
    """Estimate the memory of a model from its configuration alone.

    Args:
        config: of the model.
        quantize: one of `CPU_MODES`.
        dtype: of what is not quantised; bfloat16 by default.
        context: positions that the key-value cache holds.

    Returns:
        The estimate; weights are exact, the rest follows the largest tensors that live at once.
    """
    import torch

    return _estimate(config.to_json_string(use_diff=False), quantize, dtype or torch.bfloat16, context)


@lru_cache(maxsize=1024)  # every list of the models asks for all of them
def _estimate(content: str, quantize: str, dtype: "torch.dtype", context: int) -> Estimate:
    """Estimate the memory of a model whose configuration is `content`, in JSON."""
    import torch

    from onellm.model.configuration import frames_per_file

    model = _without_weights(content)
    config = model.config
    linears = {f"{name}.weight" for name, module in model.named_modules() if _quantised(name, module, quantize)}
    weights: dict[str, int] = {}
    largest = 0
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        size = tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else tensor.itemsize)
        if name in linears:
            largest = max(largest, size)
            size = _quantised_bytes(tensor, quantize)
        elif quantize == "int8" and tensor is model.get_input_embeddings().weight:
            size = tensor.numel() * stored_dtype(config).itemsize
        part = name.partition(".")[0]
        weights[part] = weights.get(part, 0) + size

    text = config.text_config
    context = min(context, getattr(text, "max_position_embeddings", context))
    cache = cache_bytes(text, context, dtype)
    hidden = next((size for name in HIDDEN if (size := getattr(text, name, None))), 4 * text.hidden_size)
    reading = context * (4 * text.hidden_size + 3 * hidden)
    width, growth = config.encoder.get("width", 0), config.encoder.get("mlp_ratio", 4.0)
    seeing = 0
    for modality, settings in config.modalities.items():
        seeing = max(
            seeing,
            frames_per_file(modality, settings) * (model.tokenizer_for(modality).count + 1) * width * int(7 + growth),
        )
    working = max(reading, seeing) * dtype.itemsize + largest * (quantize in ("8bit", "4bit"))
    head = model.get_output_embeddings().weight
    if dtype == torch.float32 and head is model.get_input_embeddings().weight:  # the CPU packs a copy of a tied head
        working += head.numel() * (1 if quantize == "int8" else 4)
    loading = (
        stored_dtype(config).itemsize * sum(tensor.numel() for tensor in model.parameters())
        if quantize == "int8"
        else 0
    )
    return Estimate(weights, cache, int(working), loading)


@lru_cache(maxsize=4)  # each mode asks
def _without_weights(config: str) -> Any:
    """Build a model that has shapes alone from its configuration in JSON."""
    import torch

    from onellm.model.auto import model_class
    from onellm.model.configuration import read_config

    built = read_config(json.loads(config))
    with torch.device("meta"):
        return model_class(built)(built)


def cache_bytes(text: Any, context: int, dtype: "torch.dtype") -> int:
    """Return the bytes of an LLM's keys and values of `context` positions; `text` is its configuration.

    The decoder of an encoder-decoder LLM keeps those of the prompt beside its own.
    """
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    times = 4 if getattr(text, "is_encoder_decoder", False) else 2
    return times * text.num_hidden_layers * heads * head_dim * context * dtype.itemsize


def _quantised(name: str, module: Any, mode: str) -> bool:
    """Whether a mode quantises a module; bitsandbytes' rule is transformers' own."""
    from torch import nn
    from transformers.quantizers.quantizers_utils import should_convert_module

    from onellm.model.runtime.cpu import SMALL

    if mode == "int8":
        return isinstance(module, nn.Linear) and module.weight.numel() >= SMALL and "lora_" not in name
    return mode != "none" and type(module) is nn.Linear and should_convert_module(name, list(PRECISE))


def _quantised_bytes(weight: "torch.Tensor", mode: str) -> int:
    """Return the bytes of a quantised [out, in] weight with its scales."""
    count = weight.numel()
    if mode == "4bit":
        scales = -(-count // BLOCK)
        tables = 4 * (16 + 256 + 1)  # the codes of weights and of scales, and the scales' mean
        return -(-count // 2) + scales + 4 * -(-scales // NESTED_BLOCK) + tables
    return count + 4 * weight.shape[0]


def free_bytes(device: str) -> int:
    """Return the memory that is free for a model: on a GPU, or on the host within its control group's limit."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info(torch.device(device))[0]
    import psutil

    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            used = int((group / "memory.current").read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            free = min(free, int(limit) - used + int(stat["inactive_file"]))
    except (OSError, KeyError, ValueError):  # no such limit on this system
        pass
    return max(free, 0)


def smaller(config: "OneLLMConfig", mode: str, device: str, most_bytes: int) -> list[str]:
    """Name other modes, as options of the command line, in which a model takes at most so much memory."""
    named = []
    for other in CPU_MODES if device == "cpu" else MODES:
        needed = estimate(config, other, dtype_for(device))
        if needed.total <= most_bytes and other != mode:
            slow = ", very slow on a CPU" if device == "cpu" and other in ("8bit", "4bit") else ""
            named.append(f"--quantize {other} ({needed}{slow})")
    return named


def check_fits(name: str, config: "OneLLMConfig", mode: str, device: str, free: int | None = None) -> Estimate:
    """Make sure that a model will fit before it is loaded.

    Args:
        name: of the model, for the error.
        config: its configuration.
        mode: how its weights will be kept.
        device: where.
        free: bytes that may be used there; what is free by default.

    Returns:
        The estimate.

    Raises:
        ModelError: it will not fit; the message names what would.
    """
    dtype = dtype_for(device)
    free = free_bytes(device) if free is None else free
    needed = estimate(config, mode, dtype)
    if needed.total <= free:
        return needed
    instead = smaller(config, mode, device, free)
    if mode in ("none", "int8"):
        instead.append(
            f"--offload (what does not fit stays {'in main memory' if device != 'cpu' else 'on disk'}, slow)"
        )
    instead.append("--model onellm-tiny")
    where = "this machine" if device == "cpu" else "the GPU"
    raise ModelError(
        found=f"{name} with --quantize {mode} needs {needed}, but {where} has {free / 1e9:.1f} GB free",
        advice=f"use {' or '.join(instead)}",
    )
