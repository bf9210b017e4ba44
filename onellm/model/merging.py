"""Merging soft tokens: a long file is read in windows, and the words of all of them become fewer.

The two neighbours in time that are most alike become one, their average weighed by how many windows each stands for,
until no more are left than wanted. Whole windows are merged, word by word, as a projector's words have places: the
first names the thing. Order is kept, so what is merged stands for a run of windows.

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
        kept: how many windows' words the LLM reads; the others are merged into these.
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
    """Merge the words of windows that follow each other; a module, so that a hook sees what became of them."""

    def forward(self, words: torch.Tensor, count: int) -> tuple[torch.Tensor, list[int]]:
        """Merge the words of one file.

        Args:
            words: [W, M, D], M words of each window, in order.
            count: of windows that are wanted.

        Returns:
            [min(W, count), M, D], and how many windows each of these stands for.
        """
        merged, sizes = list(words), [1] * len(words)
        while len(merged) > max(count, 1):
            likeness = [_likeness(one, other) for one, other in zip(merged, merged[1:], strict=False)]
            left = likeness.index(max(likeness))
            total = sizes[left] + sizes[left + 1]
            merged[left : left + 2] = [(sizes[left] * merged[left] + sizes[left + 1] * merged[left + 1]) / total]
            sizes[left : left + 2] = [total]
        return torch.stack(merged), sizes


@torch.no_grad()
def _likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    """Compare two windows' words [M, D], place by place."""
    return float(F.cosine_similarity(one.float(), other.float(), dim=-1).mean())
