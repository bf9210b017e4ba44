"""Parameters that are read outside their module's `forward`, which is where accelerate brings offloaded ones in."""

import torch
from torch import nn


def live(module: nn.Module, name: str) -> torch.Tensor:
    """Return a parameter of a module; where accelerate keeps it elsewhere until the module runs, load it."""
    value = getattr(module, name)
    if not value.is_meta or not hasattr(module, "_hf_hook"):
        return value
    from accelerate.utils import align_module_device

    with align_module_device(module):
        return getattr(module, name)
