"""The published checkpoint's layout: which of its keys make up which of our tensors, and which sizes they tell.

Names are listed once, from our side (`RULES`): every key is used by exactly one of our tensors or listed in `DROPPED`.
Source: csuhan/OneLLM, whose keys follow Meta's LLaMA and OpenAI's CLIP.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from statistics import mode

import torch

from onellm.errors import ModelError
from onellm.model.config import OneLLMConfig
from onellm.model.onellm import OneLLMForConditionalGeneration

PREFIX = "llma."

# The text tower of CLIP came along with its picture tower, and rotary frequencies are computed.
DROPPED = (
    "clip.positional_embedding",
    "clip.text_projection",
    "clip.logit_scale",
    "clip.token_embedding.weight",
    "clip.ln_final.*",
    "clip.transformer.*",
    "clip.visual.proj",
    "rope.freqs",
)

# Our name -> the published names whose rows, one below the other, are our tensor.
RULES = {
    r"language_model\.model\.embed_tokens\.weight": [r"tok_embeddings.weight"],
    r"language_model\.model\.layers\.(\d+)\.self_attn\.([qkvo])_proj\.weight": [r"layers.\1.attention.w\2.weight"],
    r"language_model\.model\.layers\.(\d+)\.mlp\.gate_proj\.weight": [r"layers.\1.feed_forward.w1.weight"],
    r"language_model\.model\.layers\.(\d+)\.mlp\.up_proj\.weight": [r"layers.\1.feed_forward.w3.weight"],
    r"language_model\.model\.layers\.(\d+)\.mlp\.down_proj\.weight": [r"layers.\1.feed_forward.w2.weight"],
    r"language_model\.model\.layers\.(\d+)\.input_layernorm\.weight": [r"layers.\1.attention_norm.weight"],
    r"language_model\.model\.layers\.(\d+)\.post_attention_layernorm\.weight": [r"layers.\1.ffn_norm.weight"],
    r"language_model\.model\.norm\.weight": [r"norm.weight"],
    r"language_model\.lm_head\.weight": [r"output.weight"],
    r"encoder\.(.+)": [r"clip.visual.\1"],
    r"tokenizers\.image\.positions": [r"clip.visual.positional_embedding"],
    r"tokenizers\.image\.conv\.weight": [r"clip.visual.conv1.weight"],
    r"tokenizers\.(\w+)\.positions": [r"positional_embedding.\1"],
    r"tokenizers\.point\.layers\.0\.(weight|bias)": [r"conv1.point.conv1.\1"],
    r"tokenizers\.(audio|fmri|imu)\.(?:conv|linear)\.(weight|bias)": [r"conv1.\1.\2"],
    r"projector\.experts\.(\d+\.\d+\.(?:attention|ffn)_norm\.weight)": [r"resample_layers.\1"],
    r"projector\.experts\.(\d+\.\d+)\.qkv\.weight": [rf"resample_layers.\1.attention.w{x}.weight" for x in "qkv"],
    r"projector\.experts\.(\d+\.\d+)\.out\.weight": [r"resample_layers.\1.attention.wo.weight"],
    r"projector\.experts\.(\d+\.\d+)\.gate_up\.weight": [rf"resample_layers.\1.feed_forward.w{x}.weight" for x in "13"],
    r"projector\.experts\.(\d+\.\d+)\.down\.weight": [r"resample_layers.\1.feed_forward.w2.weight"],
    r"projector\.queries\.(\w+)": [r"resample_tokens.\1"],
    r"projector\.(routers\..+)": [r"\1"],
    r"projector\.input_proj\.(.+)": [r"clip_proj1.\1"],
    r"projector\.output_proj\.(.+)": [r"clip_proj2.\1"],
    r"projector\.(start|end)_tags\.(\w+)": [r"\1_tag.\2"],
}
PUBLISHED_KINDS = {"depth": "rgbd", "normal": "rgbn"}


@dataclass(frozen=True)
class Tensor:
    """One of our tensors: where its rows come from, and how many heads' rotary pairs are to be reordered."""

    shape: tuple[int, ...]
    sources: dict[str, tuple[int, ...]]
    rotary_heads: int = 0

    def build(self, published: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Put the published tensors together."""
        parts = [published[key] for key in self.sources]
        if self.rotary_heads:  # Meta rotates neighbours (0, 1), transformers the halves (0, n / 2)
            pairs = parts[0].view(self.rotary_heads, -1, 2, self.shape[-1])
            return pairs.transpose(1, 2).reshape(self.shape)
        return (torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(self.shape).contiguous()


def plan(published: Mapping[str, torch.Tensor], params: Mapping) -> tuple[OneLLMConfig, dict[str, Tensor]]:
    """Decide what every one of our tensors is made of.

    Args:
        published: the checkpoint's tensors, of which only shapes and dtypes are looked at.
        params: as for `read_config`.

    Returns:
        The configuration, and our tensors by name.

    Raises:
        ModelError: keys are missing, too many or misshapen; the message names them.
    """
    shapes = {key: tuple(value.shape) for key, value in published.items()}
    config = read_config(shapes, params)
    config.dtype = mode(value.dtype for value in published.values())
    with torch.device("meta"):
        ours = OneLLMForConditionalGeneration(config).state_dict()
    heads = {"q": config.text_config.num_attention_heads, "k": config.text_config.num_key_value_heads}
    tensors = {}
    for name, value in ours.items():
        rotary = re.search(r"self_attn\.([qk])_proj", name)
        tensors[name] = Tensor(tuple(value.shape), _sources(name, value.shape), heads[rotary[1]] if rotary else 0)
    expected = {key: shape for tensor in tensors.values() for key, shape in tensor.sources.items()}
    assert len(expected) == sum(len(tensor.sources) for tensor in tensors.values())  # every key is used once
    dropped = {key for key in shapes if any(fnmatch(key, PREFIX + pattern) for pattern in DROPPED)}
    _refuse(
        [f"{key} is missing" for key in expected if key not in shapes]
        + [f"{key} is not known" for key in shapes if key not in expected and key not in dropped]
        + [
            f"{key} is {list(shapes[key])} instead of {list(shape)}"
            for key, shape in expected.items()
            if shapes.get(key, shape) != shape
        ]
    )
    return config, tensors


def _sources(name: str, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Name the published tensors that one of ours is made of, with their shapes."""
    for kind, published_kind in PUBLISHED_KINDS.items():
        name = re.sub(rf"\.{kind}(?=\.|$)", f".{published_kind}", name)
    match, keys = next((match, keys) for rule, keys in RULES.items() if (match := re.fullmatch(rule, name)))
    shape = (shape[0] // len(keys), *shape[1:])
    if name.startswith("projector.queries"):
        shape = (1, *shape)
    elif "_tags." in name:
        shape = (1, 1, *shape)
    elif name == "tokenizers.point.layers.0.weight":
        shape = (*shape, 1, 1)
    return {PREFIX + match.expand(key): shape for key in keys}


def read_config(shapes: Mapping[str, Sequence[int]], params: Mapping) -> OneLLMConfig:
    """Read the model's sizes from the shapes of a checkpoint's tensors.

    Args:
        shapes: key -> shape. Where many keys tell the same size the commonest counts, so that one misshapen key does
            not lead to complaints about all the others.
        params: what shapes do not tell. Meta's names `n_heads` (default: heads of 128), `norm_eps` (1e-5) and
            `rope_theta` (10000), and `encoder_heads` (default: heads of 64) and `expert_heads` (16).

    Raises:
        ModelError: a key that tells a size is missing, or heads do not divide a width.
    """

    def size(pattern: str, axis: int) -> int:
        found = [shape for key, shape in shapes.items() if fnmatch(key, PREFIX + pattern)]
        values = [shape[axis] for shape in found if -len(shape) <= axis < len(shape) and shape[axis]]
        if not values:
            _refuse([f"{PREFIX}{pattern} is {'misshapen' if found else 'missing'}"])
        return mode(values)

    def count(pattern: str) -> int:
        rule = re.compile(re.escape(PREFIX + pattern).replace(r"\#", r"(\d+)") + r"\.")
        found = {match[match.lastindex] for key in shapes if (match := rule.match(key))}
        if not found:
            _refuse([f"{PREFIX}{pattern} is missing"])
        return len(found)

    def heads(name: str, width: int, default: int) -> int:
        value = params.get(name, default)
        if type(value) is not int or value < 1 or width % value:
            raise ModelError(f"{name} is {value!r}, which does not divide the width {width}; set it in params.json.")
        return value

    def number(name: str, default: float) -> float:
        value = params.get(name, default)
        if type(value) not in (int, float) or value <= 0:
            raise ModelError(f"{name} is {value!r}, which is no positive number; set it in params.json.")
        return value

    config = OneLLMConfig.from_preset("onellm-7b")
    text, kinds = config.text_config, config.modalities
    text.hidden_size = size("layers.*_norm.weight", 0)
    text.num_hidden_layers = count("layers.#")
    text.intermediate_size = size("layers.*.feed_forward.w1.weight", 0)
    text.vocab_size = size("tok_embeddings.weight", 0)
    text.num_attention_heads = heads("n_heads", text.hidden_size, max(1, text.hidden_size // 128))
    text.head_dim = text.hidden_size // text.num_attention_heads
    text.num_key_value_heads = max(1, size("layers.*.attention.wk.weight", 0) // text.head_dim)
    text.rms_norm_eps = number("norm_eps", 1e-5)
    text.rope_parameters = {"rope_type": "default", "rope_theta": number("rope_theta", 10000.0)}

    width = size("clip.visual.transformer.resblocks.*.ln_?.weight", 0)
    config.encoder = {
        "width": width,
        "layers": count("clip.visual.transformer.resblocks.#"),
        "heads": heads("encoder_heads", width, max(1, width // 64)),
        "mlp_ratio": size("clip.visual.transformer.resblocks.*.mlp.c_fc.weight", 0) / width,
    }
    config.projector |= {
        "experts": count("resample_layers.#"),
        "layers": count("resample_layers.#.#"),
        "heads": heads("expert_heads", width, 16),
        "hidden": size("resample_layers.*.feed_forward.w1.weight", 0),
        "queries": size("resample_tokens.*", -2),
        "router_hidden": size("routers.*.fc1.weight", 0),
        "norm_eps": text.rms_norm_eps,
    }
    patch = size("clip.visual.conv1.weight", -1)
    side = patch * math.isqrt(size("clip.visual.positional_embedding", 0) - 1)
    kinds["image"]["tokenizer"] |= {"size": side, "patch": patch}
    kinds["image"]["input"]["resize"] = side
    for kind in ("image", "video", "depth", "normal"):
        kinds[kind]["input"]["size"] = side
    kinds["point"]["tokenizer"]["groups"] = size("positional_embedding.point", 0) - 1
    kinds["fmri"]["input"]["voxels"] = kinds["fmri"]["tokenizer"]["voxels"] = size("conv1.fmri.weight", -1)
    kinds["fmri"]["tokenizer"]["count"] = size("positional_embedding.fmri", 0) - 1
    kernel = size("conv1.imu.weight", -1)
    length = size("positional_embedding.imu", 0) - 2 + kernel
    kinds["imu"]["tokenizer"] |= {"length": length, "kernel": kernel}
    kinds["imu"]["input"]["length"] = length
    for number, settings in enumerate(kinds.values()):
        settings["token_id"] = text.vocab_size + number
    return config


def _refuse(faults: list[str]) -> None:
    """Raise where there are faults: the first five in words, and how many more."""
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ModelError(
            f"The checkpoint does not have the published layout ({'; '.join(faults[:5])}{more}); "
            "download consolidated.00-of-01.pth of csuhan/OneLLM-7B anew, or correct params.json if sizes differ."
        )
