"""Parts that several published checkpoints have in common: LLaMA as Meta names it, CLIP as transformers does."""

from collections.abc import Mapping, Sequence
from typing import Any

from onellm.errors import ModelError
from onellm.hub.layouts.base import Layout, Shapes

BLOCK = r"encoder\.transformer\.resblocks\.(\d+)"

Rules = dict[str, Sequence[str]]

# positions and class tokens of a tower whose published form has room for a batch
TOWER_PADDED = {r"tokenizers\..*\.positions": 1, r".*\bclass_embedding": 2}


def meta_llama(prefix: str = "") -> Rules:
    """Return the rules of an LLM; its queries and keys are in Meta's rotary order."""
    layer = r"language_model\.model\.layers\.(\d+)"
    rules = {
        r"language_model\.model\.embed_tokens\.weight": "tok_embeddings.weight",
        rf"{layer}\.self_attn\.([qkvo])_proj\.weight": r"layers.\1.attention.w\2.weight",
        rf"{layer}\.mlp\.gate_proj\.weight": r"layers.\1.feed_forward.w1.weight",
        rf"{layer}\.mlp\.up_proj\.weight": r"layers.\1.feed_forward.w3.weight",
        rf"{layer}\.mlp\.down_proj\.weight": r"layers.\1.feed_forward.w2.weight",
        rf"{layer}\.input_layernorm\.weight": r"layers.\1.attention_norm.weight",
        rf"{layer}\.post_attention_layernorm\.weight": r"layers.\1.ffn_norm.weight",
        r"language_model\.model\.norm\.weight": "norm.weight",
        r"language_model\.lm_head\.weight": "output.weight",
    }
    return {rule: [prefix + key] for rule, key in rules.items()}


def meta_llama_config(
    layout: Layout, shapes: Shapes, params: Mapping, prefix: str = "", norm_eps: float = 1e-5
) -> dict[str, Any]:
    """Read the LLM's configuration from shapes and Meta's params.json.

    Args:
        layout: that asks.
        shapes: of the checkpoint's tensors.
        params: `n_heads` (default: heads of 128), `norm_eps` and `rope_theta` (10000).
        prefix: of the LLM's keys.
        norm_eps: where `params` does not say it.
    """
    width = layout.size(shapes, f"{prefix}layers.*_norm.weight", 0)
    count = heads(params, "n_heads", width, max(1, width // 128))
    return {
        "hidden_size": width,
        "num_hidden_layers": layout.count(shapes, f"{prefix}layers.#"),
        "intermediate_size": layout.size(shapes, f"{prefix}layers.*.feed_forward.w1.weight", 0),
        "vocab_size": layout.size(shapes, f"{prefix}tok_embeddings.weight", 0),
        "num_attention_heads": count,
        "head_dim": width // count,
        "num_key_value_heads": max(1, layout.size(shapes, f"{prefix}layers.*.attention.wk.weight", 0) * count // width),
        "rms_norm_eps": number(params, "norm_eps", norm_eps),
        "rope_parameters": {"rope_type": "default", "rope_theta": number(params, "rope_theta", 10000.0)},
    }


def heads(params: Mapping, name: str, width: int, default: int) -> int:
    """Read how many heads there are.

    Raises:
        ModelError: they do not divide the width.
    """
    value = params.get(name, default)
    if type(value) is not int or value < 1 or width % value:
        raise ModelError(f"{name} is {value!r}, which does not divide the width {width}; set it in params.json.")
    return value


def number(params: Mapping, name: str, default: float) -> float:
    """Read a positive number.

    Raises:
        ModelError: it is none.
    """
    value = params.get(name, default)
    if type(value) not in (int, float) or value <= 0:
        raise ModelError(f"{name} is {value!r}, which is no positive number; set it in params.json.")
    return value


CLIP: Rules = {
    r"tokenizers\.image\.positions": ["vision_tower.embeddings.position_embedding.weight"],
    r"tokenizers\.image\.conv\.weight": ["vision_tower.embeddings.patch_embedding.weight"],
    r"encoder\.class_embedding": ["vision_tower.embeddings.class_embedding"],
    r"encoder\.ln_pre\.(.+)": [r"vision_tower.pre_layrnorm.\1"],
    r"encoder\.ln_post\.(.+)": [r"vision_tower.post_layernorm.\1"],
    rf"{BLOCK}\.ln_(\d)\.(.+)": [r"vision_tower.encoder.layers.\1.layer_norm\2.\3"],
    rf"{BLOCK}\.attn\.in_proj_(.+)": [rf"vision_tower.encoder.layers.\1.self_attn.{x}_proj.\2" for x in "qkv"],
    rf"{BLOCK}\.attn\.out_proj\.(.+)": [r"vision_tower.encoder.layers.\1.self_attn.out_proj.\2"],
    rf"{BLOCK}\.mlp\.c_fc\.(.+)": [r"vision_tower.encoder.layers.\1.mlp.fc1.\2"],
    rf"{BLOCK}\.mlp\.c_proj\.(.+)": [r"vision_tower.encoder.layers.\1.mlp.fc2.\2"],
}
"""Rules of a picture tower of CLIP, as transformers writes it below `vision_tower`."""

# A folder of CLIP alone: its tower under the name it has as a part, and what belongs to its text tower.
CLIP_RENAMES = {r"^vision_model\.": "vision_tower."}
CLIP_DROPPED = (
    "vision_tower.encoder.layers.*",  # behind the layer that is read
    "vision_tower.post_layernorm.*",
    "text_model.*",
    "text_projection.*",
    "visual_projection.*",
    "logit_scale",
)


def clip_config(layout: Layout, shapes: Shapes) -> tuple[dict, dict, int]:
    """Read the sizes of a picture tower of CLIP.

    Returns:
        Changes to `OneLLMConfig.encoder`, to the tokenizer of pictures, and the side of a picture in pixels. Heads
        are of 64 channels, as in all of OpenAI's towers, where the width allows it.
    """
    width = layout.size(shapes, "vision_tower.embeddings.class_embedding", -1)
    patch = layout.size(shapes, "vision_tower.embeddings.patch_embedding.weight", -1)
    side = picture_side(layout.size(shapes, "vision_tower.embeddings.position_embedding.weight", 0) - 1, patch)
    encoder = {
        "width": width,
        "layers": layout.count(shapes, "vision_tower.encoder.layers.#"),
        "heads": max(1, width // 64),
        "hidden": layout.size(shapes, "vision_tower.encoder.layers.*.mlp.fc1.weight", 0),
    }
    return encoder, {"size": side, "patch": patch}, side


def picture_side(patches: int, patch: int) -> int:
    """Return the side of a square picture of so many patches, in pixels."""
    return round(patches**0.5) * patch


def tower_of(vision: Any) -> dict[str, Any]:
    """Read the encoder's sizes from transformers' configuration of a tower."""
    return {
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "hidden": vision.intermediate_size,
        "activation": vision.hidden_act,
        "norm_eps": vision.layer_norm_eps,
    }
