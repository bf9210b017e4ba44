"""LLaVA-1.5 as transformers writes it.

Source: transformers' LlavaForConditionalGeneration, today's keys and those of 2023 to 2025.
"""

from collections.abc import Mapping

from transformers import LlavaConfig

from onellm.hub.layouts.base import Layout, Shapes
from onellm.hub.layouts.parts import CLIP, tower_of
from onellm.model.configuration import OneLLMConfig


class LlavaLayout(Layout):
    """All sizes stand in the folder's config.json."""

    title = "LLaVA-1.5 of transformers"
    marks = ("multi_modal_projector.linear_1.*", "language_model.*", "vision_tower.*")
    presets = ("llava-1.5-7b",)
    renames = {
        r"^model\.(vision_tower|multi_modal_projector)\.": r"\1.",
        r"^model\.language_model\.": "language_model.model.",
        r"^lm_head\.": "language_model.lm_head.",
        r"^vision_tower\.vision_model\.": "vision_tower.",
    }
    rules = CLIP | {
        r"projector\.layers\.image\.0\.(.+)": [r"multi_modal_projector.linear_1.\1"],
        r"projector\.layers\.image\.2\.(.+)": [r"multi_modal_projector.linear_2.\1"],
        r"language_model\.(.+)": [r"language_model.\1"],
    }
    # what lies behind the layer that is read came along
    dropped = ("vision_tower.encoder.layers.*", "vision_tower.post_layernorm.*")

    def read_config(self, shapes: Shapes, params: Mapping, preset: str | None) -> OneLLMConfig:
        """Read config.json; prompts and all that is said around them come from the preset."""
        if params.get("model_type") != "llava":
            self.refuse([f"its config.json is of type '{params.get('model_type')}' instead of llava"])
        read = LlavaConfig.from_dict(dict(params))
        vision, text = read.vision_config, read.text_config
        if not isinstance(read.vision_feature_layer, int) or read.projector_hidden_act != "gelu":
            self.refuse(["its projector reads several layers side by side, or is not of linear layers and GELU"])
        keeps = read.vision_feature_select_strategy == "full"
        picture = {"size": vision.image_size, "patch": vision.patch_size}
        return OneLLMConfig.from_preset(
            preset or self.presets[0],
            text_config=text,
            encoder=tower_of(vision) | {"layer": read.vision_feature_layer, "class_token": "keep" if keeps else "drop"},
            modalities={
                "image": {
                    "token_id": text.vocab_size,
                    "tokenizer": picture,
                    "input": {"size": vision.image_size},
                    "length": (vision.image_size // vision.patch_size) ** 2 + keeps,
                }
            },
        )
