"""Adapters whose weight depends on whether there is a file: a mixture of two, weighed by a router.

In the LLM the router reads a modality token, one for text alone and one for text with files. It stands before the
prompt and sees itself alone, and nothing sees it; so it need not be in the prompt at all: it runs by itself, a sequence
of one token, and leaves a weight a layer. (That is exact where positions are relative, as LLaMA's are.) In an encoder
the router reads the class token, or at every token for itself.
Source: LaVIN (Mixture-of-Modality Adaptation, arXiv:2305.15023), section 3.1; sizes of its released code.
"""

from typing import Any

import torch
from torch import nn

from onellm.errors import ModelError
from onellm.model.runtime.offload import live

# where a decoder layer normalises what its attention reads, by the names that transformers' models use
ATTENTION_NORMS = ("input_layernorm", "self_attn_layer_norm", "ln_1")
MODALITIES = 2  # text alone, text with files
LOOKS = ("class", "token")  # what an encoder's routers read


class Up(nn.Conv1d):
    """The way from few channels back up: zero at first, so that an adapter changes nothing yet."""

    def reset_parameters(self) -> None:
        """Set everything to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class RoutedAdapter(nn.Module):
    """Add two low-rank changes to what an attention reads, as a router weighs them.

    Computes in its own precision, which may be finer than that of what it adapts.

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
        self.up = nn.ModuleList(Up(rank, width, 1, groups=groups) for _ in range(MODALITIES))
        self.router = nn.Linear(width, MODALITIES)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def weigh(self, tokens: torch.Tensor) -> torch.Tensor:
        """Weigh the two changes by tokens: [B, N, D] to [B, N, 2]."""
        return (self.router(tokens.to(self.down.weight.dtype)) / self.temperature).softmax(dim=-1)

    def forward(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Map [B, N, D] and [B, N or 1, 2] weights to [B, N, D]."""
        low = self.dropout(self.down(x.to(self.down.weight.dtype))).transpose(1, 2)
        changes = [layer(low).transpose(1, 2) for layer in self.up]
        change = sum(weights[..., index, None] * change for index, change in enumerate(changes))
        return x + (self.scale * change).to(x.dtype)


def adapt_encoder(blocks: nn.ModuleList, width: int, settings: dict) -> nn.ModuleList:
    """Put an adapter behind the first norm of every block.

    Args:
        blocks: of open_clip's transformer; they get hooks.
        width: D.
        settings: of `RoutedAdapter`, and `looks`: whether a router reads the "class" token, which comes first, and
            decides for all (the paper's form, and the default), or at every "token" for itself. The latter is what
            LaVIN's released code computes for a single picture; in a batch it takes the first picture's tokens for
            all.

    Returns:
        The adapters, to be registered.

    Raises:
        ModelError: a setting is unknown.
    """
    options = {key: value for key, value in settings.items() if key != "looks"}
    looks = settings.get("looks", LOOKS[0])
    if looks not in LOOKS:
        raise ModelError(f"A router cannot read '{looks}'; choose one of {', '.join(LOOKS)}.")
    adapters = nn.ModuleList(_build(width, options) for _ in blocks)
    for block, adapter in zip(blocks, adapters, strict=True):

        def adapt(_: nn.Module, __: tuple, x: torch.Tensor, adapter: RoutedAdapter = adapter) -> torch.Tensor:
            return adapter(x, adapter.weigh(x if looks == "token" else x[:, :1]))

        block.ln_1.register_forward_hook(adapt)
    return adapters


class RoutedAdapters(nn.Module):
    """Adapters in every layer of an LLM.

    Args:
        llm: a causal LLM of transformers; its layers get hooks.
        settings: of `RoutedAdapter`.

    Attributes:
        weights: a layer: [B, 1, 2], what its router says of the rows of the batch that runs; None before the first.
    """

    def __init__(self, llm: nn.Module, settings: dict):
        super().__init__()
        width = llm.config.hidden_size
        norms = [_attention_norm(layer) for layer in getattr(llm.get_decoder(), "layers", [None])]
        if None in norms:
            raise ModelError(
                f"An LLM of type '{llm.config.model_type}' has no norm before its attention that is known here; "
                "use LoRA, or another LLM."
            )
        self.modality = nn.Embedding(MODALITIES, width)
        self.layers = nn.ModuleList(_build(width, settings) for _ in norms)
        self.weights: list[torch.Tensor] | None = None
        self._table: list[torch.Tensor] | None = None  # of the last prompt: a layer: [2, 1, 2], for text and for files
        self._rows: tuple | None = None  # what `weights` was taken for
        self._routing: list[torch.Tensor] | None = None  # the table that is being computed
        for index, norm in enumerate(norms):
            norm.register_forward_hook(self._hook(index))

    def _hook(self, index: int) -> Any:
        def adapt(_: nn.Module, __: tuple, x: torch.Tensor) -> torch.Tensor:
            adapter = self.layers[index]
            if self._routing is not None:
                self._routing.append(adapter.weigh(x))
                return adapter(x, self._routing[-1])
            return x if self.weights is None else adapter(x, self.weights[index].to(x.device))

        return adapt

    def route(self, llm: nn.Module, active: bool | torch.Tensor, batch: int, fresh: bool) -> None:
        """Set the weights for the rows of a batch.

        Args:
            llm: the LLM with the hooks.
            active: whether the rows hold files: all of them, or [B] bool.
            batch: B.
            fresh: whether a prompt begins, so that the modality tokens run; otherwise what they left is taken again.
        """
        if fresh or self.training or self._table is None:
            self._table, self._rows = self._run(llm), None
        if self._rows is None or self._rows[0] is not active or self._rows[1] != batch:
            rows = torch.as_tensor(active).expand(batch).long()
            self.weights = [table[rows.to(table.device)] for table in self._table]
            self._rows = active, batch

    def _run(self, llm: nn.Module) -> list[torch.Tensor]:
        """Run the modality tokens by themselves; a layer: [2, 1, 2] weights."""
        decoder = llm.get_decoder()
        recomputed = [layer for layer in decoder.layers if getattr(layer, "gradient_checkpointing", False)]
        for layer in recomputed:  # in the backward pass this would meet other weights
            layer.gradient_checkpointing = False
        self._routing = []
        try:
            tokens = live(self.modality, "weight").unsqueeze(1)
            decoder(inputs_embeds=tokens.to(llm.dtype), use_cache=False)
            return self._routing
        finally:
            self._routing = None
            for layer in recomputed:
                layer.gradient_checkpointing = True


def _attention_norm(layer: nn.Module) -> nn.Module | None:
    return next((getattr(layer, name) for name in ATTENTION_NORMS if hasattr(layer, name)), None)


def _build(width: int, settings: dict) -> RoutedAdapter:
    """Build an adapter.

    Raises:
        ModelError: a setting is unknown.
    """
    try:
        return RoutedAdapter(width, **settings)
    except TypeError as error:
        reason = str(error).rpartition("__init__() ")[2]
        raise ModelError(f"Routed adapters cannot be built: it {reason}; correct their settings.") from error
