"""The universal encoder: one transformer that all modalities share.

Source: OneLLM (arXiv:2312.03700), section 3.1; the published model uses CLIP's ViT-L/14.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import LayerNorm, QuickGELU, Transformer
from torch import nn
from torch.utils.checkpoint import checkpoint

from onellm.errors import ModelError
from onellm.model.runtime.attention import attend
from onellm.model.runtime.offload import live

CLASS_TOKENS = ("keep", "drop", "alone")
ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}
FRAMES = ("mean", "concat")


class Attention(nn.MultiheadAttention):
    """Self-attention with torch's parameters; torch's own way of running them keeps all scores in memory on a CPU."""

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        """Map [B, N, D] to [B, N, D]; the further arguments are the same tokens again, and no mask."""
        query, key, value = self.project_in(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.bias_k is not None:
            key, value = self._with_extra(key, "bias_k"), self._with_extra(value, "bias_v")
        return self.out_proj(attend(query, key, value).transpose(1, 2).flatten(2)), None

    def _with_extra(self, tokens: torch.Tensor, name: str) -> torch.Tensor:
        """Put the learnt key or value behind those of the tokens: [B, H, N, head_dim] to [B, H, N + 1, head_dim]."""
        extra = live(self, name).reshape(1, self.num_heads, 1, -1).expand(len(tokens), -1, -1, -1)
        return torch.cat([tokens, extra.to(tokens)], dim=2)

    def project_in(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, N, D] to [B, N, 3 * D]: queries, keys, values."""
        return F.linear(x, self.in_proj_weight, self.in_proj_bias)


class UniversalEncoder(nn.Module):
    """open_clip's visual transformer without its patch layer.

    Args:
        width: D.
        layers: blocks of the published tower; those behind the last one that is read are not built.
        heads: of the attention.
        mlp_ratio: hidden width of the feed-forward layers, as a multiple of `width`.
        hidden: the same as a number, where no ratio says it exactly.
        layer: whose output is read: -1 for the last block's, -2 for that before, n for the n-th block's; several are
            read one after the other and their tokens put side by side.
        class_token: "keep", "drop" (patches alone) or "alone".
        activation: "quick_gelu" (OpenAI's CLIP) or "gelu".
        norm_eps: of the layer norms.
        pre_norm: whether a layer norm comes before the blocks.
        post_norm: whether one follows what is read.
        extra_key: whether every attention has a learnt key and value beside the tokens' own.
        output: D of the features, where a linear layer without a bias follows; 0 for none.
        unit: whether every feature is brought to length 1, before frames are joined.
        frames: how the features of several frames are joined: "mean", or "concat", each with an embedding of its index.
        places: embeddings for "concat", the largest number of frames.
        adapter: routed adapters in every block, see `adapters.RoutedAdapter`; None for none.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        mlp_ratio: float = 4.0,
        *,
        hidden: int | None = None,
        layer: int | list[int] = -1,
        class_token: str = "keep",
        activation: str = "quick_gelu",
        norm_eps: float = 1e-5,
        pre_norm: bool = True,
        post_norm: bool = True,
        extra_key: bool = False,
        output: int = 0,
        unit: bool = False,
        frames: str = "mean",
        places: int = 0,
        adapter: dict | None = None,
    ):
        super().__init__()
        for what, value, valid in (
            ("class token", class_token, CLASS_TOKENS),
            ("activation", activation, ACTIVATIONS),
            ("way with frames", frames, FRAMES),
        ):
            if value not in valid:
                raise ModelError(f"The {what} '{value}' is not known; choose one of {', '.join(valid)}.")
        read = [number + 1 + layers if number < 0 else number for number in ([layer] if type(layer) is int else layer)]
        if not read or min(read) < 1 or max(read) > layers:
            raise ModelError(f"The encoder has {layers} layers, so layer {layer} of it cannot be read; choose others.")
        self.read, self.class_token, self.frames = read, class_token, frames
        self.unit = unit
        self.features = output or width
        ratio = mlp_ratio if hidden is None else (hidden + 0.5) / width  # open_clip rounds the product down
        norm = functools.partial(LayerNorm, eps=norm_eps)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.ln_pre = norm(width) if pre_norm else nn.Identity()
        self.transformer = Transformer(
            width, max(read), heads, ratio, act_layer=ACTIVATIONS[activation], norm_layer=norm
        )
        for block in self.transformer.resblocks:
            block.attn = Attention(width, heads, batch_first=True, add_bias_kv=extra_key)
        self.ln_post = norm(width) if post_norm else nn.Identity()
        if output:
            self.output_proj = nn.Linear(width, output, bias=False)
        if frames == "concat":
            self.places = nn.Parameter(0.02 * torch.randn(places, self.features))
        if adapter:
            from onellm.model.adapters import adapt_encoder

            self.adapters = adapt_encoder(self.transformer.resblocks, width, adapter)

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Encode the tokens of one modality.

        Args:
            tokens: [B, N, D].
            positions: [N + 1, D], the modality's positional embedding, the class token's first.

        Returns:
            [B, N', D'] features: the class token's first where it is kept, D' is `features`.
        """
        classes = self.class_embedding.expand(tokens.shape[0], 1, -1)
        tokens = torch.cat([classes, tokens], dim=1) + positions[: tokens.shape[1] + 1]
        # a tokenizer that trains is in float32, the encoder may not be
        x = self.ln_pre(tokens.to(self.transformer.resblocks[0].ln_1.weight.dtype))
        read = []
        if self.read == [len(self.transformer.resblocks)]:
            read.append(self._take(self.transformer(x)))
        else:
            for number, block in enumerate(self.transformer.resblocks, start=1):
                x = checkpoint(block, x, use_reentrant=False) if self.transformer.grad_checkpointing else block(x)
                if number in self.read:
                    read.append(self._take(x))
        features = torch.cat(read, dim=1) if len(read) > 1 else read[0]
        if hasattr(self, "output_proj"):
            features = self.output_proj(features)
        return F.normalize(features, dim=-1) if self.unit else features

    def _take(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is read of a layer's output [B, N + 1, D]."""
        if self.class_token == "alone":
            x = x[:, :1]
        x = self.ln_post(x)
        return x[:, 1:] if self.class_token == "drop" else x

    def join(self, features: torch.Tensor) -> torch.Tensor:
        """Make one sequence of the features of frames: [B, T, N, D] to [B, N, D], or to [B, T * N, D]."""
        if self.frames == "mean":
            return features.mean(dim=1)
        places = live(self, "places")
        if features.shape[1] > len(places):
            raise ModelError(f"{features.shape[1]} frames came, and the model knows {len(places)}; give fewer.")
        return (features + places[: features.shape[1], None].to(features)).flatten(1, 2)

    def count(self, tokens: int, frames: int = 1) -> int:
        """Return N': how many features become of so many tokens in each frame."""
        one = {"keep": tokens + 1, "drop": tokens, "alone": 1}[self.class_token] * len(self.read)
        return one * frames if self.frames == "concat" else one
