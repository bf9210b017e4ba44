"""mPLUG-Owl as its authors' transformers classes write it.

Source: X-PLUG/mPLUG-Owl, the form on the hub (MAGAer13/mplug-owl-llama-7b).
"""

from collections.abc import Mapping

import torch

from onellm.hub.layouts.base import Layout, Shapes
from onellm.hub.layouts.parts import BLOCK, TOWER_PADDED
from onellm.model.configuration import OneLLMConfig

LAYER = r"projector\.layers\.(\d+)"
CROSS = r"abstractor.encoder.layers.\1.crossattention"
TOWER = r"vision_model.encoder.layers.\1"


class MplugOwlLayout(Layout):
    """All sizes stand in the folder's config.json; LoRA is merged into the LLM, or its keys are there too."""

    title = "mPLUG-Owl"
    advice = "give the folder of a published mplug-owl-llama-7b, not of another language model or for videos"
    marks = ("abstractor.encoder.layers.*", "query_tokens", "vision_model.embeddings.cls_token", "language_model.*")
    presets = ("mplug-owl-7b",)
    renames = {
        r"^base_model\.model\.": "",  # of PEFT, which in 2023 wrote LoRA's layers without the name of their set
        r"\.base_layer\.": ".",
        r"(lora_[AB])\.weight$": r"\1.default.weight",
    }
    rules = {
        r"tokenizers\.image\.positions": ["vision_model.embeddings.position_embedding"],
        r"tokenizers\.image\.conv\.weight": ["vision_model.embeddings.patch_embed.weight"],
        r"encoder\.class_embedding": ["vision_model.embeddings.cls_token"],
        r"encoder\.ln_pre\.(.+)": [r"vision_model.embeddings.pre_layernorm.\1"],
        r"encoder\.ln_post\.(.+)": [r"vision_model.post_layernorm.\1"],
        rf"{BLOCK}\.ln_1\.(.+)": [rf"{TOWER}.input_layernorm.\2"],
        rf"{BLOCK}\.ln_2\.(.+)": [rf"{TOWER}.post_attention_layernorm.\2"],
        rf"{BLOCK}\.attn\.in_proj_(.+)": [rf"{TOWER}.self_attn.query_key_value.\2"],
        rf"{BLOCK}\.attn\.out_proj\.(.+)": [rf"{TOWER}.self_attn.dense.\2"],
        rf"{BLOCK}\.mlp\.c_fc\.(.+)": [rf"{TOWER}.mlp.fc1.\2"],
        rf"{BLOCK}\.mlp\.c_proj\.(.+)": [rf"{TOWER}.mlp.fc2.\2"],
        r"projector\.queries": ["query_tokens"],
        rf"{LAYER}\.query_norm\.(.+)": [rf"{CROSS}.norm1.\2"],
        rf"{LAYER}\.feature_norm\.(.+)": [rf"{CROSS}.normk.\2"],
        rf"{LAYER}\.query\.(.+)": [rf"{CROSS}.attention.query.\2"],
        rf"{LAYER}\.key_value\.(.+)": [rf"{CROSS}.attention.key.\2", rf"{CROSS}.attention.value.\2"],
        rf"{LAYER}\.out\.(.+)": [rf"{CROSS}.output.out_proj.\2"],
        rf"{LAYER}\.ffn_norm\.(.+)": [rf"{CROSS}.output.norm2.\2"],
        rf"{LAYER}\.ffn\.gate\.(.+)": [rf"{CROSS}.output.mlp.w1.\2"],
        rf"{LAYER}\.ffn\.up\.(.+)": [rf"{CROSS}.output.mlp.w3.\2"],
        rf"{LAYER}\.ffn\.down\.(.+)": [rf"{CROSS}.output.mlp.w2.\2"],
        rf"{LAYER}\.ffn\.norm\.(.+)": [rf"{CROSS}.output.mlp.ffn_ln.\2"],
        r"projector\.output_proj\.(.+)": [r"abstractor.visual_fc.\1"],
        r"projector\.end_tags\.image": ["abstractor.vit_eos"],
        r"language_model\.(.+)\.base_layer\.(.+)": [r"language_model.\1.\2"],
        r"language_model\.(.+)": [r"language_model.\1"],
    }

    padded = TOWER_PADDED | {r"projector\.queries": 1, r"projector\.end_tags\.image": 2}

    def arrange(self, name: str, tensor: torch.Tensor, config: OneLLMConfig) -> torch.Tensor:
        """Sort the tower's queries, keys and values, which are published head by head."""
        if ".attn.in_proj_" not in name:
            return tensor
        return tensor.unflatten(0, (config.encoder["heads"], 3, -1)).transpose(0, 1).flatten(0, 2)

    def read_config(self, shapes: Shapes, params: Mapping, preset: str | None) -> OneLLMConfig:
        """Read config.json, which may leave out what is as in the authors' classes, and so in the preset."""
        if params.get("model_type") != "mplug-owl":
            self.refuse([f"its config.json is of type '{params.get('model_type')}' instead of mplug-owl"])
        known = OneLLMConfig.from_preset(self.presets[0])
        vision, abstractor = params.get("vision_config", {}), params.get("visual_abstractor_config", {})
        text = {"model_type": "llama", **params.get("text_config", {})}
        picture = known.modalities["image"]["tokenizer"]
        side = vision.get("image_size", picture["size"])
        lora = any(".lora_A." in key for key in shapes)
        names = {"hidden_size": "width", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
        names |= {"intermediate_size": "hidden", "layer_norm_eps": "norm_eps"}
        inner = {key: value for key, value in names.items() if key != "hidden_size"}
        return OneLLMConfig.from_preset(
            self.presets[0],
            text_config=text,
            encoder={ours: vision[theirs] for theirs, ours in names.items() if theirs in vision},
            projector={ours: abstractor[theirs] for theirs, ours in inner.items() if theirs in abstractor}
            | {"queries": self.size(shapes, "query_tokens", 1)},
            adapter=known.adapter if lora else None,
            modalities={
                "image": {
                    "token_id": self.size(shapes, "language_model.*embed_tokens.weight", 0),
                    "tokenizer": {"size": side, "patch": vision.get("patch_size", picture["patch"])},
                    "input": {"size": side},
                }
            },
        )
