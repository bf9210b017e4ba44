"""The universal encoder: one transformer that all kinds of file share.

Source: OneLLM (arXiv:2312.03700), section 3.1; the published model uses CLIP's ViT-L/14.
"""

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import LayerNorm, QuickGELU, Transformer
from torch import nn

from onellm.model.attention import attend


class Attention(nn.MultiheadAttention):
    """Self-attention with torch's parameters; torch's own way of running them keeps all scores in memory on a CPU."""

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        """Map [B, N, D] to [B, N, D]; the further arguments are the same tokens again, and no mask."""
        query, key, value = self.project_in(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(attend(query, key, value).transpose(1, 2).flatten(2)), None

    def project_in(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, N, D] to [B, N, 3 * D]: queries, keys, values."""
        return F.linear(x, self.in_proj_weight, self.in_proj_bias)


class UniversalEncoder(nn.Module):
    """open_clip's visual transformer without its patch layer and output projection."""

    def __init__(self, width: int, layers: int, heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, mlp_ratio, act_layer=QuickGELU)
        for block in self.transformer.resblocks:
            block.attn = Attention(width, heads, batch_first=True)
        self.ln_post = LayerNorm(width)

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Encode the tokens of one kind.

        Args:
            tokens: [B, N, D].
            positions: [N + 1, D], the kind's positional embedding, the class token's first.

        Returns:
            [B, N + 1, D] features, the class token's first, after the last layer norm.
        """
        classes = self.class_embedding.expand(tokens.shape[0], 1, -1)
        tokens = torch.cat([classes, tokens], dim=1) + positions[: tokens.shape[1] + 1]
        tokens = tokens.to(self.ln_pre.weight.dtype)  # a tokenizer that trains is in float32, the encoder may not be
        return self.ln_post(self.transformer(self.ln_pre(tokens)))
