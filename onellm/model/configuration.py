"""The configuration of a model: which modules it is made of and how large they are.

A preset is a JSON file in `presets` (`onellm-tiny.json`, `llava-1.5-7b.json`) that holds the arguments of
`OneLLMConfig`, or what differs from the preset it is `like`. Every system of the family, and every departure between a
published model and the sane form, is a choice of fields here.
"""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from onellm.errors import ModelError
from onellm.model.output_heads import Span, check, spans

PRESETS = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.json"))}

ROUTERS = ("sigmoid", "softmax", "constant", "sparse", "input_aware")
ADAPTER_ON = ("files", "always", "outputs")
USUAL_TYPES = {"projector": "upm", "adapter": "lora"}  # of settings that do not say it


class OneLLMConfig(PreTrainedConfig):
    """Describe a model.

    Attributes:
        text_config: configuration of the LLM, any causal or encoder-decoder one that transformers knows.
        encoder: the encoder that all modalities share, arguments of `encoder.UniversalEncoder`.
        projector: `type` (one of `projectors.PROJECTORS`, "upm" by default) and its arguments; `tags` ("start", "end",
            or both, which is the default of the UPM) are learnt vectors around a file; and optionally `anchor`, the
            vocabulary anchor, which makes every soft token a mixture of the LLM's own token embeddings: `size` (tokens
            of the caption vocabulary) and `scale`, or, to serve any LLM, `words` (names; training fills an empty list
            from its data), `width` and `scale`; and `converted`: the width of the LLM that the projector was
            first trained for.
        modalities: modality -> `token_id` (its placeholder), `tokenizer` (`type` and its arguments, or `share`: the
            modality whose tokenizer it uses), `experts` (names in `experts.EXPERTS`; what they find stands as text
            behind the soft tokens), `encoder` (what differs from the shared one), `input` (settings
            of the modality's `to_tensor`), `length` (positions a file takes, where the projector's queries do not say
            it), `before` and `after` (text set around the file in a prompt), `default_question`, `windows` (of sounds
            and videos: those longer than `seconds` are read in windows, whose soft tokens are merged into `words`);
            None leaves a modality out.
        adapter: what is added to the LLM; None for nothing. `type` is "lora" (the default; PEFT's `r`, `lora_alpha`,
            `target_modules`) or "routed" (`adapters.RoutedAdapters`). LoRA is active `on` "files" (the default: where a
            prompt holds one), "always", or "outputs" (in their tokens alone).
        outputs: modality -> how something other than text comes out, see `output_heads`; {} for text alone.
        base_parts: module name -> name in `base_parts.PARTS`; these frozen pretrained parts are referred to, not saved;
            None leaves one out.
        media_position: where a prompt has its files: "inline", "start" (behind its first token) or "front" (before it).
        media_instruction: what the system message of a conversation with files tells the LLM about them.
        chat_template: of prompts, in Jinja, where the tokenizer of a published checkpoint has none that fits; in it
            `files` is how many files the conversation has.
        stop_strings: texts at which an answer ends.
        generation: arguments of `GenerationConfig` that answers begin from, `num_beams` for example.
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
    media_instruction: str = ""
    chat_template: str | None = None
    stop_strings: list | None = None
    generation: dict | None = None
    description: str = ""
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the sub-configuration and check what the modules rely on."""
        super().__post_init__(**kwargs)
        for name in ("encoder", "projector", "modalities", "base_parts", "outputs", "generation"):
            setattr(self, name, getattr(self, name) or {})
        for name in ("modalities", "base_parts"):
            setattr(self, name, {key: value for key, value in getattr(self, name).items() if value is not None})
        self.is_encoder_decoder = bool(getattr(self.text_config, "is_encoder_decoder", False))
        router = self.projector.get("router", "sigmoid")
        if router not in ROUTERS:
            raise ModelError(f"The router '{router}' is not known; choose one of {', '.join(ROUTERS)}.")
        for modality, settings in self.modalities.items():
            shared = settings["tokenizer"].get("share")
            if shared is not None and shared not in self.modalities:
                raise ModelError(f"'{modality}' shares the tokenizer of '{shared}', which the model does not have.")
        if self.adapter_on not in ("", *ADAPTER_ON):
            raise ModelError(
                f"An adapter cannot be active on '{self.adapter_on}'; choose one of {', '.join(ADAPTER_ON)}."
            )
        check(self.outputs)
        added = any(settings["type"] != "text" for settings in self.outputs.values())
        if added and self.is_encoder_decoder:
            raise ModelError("An encoder-decoder LLM has no room for output tokens; use outputs of the type 'text'.")
        if self.adapter_on == "outputs" and not added:
            raise ModelError("An adapter on 'outputs' needs outputs of tokens or signals; add them, or leave 'on' out.")

    @property
    def spans(self) -> list[Span]:
        """The token ids of outputs, behind the vocabulary and the placeholders."""
        placeholders = [settings["token_id"] for settings in self.modalities.values()]
        return spans(self.outputs, max([self.text_config.vocab_size - 1, *placeholders]) + 1)

    @property
    def tags(self) -> tuple[str, ...]:
        """Which tags stand around a file's soft tokens."""
        default = ("start", "end") if self.projector.get("type", "upm") == "upm" else ()
        return tuple(self.projector.get("tags", default))

    def length_of(self, modality: str) -> int:
        """Positions that one file of a modality takes in a prompt, tags included."""
        length = self.modalities[modality].get("length")
        return length if length is not None else self.projector.get("queries", 0) + len(self.tags)

    @property
    def instructed(self) -> bool:
        """Whether the projector also reads the question about a file."""
        return bool(self.projector.get("vocabulary"))

    @property
    def adapter_on(self) -> str:
        """Where the LLM's adapter is active; "" where there is none."""
        return self.adapter.get("on", "files") if self.adapter else ""

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
        return read_config(merge(_read(name), changes))


def frames_per_file(modality: str, settings: dict) -> int:
    """Return how many frames or clips a file is cut into, each of which is encoded by itself.

    Args:
        modality: the modality.
        settings: of the modality, see `OneLLMConfig.modalities`.
    """
    given = settings.get("input", {})
    return given.get("frames", 1) * given.get("crops", 1) if modality == "video" else given.get("clips", 1)


def read_config(content: dict) -> Any:
    """Return the configuration that a preset or a config.json holds: a `OneLLMConfig` or an `idefics.GatedConfig`."""
    if content.get("model_type") == "idefics":
        from onellm.model.idefics import GatedConfig

        return GatedConfig.from_dict(content)
    return OneLLMConfig.from_dict(content)


def _read(name: str) -> dict:
    """Read a preset; one that is `like` another names only what differs."""
    settings = json.loads(PRESETS[name].read_text())
    base = settings.pop("like", None)
    return settings if base is None else merge(_read(base), settings)


def merge(base: dict, changes: dict) -> dict:
    """Return `base` with `changes` put in, dictionary by dictionary; a dictionary whose `type` changes is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        known = base.get(key)
        both = isinstance(known, dict) and isinstance(value, dict)
        merged[key] = merge(known, value) if both and _alike(key, known, value) else value
    return merged


def _alike(key: str, known: dict, value: dict) -> bool:
    """Whether settings are of one type; those that do not name it keep it."""
    usual = {"type": USUAL_TYPES.get(key), "model_type": None}
    types = {name: known.get(name, default) for name, default in usual.items()}
    return all(value.get(name, kept) == kept for name, kept in types.items())
