"""What a conversation asks of a model: `modeling.OneLLMForConditionalGeneration` and `idefics` both answer to it."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


class MediaConfig(Protocol):
    """The fields of a configuration that the processor, the hub and the chat read, see `OneLLMConfig`."""

    description: str
    modalities: dict[str, dict]
    outputs: dict[str, dict]
    spans: Sequence[Any]
    tags: tuple[str, ...]
    text_config: Any
    encoder: dict | None
    adapter: dict | None
    base_parts: dict[str, str]
    instructed: bool
    media_position: str
    chat_template: str | None
    stop_strings: list[str] | None

    def length_of(self, modality: str) -> int:
        """Return how many positions one file of a modality takes in a prompt."""


@runtime_checkable
class MediaLanguageModel(Protocol):
    """A language model that reads files as soft tokens.

    Attributes:
        config: see `MediaConfig`.
        generation_config: transformers' `GenerationConfig`, from which answers begin.
        projector: the module whose output the LLM reads; None where no files are read.
    """

    config: Any
    generation_config: Any
    projector: nn.Module | None

    def tokenizer_for(self, modality: str) -> nn.Module:
        """Return the module that cuts a file's tensor into tokens; `count` is the largest number of them."""

    def soft_tokens(self, modality: str, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Turn the tensors of files into [files, length, D], D as `generate` takes it."""

    def media_embeds(self, modality: str, values: Sequence[Any]) -> list[torch.Tensor]:
        """Turn the tensors of files, or the `Windows` of long ones, into soft tokens [length, D] each."""

    def generate(
        self,
        input_ids: torch.Tensor,
        media: dict[str, Sequence[torch.Tensor]] | None = None,
        media_are_embeds: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Generate as transformers does.

        Args:
            input_ids: [B, L] int64 with a file's placeholders, as many as its soft tokens.
            media: modality -> tensors of files, or what `media_embeds` gave, in the order of their placeholders.
            media_are_embeds: whether it is the latter.
            **kwargs: as for `GenerationMixin.generate`.
        """

    def generate_media(
        self,
        input_ids: torch.Tensor,
        prompt: int,
        media: dict[str, Sequence[torch.Tensor]] | None = None,
        media_are_embeds: bool = False,
    ) -> list[tuple[str, list[int], torch.Tensor]]:
        """Generate what an answer holds besides text: modality, tokens and picture or condition of each output."""
