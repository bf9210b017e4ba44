"""The visual abstractor: queries that attend to the features and to themselves, layer by layer.

Source: mPLUG-Owl (arXiv:2304.14178), section 3.1; the layer's inner order follows its released weights.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from onellm.model.projectors.base import Instruction, Projector
from onellm.model.runtime.attention import attend
from onellm.model.runtime.offload import live

NORM_EPS = 1e-5


class GatedFeedForward(nn.Module):
    """A gated feed-forward network with a norm inside.

    Args:
        width: D.
        hidden: channels inside.
        norm_eps: of the norm.
    """

    def __init__(self, width: int, hidden: int, norm_eps: float):
        super().__init__()
        self.gate = nn.Linear(width, hidden)
        self.up = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden, norm_eps)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, M, D] to [B, M, D]."""
        return self.down(self.norm(F.silu(self.gate(x)) * self.up(x)))


class AbstractorLayer(nn.Module):
    """Cross-attention and a feed-forward network; what goes on from layer to layer is the normalised query.

    Args:
        width: D.
        heads: of the attention.
        hidden: of the feed-forward network.
        norm_eps: of the norm inside it.
    """

    def __init__(self, width: int, heads: int, hidden: int, norm_eps: float):
        super().__init__()
        self.heads = heads
        self.query_norm = nn.LayerNorm(width, NORM_EPS)
        self.feature_norm = nn.LayerNorm(width, NORM_EPS)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width, NORM_EPS)
        self.ffn = GatedFeedForward(width, hidden, norm_eps)

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Map [B, M, D] queries, which see [B, N, D] features, to [B, M, D]."""
        queries = self.query_norm(queries)
        seen = torch.cat([queries, self.feature_norm(features)], dim=1)
        query = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(seen).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries = queries + self.out(attend(query, key, value).transpose(1, 2).flatten(2))
        return queries + self.ffn(self.ffn_norm(queries))


class Abstractor(Projector):
    """Queries that all modalities share, and a linear layer.

    Args:
        modalities: of file.
        width: D.
        width_llm: D_llm.
        queries: M.
        layers: how many.
        heads: of the attention.
        hidden: of the feed-forward networks.
        norm_eps: of the norms inside these.
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
        hidden: int = 4096,
        norm_eps: float = 1e-6,
        **common: Any,
    ):
        super().__init__(modalities, width_llm, **common)
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        self.layers = nn.ModuleList(AbstractorLayer(width, heads, hidden, norm_eps) for _ in range(layers))
        self.output_proj = nn.Linear(width, width_llm)

    def soft_tokens(
        self, features: torch.Tensor, modality: str, instruction: Instruction | None = None
    ) -> torch.Tensor:
        """Project [B, N, D] features to [B, M, D_llm] soft tokens, before the vocabulary anchor and without tags."""
        queries = live(self, "queries").expand(features.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, features)
        return self.output_proj(queries)

    def count(self, features: int) -> int:
        """Return M: the queries, whatever the number of features."""
        return self.queries.shape[0]
