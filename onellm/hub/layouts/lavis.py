"""Systems whose files have the names of LAVIS: MiniGPT-4 and VL-Vicuna.

They come in pieces: BLIP-2's file (picture tower and querying transformer), the system's own (the linear layer, and for
VL-Vicuna the querying transformer anew, which replaces BLIP-2's), and the LLM as a transformers folder.
Source: salesforce/LAVIS, Vision-CAIR/MiniGPT-4, VPGTrans/VPGTrans.
"""

from collections.abc import Mapping

from onellm.hub.layouts.base import ZEROS, Layout, Shapes
from onellm.hub.layouts.parts import BLOCK, TOWER_PADDED, picture_side
from onellm.model.configuration import OneLLMConfig

VIT, QFORMER = "visual_encoder", "Qformer.bert"


class LavisLayout(Layout):
    """Sizes come from shapes, the LLM's from its folder."""

    title = "MiniGPT-4 or VL-Vicuna in the names of LAVIS"
    advice = "give BLIP-2's file and the model's own as checkpoints, in this order, and the LLM's folder with --llm"
    marks = (f"{VIT}.blocks.*", f"{QFORMER}.encoder.layer.*", "llama_proj.*", "language_model.*")
    presets = ("minigpt4-7b", "vl-vicuna-7b")
    renames = {r"^(cls_token|pos_embed|patch_embed\.|blocks\.)": rf"{VIT}.\1"}  # the tower's own file
    rules = {
        r"tokenizers\.image\.positions": [f"{VIT}.pos_embed"],
        r"tokenizers\.image\.conv\.(weight|bias)": [rf"{VIT}.patch_embed.proj.\1"],
        r"encoder\.class_embedding": [f"{VIT}.cls_token"],
        r"encoder\.ln_post\.(.+)": [r"ln_vision.\1"],
        rf"{BLOCK}\.ln_(\d)\.(.+)": [rf"{VIT}.blocks.\1.norm\2.\3"],
        rf"{BLOCK}\.attn\.in_proj_weight": [rf"{VIT}.blocks.\1.attn.qkv.weight"],
        rf"{BLOCK}\.attn\.in_proj_bias": [rf"{VIT}.blocks.\1.attn.q_bias", ZEROS, rf"{VIT}.blocks.\1.attn.v_bias"],
        rf"{BLOCK}\.attn\.out_proj\.(.+)": [rf"{VIT}.blocks.\1.attn.proj.\2"],
        rf"{BLOCK}\.mlp\.c_fc\.(.+)": [rf"{VIT}.blocks.\1.mlp.fc1.\2"],
        rf"{BLOCK}\.mlp\.c_proj\.(.+)": [rf"{VIT}.blocks.\1.mlp.fc2.\2"],
        r"projector\.queries\.all": ["query_tokens"],
        r"projector\.qformer\.layernorm\.(.+)": [rf"{QFORMER}.embeddings.LayerNorm.\1"],
        r"projector\.qformer\.(.+attention)\.attention\.(.+)": [rf"{QFORMER}.\1.self.\2"],
        r"projector\.qformer\.(.+)": [rf"{QFORMER}.\1"],
        r"projector\.projection\.(.+)": [r"llama_proj.\1"],
        r"language_model\.(.+)": [r"language_model.\1"],
    }
    dropped = (
        f"{VIT}.blocks.*",  # behind the last one that BLIP-2 reads
        *("norm.*", "fc_norm.*", "head.*"),
        f"{QFORMER}.embeddings.*",  # what reads and writes text
        *(f"{QFORMER}.encoder.layer.*.{name}.*" for name in ("intermediate", "output")),
        "Qformer.cls.*",
        *("opt_proj.*", "t5_proj.*"),  # to another LLM
    )

    padded = TOWER_PADDED | {r"projector\.queries\.all": 1}

    def read_config(self, shapes: Shapes, params: Mapping, preset: str | None) -> OneLLMConfig:
        """Read sizes from shapes; heads, which these do not tell, and prompts come from the preset."""
        layer = f"{QFORMER}.encoder.layer.*"
        layers = self.count(shapes, f"{QFORMER}.encoder.layer.#")
        crossing = {key.split(".")[4] for key in shapes if key.startswith(QFORMER) and ".crossattention." in key}
        patch = self.size(shapes, f"{VIT}.patch_embed.proj.weight", -1)
        side = picture_side(self.size(shapes, f"{VIT}.pos_embed", 1) - 1, patch)
        text = params["text_config"]
        preset = preset or self.presets[0]
        known = OneLLMConfig.from_preset(preset).encoder["layers"]
        return OneLLMConfig.from_preset(
            preset,
            text_config=text,
            encoder={
                "width": self.size(shapes, f"{VIT}.cls_token", -1),
                "layers": min(known, self.count(shapes, f"{VIT}.blocks.#")),
                "hidden": self.size(shapes, f"{VIT}.blocks.*.mlp.fc1.weight", 0),
            },
            projector={
                "queries": self.size(shapes, "query_tokens", 1),
                "hidden": self.size(shapes, "query_tokens", 2),
                "layers": layers,
                "intermediate": self.size(shapes, f"{layer}.intermediate_query.dense.weight", 0),
                "cross_every": layers // max(1, len(crossing)),
            },
            modalities={
                "image": {
                    "token_id": text["vocab_size"],
                    "tokenizer": {"size": side, "patch": patch},
                    "input": {"size": side},
                }
            },
        )
