"""The published OneLLM: one file with Meta's names of LLaMA and OpenAI's of CLIP.

Source: csuhan/OneLLM.
"""

import math
import re
from collections.abc import Mapping

from onellm.errors import ModelError
from onellm.model.config import OneLLMConfig
from onellm.model.layouts.base import Layout, Shapes

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

# Without the prefix; see `Layout.rules`.
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


class OneLLMLayout(Layout):
    """All that is told comes from shapes; the rest stands in Meta's params.json, see `read_config`."""

    title = "the published OneLLM"
    advice = "download consolidated.00-of-01.pth of csuhan/OneLLM-7B anew, or correct params.json if sizes differ"
    marks = (f"{PREFIX}*",)
    presets = ("onellm-7b",)
    rules = {rule: [PREFIX + key for key in keys] for rule, keys in RULES.items()}
    dropped = tuple(PREFIX + pattern for pattern in DROPPED)
    meta_rotary = True

    def keys_of(self, name: str) -> list[str]:
        """Return the checkpoint's keys, which call two kinds by other names."""
        for kind, published in PUBLISHED_KINDS.items():
            name = re.sub(rf"\.{kind}(?=\.|$)", f".{published}", name)
        return super().keys_of(name)

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the published shape, which has axes of length 1 that ours lacks."""
        if name.startswith("projector.queries"):
            return 1, *shape
        if "_tags." in name:
            return 1, 1, *shape
        return (*shape, 1, 1) if name == "tokenizers.point.layers.0.weight" else shape

    def read_config(self, shapes: Shapes, params: Mapping, preset: str | None) -> OneLLMConfig:
        """Read the model's sizes from the shapes.

        Args:
            shapes: key -> shape.
            params: what shapes do not tell. Meta's names `n_heads` (default: heads of 128), `norm_eps` (1e-5) and
                `rope_theta` (10000), and `encoder_heads` (default: heads of 64) and `expert_heads` (16).
            preset: there is only one.

        Raises:
            ModelError: a key that tells a size is missing, or heads do not divide a width.
        """

        def size(pattern: str, axis: int) -> int:
            return self.size(shapes, PREFIX + pattern, axis)

        def count(pattern: str) -> int:
            return self.count(shapes, PREFIX + pattern)

        def heads(name: str, width: int, default: int) -> int:
            value = params.get(name, default)
            if type(value) is not int or value < 1 or width % value:
                raise ModelError(
                    f"{name} is {value!r}, which does not divide the width {width}; set it in params.json."
                )
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
