"""A linear map from the token embeddings of one LLM to those of another, merged into a projector's last layer.

Source: VPGTrans (arXiv:2305.01278), section 4.1.
"""

import torch
from torch import nn

from onellm.errors import ModelError


@torch.no_grad()
def merge(layers: nn.Module, converter: nn.Linear) -> nn.Module:
    """Return layers that compute what `converter` makes of the output of `layers`, in no more matrices than needed.

    Of a last layer norm the scale and shift are merged; the normalisation itself, which is no linear map, stays before
    the merged layer.

    Args:
        layers: one layer or a sequence of them, that ends in a linear layer or a layer norm: [..., D] to [..., D_llm].
        converter: [..., D_llm] to [..., D_next].

    Raises:
        ModelError: they end in something else.
    """
    *before, last = layers if isinstance(layers, nn.Sequential) else [layers]
    if isinstance(last, nn.Linear):
        weight, bias = converter.weight @ last.weight, last.bias
    elif isinstance(last, nn.LayerNorm) and last.elementwise_affine:
        before.append(nn.LayerNorm(last.normalized_shape, last.eps, elementwise_affine=False))
        weight, bias = converter.weight * last.weight, last.bias
    else:
        raise ModelError(
            f"The projector ends in {type(last).__name__}, with which no converter can be merged; expected a "
            "linear layer or a layer norm: move a model with such a projector."
        )
    merged = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    merged.weight = nn.Parameter(weight)
    merged.bias = nn.Parameter(converter.bias.clone() if bias is None else converter(bias))
    return nn.Sequential(*before, merged) if isinstance(layers, nn.Sequential) else merged
