"""The perceiver resampler: latents that attend to the features and to themselves, layer by layer.

Source: Flamingo (arXiv:2204.14198), section 3.1.1; the layer's inner order follows IDEFICS, its open reproduction.
"""

from typing import Any

import torch
from torch import nn

from onellm.model.projectors.base import Instruction, Projector
from onellm.model.runtime.attention import attend
from onellm.model.runtime.offload import live


class ResamplerLayer(nn.Module):
    """Cross-attention without biases, and a feed-forward network.

    Args:
        width: D.
        heads: of the attention.
        head_width: channels of each.
        hidden: of the feed-forward network.
        head_norm: whether queries and keys are normalised head by head.
    """

    def __init__(self, width: int, heads: int, head_width: int, hidden: int, head_norm: bool):
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.feature_norm = nn.LayerNorm(width)
        self.query_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.query_head_norm = nn.LayerNorm(head_width) if head_norm else nn.Identity()
        self.key_head_norm = nn.LayerNorm(head_width) if head_norm else nn.Identity()
        self.out = nn.Linear(inner, width, bias=False)
        self.ffn = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, width, bias=False)
        )

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Map [B, M, D] queries, which see [B, N, D] features, to [B, M, D]."""
        normed = self.query_norm(queries)
        seen = torch.cat([self.feature_norm(features), normed], dim=1)
        query = self.query(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(seen).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(self.query_head_norm(query), self.key_head_norm(key), value)
        queries = queries + self.out(attended.transpose(1, 2).flatten(2))
        return queries + self.ffn(queries)


class Resampler(Projector):
    """Latents that all modalities share, and a linear layer.

    Args:
        modalities: of file.
        width: D.
        width_llm: D_llm.
        queries: M, the latents.
        layers: how many.
        heads: of the attention.
        head_width: channels of each.
        hidden: of the feed-forward networks; 4 * D if None.
        head_norm: whether queries and keys are normalised head by head.
        **common: of every projector.
    """

    def __init__(
        self,
        modalities: list[str],
        width: int,
        width_llm: int,
        queries: int = 64,
        layers: int = 6,
        heads: int = 16,
        head_width: int = 96,
        hidden: int | None = None,
        head_norm: bool = False,
        **common: Any,
    ):
        super().__init__(modalities, width_llm, **common)
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.layers = nn.ModuleList(
            ResamplerLayer(width, heads, head_width, hidden or 4 * width, head_norm) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.output_proj = nn.Linear(width, width_llm)

    def soft_tokens(
        self, features: torch.Tensor, modality: str, instruction: Instruction | None = None
    ) -> torch.Tensor:
        """Project [B, N, D] features to [B, M, D_llm] soft tokens, before the vocabulary anchor and without tags."""
        queries = live(self, "queries").expand(features.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, features)
        return self.output_proj(self.norm(queries))

    def count(self, features: int) -> int:
        """Return M: the latents, whatever the number of features."""
        return self.queries.shape[0]
