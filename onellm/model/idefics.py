"""Flamingo's way: gated layers between those of the LLM attend to the pictures, which take no room in the prompt.

It shares no part with the other systems without being hurt, so it is transformers' own class, from the folder that was
published, behind what the chat asks of a model, `interface.MediaLanguageModel`. To the
chat a picture is one placeholder and one soft token: the latents of the perceiver resampler, side by side.
Source: Flamingo (arXiv:2204.14198), in the open reproduction IDEFICS.
"""

import types
from collections.abc import Sequence
from typing import Any

import torch
from transformers import IdeficsConfig, IdeficsForVisionText2Text, LlamaConfig
from transformers.generation.utils import GenerateOutput
from transformers.modeling_outputs import ModelOutput

from onellm.errors import ModelError

AROUND, END = "<fake_token_around_image>", "<end_of_utterance>"
ADDED = (AROUND, "<image>", END)  # tokens behind the LLM's own, in this order

# LLaMA's tokenizer sets a space behind every added token
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ ' ' if loop.first else ' \n' }}{{ m['role'].capitalize() + ': ' }}"
    "{{ m['content'] + '" + END + "' }}{% endfor %}{% if add_generation_prompt %}{{ ' \nAssistant:' }}{% endif %}"
)


class GatedConfig(IdeficsConfig):
    """What transformers reads, and beside it what `OneLLMConfig` says of other models."""

    description = "the published IDEFICS, an open Flamingo: LLaMA-7B with gated layers that look at pictures; it chats"
    base_parts = outputs = types.MappingProxyType({})
    spans = tags = ()
    adapter = None
    instructed = False
    media_position = "inline"
    chat_template = CHAT_TEMPLATE
    stop_strings = None

    @property
    def modalities(self) -> dict[str, dict]:
        """Modality -> settings, as in `OneLLMConfig`."""
        picture = {"size": self.vision_config.image_size, "fit": "squeeze"}
        placeholder = self.vocab_size + ADDED.index("<image>")
        return {"image": {"token_id": placeholder, "input": picture, "before": AROUND, "after": f"{AROUND} "}}

    def length_of(self, modality: str) -> int:
        """Positions that one file of a modality takes in a prompt."""
        return 1

    @property
    def encoder(self) -> dict[str, int]:
        """Sizes of the encoder."""
        return {"width": self.vision_config.embed_dim}

    @property
    def text_config(self) -> LlamaConfig:
        """The LLM without the gated layers."""
        return LlamaConfig(
            vocab_size=self.vocab_size + self.additional_vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            max_position_embeddings=self.max_position_embeddings,
        )

    def get_text_config(self, *_: Any, **__: Any) -> "GatedConfig":
        """Return what `generate` plans its cache by."""
        return self


class GatedForConditionalGeneration(IdeficsForVisionText2Text):
    """transformers' model with the interface of ours, `interface.MediaLanguageModel`."""

    config_class = GatedConfig

    def __init__(self, config: GatedConfig):
        if not config.use_resampler:
            raise ModelError("Gated layers without a perceiver resampler are not supported; give another model.")
        super().__init__(config)
        embeddings = self.model.vision_model.embeddings
        embeddings.count = embeddings.num_patches

    @property
    def projector(self) -> torch.nn.Module:
        """What makes latents of features."""
        return self.model.perceiver_resampler

    def tokenizer_for(self, modality: str) -> torch.nn.Module:
        """Return what cuts pictures."""
        return self.model.vision_model.embeddings

    def soft_tokens(self, modality: str, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Turn pictures, [3, H, W] each, into [files, 1, latents * D]."""
        pixels = torch.stack(list(values)).to(self.device, self.dtype)
        features = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return self.projector(features).flatten(1).unsqueeze(1)

    def media_embeds(self, modality: str, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Turn pictures into one soft token each, [1, latents * D]."""
        return list(self.soft_tokens(modality, values))

    def _visible_pictures(
        self, input_ids: torch.Tensor, media: dict | None, media_are_embeds: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather the pictures that a prompt [B, L] attends to.

        Returns:
            [B, I, latents, D], the largest number of pictures of a row being I, and [B, L, I]: every position attends
            to the last picture before it, and at none behind the end of a text.

        Raises:
            ValueError: placeholders and pictures do not match in number.
        """
        values = list((media or {}).get("image", []))
        mask = input_ids == self.config.modalities["image"]["token_id"]
        counts = mask.sum(dim=1)
        if int(counts.sum()) != len(values):
            raise ValueError(f"The prompt holds {int(counts.sum())} pictures, but {len(values)} came; give as many.")
        most = max(1, int(counts.max()))
        latents = (self.config.perceiver_config.resampler_n_latents, self.config.vision_config.embed_dim)
        pictures = torch.zeros(len(input_ids), most, *latents, dtype=self.dtype, device=input_ids.device)
        if values:
            found = torch.stack(values) if media_are_embeds else self.soft_tokens("image", values)
            real = torch.arange(most, device=input_ids.device) < counts[:, None]
            pictures[real] = found.unflatten(-1, latents).squeeze(1).to(pictures)
        order = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        ends = torch.isin(input_ids, torch.as_tensor(self.config.eos_token_id, device=input_ids.device))
        picture = order.masked_fill(~mask, -1).cummax(dim=1).values
        end = order.masked_fill(~ends, -1).cummax(dim=1).values.roll(1, dims=1)
        end[:, 0] = -1
        visible = (picture >= 0) & (end <= picture)
        attended = torch.nn.functional.one_hot((mask.cumsum(dim=1) - 1).clamp_min(0), most)
        return pictures, attended * visible.unsqueeze(-1)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        media: dict | None = None,
        media_are_embeds: bool = False,
        **kwargs: Any,
    ) -> ModelOutput:
        """Run over a prompt; `media` and `media_are_embeds` are those of `OneLLMForConditionalGeneration`."""
        if kwargs.get("perceiver_embeddings") is None and kwargs.get("pixel_values") is None:
            kwargs["perceiver_embeddings"], kwargs["image_attention_mask"] = self._visible_pictures(
                input_ids, media, media_are_embeds
            )
        return super().forward(input_ids=input_ids, **kwargs)

    @torch.no_grad()
    def generate(
        self, input_ids: torch.Tensor, media: dict | None = None, media_are_embeds: bool = False, **kwargs: Any
    ) -> torch.Tensor | GenerateOutput:
        """Generate as transformers does; arguments as for `OneLLMForConditionalGeneration.generate`."""
        input_ids = input_ids.to(self.device)
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = kwargs["attention_mask"].to(self.device)
        if isinstance(media, list | tuple):
            media = {"image": [picture for row in media for picture in row.get("image", [])]}
        pictures, attended = self._visible_pictures(input_ids, media, media_are_embeds)
        first = self.config.vocab_size
        added = list(range(first, first + min(self.config.additional_vocab_size, len(ADDED))))
        ends = kwargs.pop("eos_token_id", None) or self.generation_config.eos_token_id or self.config.eos_token_id
        kwargs["eos_token_id"] = [*(ends if isinstance(ends, list) else [ends]), *added[2:]]
        if added:
            kwargs.setdefault("bad_words_ids", [[token] for token in added[:2]])  # an answer holds no pictures
        return super().generate(input_ids, image_hidden_states=pictures, image_attention_mask=attended, **kwargs)

    def generate_media(self, *_: Any, **__: Any) -> list[tuple[str, list[int], torch.Tensor]]:
        """Generate nothing: answers are text alone."""
        return []
