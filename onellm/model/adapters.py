"""Adapters whose weight depends on whether there is a file: a mixture of two, weighed by a router.

In the LLM the router looks at a modality token, one for text alone and one for text with files. It stands before the
prompt and sees itself alone, and nothing sees it; so it need not be in the prompt at all: it runs by itself, a sequence
of one token, and leaves a weight a layer. In an encoder the router looks at the class token.
Source: LaVIN (Mixture-of-Modality Adaptation, arXiv:2305.15023), section 3.1; sizes of its released code.
"""

from typing import Any

import torch
from torch import nn

from onellm.errors import ModelError
from onellm.model.offload import live

# where a decoder layer normalises what its attention reads, by the names that transformers' models use
ATTENTION_NORMS = ("input_layernorm", "self_attn_layer_norm", "ln_1")
MODALITIES = 2  # text alone, text with files


class RoutedAdapter(nn.Module):
    """Add two low-rank changes to what an attention reads, as a router weighs them.

    Args:
        width: D.
        rank: r.
        groups: of the way back up.
        temperature: of the router's softmax.
        scale: of the change.
        dropout: behind the way down.
    """

    def __init__(
        self,
        width: int,
        rank: int = 8,
        groups: int = 2,
        temperature: float = 10.0,
        scale: float = 1.0,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.temperature, self.scale = temperature, scale
        self.down = nn.Linear(width, rank)
        self.up = nn.ModuleList(nn.Conv1d(rank, width, 1, groups=groups) for _ in range(MODALITIES))
        self.router = nn.Linear(width, MODALITIES)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        for layer in self.up:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def weigh(self, token: torch.Tensor) -> torch.Tensor:
        """Weigh the two changes by a token: [B, D] to [B, 2]."""
        return (self.router(token) / self.temperature).softmax(dim=-1)

    def forward(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Map [B, N, D] and [B, 2] weights to [B, N, D]."""
        low = self.dropout(self.down(x)).transpose(1, 2)
        change = sum(weights[:, index, None, None] * layer(low) for index, layer in enumerate(self.up))
        return x + self.scale * change.transpose(1, 2).to(x.dtype)


def adapt_encoder(blocks: nn.ModuleList, width: int, settings: dict) -> nn.ModuleList:
    """Put an adapter behind the first norm of every block; its router looks at the class token, which comes first."""
    adapters = nn.ModuleList(RoutedAdapter(width, **settings) for _ in blocks)
    for block, adapter in zip(blocks, adapters, strict=True):
        block.ln_1.register_forward_hook(lambda _, __, x, adapter=adapter: adapter(x, adapter.weigh(x[:, 0])))
    return adapters


class RoutedAdapters(nn.Module):
    """Adapters in every layer of an LLM.

    Args:
        llm: a causal LLM of transformers; its layers get hooks.
        settings: of `RoutedAdapter`.

    Attributes:
        weights: [layers] of [B, 2], what the routers said of the rows of the batch that runs; None before the first.
    """

    def __init__(self, llm: nn.Module, settings: dict):
        super().__init__()
        width = llm.config.hidden_size
        layers = llm.get_decoder().layers
        self.modality = nn.Embedding(MODALITIES, width)
        self.layers = nn.ModuleList(RoutedAdapter(width, **settings) for _ in layers)
        self.weights: list[torch.Tensor] | None = None
        self._routing: list[torch.Tensor] | None = None
        for index, layer in enumerate(layers):
            norm = next((getattr(layer, name) for name in ATTENTION_NORMS if hasattr(layer, name)), None)
            if norm is None:
                raise ModelError(
                    f"An LLM of type '{llm.config.model_type}' has no norm before its attention that is known here; "
                    "use LoRA, or another LLM."
                )
            norm.register_forward_hook(self._hook(index))

    def _hook(self, index: int) -> Any:
        def adapt(_: nn.Module, __: tuple, x: torch.Tensor) -> torch.Tensor:
            adapter = self.layers[index]
            if self._routing is not None:
                self._routing.append(adapter.weigh(x[:, 0]))
                return adapter(x, self._routing[-1])
            return x if self.weights is None else adapter(x, self.weights[index])

        return adapt

    def route(self, llm: nn.Module, rows: torch.Tensor) -> None:
        """Run the modality tokens by themselves, and keep the weights for the rows of a batch.

        Args:
            llm: the LLM with the hooks.
            rows: [B] bool, which rows hold files.
        """
        tokens = live(self.modality, "weight").unsqueeze(1)
        self._routing = []
        try:
            llm.get_decoder()(inputs_embeds=tokens.to(llm.dtype), use_cache=False)
            self.weights = [weights[rows.long().to(weights.device)] for weights in self._routing]
        finally:
            self._routing = None
