"""Private CPU kernels of torch, all in one place: each is tried once, and if this torch lacks it, a public one is used.

They are what makes a CPU fast (docs/performance.md), and no version of torch promises them.
"""

import logging
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F

LANES = 16  # numbers that the 8-bit kernel takes at once
PROMPT = 16  # rows from which unpacking an 8-bit weight for tiles of bfloat16 pays
UNPACKED = 512  # rows of an 8-bit weight that are unpacked at a time

logger = logging.getLogger(__name__)


@cache
def has_onednn_linear() -> bool:
    """Whether oneDNN multiplies by weights in its own order."""

    def run() -> torch.Tensor:
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.ones(16, 16), None)
        return torch.ops.mkldnn._linear_pointwise(torch.ones(2, 16), packed, None, "none", [], "")

    return torch.backends.mkldnn.is_available() and _works("mkldnn._linear_pointwise", run)


@cache
def has_int8_linear() -> bool:
    """Whether there is a product of bfloat16 activations and 8-bit weights."""
    rows, weight = torch.ones(2, 32, dtype=torch.bfloat16), torch.ones(32, 32, dtype=torch.int8)
    scale = torch.ones(32, dtype=torch.bfloat16)
    return _works("aten._weight_int8pack_mm", lambda: torch.ops.aten._weight_int8pack_mm(rows, weight, scale))


@cache
def has_tiles() -> bool:
    """Whether the processor multiplies whole tiles of bfloat16 (AMX), many rows by a weight at once."""
    return torch.backends.mkldnn.is_available() and torch.cpu.get_capabilities().get("amx_bf16", False)


@cache
def has_int8_product() -> bool:
    """Whether there is a product of 8-bit matrices."""
    ones = torch.ones(32, 32, dtype=torch.int8)
    return _works("torch._int_mm", lambda: torch._int_mm(ones, ones))


def _works(name: str, run: Callable[[], torch.Tensor]) -> bool:
    """Try a kernel on ones; every element of its result is the length of a row."""
    try:
        found = run()
        if bool((found == found.shape[-1]).all()):
            return True
        reason = "it computes something else"
    except (AttributeError, TypeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
    logger.warning("torch %s lacks the kernel %s (%s); a slower one is used.", torch.__version__, name, reason)
    return False


def pack(weight: torch.Tensor) -> torch.Tensor:
    """Bring a float32 weight [out, in] into the order that `linear` reads fastest."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None) if has_onednn_linear() else weight


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Map float32 [..., in] to [..., out] by a weight [out, in], packed or plain."""
    if has_onednn_linear():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def int8_linear(rows: torch.Tensor, weight: torch.Tensor, ones: torch.Tensor) -> torch.Tensor:
    """Multiply bfloat16 rows [N, in] by an int8 weight [out, in]: [N, out] bfloat16.

    Args:
        rows: the activations.
        weight: the weight, without its scale.
        ones: [out] bfloat16, in place of the kernel's own scales.
    """
    fits = rows.shape[1] % LANES == 0  # what the kernel does not check, and reads beyond the row
    if fits and has_int8_linear() and not (len(rows) >= PROMPT and has_tiles()):
        return torch.ops.aten._weight_int8pack_mm(rows, weight, ones)
    # the same sums: 8-bit numbers are exact in bfloat16; a part at a time stays in the processor's cache
    return torch.cat([F.linear(rows, part.to(rows.dtype)) for part in weight.split(UNPACKED)], dim=-1)


def int8_product(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply int8 rows [N, in] by an int8 weight [in, out]: [N, out], whole numbers."""
    if has_int8_product():
        return torch._int_mm(rows, weight)
    return rows.float() @ weight.float()
