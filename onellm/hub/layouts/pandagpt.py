"""PandaGPT: a file of what it trained, beside ImageBind's file and a Vicuna as a transformers folder.

Source: yxuansu/PandaGPT, facebookresearch/ImageBind.
"""

from collections.abc import Mapping

from onellm.hub.layouts.base import Layout, Shapes
from onellm.hub.layouts.parts import TOWER_PADDED, heads, picture_side
from onellm.model.configuration import OneLLMConfig

# our modality -> ImageBind's; our name of its encoder
TOWERS = {"image": ("vision", r"encoder"), "audio": ("audio", r"encoders\.audio")}
LORA = "llama_model.base_model.model.model.layers"


def tower(modality: str, theirs: str, ours: str) -> dict[str, list[str]]:
    """Return the rules of one modality's encoder."""
    block, trunk = rf"{ours}\.transformer\.resblocks\.(\d+)", rf"modality_trunks.{theirs}.blocks.\1"
    before = f"modality_preprocessors.{theirs}"
    return {
        rf"tokenizers\.{modality}\.positions": [f"{before}.pos_embedding_helper.pos_embed"],
        rf"tokenizers\.{modality}\.norm\.(.+)": [rf"{before}.rgbt_stem.norm_layer.\1"],
        rf"{ours}\.class_embedding": [f"{before}.cls_token"],
        rf"{ours}\.ln_pre\.(.+)": [rf"modality_trunks.{theirs}.pre_transformer_layer.0.\1"],
        rf"{block}\.ln_(\d)\.(.+)": [rf"{trunk}.norm_\2.\3"],
        rf"{block}\.attn\.(.+)": [rf"{trunk}.attn.\2"],
        rf"{block}\.mlp\.c_fc\.(.+)": [rf"{trunk}.mlp.fc1.\2"],
        rf"{block}\.mlp\.c_proj\.(.+)": [rf"{trunk}.mlp.fc2.\2"],
        rf"{ours}\.ln_post\.(.+)": [rf"modality_heads.{theirs}.0.\1"],
        rf"{ours}\.output_proj\.weight": [f"modality_heads.{theirs}.2.weight"],
    }


class PandaGptLayout(Layout):
    """Sizes come from shapes, the LLM's from its folder."""

    title = "PandaGPT with ImageBind and Vicuna"
    advice = "give imagebind_huge.pth and PandaGPT's pytorch_model.pt as checkpoints, and Vicuna's folder with --llm"
    marks = ("modality_trunks.*", "llama_proj.*", f"{LORA}.*", "language_model.*")
    presets = ("pandagpt-7b",)
    renames = {
        r"^visual_encoder\.": "",
        r"(lora_[AB])\.weight$": r"\1.default.weight",  # PEFT of 2023 wrote no name of the set
    }
    rules = (
        tower("image", *TOWERS["image"])
        | tower("audio", *TOWERS["audio"])
        | {
            r"tokenizers\.image\.conv\.weight": ["modality_preprocessors.vision.rgbt_stem.proj.1.weight"],
            r"tokenizers\.audio\.conv\.weight": ["modality_preprocessors.audio.rgbt_stem.proj.weight"],
            r"projector\.layers\.all\.(.+)": [r"llama_proj.\1"],
            r"language_model\.model\.layers\.(.+lora_.+)": [rf"{LORA}.\1"],
            r"language_model\.(.+)\.base_layer\.(.+)": [r"language_model.\1.\2"],
            r"language_model\.(.+)": [r"language_model.\1"],
        }
    )
    # kinds of ImageBind that PandaGPT's LLM was not shown, and temperatures of its own training
    dropped = tuple(
        f"modality_{part}.{modality}.*"
        for part in ("preprocessors", "trunks", "heads")
        for modality in ("text", "depth", "thermal", "imu")
    ) + ("modality_postprocessors.*",)

    padded = TOWER_PADDED

    def read_config(self, shapes: Shapes, params: Mapping, preset: str | None) -> OneLLMConfig:
        """Read sizes from shapes; heads, which these do not tell, and prompts come from the preset.

        `params` may say `encoder_heads` and `audio_heads`.
        """
        text = params["text_config"]
        known = OneLLMConfig.from_preset(self.presets[0])
        audio = known.modalities["audio"]
        wide = known.encoder["heads"], audio["encoder"]["heads"]
        encoder, sound = (
            self._sizes(shapes, theirs, params, name, default)
            for (theirs, _), name, default in zip(TOWERS.values(), ("encoder_heads", "audio_heads"), wide, strict=True)
        )
        picture = "modality_preprocessors.vision"
        moments = self.size(shapes, f"{picture}.rgbt_stem.proj.1.weight", 2)
        patch = self.size(shapes, f"{picture}.rgbt_stem.proj.1.weight", -1)
        side = picture_side(self.size(shapes, f"{picture}.pos_embedding_helper.pos_embed", 1) - 1, patch)
        ids = {modality: {"token_id": text["vocab_size"] + place} for place, modality in enumerate(known.modalities)}
        return OneLLMConfig.from_preset(
            self.presets[0],
            text_config=text,
            encoder=encoder | {"output": self.size(shapes, "modality_heads.vision.2.weight", 0)},
            adapter={"r": self.size(shapes, f"{LORA}.*.lora_A.*", 0)},
            modalities={
                "image": ids["image"]
                | {"tokenizer": {"size": side, "patch": patch, "moments": moments}, "input": {"size": side}},
                "video": ids["video"] | {"input": {"size": side}},
                "audio": ids["audio"] | {"encoder": sound},
            },
        )

    def _sizes(self, shapes: Shapes, theirs: str, params: Mapping, name: str, default: int) -> dict:
        """Read the sizes of one modality's encoder."""
        width = self.size(shapes, f"modality_preprocessors.{theirs}.cls_token", -1)
        return {
            "width": width,
            "layers": self.count(shapes, f"modality_trunks.{theirs}.blocks.#"),
            "heads": heads(params, name, width, default),
            "hidden": self.size(shapes, f"modality_trunks.{theirs}.blocks.*.mlp.fc1.weight", 0),
        }
