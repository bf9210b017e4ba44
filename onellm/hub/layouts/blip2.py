"""BLIP-2 and InstructBLIP as transformers writes them.

Source: transformers' Blip2ForConditionalGeneration and InstructBlipForConditionalGeneration.
"""

from collections.abc import Mapping

from transformers import Blip2Config, InstructBlipConfig

from onellm.errors import ModelError
from onellm.hub.layouts.base import Layout, Shapes
from onellm.hub.layouts.parts import BLOCK, TOWER_PADDED, tower_of
from onellm.model.configuration import OneLLMConfig

PRESETS = {
    ("blip-2", "opt"): "blip2-opt-2.7b",
    ("blip-2", "t5"): "blip2-flan-t5-xl",
    ("instructblip", "llama"): "instructblip-vicuna-7b",
}


class Blip2Layout(Layout):
    """All sizes stand in the folder's config.json."""

    title = "BLIP-2 or InstructBLIP of transformers"
    marks = ("qformer.encoder.layer.0.*", "language_projection.*", "language_model.*", "vision_model.*")
    presets = tuple(PRESETS.values())
    rules = {
        r"tokenizers\.image\.positions": ["vision_model.embeddings.position_embedding"],
        r"tokenizers\.image\.conv\.(weight|bias)": [r"vision_model.embeddings.patch_embedding.\1"],
        r"encoder\.class_embedding": ["vision_model.embeddings.class_embedding"],
        r"encoder\.ln_post\.(.+)": [r"vision_model.post_layernorm.\1"],
        rf"{BLOCK}\.ln_(\d)\.(.+)": [r"vision_model.encoder.layers.\1.layer_norm\2.\3"],
        rf"{BLOCK}\.attn\.in_proj_(.+)": [r"vision_model.encoder.layers.\1.self_attn.qkv.\2"],
        rf"{BLOCK}\.attn\.out_proj\.(.+)": [r"vision_model.encoder.layers.\1.self_attn.projection.\2"],
        rf"{BLOCK}\.mlp\.c_fc\.(.+)": [r"vision_model.encoder.layers.\1.mlp.fc1.\2"],
        rf"{BLOCK}\.mlp\.c_proj\.(.+)": [r"vision_model.encoder.layers.\1.mlp.fc2.\2"],
        r"projector\.queries\.all": ["query_tokens"],
        r"projector\.qformer\.(.+)": [r"qformer.\1"],
        r"projector\.projection\.(.+)": [r"language_projection.\1"],
        r"language_model\.(.+)": [r"language_model.\1"],
    }

    padded = TOWER_PADDED | {r"projector\.queries\.all": 1}

    def read_config(self, shapes: Shapes, params: Mapping, preset: str | None) -> OneLLMConfig:
        """Read config.json; prompts and all that is said around them come from the preset of its LLM's type."""
        configs = {"blip-2": Blip2Config, "instructblip": InstructBlipConfig}
        if params.get("model_type") not in configs:
            self.refuse([f"its config.json is of type '{params.get('model_type')}' instead of {' or '.join(configs)}"])
        read = configs[params["model_type"]].from_dict(dict(params))
        vision, qformer, text = read.vision_config, read.qformer_config, read.text_config
        preset = preset or PRESETS.get((read.model_type, text.model_type))
        if preset is None:
            raise ModelError(
                f"{read.model_type} before an LLM of type '{text.model_type}' has no preset; name one that its prompts "
                f"are like with --preset ({', '.join(self.presets)})."
            )
        picture = {"size": vision.image_size, "patch": vision.patch_size}
        image = {"token_id": text.vocab_size, "tokenizer": picture, "input": {"size": vision.image_size}}
        reads = {"vocabulary": qformer.vocab_size} if read.model_type == "instructblip" else {}
        return OneLLMConfig.from_preset(
            preset,
            text_config=text,
            encoder=tower_of(vision),
            projector={
                "queries": read.num_query_tokens,
                "hidden": qformer.hidden_size,
                "layers": qformer.num_hidden_layers,
                "heads": qformer.num_attention_heads,
                "intermediate": qformer.intermediate_size,
                "cross_every": qformer.cross_attention_frequency,
                "places": qformer.max_position_embeddings,
                "norm_eps": qformer.layer_norm_eps,
                **reads,
            },
            modalities={"image": image},
        )
