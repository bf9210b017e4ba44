"""The model: tokenizers, encoder, projector, LLM and output heads, put together as a configuration says.

Sources: OneLLM: One Framework to Align All Modalities with Language (CVPR 2024, arXiv:2312.03700); the other systems of
the family are presets of the same modules.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Cache,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.generation.utils import GenerateOutput
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import load_state_dict

from onellm.errors import ModelError
from onellm.model import base_parts
from onellm.model.adapters import RoutedAdapters, Up
from onellm.model.backbones import BACKBONES
from onellm.model.configuration import OneLLMConfig, frames_per_file, merge
from onellm.model.encoder import UniversalEncoder
from onellm.model.extra_tokens import AddedTokens
from onellm.model.merging import Merge, Windows
from onellm.model.output_heads import Grammar, alignment_loss, build_outputs, find
from onellm.model.projectors import Instruction, build_projector
from onellm.model.runtime.offload import live
from onellm.model.tokenizers import BackboneTokens, build_tokenizer

LORA_SWITCH = ("type", "on")  # of an adapter's settings; the others are PEFT's
FRAMES_ON_CPU = 4  # at once: more would leave the caches, and take 1.4 times as long; a GPU takes all in one batch
IGNORED = -100  # the label where there is no loss

Media = dict[str, Sequence[torch.Tensor | Windows]]
"""modality -> one tensor a file, or those of its windows, in the order of their placeholders in `input_ids`."""


def _mask_lora_rows(module: nn.Module, _: tuple, output: torch.Tensor) -> torch.Tensor:
    """Zero the output of a LoRA layer in the rows of a batch, or at the positions, where the adapter is off."""
    return output if module.row_mask is None else output * module.row_mask


def _extend_logits(added: AddedTokens, _: nn.Module, inputs: tuple, logits: torch.Tensor) -> torch.Tensor:
    """Append the logits of the added tokens to those of the LLM's head."""
    return added.extend(inputs[0], logits)


def _pad(texts: Sequence[torch.Tensor]) -> Instruction:
    """Join token ids [L] of several texts, with their mask."""
    mask = pad_sequence([torch.ones_like(ids) for ids in texts], batch_first=True)
    return pad_sequence(list(texts), batch_first=True), mask


class OneLLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Assemble the modules and scatter the files' soft tokens into the prompt.

    Attributes:
        rows: the added tokens (the name is that of the state dict's keys); None where the outputs have none.
        stems: name -> frozen backbone (named likewise).
        outputs: modality -> output projector or VQ model.
        denoisers: modality -> loss of latents under conditions, where a trainer gives one.
    """

    config_class = OneLLMConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # those of this package; the LLM names others
    _no_split_modules = ["ResidualAttentionBlock", "ExpertBlock", "AbstractorLayer", "ResamplerLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = False

    def __init__(self, config: OneLLMConfig):
        super().__init__(config)
        modalities = list(config.modalities)
        stems = {
            settings["tokenizer"]["stem"] for settings in config.modalities.values() if "stem" in settings["tokenizer"]
        }
        self.stems = nn.ModuleDict({name: BACKBONES[name]() for name in sorted(stems)}).requires_grad_(False)
        self.tokenizers = nn.ModuleDict(
            {
                modality: build_tokenizer(
                    settings.get("encoder", {}).get("width", config.encoder["width"]), settings["tokenizer"], self.stems
                )
                for modality, settings in config.modalities.items()
                if "share" not in settings["tokenizer"]
            }
        )
        self.encoder = UniversalEncoder(**config.encoder) if config.encoder else None
        self.encoders = nn.ModuleDict(
            {
                modality: UniversalEncoder(**merge(config.encoder, settings["encoder"]))
                for modality, settings in config.modalities.items()
                if "encoder" in settings
            }
        )
        width = config.text_config.hidden_size
        self.projector = (
            build_projector(modalities, self.encoder.features, width, config.projector, config.tags)
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
            ModelError: the type of adapter is unknown, or the LLM has no layers that it fits.
        """
        self.config.adapter = settings
        options = {key: value for key, value in settings.items() if key not in LORA_SWITCH}
        name = settings.get("type", "lora")
        if name == "routed":
            self.adapters = RoutedAdapters(self.language_model, options)
            return
        if name != "lora":
            raise ModelError(f"The adapter '{name}' is not known; choose one of lora, routed.")
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(**options), self.language_model)
        # kept in a list: layers that `runtime.cpu` fuses later on are still switched through it
        self._adapter_active: bool | torch.Tensor | None = None  # not yet set in the layers
        self._tuners = [module for module in self.language_model.modules() if hasattr(module, "lora_A")]
        for tuner in self._tuners:
            for down in tuner.lora_A.values():
                down.row_mask = None
                down.register_forward_hook(_mask_lora_rows)

    def _switch_adapter(self, active: bool | torch.Tensor, batch: int, fresh: bool) -> None:
        """Tell the LLM's adapter in which rows of a batch, or at which positions, it is active.

        In training, and with `on` "always", LoRA is active everywhere, unless it is for outputs. A routed adapter
        weighs its experts by the rows, once a prompt.

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
        row_mask = active.reshape(len(active), -1, 1) if isinstance(active, torch.Tensor) else None
        for tuner in self._tuners:
            tuner._disable_adapters = active is False  # enable_adapters() would unfreeze what a trainer froze
            for down in tuner.lora_A.values():
                down.row_mask = row_mask

    def rows_with_files(self, input_ids: torch.Tensor) -> bool | torch.Tensor:
        """Tell which rows of a batch [B, L] hold files: all (True), none (False), or [B] bool."""
        placeholders = [settings["token_id"] for settings in self.config.modalities.values()]
        rows = torch.isin(input_ids, torch.tensor(placeholders, device=input_ids.device)).any(dim=1)
        return bool(rows[0]) if bool((rows == rows[0]).all()) else rows

    def adapted(self, input_ids: torch.Tensor) -> bool | torch.Tensor:
        """Tell where in a batch [B, L] the LLM's adapter is active: everywhere, nowhere, in rows [B], at positions."""
        if self.config.adapter_on != "outputs":
            return self.rows_with_files(input_ids)
        added = self.rows.is_output_token(input_ids)
        return bool(added[0, 0]) if bool((added == added[0, 0]).all()) else added

    # ---- files: tensors in, soft tokens out, and the losses that need no LLM -----------------------------------------

    def _check_lengths(self) -> None:
        """Make sure that a prompt gets as many placeholders as there will be soft tokens.

        Raises:
            ModelError: the configuration says another number.
        """
        for modality in self.config.modalities:
            if isinstance(self.tokenizer_for(modality), BackboneTokens):  # a few tokens from any number of frames
                continue
            frames = frames_per_file(modality, self.config.modalities[modality])
            encoder = self.encoder_for(modality)
            if encoder.features != self.encoder.features:
                raise ModelError(
                    f"The encoder of kind {modality} gives features {encoder.features} wide and that of the others "
                    f"{self.encoder.features}; set its 'output' so that they are the same."
                )
            features = encoder.count(self.tokenizer_for(modality).count, frames)
            length = self.projector.count(features) + len(self.config.tags)
            if self.config.length_of(modality) != length:
                raise ModelError(
                    f"A file of kind {modality} becomes {length} soft tokens, but the configuration says "
                    f"{self.config.length_of(modality)}; set its 'length' to {length}."
                )

    def tokenizer_for(self, modality: str) -> nn.Module:
        """Return the tokenizer of a modality, its own or the one it shares."""
        return self.tokenizers[self.config.modalities[modality]["tokenizer"].get("share", modality)]

    def encoder_for(self, modality: str) -> UniversalEncoder:
        """Return the encoder of a modality: its own, that of the one whose tokenizer it shares, or the common one."""
        shared = self.config.modalities[modality]["tokenizer"].get("share", modality)
        return self.encoders[shared] if shared in self.encoders else self.encoder

    def encode(self, modality: str, extracted: torch.Tensor) -> torch.Tensor:
        """Encode one modality's batch.

        Args:
            modality: the modality.
            extracted: [B, ...], what the modality's tokenizer extracted from the files' tensors.

        Returns:
            [B, N, D] features; those of frames that the tokenizer keeps apart are joined.
        """
        tokenizer, encoder = self.tokenizer_for(modality), self.encoder_for(modality)
        tokens, positions = tokenizer(self._to_encoder(extracted)), live(tokenizer, "positions")
        if tokens.dim() == 3:
            return encoder(tokens, positions)
        frames = tokens.flatten(0, 1)
        groups = frames.split(FRAMES_ON_CPU) if frames.is_cpu else [frames]
        features = torch.cat([encoder(group, positions) for group in groups])
        return encoder.join(features.unflatten(0, tokens.shape[:2]))

    def project(self, modality: str, features: torch.Tensor, instruction: Instruction | None = None) -> torch.Tensor:
        """Project [B, N, D] features to [B, length, D_llm]: soft tokens, and the tags around them."""
        embed = partial(
            self.get_input_embeddings()
        )  # a module itself would be moved to where an offloaded projector is
        return self.projector(features, modality, embed, instruction)

    def _to_encoder(self, values: torch.Tensor) -> torch.Tensor:
        """Bring values to the encoder's precision and, unless it is offloaded, its device."""
        like = self.encoder.class_embedding
        return values.to(like.dtype) if like.is_meta else values.to(like)

    def soft_tokens(
        self,
        modality: str,
        values: Sequence[torch.Tensor],
        extracted: bool = False,
        instructions: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Turn files into what the LLM reads.

        Args:
            modality: of all of them.
            values: one tensor a file; tensors of one shape run as one batch.
            extracted: the tensors are what the modality's tokenizer extracted (training keeps these).
            instructions: for a projector that reads the question, its token ids [L] for each file.

        Returns:
            [files, length, D_llm].
        """

        def project(features: torch.Tensor, indices: list[int]) -> torch.Tensor:
            asked = None
            if instructions is not None:
                asked = _pad([instructions[index].to(features.device) for index in indices])
            return self.project(modality, features, asked)

        return self._by_shape(modality, values, extracted, project)

    def _by_shape(
        self, modality: str, values: Sequence[torch.Tensor], extracted: bool, project: Callable
    ) -> torch.Tensor:
        """Encode and project files of one modality; those whose tensors are of one shape run as one batch."""
        groups: dict[tuple, list[int]] = {}
        for index, value in enumerate(values):
            groups.setdefault(tuple(value.shape), []).append(index)
        embeds: list[Any] = [None] * len(values)
        for indices in groups.values():
            batch = self._to_encoder(torch.stack([values[index] for index in indices]))
            if not extracted:
                batch = self.tokenizer_for(modality).extract(batch)
            for index, embed in zip(indices, project(self.encode(modality, batch), indices), strict=True):
                embeds[index] = embed
        return torch.stack(embeds)

    def media_embeds(
        self,
        modality: str,
        values: Sequence[torch.Tensor | Windows],
        extracted: bool = False,
        instructions: Sequence[torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """Turn files into soft tokens, of any length each; for the arguments see `soft_tokens`.

        Returns:
            [length, D_llm] for each file; the soft tokens of one that is read in windows are merged, between one pair
            of tags.
        """
        if not any(isinstance(value, Windows) for value in values):
            return list(self.soft_tokens(modality, values, extracted, instructions))
        embeds: list[torch.Tensor] = []
        for index, value in enumerate(values):
            asked = None if instructions is None else instructions[index : index + 1]
            if not isinstance(value, Windows):
                embeds += self.soft_tokens(modality, [value], extracted, asked)
                continue
            read: list[torch.Tensor] = []
            for _, alike in groupby(value.tensors, key=lambda tensor: tensor.shape):
                batch = list(alike)
                read += self.soft_tokens(modality, batch, extracted, None if asked is None else [*asked] * len(batch))
            start, end = (tag in self.projector.tags for tag in ("start", "end"))
            inner = torch.stack([window[start : len(window) - end] for window in read])
            merged, _ = self.merging(inner, value.kept)
            embeds.append(torch.cat([read[0][:start], merged.flatten(0, 1), read[0][len(read[0]) - end :]]))
        return embeds

    def anchor_loss(self, media: Media, anchor_labels: torch.Tensor, extracted: bool = False) -> torch.Tensor:
        """Compare the soft tokens of files with their names; the LLM does not run.

        Args:
            media: files of one modality.
            anchor_labels: [B, M] indices into the anchor's vocabulary.
            extracted: as for `soft_tokens`.

        Returns:
            The mean cross-entropy, a scalar.
        """
        ((modality, values),) = media.items()
        embeds = self._by_shape(
            modality, values, extracted, lambda features, _: self.projector.soft_tokens(features, modality)
        )
        return self.projector.anchor.loss(embeds, self.get_input_embeddings(), anchor_labels)

    def contrast_loss(self, media: Media, texts: Sequence[torch.Tensor], extracted: bool = False) -> torch.Tensor:
        """Compare files with texts, as a querying transformer learns to before any LLM; the LLM does not run.

        Args:
            media: files of one modality.
            texts: token ids [L] of the projector's own tokenizer, one text a file.
            extracted: as for `soft_tokens`.

        Returns:
            The loss, a scalar, see `projectors.contrast.Contrast`.
        """
        ((modality, values),) = media.items()
        features = self._by_shape(modality, values, extracted, lambda features, _: features)
        return self.projector.contrast_loss(features, modality, _pad(texts))

    def embed(
        self,
        input_ids: torch.Tensor,
        media: Media | None = None,
        extracted: bool = False,
        known: int = 0,
        media_are_embeds: bool = False,
        instructions: Media | None = None,
    ) -> torch.Tensor:
        """Embed a prompt and put the files' soft tokens where their placeholders stand.

        Args:
            input_ids: [B, L]; a file of a modality is `config.length_of(modality)` placeholders of the modality's
                `token_id`.
            media: the files' tensors.
            extracted: as for `soft_tokens`.
            known: positions at the start whose embeddings nobody will read; files that lie there are not encoded.
            media_are_embeds: the tensors are soft tokens already, one [length, D_llm] of `soft_tokens` a file.
            instructions: modality -> token ids [L] of the question about each file, see `soft_tokens`.

        Returns:
            [B, L, D_llm].

        Raises:
            ValueError: placeholders and files do not match in number.
        """
        embeds = self.embed_tokens(input_ids)
        for modality, settings in self.config.modalities.items():
            mask = input_ids == settings["token_id"]
            values = (media or {}).get(modality)
            values = [] if values is None else values
            one = self.config.length_of(modality)
            tags = len(self.config.tags)
            lengths = torch.tensor(
                [
                    len(value)
                    if media_are_embeds
                    else value.kept * (one - tags) + tags
                    if isinstance(value, Windows)
                    else one
                    for value in values
                ],
                dtype=torch.long,
            )
            if int(mask.sum()) != int(lengths.sum()):
                raise ValueError(
                    f"The prompt holds {int(mask.sum())} placeholders of kind {modality}, but {len(values)} file(s) "
                    f"of it need {int(lengths.sum())}; build both with OneLLMProcessor."
                )
            asked = (instructions or {}).get(modality)
            if known and len(values):
                last = mask.nonzero()[lengths.cumsum(0).to(mask.device) - 1, 1]
                fresh = last >= known
                mask[mask.clone()] = fresh.repeat_interleave(lengths.to(mask.device))
                wanted = fresh.nonzero()[:, 0].tolist()
                values = [values[index] for index in wanted]
                asked = asked and [asked[index] for index in wanted]
            if len(values):
                soft_tokens = values if media_are_embeds else self.media_embeds(modality, values, extracted, asked)
                scattered = torch.cat(list(soft_tokens)).to(embeds)
                embeds = embeds.masked_scatter(mask.unsqueeze(-1).to(embeds.device), scattered)
        return embeds

    # ---- the causal language model -----------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        media: Media | None = None,
        inputs_embeds: torch.Tensor | None = None,
        instructions: Media | None = None,
        labels: torch.Tensor | None = None,
        anchor_labels: torch.Tensor | None = None,
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
            media: the files' tensors, by modality.
            inputs_embeds: [B, L, D_llm], instead of `input_ids` and `media`.
            instructions: as for `embed`.
            labels: [B, L], -100 where there is no loss; for an encoder-decoder LLM [B, L'], the answer alone.
            anchor_labels: [B, M], for a loss on the soft tokens of `media` alone, see `anchor_loss`.
            texts: one a file, for the loss of `media` against texts alone, see `contrast_loss`.
            use_adapter: whether the LLM's adapter is on, for all, for each row [B] or position [B, L]; by default as
                `adapted` has it (a step that continues a cache holds no files: say it there).
            extracted: as for `soft_tokens`.
            position_ids: [B, L], counted from the first token that is not padding.
            past_key_values: the cache.
            logits_to_keep: logits of so many last positions; 0 for all.
            condition: modality -> [n, Q, D], what the generator's text encoder says of the captions of the outputs in
                the batch, in order; the loss draws the output projector's conditions to them.
            latents: modality -> [n, ...], latents of what these outputs show, for the loss of `denoisers`.
            **kwargs: passed to the LLM.

        Returns:
            The LLM's output: loss, logits [B, L, V], cache.
        """
        if anchor_labels is not None:
            return CausalLMOutputWithPast(loss=self.anchor_loss(media, anchor_labels, extracted))
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
        media_are_embeds: bool = False,
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
            media_are_embeds: as for `embed`.
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
            media = {
                modality: [value for row in media for value in row.get(modality, [])]
                for modality in self.config.modalities
            }
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
        kwargs["inputs_embeds"] = self.embed(
            input_ids, media, known=known, media_are_embeds=media_are_embeds, instructions=instructions
        )
        mask = kwargs.get("attention_mask")  # without one, transformers would guess it from the 0 that stands for files
        kwargs["attention_mask"] = torch.ones_like(input_ids) if mask is None else mask.to(input_ids.device)
        if self.config.is_encoder_decoder:
            return self._generate_encoder_decoder(input_ids, **kwargs)
        if self.rows is not None:
            grammar = Grammar(self.config.spans, input_ids.shape[1])
            kwargs["logits_processor"] = LogitsProcessorList([grammar, *(kwargs.get("logits_processor") or [])])
        plain = input_ids.masked_fill(input_ids >= self.get_input_embeddings().num_embeddings, 0)
        output = super().generate(plain, **kwargs)
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        sequences[:, : plain.shape[1]] = input_ids.repeat_interleave(len(sequences) // len(input_ids), dim=0)
        return output

    def _generate_encoder_decoder(self, input_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor | GenerateOutput:
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
            positions = kwargs.get("use_adapter")
            if ids is not None:
                inputs["use_adapter"] = self.adapted(ids)
            elif isinstance(positions, torch.Tensor):  # of the whole prompt, of which the cache may know the start
                start = 0 if past_key_values is None else int(past_key_values.get_seq_length())
                inputs["use_adapter"] = positions[:, start : start + inputs["inputs_embeds"].shape[1]]
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

    # ---- outputs: what an answer holds besides text, and its losses --------------------------------------------------

    def init_outputs(self, config: Any) -> None:
        """Build what the outputs need; the LLM is there already."""
        spans, width = config.spans, config.text_config.hidden_size
        self.rows, self._head_hook = None, None
        if spans:
            self.rows = AddedTokens(sum(span.count for span in spans), width, spans[0].first)
            self.extend_head()
        self.outputs = build_outputs(config.outputs, width)
        self.denoisers: dict[str, Callable] = {}

    def extend_head(self) -> None:
        """Let the LLM's head score the added tokens too; to be called again when the head was replaced."""
        if self.rows is not None:
            if self._head_hook is not None:
                self._head_hook.remove()
            self._head_hook = self.get_output_embeddings().register_forward_hook(partial(_extend_logits, self.rows))

    def embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed tokens, the added ones among them: [B, L] to [B, L, D_llm]; a placeholder is like token 0."""
        embedding = self.get_input_embeddings()
        embeds = embedding(input_ids.masked_fill(input_ids >= embedding.num_embeddings, 0))
        return embeds if self.rows is None else self.rows.embed(input_ids, embeds)

    @staticmethod
    def answered(labels: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Cut labels [B, L] to where there are some, and say how many positions that is: wide logits cost most."""
        first = int(labels.ne(IGNORED).any(dim=0).int().argmax())
        kept = labels.shape[1] - max(first - 1, 0)
        return labels[:, -kept:], kept

    def output_loss(
        self,
        output: Any,
        labels: torch.Tensor,
        input_ids: torch.Tensor,
        condition: dict[str, torch.Tensor] | None,
        latents: dict[str, torch.Tensor] | None,
        items: torch.Tensor | int | None,
    ) -> torch.Tensor:
        """Compute the loss of tokens, added ones among them, and of the conditions that signal tokens become.

        Args:
            output: of the LLM, with logits [B, L', V + n], and hidden states where there are conditions.
            labels: [B, L'].
            input_ids: [B, L].
            condition: as for `forward`.
            latents: as for `forward`.
            items: labels in all batches of the step; None for the mean of this one.
        """
        loss = ForCausalLMLoss(output.logits, labels, output.logits.shape[-1], items)
        for modality, wanted in (condition or {}).items():
            found = self.condition(modality, output.hidden_states[-1], input_ids)
            error = alignment_loss(found, wanted.to(found))
            if latents:
                error = error + self.denoisers[modality](latents[modality].to(found), found)
            # of several batches that make a step, each counts by its share of the labels, as in the tokens' loss
            loss = loss + error * (1 if items is None else labels.ne(IGNORED).sum() / items)
        return loss

    def condition(self, modality: str, hidden: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """Turn the signal tokens of a modality in a batch into conditions of its generator.

        Args:
            modality: of output, of the type "representation".
            hidden: [B, L, D_llm], the LLM's last states.
            input_ids: [B, L].

        Returns:
            [n, Q, D], one for each output in the batch, row by row.
        """
        (span,) = (span for span in self.config.spans if span.modality == modality)
        states = [
            hidden[row, start : start + span.length]
            for row, ids in enumerate(input_ids.tolist())
            for _, start in find(ids, [span])
        ]
        first = span.first - self.rows.first_id
        return self.outputs[modality](torch.stack(states), live(self.rows, "input")[first : first + span.delimiters])

    @torch.no_grad()
    def generate_media(
        self,
        input_ids: torch.Tensor,
        prompt: int,
        media: dict[str, Sequence[torch.Tensor]] | None = None,
        media_are_embeds: bool = False,
    ) -> list[tuple[str, list[int], torch.Tensor]]:
        """Generate what an answer holds besides text.

        Args:
            input_ids: [1, L], a prompt and its answer.
            prompt: length of the prompt.
            media: as for `embed`.
            media_are_embeds: as for `embed`.

        Returns:
            Modality, tokens, and a picture [3, H, W] float32 in 0..1 (of VQ tokens) or a condition [Q, D] (of signal
            tokens), for each output in the answer, in order.
        """
        answer = input_ids[0, prompt:].tolist()
        found = find(answer, self.config.spans)
        hidden = None
        if any(not span.codebook_size for span, _ in found):
            embeds = self.embed(input_ids, media, media_are_embeds=media_are_embeds)
            active = self.adapted(input_ids) if self.config.adapter else None
            hidden = self(inputs_embeds=embeds, use_adapter=active, output_hidden_states=True, logits_to_keep=1)
            hidden = hidden.hidden_states[-1]
        generated = []
        for span, start in found:
            tokens = answer[start : start + span.length]
            if span.codebook_size:
                indices = torch.tensor([span.codebook_indices(tokens)], device=self.device)
                result = self.outputs[span.modality].decode(indices)
            else:
                here = slice(prompt + start, prompt + start + span.length)
                result = self.condition(span.modality, hidden[:, here], input_ids[:, here])
            generated.append((span.modality, tokens, result[0]))
        return generated

    # ---- the folder: pretrained parts are referred to by name, not copied --------------------------------------------

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a model folder as transformers does.

        Raises:
            ModelError: the installed transformers has not the method through which pretrained parts come in.
        """
        loader = inspect.getattr_static(PreTrainedModel, "_load_pretrained_model", None)
        takes = list(inspect.signature(loader.__func__).parameters)[:3] if isinstance(loader, staticmethod) else None
        if takes != ["model", "state_dict", "checkpoint_files"]:
            raise ModelError(
                found=f"transformers {transformers.__version__} loads models in a way that OneLLM does not know",
                expected="PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, ...)",
                advice="install the version that requirements.txt names",
            )
        return super().from_pretrained(*args, **kwargs)

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, *args: Any, **kwargs: Any):
        """Load pretrained parts together with the folder's tensors: they are cast, placed and quantised like these."""
        if model.config.base_parts:
            state_dict = dict(state_dict or {})
            referred = tuple(f"{part}." for part in model.config.base_parts)
            for file in checkpoint_files or []:
                found = load_state_dict(file)
                state_dict |= {key: found[key] for key in found if not key.startswith(referred) or "lora_" in key}
            state_dict |= model.base_tensors()
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, *args, **kwargs)

    def base_tensors(self, but: str = "") -> dict[str, torch.Tensor]:
        """Fetch the parts named in `config.base_parts`, `but` one: name in this model -> tensor.

        Raises:
            ModelError: a part cannot be fetched.
            RuntimeError: a part lacks a tensor the model has.
        """
        found = {}
        for target, name in self.config.base_parts.items():
            if target == but:
                continue
            tensors: dict[str, torch.Tensor] = {}
            for file in base_parts.weight_files(base_parts.fetch(name)):
                tensors |= load_state_dict(str(file))
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
        """Copy the weights of the pretrained parts into a model that was not loaded from a folder."""
        values = self.state_dict(keep_vars=True)
        for key, tensor in self.base_tensors().items():
            values[key].copy_(tensor)

    def save_pretrained(self, save_directory: Any, *args: Any, state_dict: dict | None = None, **kwargs: Any) -> None:
        """Save a model folder; pretrained parts are referred to by name, not copied."""
        referred = tuple(f"{part}." for part in self.config.base_parts)
        state_dict = {
            key: value
            for key, value in (state_dict or self.state_dict()).items()
            if not key.startswith(referred) or "lora_" in key
        }
        super().save_pretrained(save_directory, *args, state_dict=state_dict, **kwargs)
