"""LLaVA as its authors write it: a Vicuna that holds the projector too, beside a folder of CLIP.

Source: haotian-liu/LLaVA. The first LLaVA has one linear layer, LLaVA-1.5 two.
"""

from collections.abc import Mapping

from transformers import LlamaConfig

from onellm.hub.layouts.base import Layout, Shapes
from onellm.hub.layouts.parts import CLIP, CLIP_DROPPED, CLIP_RENAMES, clip_config
from onellm.model.configuration import OneLLMConfig


class LlavaVicunaLayout(Layout):
    """The LLM's sizes stand in its folder's config.json, CLIP's come from shapes."""

    title = "LLaVA of its authors, with CLIP"
    advice = "give CLIP's folder and LLaVA's, in this order; a published delta must have been added to LLaMA before"
    marks = ("mm_projector.*", "language_model.*", "vision_tower.*")
    presets = ("llava-1-7b", "llava-1.5-7b")
    renames = {
        r"^(model\.)?vision_tower\.(vision_tower\.)?(vision_model\.)?": "vision_tower.",
        r"^(model\.)?mm_projector\.": "mm_projector.",
        **CLIP_RENAMES,
        r"^(model|lm_head)\.": r"language_model.\1.",
    }
    rules = CLIP | {
        r"projector\.layers\.image\.(.+)": [r"mm_projector.\1"],
        r"language_model\.(.+)": [r"language_model.\1"],
    }
    dropped = CLIP_DROPPED

    def read_config(self, shapes: Shapes, params: Mapping, preset: str | None) -> OneLLMConfig:
        """Read config.json and shapes; one linear layer is the first LLaVA."""
        preset = self.presets["mm_projector.0.weight" in shapes]
        if params.get("model_type") not in ("llava", "llava_llama"):
            self.refuse([f"its config.json is of type '{params.get('model_type')}' instead of llava"])
        fields = {*LlamaConfig().to_dict(), "rope_theta", "rope_scaling"} - {"architectures", "dtype"}
        text = {key: value for key, value in params.items() if key in fields}
        encoder, tokenizer, side = clip_config(self, shapes)
        return OneLLMConfig.from_preset(
            preset,
            text_config=text | {"model_type": "llama"},
            encoder=encoder,
            modalities={
                "image": {
                    "token_id": text["vocab_size"],
                    "length": (side // tokenizer["patch"]) ** 2,
                    "tokenizer": tokenizer,
                    "input": {"size": side},
                }
            },
        )
