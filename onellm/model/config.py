"""The configuration of a OneLLM: which parts it is made of and how large they are.

A preset is a JSON file beside this one (`onellm-tiny.json`, `onellm-7b.json`) that holds the arguments of
`OneLLMConfig`, or what differs from the preset it is `like`. Every departure between the published model and the sane
form is a field here.
"""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from onellm.errors import ModelError
from onellm.model.outputs import Span, check, spans

PRESETS = {path.stem: path for path in sorted(Path(__file__).parent.glob("onellm-*.json"))}

ROUTERS = ("sigmoid", "softmax", "constant", "sparse", "input_aware")


class OneLLMConfig(PreTrainedConfig):
    """Describe a OneLLM.

    Attributes:
        text_config: configuration of the causal LLM, any that transformers knows.
        encoder: the universal encoder that all kinds share: `width`, `layers`, `heads`, `mlp_ratio`.
        projector: the universal projection module: `experts`, `layers`, `heads`, `hidden` (SwiGLU width), `queries`,
            `router` (one of `ROUTERS`), `router_hidden`, `norm_eps`, and optionally `anchor`: `size` (words of the
            caption vocabulary) and `scale`, which makes every soft word a mixture of the LLM's own word embeddings.
        modalities: kind -> `token_id` (its placeholder), `tokenizer` (`type` and its arguments, or `share`: the
            kind whose tokenizer it uses), `input` (settings of the kind's `to_tensor`), `before` and `after` (text
            set around the file in a prompt), `default_question`.
        adapter: LoRA on the LLM (`r`, `lora_alpha`, `target_modules`), active only where a prompt holds a file, or
            with `on: outputs` only in the tokens of outputs; None for none.
        outputs: kind -> how something other than text comes out, see `outputs`; {} for text alone.
        base_parts: part name -> name in `base_parts.PARTS`; these frozen parts are referred to, not saved.
        description: one sentence for people on what the model is good for.
    """

    model_type = "onellm"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}

    text_config: dict | PreTrainedConfig | None = None
    encoder: dict | None = None
    projector: dict | None = None
    modalities: dict | None = None
    adapter: dict | None = None
    outputs: dict | None = None
    base_parts: dict | None = None
    media_position: str = "inline"
    description: str = ""
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the sub-configuration and check what the parts rely on."""
        super().__post_init__(**kwargs)
        for name in ("encoder", "projector", "modalities", "base_parts", "outputs"):
            setattr(self, name, getattr(self, name) or {})
        router = self.projector.get("router", "sigmoid")
        if router not in ROUTERS:
            raise ModelError(f"The router '{router}' is not known; choose one of {', '.join(ROUTERS)}.")
        for kind, settings in self.modalities.items():
            shared = settings["tokenizer"].get("share")
            if shared is not None and shared not in self.modalities:
                raise ModelError(f"'{kind}' shares the tokenizer of '{shared}', which the model does not have.")
        check(self.outputs)

    @property
    def spans(self) -> list[Span]:
        """The token ids of outputs, behind the vocabulary and the placeholders."""
        placeholders = [settings["token_id"] for settings in self.modalities.values()]
        return spans(self.outputs, max([self.text_config.vocab_size - 1, *placeholders]) + 1)

    @property
    def adapter_on_outputs(self) -> bool:
        """Whether the LLM's adapter speaks in the tokens of outputs alone."""
        return bool(self.adapter) and self.adapter.get("on") == "outputs"

    @property
    def media_length(self) -> int:
        """Positions that one file takes in a prompt: start tag, queries, end tag."""
        return self.projector["queries"] + 2 if self.projector else 0

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> "OneLLMConfig":
        """Read the preset `name`.

        Args:
            name: of the preset.
            **changes: to its fields, dictionary by dictionary.

        Raises:
            ModelError: there is no such preset; the message lists the valid ones.
        """
        if name not in PRESETS:
            raise ModelError(f"There is no preset '{name}'; choose one of {', '.join(PRESETS)}.")
        return cls(**merge(_read(name), changes))


def _read(name: str) -> dict:
    """Read a preset; one that is `like` another names only what differs."""
    settings = json.loads(PRESETS[name].read_text())
    base = settings.pop("like", None)
    return settings if base is None else merge(_read(base), settings)


def merge(base: dict, changes: dict) -> dict:
    """Return `base` with `changes` put in, dictionary by dictionary."""
    merged = dict(base)
    for key, value in changes.items():
        known = base.get(key)
        merged[key] = merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
