"""Projectors that treat every feature alone, or with its neighbours.

Sources: LLaVA (arXiv:2304.08485; the MLP: arXiv:2310.03744), LaVIN (arXiv:2305.15023), MiniGPT-4 (arXiv:2304.10592; its
Llama-2 form joins four patches).
"""

from typing import Any

import torch
from torch import nn

from onellm.errors import ModelError
from onellm.model.projectors.base import Instruction, Projector


class Pointwise(Projector):
    """A small network a modality, or one for all modalities.

    Args:
        modalities: of file.
        width: D.
        width_llm: D_llm.
        shared: one network for all modalities.
        **common: of every projector.
    """

    outputs = "layers"

    def __init__(self, modalities: list[str], width: int, width_llm: int, shared: bool = False, **common: Any):
        super().__init__(modalities, width_llm, **common)
        self.shared = shared
        self.layers = nn.ModuleDict(
            {modality: self.build(width, width_llm) for modality in (["all"] if shared else modalities)}
        )

    def build(self, width: int, width_llm: int) -> nn.Module:
        """Build the network of one modality."""
        return nn.Linear(width, width_llm)

    def soft_tokens(
        self, features: torch.Tensor, modality: str, instruction: Instruction | None = None
    ) -> torch.Tensor:
        """Project [B, N, D] features to [B, N, D_llm]."""
        return self.layers["all" if self.shared else modality](features)

    def count(self, features: int) -> int:
        """Return M: as many as there are features."""
        return features


class Linear(Pointwise):
    """One linear layer."""


class MLP(Pointwise):
    """Linear layers with GELU between them.

    Args:
        modalities: of file.
        width: D.
        width_llm: D_llm, also of what is between.
        depth: layers.
        **common: of every pointwise projector.
    """

    def __init__(self, modalities: list[str], width: int, width_llm: int, depth: int = 2, **common: Any):
        self.depth = depth
        super().__init__(modalities, width, width_llm, **common)

    def build(self, width: int, width_llm: int) -> nn.Module:
        """Build the network of one modality."""
        layers: list[nn.Module] = [nn.Linear(width, width_llm)]
        for _ in range(self.depth - 1):
            layers += [nn.GELU(), nn.Linear(width_llm, width_llm)]
        return nn.Sequential(*layers)


class Bottleneck(Pointwise):
    """Two linear layers with SiLU and few channels between them.

    Args:
        modalities: of file.
        width: D.
        width_llm: D_llm.
        hidden: channels between them.
        **common: of every pointwise projector.
    """

    def __init__(self, modalities: list[str], width: int, width_llm: int, hidden: int = 128, **common: Any):
        self.hidden = hidden
        super().__init__(modalities, width, width_llm, **common)

    def build(self, width: int, width_llm: int) -> nn.Module:
        """Build the network of one modality."""
        return nn.Sequential(nn.Linear(width, self.hidden), nn.SiLU(), nn.Linear(self.hidden, width_llm))


class Neighbours(Pointwise):
    """Neighbouring features side by side, then one linear layer: a fraction of the soft tokens.

    Args:
        modalities: of file.
        width: D of one feature.
        width_llm: D_llm.
        neighbours: features that become one soft token.
        **common: of every pointwise projector.
    """

    def __init__(self, modalities: list[str], width: int, width_llm: int, neighbours: int = 4, **common: Any):
        self.neighbours = neighbours
        super().__init__(modalities, width * neighbours, width_llm, **common)

    def soft_tokens(
        self, features: torch.Tensor, modality: str, instruction: Instruction | None = None
    ) -> torch.Tensor:
        """Project [B, N, D] features to [B, N / neighbours, D_llm].

        Raises:
            ModelError: the features cannot be divided.
        """
        self.count(features.shape[1])
        return super().soft_tokens(features.unflatten(1, (-1, self.neighbours)).flatten(2), modality)

    def count(self, features: int) -> int:
        """Return M: a fraction of the features."""
        if features % self.neighbours:
            raise ModelError(
                f"{features} features cannot be joined {self.neighbours} by {self.neighbours}; drop the class token "
                "or choose another number of neighbours."
            )
        return features // self.neighbours
