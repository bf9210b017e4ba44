"""Merging soft tokens: a long file is read in windows, and the soft tokens of all of them become fewer.

The two neighbours in time that are most alike become one, their average weighed by how many windows each stands for,
until no more are left than wanted. Whole windows are merged, soft token by soft token, as a projector's soft tokens
differ by index: the first names the thing. Order is kept, so what is merged stands for a run of windows.

Sources: MA-LMM (arXiv:2404.05726), section 3.2, which merges neighbours in time; ToMe (arXiv:2210.09461), section 3,
which weighs by size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Windows:
    """The tensors of a file that is read in windows, in order of time.

    Attributes:
        tensors: one a window, each as of a file of the modality.
        kept: of how many windows the LLM reads soft tokens; the others are merged into these.
    """

    tensors: tuple[torch.Tensor, ...]
    kept: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of windows, and the shape of the first."""
        return len(self.tensors), *self.tensors[0].shape

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Windows":
        """Return the same windows with every tensor changed."""
        return Windows(tuple(map(change, self.tensors)), self.kept)


class Merge(nn.Module):
    """Merge the soft tokens of windows that follow each other; a module, so that a hook sees the result."""

    def forward(self, soft_tokens: torch.Tensor, count: int) -> tuple[torch.Tensor, list[int]]:
        """Merge the soft tokens of one file.

        Args:
            soft_tokens: [W, M, D], M of each window, in order.
            count: of windows that are wanted.

        Returns:
            [min(W, count), M, D], and how many windows each of these stands for.
        """
        merged, sizes = list(soft_tokens), [1] * len(soft_tokens)
        while len(merged) > max(count, 1):
            similarity = [_similarity(one, other) for one, other in zip(merged, merged[1:], strict=False)]
            left = similarity.index(max(similarity))
            total = sizes[left] + sizes[left + 1]
            merged[left : left + 2] = [(sizes[left] * merged[left] + sizes[left + 1] * merged[left + 1]) / total]
            sizes[left : left + 2] = [total]
        return torch.stack(merged), sizes


@torch.no_grad()
def _similarity(one: torch.Tensor, other: torch.Tensor) -> float:
    """Compare two windows' soft tokens [M, D], index by index: the mean cosine similarity."""
    return float(F.cosine_similarity(one.float(), other.float(), dim=-1).mean())
