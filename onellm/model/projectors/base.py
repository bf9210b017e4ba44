"""What all projectors have in common: features [B, N, D] in, soft words [B, M, D_llm] out."""

import torch
from torch import nn

from onellm.errors import ModelError
from onellm.model.offload import live
from onellm.model.projectors.anchor import Anchor
from onellm.model.projectors.convert import merge

TAGS = ("start", "end")

Instruction = tuple[torch.Tensor, torch.Tensor]
"""A question for a projector that reads it: token ids and mask, both [B, L] int64."""


class Projector(nn.Module):
    """From the encoder's features to words the LLM can read.

    Args:
        kinds: of file.
        width_llm: D_llm.
        tags: learnt words around a file's soft words: "start", "end", both, or none.
        anchor: `size` and `scale` of an `Anchor`; None for none.

    Attributes:
        outputs: where the layers are, a kind's each or the same for all, the last of which makes the words.
    """

    outputs = "output_proj"

    def __init__(self, kinds: list[str], width_llm: int, tags: tuple[str, ...] = (), anchor: dict | None = None):
        super().__init__()
        unknown = [tag for tag in tags if tag not in TAGS]
        if unknown:
            raise ModelError(f"The tag '{unknown[0]}' is not known; choose one of {', '.join(TAGS)}.")
        self.tags = tuple(tags)
        for tag in self.tags:
            words = {kind: 0.02 * torch.randn(width_llm) for kind in kinds}
            setattr(self, f"{tag}_tags", nn.ParameterDict(words))
        self.anchor = Anchor(**anchor) if anchor else None

    def words(self, features: torch.Tensor, kind: str, instruction: Instruction | None = None) -> torch.Tensor:
        """Project features of one kind.

        Args:
            features: [B, N, D].
            kind: the kind.
            instruction: what was asked; only a projector that reads it looks at it.

        Returns:
            [B, M, D_llm], before the anchor and without tags.
        """
        raise NotImplementedError

    def count(self, features: int) -> int:
        """Return M: how many soft words become of N features."""
        raise NotImplementedError

    @torch.no_grad()
    def convert(self, converter: nn.Linear) -> None:
        """Make the words of another LLM: `converter`, from this one's words to those, is merged into the output.

        Raises:
            ModelError: the output ends in a layer with which nothing can be merged.
        """
        layers = getattr(self, self.outputs)
        apart = isinstance(layers, nn.ModuleDict)
        merged = {kind: merge(own, converter) for kind, own in layers.items()} if apart else merge(layers, converter)
        setattr(self, self.outputs, nn.ModuleDict(merged) if apart else merged)
        for tag in self.tags:
            words = getattr(self, f"{tag}_tags")
            for kind, word in words.items():
                words[kind] = nn.Parameter(converter(word))

    def fold(self) -> None:
        """Work out what does not depend on the input; for inference only. Most projectors have nothing of the kind."""

    def forward(
        self,
        features: torch.Tensor,
        kind: str,
        vocabulary: torch.Tensor | None = None,
        instruction: Instruction | None = None,
    ) -> torch.Tensor:
        """Project features to what the LLM reads.

        Args:
            features: [B, N, D] of files of one kind.
            kind: the kind.
            vocabulary: [size, D_llm], the LLM's embeddings of the anchor's words.
            instruction: as for `words`.

        Returns:
            [B, M + tags, D_llm]: start tag, soft words, end tag.
        """
        words = self.words(features, kind, instruction)
        if self.anchor is not None:
            words = self.anchor(words, vocabulary)
        parts = [words]
        for tag in self.tags:
            word = live(getattr(self, f"{tag}_tags"), kind).expand(len(words), 1, -1).to(words)
            parts.insert(0 if tag == "start" else len(parts), word)
        return torch.cat(parts, dim=1) if self.tags else words
