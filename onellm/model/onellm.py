"""The model: kinds of file, encoder, projector, LLM, put together as a configuration says.

Sources: OneLLM: One Framework to Align All Modalities with Language (CVPR 2024, arXiv:2312.03700); the other systems of
the family are presets of the same parts.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Cache,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.generation.utils import GenerateOutput
from transformers.modeling_outputs import CausalLMOutputWithPast

from onellm.errors import ModelError
from onellm.model.adapters import RoutedAdapters, Up
from onellm.model.config import OneLLMConfig, merge
from onellm.model.encoder import UniversalEncoder
from onellm.model.making import IGNORED, Making
from onellm.model.merging import Merge
from onellm.model.outputs import Grammar
from onellm.model.projectors import build_projector
from onellm.model.reading import Media, Reading
from onellm.model.stems import STEMS
from onellm.model.storing import Storing
from onellm.model.tokenizers import build_tokenizer

LORA_SWITCH = ("type", "on")  # of an adapter's settings; the others are PEFT's


def _only_rows(module: nn.Module, _: tuple, output: torch.Tensor) -> torch.Tensor:
    """Silence a LoRA layer in the rows of a batch where it is not to speak."""
    return output if module.rows is None else output * module.rows


class OneLLMForConditionalGeneration(Reading, Making, Storing, PreTrainedModel, GenerationMixin):
    """Assemble the parts and scatter the files' soft words into the prompt."""

    config_class = OneLLMConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # the LLM names its own
    _no_split_modules = ["ResidualAttentionBlock", "ExpertBlock", "AbstractorLayer", "ResamplerLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False

    def __init__(self, config: OneLLMConfig):
        super().__init__(config)
        kinds = list(config.modalities)
        stems = {
            settings["tokenizer"]["stem"] for settings in config.modalities.values() if "stem" in settings["tokenizer"]
        }
        self.stems = nn.ModuleDict({name: STEMS[name]() for name in sorted(stems)}).requires_grad_(False)
        self.tokenizers = nn.ModuleDict(
            {
                kind: build_tokenizer(
                    settings.get("encoder", {}).get("width", config.encoder["width"]), settings["tokenizer"], self.stems
                )
                for kind, settings in config.modalities.items()
                if "share" not in settings["tokenizer"]
            }
        )
        self.encoder = UniversalEncoder(**config.encoder) if config.encoder else None
        self.encoders = nn.ModuleDict(
            {
                kind: UniversalEncoder(**merge(config.encoder, settings["encoder"]))
                for kind, settings in config.modalities.items()
                if "encoder" in settings
            }
        )
        width = config.text_config.hidden_size
        self.projector = (
            build_projector(kinds, self.encoder.features, width, config.projector, config.tags)
            if config.projector
            else None
        )
        self.merging = Merge()
        build = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        self.language_model = build.from_config(config.text_config)
        self._check_lengths()
        self.init_outputs(config)
        self.post_init()
        built = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = [name for name in self._no_split_modules if name in built]  # FSDP asks for no others
        if config.adapter:  # behind the random weights, or LoRA would not start from zero
            self.insert_adapter(config.adapter)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Up):  # of the encoder's adapters
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def insert_adapter(self, settings: dict) -> None:
        """Put layers that change nothing yet into the LLM; for `settings` see `OneLLMConfig.adapter`.

        Raises:
            ModelError: the type of adapter is unknown, or the LLM has no place for it.
        """
        self.config.adapter = settings
        options = {key: value for key, value in settings.items() if key not in LORA_SWITCH}
        name = settings.get("type", "lora")
        if name == "routed":
            self.adapters = RoutedAdapters(self.language_model, options)
            return
        if name != "lora":
            raise ModelError(f"The adapter '{name}' is not known; choose one of lora, routed.")
        # peft imports bitsandbytes, which warns of a 4-bit kernel that nothing here uses
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(**options), self.language_model)
        # kept in a list, so that layers that are fused later on can still be switched
        self._adapter_active: bool | torch.Tensor | None = None  # not yet told to the layers
        self._tuners = [module for module in self.language_model.modules() if hasattr(module, "lora_A")]
        for tuner in self._tuners:
            for down in tuner.lora_A.values():
                down.rows = None
                down.register_forward_hook(_only_rows)

    def _switch_adapter(self, active: bool | torch.Tensor, batch: int, fresh: bool) -> None:
        """Tell the LLM's adapter which rows of a batch hold files, or which places outputs.

        LoRA speaks there alone, but in training and where it always does everywhere, unless it is for outputs; a
        routed adapter is weighed by the rows, once a prompt.

        Args:
            active: whether all rows do, or [B] or [B, L] bool.
            batch: B.
            fresh: whether a prompt begins here.
        """
        if not self.config.adapter:
            return
        if self.config.adapter.get("type") == "routed":
            self.adapters.route(self.language_model, active, batch, fresh)
            return
        if self.config.adapter_on != "outputs":
            active = self.training or self.config.adapter_on == "always" or active
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
        if self.config.adapter_on != "outputs":
            return self.rows_with_files(input_ids)
        own = self.rows.own(input_ids)
        return bool(own[0, 0]) if bool((own == own[0, 0]).all()) else own

    # ---- the causal language model ----------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        media: Media | None = None,
        inputs_embeds: torch.Tensor | None = None,
        instructions: Media | None = None,
        labels: torch.Tensor | None = None,
        word_labels: torch.Tensor | None = None,
        texts: Sequence[torch.Tensor] | None = None,
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
            instructions: as for `embed`.
            labels: [B, L], -100 where there is no loss; for an encoder-decoder LLM [B, L'], the answer alone.
            word_labels: [B, M], for a loss on the soft words of `media` alone, see `anchor_loss`.
            texts: one a file, for the loss of `media` against texts alone, see `contrast_loss`.
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
        if texts is not None:
            return CausalLMOutputWithPast(loss=self.contrast_loss(media, texts, extracted))
        if inputs_embeds is None:
            inputs_embeds = self.embed(input_ids, media, extracted, instructions=instructions)
            if use_adapter is None and self.config.adapter:
                use_adapter = (bool(media) or self.config.adapter_on == "outputs") and self.adapted(input_ids)
        if self.config.is_encoder_decoder:
            self._switch_adapter(bool(media) if use_adapter is None else use_adapter, 0, False)
            if labels is None and "decoder_input_ids" not in kwargs:  # then what begins the answer
                start = self.config.text_config.decoder_start_token_id
                kwargs["decoder_input_ids"] = torch.full((len(inputs_embeds), 1), start, device=inputs_embeds.device)
            whole = kwargs.pop("num_items_in_batch", None)  # labels of all batches of a step, as causal LLMs take it
            output = self.language_model(
                inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels, **kwargs
            )
            if whole is not None and labels is not None:
                output.loss = output.loss * labels.ne(IGNORED).sum() / whole
            return output
        fresh = past_key_values is None or not past_key_values.get_seq_length()
        self._switch_adapter(bool(media) if use_adapter is None else use_adapter, len(inputs_embeds), fresh)
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
        instructions: Media | None = None,
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
            instructions: as for `embed`.
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
        if known and self.config.adapter_on == "files":
            before = torch.as_tensor(self.rows_with_files(input_ids[:, :known]))
            if (before != torch.as_tensor(kwargs["use_adapter"])).any():
                cache.reset()
                known = 0
        kwargs["inputs_embeds"] = self.embed(input_ids, media, known=known, words=words, instructions=instructions)
        mask = kwargs.get("attention_mask")  # without one, transformers would guess it from the 0 that stands for files
        kwargs["attention_mask"] = torch.ones_like(input_ids) if mask is None else mask.to(input_ids.device)
        if self.config.is_encoder_decoder:
            return self._generate_apart(input_ids, **kwargs)
        if self.rows is not None:
            grammar = Grammar(self.config.spans, input_ids.shape[1])
            kwargs["logits_processor"] = LogitsProcessorList([grammar, *(kwargs.get("logits_processor") or [])])
        plain = input_ids.masked_fill(input_ids >= self.get_input_embeddings().num_embeddings, 0)
        output = super().generate(plain, **kwargs)
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        sequences[:, : plain.shape[1]] = input_ids.repeat_interleave(len(sequences) // len(input_ids), dim=0)
        return output

    def _generate_apart(self, input_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor | GenerateOutput:
        """Let an encoder-decoder LLM read the prompt and write the answer, and put the prompt before it."""
        self._switch_adapter(kwargs.pop("use_adapter"), 0, False)
        kwargs.pop("past_key_values", None)
        kwargs.setdefault("generation_config", self.generation_config)  # the LLM's own knows nothing of the preset
        kwargs.setdefault("decoder_start_token_id", self.config.text_config.decoder_start_token_id)
        output = self.language_model.generate(**kwargs)
        answers = output if isinstance(output, torch.Tensor) else output.sequences
        prompts = input_ids.repeat_interleave(len(answers) // len(input_ids), dim=0)
        sequences = torch.cat([prompts, answers[:, 1:]], dim=1)  # without the token that starts a decoder
        if isinstance(output, torch.Tensor):
            return sequences
        output.sequences = sequences
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
        if self.config.adapter_on == "outputs":
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
        for encoder in filter(None, (self.encoder, *self.encoders.values())):
            encoder.transformer.grad_checkpointing = enable  # open_clip has a switch of its own
