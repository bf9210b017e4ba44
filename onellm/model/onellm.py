"""OneLLM: eight kinds of file, one encoder, one projection module, one LLM.

Source: OneLLM: One Framework to Align All Modalities with Language (CVPR 2024, arXiv:2312.03700).
"""

import logging
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import logging as transformers_logging

from onellm.model import base_parts
from onellm.model.config import OneLLMConfig
from onellm.model.encoder import UniversalEncoder
from onellm.model.projectors import UniversalProjection
from onellm.model.stems import STEMS
from onellm.model.tokenizers import build_tokenizer

Media = dict[str, Sequence[torch.Tensor]]
"""kind -> one tensor a file, in the order in which their placeholders stand in `input_ids`."""


class OneLLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Assemble the parts and scatter the files' soft words into the prompt."""

    config_class = OneLLMConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False

    def __init__(self, config: OneLLMConfig):
        super().__init__(config)
        kinds, width = list(config.modalities), config.encoder["width"]
        stems = {
            settings["tokenizer"]["stem"] for settings in config.modalities.values() if "stem" in settings["tokenizer"]
        }
        self.stems = nn.ModuleDict({name: STEMS[name]() for name in sorted(stems)}).requires_grad_(False)
        self.tokenizers = nn.ModuleDict(
            {
                kind: build_tokenizer(width, settings["tokenizer"], self.stems)
                for kind, settings in config.modalities.items()
                if "share" not in settings["tokenizer"]
            }
        )
        self.encoder = UniversalEncoder(**config.encoder)
        self.projector = UniversalProjection(kinds, width, config.text_config.hidden_size, **config.projector)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        if config.adapter:
            self._add_adapter(config.adapter)
        referred = [re.escape(part) for part in config.base_parts]
        if referred:
            self._keys_to_ignore_on_load_missing = [rf"^({'|'.join(referred)})\.(?!.*lora_)"]
        self.post_init()

    def _add_adapter(self, settings: dict) -> None:
        # peft imports bitsandbytes, which warns of a 4-bit kernel that nothing here uses
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(**settings), self.language_model)

    def _switch_adapter(self, active: bool) -> None:
        """Let the LoRA layers of the LLM speak, or leave the base LLM as it is."""
        if not self.config.adapter or self.training:
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        for module in self.language_model.modules():
            if isinstance(module, BaseTunerLayer) and module.disable_adapters == active:
                module.enable_adapters(active)

    # ---- files -> soft words ----------------------------------------------------------------------------------

    def tokenizer_for(self, kind: str) -> nn.Module:
        """Return the tokenizer of a kind, its own or the one it shares."""
        return self.tokenizers[self.config.modalities[kind]["tokenizer"].get("share", kind)]

    def encode(self, kind: str, extracted: torch.Tensor) -> torch.Tensor:
        """Encode one kind's batch.

        Args:
            kind: the kind.
            extracted: [B, ...], what the kind's tokenizer extracted from the files' tensors.

        Returns:
            [B, N, D] features, averaged over the frames where the tokenizer keeps them apart.
        """
        tokenizer = self.tokenizer_for(kind)
        tokens = tokenizer(extracted.to(self.encoder.class_embedding))
        if tokens.dim() == 3:
            return self.encoder(tokens, tokenizer.positions)
        features = self.encoder(tokens.flatten(0, 1), tokenizer.positions)
        return features.unflatten(0, tokens.shape[:2]).mean(dim=1)

    def project(self, kind: str, features: torch.Tensor) -> torch.Tensor:
        """Project [B, N, D] features to [B, M + 2, D_llm]: start tag, soft words, end tag."""
        return self.projector(features, kind, self.get_input_embeddings().weight)

    def soft_words(self, kind: str, values: Sequence[torch.Tensor], extracted: bool = False) -> torch.Tensor:
        """Turn files into what the LLM reads.

        Args:
            kind: the kind of all of them.
            values: one tensor a file; tensors of one shape run as one batch.
            extracted: the tensors are what the kind's tokenizer extracted (training keeps these).

        Returns:
            [files, M + 2, D_llm].
        """
        groups: dict[tuple, list[int]] = {}
        for index, value in enumerate(values):
            groups.setdefault(tuple(value.shape), []).append(index)
        words: list[Any] = [None] * len(values)
        for indices in groups.values():
            batch = torch.stack([values[index] for index in indices]).to(self.encoder.class_embedding)
            if not extracted:
                batch = self.tokenizer_for(kind).extract(batch)
            for index, word in zip(indices, self.project(kind, self.encode(kind, batch)), strict=True):
                words[index] = word
        return torch.stack(words)

    def embed(self, input_ids: torch.Tensor, media: Media | None = None, extracted: bool = False) -> torch.Tensor:
        """Embed a prompt and put the files' soft words in their places.

        Args:
            input_ids: [B, L]; a file of a kind is `config.media_length` placeholders of the kind's `token_id`.
            media: the files' tensors.
            extracted: as for `soft_words`.

        Returns:
            [B, L, D_llm].

        Raises:
            ValueError: placeholders and files do not match in number.
        """
        embedding = self.get_input_embeddings()
        embeds = embedding(input_ids.masked_fill(input_ids >= embedding.num_embeddings, 0))
        for kind, settings in self.config.modalities.items():
            places = input_ids == settings["token_id"]
            values = (media or {}).get(kind) or []
            wanted = len(values) * self.config.media_length
            if int(places.sum()) != wanted:
                raise ValueError(
                    f"The prompt holds {int(places.sum())} placeholders of kind {kind}, but {len(values)} file(s) "
                    f"of it need {wanted}; build both with OneLLMProcessor."
                )
            if len(values):
                words = self.soft_words(kind, values, extracted).to(embeds)
                embeds = embeds.masked_scatter(places.unsqueeze(-1), words)
        return embeds

    # ---- the causal language model ----------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        media: Media | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_adapter: bool | None = None,
        extracted: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run the LLM over a prompt with files.

        Args:
            input_ids: [B, L] with placeholders for the files.
            attention_mask: [B, L], 0 where padded.
            media: the files' tensors, kind by kind.
            inputs_embeds: [B, L, D_llm], instead of `input_ids` and `media`.
            labels: [B, L], -100 where there is no loss.
            use_adapter: whether the LLM's adapter is on; by default where there are files.
            extracted: as for `soft_words`.
            **kwargs: passed to the LLM (cache, positions, logits_to_keep, ...).

        Returns:
            The LLM's output: loss, logits [B, L, V], cache.
        """
        if inputs_embeds is None:
            inputs_embeds = self.embed(input_ids, media, extracted)
        self._switch_adapter(bool(media) if use_adapter is None else use_adapter)
        return self.language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels, **kwargs)

    @torch.no_grad()
    def generate(self, input_ids: torch.Tensor | None = None, media: Media | None = None, **kwargs: Any):
        """Generate as transformers does; the files are encoded once, before the first token.

        Args:
            input_ids: [B, L] with placeholders.
            media: the files' tensors.
            **kwargs: as for `GenerationMixin.generate`.

        Returns:
            As `GenerationMixin.generate`: [B, L + new], the placeholders in the prompt replaced by 0.
        """
        if input_ids is not None and "inputs_embeds" not in kwargs:
            kwargs["inputs_embeds"] = self.embed(input_ids, media)
            if kwargs.get("attention_mask") is None:  # transformers would guess it from the 0 that stands for files
                kwargs["attention_mask"] = torch.ones_like(input_ids)
            input_ids = input_ids.masked_fill(input_ids >= self.get_input_embeddings().num_embeddings, 0)
        kwargs.setdefault("use_adapter", bool(media))
        return super().generate(input_ids, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """Return the LLM's input embedding."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the LLM's input embedding."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the LLM's head."""
        return self.language_model.get_output_embeddings()

    # ---- saving and loading -----------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any):
        """Load a model folder, then the frozen base parts it refers to."""
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # the base parts' tensors are missing on purpose
        try:
            loaded = super().from_pretrained(*args, **kwargs)
        finally:
            transformers_logging.set_verbosity(verbosity)
        (loaded[0] if isinstance(loaded, tuple) else loaded).load_base_parts()
        return loaded

    @torch.no_grad()
    def load_base_parts(self) -> None:
        """Fetch the parts named in `config.base_parts` and copy their weights in.

        Raises:
            ModelError: a part cannot be fetched.
            RuntimeError: a part lacks a tensor the model has.
        """
        from safetensors.torch import load_file

        for target, name in self.config.base_parts.items():
            tensors = load_file(base_parts.fetch(name) / "model.safetensors")
            module = self.get_submodule(target)
            for key, value in module.state_dict(keep_vars=True).items():
                if "lora_" in key or key == "lm_head.weight" and self.config.text_config.tie_word_embeddings:
                    continue
                plain = key.replace(".base_layer", "")
                if plain not in tensors:
                    raise RuntimeError(f"The base part {name} has no tensor {plain}.")
                value.copy_(tensors[plain])

    def save_pretrained(self, save_directory: Any, *args: Any, state_dict: dict | None = None, **kwargs: Any) -> None:
        """Save a model folder; base parts are referred to by name, not copied."""
        referred = tuple(f"{part}." for part in self.config.base_parts)
        state_dict = {
            key: value
            for key, value in (state_dict or self.state_dict()).items()
            if not key.startswith(referred) or "lora_" in key
        }
        super().save_pretrained(save_directory, *args, state_dict=state_dict, **kwargs)
