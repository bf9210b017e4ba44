"""Random weights for a configuration, each tensor drawn when the loader reads it: a 7B needs no file and no copy."""

from typing import Any

import torch

from onellm.model.configuration import OneLLMConfig


class RandomTensor:
    """Stand in a state dict for a tensor of a model.

    Matrices are normal with a deviation of 0.02, scales and variances are one, everything else is zero.
    """

    def __init__(self, name: str, like: torch.Tensor, dtype: torch.dtype, device: str):
        self.one = like.dim() == 1 and name.endswith(("weight", "running_var"))
        self.random = like.dim() > 1 and like.is_floating_point()
        self.shape, self.device = like.shape, device
        self.dtype = dtype if like.is_floating_point() else like.dtype

    def __getitem__(self, _: Any) -> torch.Tensor:
        """Draw the tensor where it is to stay."""
        drawn = torch.full(self.shape, float(self.one), dtype=self.dtype, device=self.device)
        return drawn.normal_(std=0.02) if self.random else drawn


def random_state(config: OneLLMConfig, dtype: torch.dtype, device: str) -> dict[str, RandomTensor]:
    """Return a state dict for `from_pretrained(None, config=config, state_dict=...)`.

    Args:
        config: of the model.
        dtype: of its floating-point tensors.
        device: where they are drawn.
    """
    from onellm.model.auto import model_class

    with torch.device("meta"):
        shapes = model_class(config)(config).state_dict()
    return {name: RandomTensor(name, shape, dtype, device) for name, shape in shapes.items()}
