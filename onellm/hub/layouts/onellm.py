"""The published OneLLM: one file with Meta's names of LLaMA and OpenAI's of CLIP.

Source: csuhan/OneLLM.
"""

import math
import re
from collections.abc import Mapping

from onellm.hub.layouts.base import Layout, Shapes
from onellm.hub.layouts.parts import heads, meta_llama, meta_llama_config
from onellm.model.configuration import OneLLMConfig

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
    rules = meta_llama(PREFIX) | {rule: [PREFIX + key for key in keys] for rule, keys in RULES.items()}
    dropped = tuple(PREFIX + pattern for pattern in DROPPED)
    meta_rotary = True

    def keys_of(self, name: str) -> list[str]:
        """Return the checkpoint's keys, which call two modalities by other names."""
        for modality, published in PUBLISHED_KINDS.items():
            name = re.sub(rf"\.{modality}(?=\.|$)", f".{published}", name)
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

        config = OneLLMConfig.from_preset("onellm-7b")
        text, modalities = config.text_config, config.modalities
        for name, value in meta_llama_config(self, shapes, params, PREFIX).items():
            setattr(text, name, value)

        width = size("clip.visual.transformer.resblocks.*.ln_?.weight", 0)
        config.encoder = {
            "width": width,
            "layers": count("clip.visual.transformer.resblocks.#"),
            "heads": heads(params, "encoder_heads", width, max(1, width // 64)),
            "mlp_ratio": size("clip.visual.transformer.resblocks.*.mlp.c_fc.weight", 0) / width,
        }
        config.projector |= {
            "experts": count("resample_layers.#"),
            "layers": count("resample_layers.#.#"),
            "heads": heads(params, "expert_heads", width, 16),
            "hidden": size("resample_layers.*.feed_forward.w1.weight", 0),
            "queries": size("resample_tokens.*", -2),
            "router_hidden": size("routers.*.fc1.weight", 0),
            "norm_eps": text.rms_norm_eps,
        }
        patch = size("clip.visual.conv1.weight", -1)
        side = patch * math.isqrt(size("clip.visual.positional_embedding", 0) - 1)
        modalities["image"]["tokenizer"] |= {"size": side, "patch": patch}
        modalities["image"]["input"]["resize"] = side
        for modality in ("image", "video", "depth", "normal"):
            modalities[modality]["input"]["size"] = side
        modalities["point"]["tokenizer"]["groups"] = size("positional_embedding.point", 0) - 1
        modalities["fmri"]["input"]["voxels"] = modalities["fmri"]["tokenizer"]["voxels"] = size(
            "conv1.fmri.weight", -1
        )
        modalities["fmri"]["tokenizer"]["count"] = size("positional_embedding.fmri", 0) - 1
        kernel = size("conv1.imu.weight", -1)
        length = size("positional_embedding.imu", 0) - 2 + kernel
        modalities["imu"]["tokenizer"] |= {"length": length, "kernel": kernel}
        modalities["imu"]["input"]["length"] = length
        for number, settings in enumerate(modalities.values()):
            settings["token_id"] = text.vocab_size + number
        return config
