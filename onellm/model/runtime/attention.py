"""Attention without a mask, as the encoder and the experts need it."""

import torch
import torch.nn.functional as F

from onellm.model.runtime.kernels import has_onednn_linear, linear

LONG = 512  # from here on the plain products of oneDNN beat the fused kernel on a CPU; also the rows of one product


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attend from every query to every key.

    Long float32 sequences on a CPU take their products from oneDNN, head by head so that the scores stay in the
    cache: the fused kernel takes them from a library that is slow on some makes of processor. Same numbers to
    within 1e-6.

    Args:
        query: [B, H, M, head_dim].
        key: [B, H, N, head_dim].
        value: [B, H, N, head_dim].

    Returns:
        [B, H, M, head_dim]; transposing M and H gives a contiguous tensor.
    """
    plain = query.is_cpu and query.dtype == torch.float32 and not torch.is_grad_enabled()
    if not plain or not has_onednn_linear() or min(query.shape[2], key.shape[2]) < LONG:
        return F.scaled_dot_product_attention(query, key, value)
    batch, heads, count, size = query.shape
    attended = query.new_empty(batch, count, heads, size).transpose(1, 2)
    query = (query * size**-0.5).contiguous()
    key, value = key.contiguous(), value.transpose(-1, -2).contiguous()
    for row in range(batch):
        for head in range(heads):
            for start in range(0, count, LONG):
                rows = slice(start, start + LONG)
                scores = linear(query[row, head, rows], key[row, head])
                torch.softmax(scores, dim=-1, out=scores)
                attended[row, head, rows] = linear(scores, value[row, head])
    return attended
