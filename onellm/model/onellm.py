"""OneLLM: eight kinds of file, one encoder, one projection module, one LLM.

Source: OneLLM: One Framework to Align All Modalities with Language (CVPR 2024, arXiv:2312.03700).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Cache, GenerationMixin, LogitsProcessorList, PreTrainedModel
from transformers.generation.utils import GenerateOutput
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import load_state_dict

from onellm.model import base_parts
from onellm.model.config import OneLLMConfig
from onellm.model.encoder import UniversalEncoder
from onellm.model.making import Making
from onellm.model.offload import live
from onellm.model.outputs import Grammar
from onellm.model.projectors import UniversalProjection
from onellm.model.stems import STEMS
from onellm.model.tokenizers import build_tokenizer

FRAMES_ON_CPU = 4  # at once: more would leave the caches, and take 1.4 times as long; a GPU takes all in one batch

Media = dict[str, Sequence[torch.Tensor]]
"""kind -> one tensor a file, in the order in which their placeholders stand in `input_ids`."""


def _only_rows(module: nn.Module, _: tuple, output: torch.Tensor) -> torch.Tensor:
    """Silence a LoRA layer in the rows of a batch where it is not to speak."""
    return output if module.rows is None else output * module.rows


class OneLLMForConditionalGeneration(Making, PreTrainedModel, GenerationMixin):
    """Assemble the parts and scatter the files' soft words into the prompt."""

    config_class = OneLLMConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ResidualAttentionBlock", "ExpertBlock"]  # the LLM names its own
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False

    def __init__(self, config: OneLLMConfig):
        super().__init__(config)
        kinds, width = list(config.modalities), config.encoder.get("width", 0)
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
        self.encoder = UniversalEncoder(**config.encoder) if config.encoder else None
        self.projector = (
            UniversalProjection(kinds, width, config.text_config.hidden_size, **config.projector)
            if config.projector
            else None
        )
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.init_outputs(config)
        if config.adapter:
            self.insert_adapter(config.adapter)
        self.post_init()

    def insert_adapter(self, settings: dict) -> None:
        """Put LoRA layers that change nothing yet into the LLM; `settings` are PEFT's."""
        self.config.adapter = settings
        # peft imports bitsandbytes, which warns of a 4-bit kernel that nothing here uses
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        from peft import LoraConfig, inject_adapter_in_model

        lora = {key: value for key, value in settings.items() if key != "on"}
        inject_adapter_in_model(LoraConfig(**lora), self.language_model)
        # kept in a list, so that layers that are fused later on can still be switched
        self._adapter_active: bool | torch.Tensor | None = None  # not yet told to the layers
        self._tuners = [module for module in self.language_model.modules() if hasattr(module, "lora_A")]
        for tuner in self._tuners:
            for down in tuner.lora_A.values():
                down.rows = None
                down.register_forward_hook(_only_rows)

    def _switch_adapter(self, active: bool | torch.Tensor) -> None:
        """Let the LoRA layers of the LLM speak, everywhere, or in rows [B] or at places [B, L] of a batch.

        In training they speak everywhere, unless they are for the tokens of outputs alone.
        """
        if not self.config.adapter:
            return
        if not self.config.adapter_on_outputs:
            active = self.training or active
        if active is self._adapter_active:  # which spares every token a walk over the layers
            return
        self._adapter_active = active
        rows = active.reshape(len(active), -1, 1) if isinstance(active, torch.Tensor) else None
        for tuner in self._tuners:
            tuner._disable_adapters = active is False  # enable_adapters() would unfreeze what a trainer froze
            for down in tuner.lora_A.values():
                down.rows = rows

    def rows_with_files(self, input_ids: torch.Tensor) -> bool | torch.Tensor:
        """Tell which rows of a batch [B, L] hold files: all (True), none (False), or [B] bool."""
        placeholders = [settings["token_id"] for settings in self.config.modalities.values()]
        rows = torch.isin(input_ids, torch.tensor(placeholders, device=input_ids.device)).any(dim=1)
        return bool(rows[0]) if bool((rows == rows[0]).all()) else rows

    def adapted(self, input_ids: torch.Tensor) -> bool | torch.Tensor:
        """Tell where in a batch [B, L] the LLM's adapter speaks: everywhere, nowhere, in rows [B], at places [B, L]."""
        if not self.config.adapter_on_outputs:
            return self.rows_with_files(input_ids)
        own = self.rows.own(input_ids)
        return bool(own[0, 0]) if bool((own == own[0, 0]).all()) else own

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
        tokens, positions = tokenizer(self._to_encoder(extracted)), live(tokenizer, "positions")
        if tokens.dim() == 3:
            return self.encoder(tokens, positions)
        frames = tokens.flatten(0, 1)
        groups = frames.split(FRAMES_ON_CPU) if frames.is_cpu else [frames]
        features = torch.cat([self.encoder(group, positions) for group in groups])
        return features.unflatten(0, tokens.shape[:2]).mean(dim=1)

    def project(self, kind: str, features: torch.Tensor) -> torch.Tensor:
        """Project [B, N, D] features to [B, M + 2, D_llm]: start tag, soft words, end tag."""
        embedding = live(self.get_input_embeddings(), "weight") if self.projector.anchor is not None else None
        return self.projector(features, kind, embedding)

    def _to_encoder(self, values: torch.Tensor) -> torch.Tensor:
        """Bring values to the encoder's precision and, unless it is offloaded, its device."""
        like = self.encoder.class_embedding
        return values.to(like.dtype) if like.is_meta else values.to(like)

    def soft_words(self, kind: str, values: Sequence[torch.Tensor], extracted: bool = False) -> torch.Tensor:
        """Turn files into what the LLM reads.

        Args:
            kind: the kind of all of them.
            values: one tensor a file; tensors of one shape run as one batch.
            extracted: the tensors are what the kind's tokenizer extracted (training keeps these).

        Returns:
            [files, M + 2, D_llm].
        """
        return self._by_shape(kind, values, extracted, self.project)

    def _by_shape(self, kind: str, values: Sequence[torch.Tensor], extracted: bool, project: Callable) -> torch.Tensor:
        """Encode and project files of one kind; those whose tensors are of one shape run as one batch."""
        groups: dict[tuple, list[int]] = {}
        for index, value in enumerate(values):
            groups.setdefault(tuple(value.shape), []).append(index)
        words: list[Any] = [None] * len(values)
        for indices in groups.values():
            batch = self._to_encoder(torch.stack([values[index] for index in indices]))
            if not extracted:
                batch = self.tokenizer_for(kind).extract(batch)
            for index, word in zip(indices, project(kind, self.encode(kind, batch)), strict=True):
                words[index] = word
        return torch.stack(words)

    def anchor_loss(self, media: Media, word_labels: torch.Tensor, extracted: bool = False) -> torch.Tensor:
        """Compare the soft words of files with the words of their names; the LLM does not run.

        Args:
            media: files of one kind.
            word_labels: [B, M] places in the anchor's vocabulary.
            extracted: as for `soft_words`.

        Returns:
            The mean cross-entropy, a scalar.
        """
        ((kind, values),) = media.items()
        words = self._by_shape(kind, values, extracted, lambda kind, features: self.projector.words(features, kind))
        return self.projector.anchor.loss(words, self.get_input_embeddings().weight, word_labels)

    def embed(
        self,
        input_ids: torch.Tensor,
        media: Media | None = None,
        extracted: bool = False,
        known: int = 0,
        words: bool = False,
    ) -> torch.Tensor:
        """Embed a prompt and put the files' soft words in their places.

        Args:
            input_ids: [B, L]; a file of a kind is `config.media_length` placeholders of the kind's `token_id`.
            media: the files' tensors.
            extracted: as for `soft_words`.
            known: positions at the start whose embeddings nobody will read; files that lie there are not encoded.
            words: the tensors are soft words already, one [M + 2, D_llm] of `soft_words` a file.

        Returns:
            [B, L, D_llm].

        Raises:
            ValueError: placeholders and files do not match in number.
        """
        embeds = self.embed_tokens(input_ids)
        for kind, settings in self.config.modalities.items():
            places = input_ids == settings["token_id"]
            values = (media or {}).get(kind)
            values = [] if values is None else values
            wanted = len(values) * self.config.media_length
            if int(places.sum()) != wanted:
                raise ValueError(
                    f"The prompt holds {int(places.sum())} placeholders of kind {kind}, but {len(values)} file(s) "
                    f"of it need {wanted}; build both with OneLLMProcessor."
                )
            if known and len(values):
                last = places.nonzero()[:: self.config.media_length, 1] + self.config.media_length - 1
                fresh = last >= known
                places[places.clone()] = fresh.repeat_interleave(self.config.media_length)
                values = [value for value, wanted in zip(values, fresh.tolist(), strict=True) if wanted]
            if len(values):
                scattered = torch.stack(list(values)) if words else self.soft_words(kind, values, extracted)
                embeds = embeds.masked_scatter(places.unsqueeze(-1).to(embeds.device), scattered.to(embeds))
        return embeds

    # ---- the causal language model ----------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        media: Media | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        word_labels: torch.Tensor | None = None,
        use_adapter: bool | torch.Tensor | None = None,
        extracted: bool = False,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        condition: dict[str, torch.Tensor] | None = None,
        latents: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run the LLM over a prompt with files.

        Args:
            input_ids: [B, L] with placeholders for the files.
            attention_mask: [B, L], 0 where padded.
            media: the files' tensors, kind by kind.
            inputs_embeds: [B, L, D_llm], instead of `input_ids` and `media`.
            labels: [B, L], -100 where there is no loss.
            word_labels: [B, M], for a loss on the soft words of `media` alone, see `anchor_loss`.
            use_adapter: whether the LLM's adapter is on, for all, for each row [B] or place [B, L]; by default as
                `adapted` has it (a step that continues a cache holds no files: say it there).
            extracted: as for `soft_words`.
            position_ids: [B, L], counted from the first token that is not padding.
            past_key_values: the cache.
            logits_to_keep: logits of so many last positions; 0 for all.
            condition: kind -> [n, Q, D], what the generator's text encoder says of the captions of the outputs in
                the batch, in order; the loss draws the output projector's conditions to them.
            latents: kind -> [n, ...], latents of what these outputs show, for the loss of `denoisers`.
            **kwargs: passed to the LLM.

        Returns:
            The LLM's output: loss, logits [B, L, V], cache.
        """
        if word_labels is not None:
            return CausalLMOutputWithPast(loss=self.anchor_loss(media, word_labels, extracted))
        if inputs_embeds is None:
            inputs_embeds = self.embed(input_ids, media, extracted)
            if use_adapter is None and self.config.adapter:
                use_adapter = (bool(media) or self.config.adapter_on_outputs) and self.adapted(input_ids)
        self._switch_adapter(bool(media) if use_adapter is None else use_adapter)
        if labels is not None and self.rows is not None and self.training:
            labels, logits_to_keep = self.answered(labels)
        if condition:
            kwargs["output_hidden_states"] = True
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            labels=labels if self.rows is None else None,
            position_ids=position_ids,
            past_key_values=past_key_values,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        if labels is not None and self.rows is not None:
            output.loss = self.output_loss(
                output, labels, input_ids, condition, latents, kwargs.get("num_items_in_batch")
            )
        return output

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        media: Media | list[Media] | None = None,
        words: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor | GenerateOutput:
        """Generate as transformers does; the files are encoded once, before the first token.

        With `past_key_values` that hold the start of the prompt, only what follows is encoded and run; `input_ids`
        and `media` are nevertheless those of the whole prompt. Where the adapter was off for that start and is on
        now (the first file came later), the cache is emptied and the whole prompt runs.

        Args:
            input_ids: [B, L] with placeholders.
            media: the files' tensors; a list of these, one a row, is joined.
            words: as for `embed`.
            **kwargs: as for `GenerationMixin.generate`.

        Returns:
            As `GenerationMixin.generate`: [B, L + new], the prompt as it was given.
        """
        if kwargs.get("tokenizer") is None:
            kwargs.setdefault("stop_strings", None)  # the folder's default cannot be followed without the tokenizer
        if input_ids is None or kwargs.get("inputs_embeds") is not None:
            kwargs.setdefault("use_adapter", bool(media))
            return super().generate(input_ids, **kwargs)
        if isinstance(media, list | tuple):
            media = {kind: [value for row in media for value in row.get(kind, [])] for kind in self.config.modalities}
        if self.device.type != "meta":
            input_ids = input_ids.to(self.device)
        kwargs.setdefault("use_adapter", self.adapted(input_ids))
        cache = kwargs.get("past_key_values")
        known = 0 if cache is None else int(cache.get_seq_length())
        if known and self.config.adapter and not self.config.adapter_on_outputs:
            before = torch.as_tensor(self.rows_with_files(input_ids[:, :known]))
            if (before != torch.as_tensor(kwargs["use_adapter"])).any():
                cache.reset()
                known = 0
        kwargs["inputs_embeds"] = self.embed(input_ids, media, known=known, words=words)
        mask = kwargs.get("attention_mask")  # without one, transformers would guess it from the 0 that stands for files
        kwargs["attention_mask"] = torch.ones_like(input_ids) if mask is None else mask.to(input_ids.device)
        if self.rows is not None:
            grammar = Grammar(self.config.spans, input_ids.shape[1])
            kwargs["logits_processor"] = LogitsProcessorList([grammar, *(kwargs.get("logits_processor") or [])])
        plain = input_ids.masked_fill(input_ids >= self.get_input_embeddings().num_embeddings, 0)
        output = super().generate(plain, **kwargs)
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        sequences[:, : plain.shape[1]] = input_ids.repeat_interleave(len(sequences) // len(input_ids), dim=0)
        return output

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Give every step embeddings: generated tokens need no search for placeholders."""
        if inputs_embeds is not None and is_first_iteration and input_ids.shape[1]:
            drafted = input_ids[:, inputs_embeds.shape[1] :]  # by assisted decoding
            if drafted.shape[1]:
                inputs_embeds = torch.cat([inputs_embeds, self.embed_tokens(drafted)], dim=1)
            elif input_ids.shape[1] < inputs_embeds.shape[1]:  # a chunk of the prompt
                start = int(past_key_values.get_seq_length())
                inputs_embeds = inputs_embeds[:, start : start + input_ids.shape[1]]
        inputs = super().prepare_inputs_for_generation(
            input_ids,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            past_key_values=past_key_values,
            **kwargs,
        )
        ids = inputs.pop("input_ids", None)
        if ids is not None:
            inputs["inputs_embeds"] = self.embed_tokens(ids)
        if self.config.adapter_on_outputs:
            places = kwargs.get("use_adapter")
            if ids is not None:
                inputs["use_adapter"] = self.adapted(ids)
            elif isinstance(places, torch.Tensor):  # of the whole prompt, of which the cache may know the start
                start = 0 if past_key_values is None else int(past_key_values.get_seq_length())
                inputs["use_adapter"] = places[:, start : start + inputs["inputs_embeds"].shape[1]]
        return inputs

    def get_input_embeddings(self) -> nn.Module:
        """Return the LLM's input embedding."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the LLM's input embedding."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the LLM's head."""
        return self.language_model.get_output_embeddings()

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        super()._set_gradient_checkpointing(enable, *args, **kwargs)
        self.encoder.transformer.grad_checkpointing = enable  # open_clip has a switch of its own

    # ---- saving and loading -----------------------------------------------------------------------------------

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, *args: Any, **kwargs: Any):
        """Load base parts together with the folder's tensors: they are cast, placed and quantised like these."""
        if model.config.base_parts:
            state_dict = dict(state_dict or {})
            for file in checkpoint_files or []:
                state_dict |= load_state_dict(file)
            state_dict |= model.base_tensors()
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, *args, **kwargs)

    def base_tensors(self) -> dict[str, torch.Tensor]:
        """Fetch the parts named in `config.base_parts`: name in this model -> tensor.

        Raises:
            ModelError: a part cannot be fetched.
            RuntimeError: a part lacks a tensor the model has.
        """
        found = {}
        for target, name in self.config.base_parts.items():
            tensors = load_state_dict(str(base_parts.fetch(name) / "model.safetensors"))
            for key in self.get_submodule(target).state_dict():
                if "lora_" in key or key == "lm_head.weight" and self.config.text_config.tie_word_embeddings:
                    continue
                plain = key.replace(".base_layer", "")
                if plain not in tensors:
                    raise RuntimeError(f"The base part {name} has no tensor {plain}.")
                found[f"{target}.{key}"] = tensors[plain]
        return found

    @torch.no_grad()
    def load_base_parts(self) -> None:
        """Copy the weights of the base parts into a model that was not loaded from a folder."""
        values = self.state_dict(keep_vars=True)
        for key, tensor in self.base_tensors().items():
            values[key].copy_(tensor)

    def save_pretrained(self, save_directory: Any, *args: Any, state_dict: dict | None = None, **kwargs: Any) -> None:
        """Save a model folder; base parts are referred to by name, not copied."""
        referred = tuple(f"{part}." for part in self.config.base_parts)
        state_dict = {
            key: value
            for key, value in (state_dict or self.state_dict()).items()
            if not key.startswith(referred) or "lora_" in key
        }
        super().save_pretrained(save_directory, *args, state_dict=state_dict, **kwargs)
