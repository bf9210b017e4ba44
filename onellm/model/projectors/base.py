"""What all projectors have in common: features [B, N, D] in, soft tokens [B, M, D_llm] out."""

import torch
from torch import nn

from onellm.errors import ModelError
from onellm.model.projectors.anchor import Anchor, Embed, WordAnchor
from onellm.model.projectors.convert import merge
from onellm.model.runtime.offload import live

TAGS = ("start", "end")

Instruction = tuple[torch.Tensor, torch.Tensor]
"""A question for a projector that reads it: token ids and mask, both [B, L] int64."""


class Projector(nn.Module):
    """From the encoder's features to soft tokens: vectors that the LLM reads like embeddings of its own tokens.

    Args:
        modalities: of file.
        width_llm: D_llm.
        tags: learnt vectors around a file's soft tokens: "start", "end", both, or none.
        anchor: arguments of the vocabulary anchor: of `WordAnchor` if it has `words`, else of `Anchor`; None for none.

    Attributes:
        outputs: name of the attribute with the layers, one for each modality or one for all, that end in D_llm.
    """

    outputs = "output_proj"

    def __init__(self, modalities: list[str], width_llm: int, tags: tuple[str, ...] = (), anchor: dict | None = None):
        super().__init__()
        unknown = [tag for tag in tags if tag not in TAGS]
        if unknown:
            raise ModelError(f"The tag '{unknown[0]}' is not known; choose one of {', '.join(TAGS)}.")
        self.tags = tuple(tags)
        for tag in self.tags:
            embeds = {modality: 0.02 * torch.randn(width_llm) for modality in modalities}
            setattr(self, f"{tag}_tags", nn.ParameterDict(embeds))
        self.anchor = (WordAnchor if "words" in anchor else Anchor)(**anchor) if anchor else None

    def soft_tokens(
        self, features: torch.Tensor, modality: str, instruction: Instruction | None = None
    ) -> torch.Tensor:
        """Project features of one modality.

        Args:
            features: [B, N, D].
            modality: the modality.
            instruction: what was asked; only some projectors read it.

        Returns:
            [B, M, D_llm], before the vocabulary anchor and without tags.
        """
        raise NotImplementedError

    def count(self, features: int) -> int:
        """Return M: how many soft tokens become of N features."""
        raise NotImplementedError

    @torch.no_grad()
    def convert(self, converter: nn.Linear) -> None:
        """Project for another LLM: `converter`, from this one's embeddings to that one's, is merged into the output.

        Raises:
            ModelError: the output ends in a layer with which nothing can be merged.
        """
        layers = getattr(self, self.outputs)
        separate = isinstance(layers, nn.ModuleDict)
        merged = (
            {modality: merge(layer, converter) for modality, layer in layers.items()}
            if separate
            else merge(layers, converter)
        )
        setattr(self, self.outputs, nn.ModuleDict(merged) if separate else merged)
        for tag in self.tags:
            tags = getattr(self, f"{tag}_tags")
            for modality, embed in tags.items():
                tags[modality] = nn.Parameter(converter(embed))

    def fold(self) -> None:
        """Work out what does not depend on the input; for inference only. Most projectors have nothing of the sort."""

    def forward(
        self,
        features: torch.Tensor,
        modality: str,
        embed: Embed | None = None,
        instruction: Instruction | None = None,
    ) -> torch.Tensor:
        """Project features to what the LLM reads.

        Args:
            features: [B, N, D] of files of one modality.
            modality: the modality.
            embed: the LLM's embedding, of which a vocabulary anchor makes its mixtures.
            instruction: as for `soft_tokens`.

        Returns:
            [B, M + tags, D_llm]: start tag, soft tokens, end tag.
        """
        embeds = self.soft_tokens(features, modality, instruction)
        if self.anchor is not None:
            embeds = self.anchor(embeds, embed)
        parts = [embeds]
        for tag in self.tags:
            learnt = live(getattr(self, f"{tag}_tags"), modality).expand(len(embeds), 1, -1).to(embeds)
            parts.insert(0 if tag == "start" else len(parts), learnt)
        return torch.cat(parts, dim=1) if self.tags else embeds
