"""LaVIN: a file of adapters, beside LLaMA as Meta wrote it (or transformers) and a folder of CLIP.

Source: luogen1996/LaVIN.
"""

from collections.abc import Mapping

from onellm.errors import ModelError
from onellm.hub.layouts.base import Layout, Shapes
from onellm.hub.layouts.parts import CLIP, CLIP_DROPPED, CLIP_RENAMES, clip_config, meta_llama, meta_llama_config
from onellm.model.configuration import OneLLMConfig

# name of the adapters' layers here -> in the file
ADAPTER = {r"down": "conv_A", r"up\.0": "conv_B", r"up\.1": "conv_D", r"router": "expert_weights"}
OURS = {
    "layers": r"adapters\.layers\.(\d+)",
    "backbone.visual.transformer.resblocks": r"encoder\.adapters\.(\d+)",
}


class LavinLayout(Layout):
    """Sizes come from shapes; the temperature of the routers, which these do not tell, from the preset."""

    title = "LaVIN's adapters with LLaMA and CLIP"
    advice = "give CLIP's folder, LLaMA's file (or its folder with --llm) and the file of the adapters"
    marks = ("adapter_proj.*", "layers.*.adapter_attn.*", "vision_tower.*", "tok_embeddings.weight")
    presets = ("lavin-7b",)
    renames = {r"^module\.": "", **CLIP_RENAMES}
    rules = (
        CLIP
        | {
            rf"{ours}\.{layer}\.(weight|bias)": [rf"{theirs}.\1.adapter_attn.{name}.\2"]
            for theirs, ours in OURS.items()
            for layer, name in ADAPTER.items()
        }
        | {
            r"adapters\.modality\.weight": ["adapter_modality_embedding.weight"],
            r"projector\.layers\.image\.0\.(.+)": [r"adapter_proj.conv_A.\1"],
            r"projector\.layers\.image\.2\.(.+)": [r"adapter_proj.conv_B.\1"],
        }
        | meta_llama()
    )
    dropped = (*CLIP_DROPPED, "rope.freqs")
    meta_rotary = True

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the published shape, which has an axis of length 1 that ours lacks."""
        return (*shape, 1) if name.endswith("down.weight") and "adapters." in name else shape

    def read_text(self, shapes: Shapes, params: Mapping) -> dict:
        """Read the LLM's configuration."""
        return meta_llama_config(self, shapes, params, norm_eps=1e-6)

    def read_config(self, shapes: Shapes, params: Mapping, preset: str | None) -> OneLLMConfig:
        """Read sizes from the shapes, the LLM's heads and norm from Meta's params.json.

        Raises:
            ModelError: a key that tells a size is missing, or the tower cannot be read in the published places.
        """
        encoder, tokenizer, side = clip_config(self, shapes)
        text = self.read_text(shapes, params)
        rank = self.size(shapes, "layers.*.adapter_attn.conv_A.weight", 0)
        groups = rank // self.size(shapes, "layers.*.adapter_attn.conv_B.weight", 1)
        step = 4  # of the layers whose class token is read
        if encoder["layers"] < step:
            raise ModelError(
                f"CLIP's tower has {encoder['layers']} layers, and LaVIN reads every fourth; give ViT-L/14."
            )
        read = list(range(step, encoder["layers"] + 1, step))
        return OneLLMConfig.from_preset(
            preset or self.presets[0],
            text_config=text,
            encoder=encoder | {"layer": read, "adapter": {"rank": rank, "groups": groups}},
            projector={"hidden": self.size(shapes, "adapter_proj.conv_A.weight", 0)},
            adapter={"rank": rank, "groups": groups},
            modalities={
                "image": {
                    "token_id": text["vocab_size"],
                    "length": len(read),
                    "tokenizer": tokenizer,
                    "input": {"size": side},
                }
            },
        )


class LavinOnTransformersLayout(LavinLayout):
    """The same beside an LLM in a folder of transformers."""

    marks = ("adapter_proj.*", "layers.*.adapter_attn.*", "vision_tower.*", "language_model.*")
    rules = {rule: keys for rule, keys in LavinLayout.rules.items() if not rule.startswith("language_model")} | {
        r"language_model\.(.+)": [r"language_model.\1"]
    }
    dropped = CLIP_DROPPED
    meta_rotary = False

    def read_text(self, shapes: Shapes, params: Mapping) -> dict:
        """Read the LLM's configuration: that of its folder."""
        return params["text_config"]
