"""The universal projection module: experts that all modalities share, mixed by a router a modality.

Source: OneLLM (arXiv:2312.03700), section 3.2. The released weights normalise the
router with a sigmoid, the paper writes softmax; `router` chooses.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from onellm.model.projectors.base import Instruction, Projector
from onellm.model.runtime.attention import attend
from onellm.model.runtime.offload import live


class ExpertBlock(GradientCheckpointingLayer):
    """A LLaMA block that sees in both directions and has no rotary positions.

    Args:
        width: D.
        heads: of attention.
        hidden: width between the feed-forward layers.
        eps: of the norms.
    """

    def __init__(self, width: int, heads: int, hidden: int, eps: float):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.RMSNorm(width, eps)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor, count: int | None = None) -> torch.Tensor:
        """Map [B, N, D] to [B, N, D], or to the first `count` tokens alone where the others are not needed."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        x = x[:, :count] + self.out(attend(query[:, :, :count], key, value).transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Expert(nn.ModuleList):
    """A stack of blocks, of which the last computes the queries alone."""

    def forward(self, x: torch.Tensor, count: int) -> torch.Tensor:
        """Map [B, N, D] to [B, count, D]: what the first `count` tokens have become."""
        for block in self[:-1]:
            x = block(x)
        return self[-1](x, count)


class Router(nn.Module):
    """Weigh the experts for one modality, query by query.

    Args:
        modality: of router, one of `ROUTERS`.
        width: D.
        hidden: width between its layers.
        experts: K.
    """

    def __init__(self, modality: str, width: int, hidden: int, experts: int):
        super().__init__()
        self.modality, self.experts = modality, experts
        if modality != "constant":
            self.fc1 = nn.Linear(width, hidden)
            self.fc2 = nn.Linear(hidden, experts)

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Weigh the experts.

        Args:
            queries: [B, M, D], not yet mixed with the features.
            features: [B, N, D]; only the router "input_aware" reads them (their mean).

        Returns:
            [B, M, K] weights that sum to 1 over the experts.
        """
        if self.modality == "constant":
            return queries.new_full((*queries.shape[:2], self.experts), 1 / self.experts)
        if self.modality == "input_aware":
            queries = queries + features.mean(dim=1, keepdim=True)
        logits = self.fc2(F.gelu(self.fc1(queries)))
        if self.modality == "sigmoid":
            weights = logits.sigmoid()
            return weights / weights.sum(dim=-1, keepdim=True)
        weights = logits.softmax(dim=-1)
        if self.modality == "sparse":
            best = F.one_hot(weights.argmax(dim=-1), self.experts)
            weights = best + weights - weights.detach()  # straight-through, so that the router can learn
        return weights


class FoldedRouter(nn.Module):
    """What a router that does not see the input says, worked out once."""

    def __init__(self, router: Router, queries: torch.Tensor):
        super().__init__()
        weights = router(queries.unsqueeze(0), queries.unsqueeze(0))
        self.register_buffer("weights", weights.detach())

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return [1, M, K] weights."""
        return self.weights


class UniversalProjection(Projector):
    """Mix K experts, shared by all modalities, with a router a modality, into M soft tokens.

    Args:
        modalities: of file.
        width: D, of the features and inside.
        width_llm: D_llm.
        experts: K.
        layers: blocks of an expert.
        heads: of their attention.
        hidden: width between their feed-forward layers.
        queries: M.
        router: one of `ROUTERS`.
        router_hidden: width between a router's layers.
        norm_eps: of the experts' norms.
        **common: of every projector.
    """

    def __init__(
        self,
        modalities: list[str],
        width: int,
        width_llm: int,
        experts: int,
        layers: int,
        heads: int,
        hidden: int,
        queries: int,
        router: str = "sigmoid",
        router_hidden: int = 4096,
        norm_eps: float = 1e-5,
        **common: Any,
    ):
        super().__init__(modalities, width_llm, **common)
        self.experts = nn.ModuleList(
            Expert(ExpertBlock(width, heads, hidden, norm_eps) for _ in range(layers)) for _ in range(experts)
        )
        self.input_proj = nn.ModuleDict(
            {modality: nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width)) for modality in modalities}
        )
        self.queries = nn.ParameterDict({modality: 0.02 * torch.randn(queries, width) for modality in modalities})
        self.routers = nn.ModuleDict(
            {modality: Router(router, width, router_hidden, experts) for modality in modalities}
        )
        self.output_proj = nn.ModuleDict(
            {modality: nn.Sequential(nn.Linear(width, width_llm), nn.LayerNorm(width_llm)) for modality in modalities}
        )

    @torch.no_grad()
    def fold(self) -> None:
        """Replace every router that does not see the input by its constant weights; for inference only."""
        for modality, router in self.routers.items():
            if isinstance(router, Router) and router.modality != "input_aware":
                self.routers[modality] = FoldedRouter(router, self.queries[modality])

    def soft_tokens(
        self, features: torch.Tensor, modality: str, instruction: Instruction | None = None
    ) -> torch.Tensor:
        """Project [B, N, D] features to [B, M, D_llm] soft tokens, before the vocabulary anchor and without tags."""
        features = self.input_proj[modality](features)
        queries = live(self.queries, modality).expand(features.shape[0], -1, -1)
        weights = self.routers[modality](queries, features)
        sequence = torch.cat([queries, features], dim=1)
        count = queries.shape[1]
        mixed = sum(weights[..., k, None] * expert(sequence, count) for k, expert in enumerate(self.experts))
        return self.output_proj[modality](mixed)

    def count(self, features: int) -> int:
        """Return M: the queries, whatever the number of features."""
        return next(iter(self.queries.values())).shape[0]
