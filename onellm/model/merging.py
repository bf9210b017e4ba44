"""Merging soft words: a long file is read in windows, and the words of all of them become fewer.

The two neighbours that are most alike become one, their average weighed by how many words each stands for, until no
more are left than wanted. Order is kept, so a merged word stands for a run of neighbours.

Sources: MA-LMM (arXiv:2404.05726), section 3.2, which merges neighbours in time; ToMe (arXiv:2210.09461), section 3,
which weighs by size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Windows:
    """The tensors of a file that is read in windows, in order of time.

    Attributes:
        tensors: one a window, each as of a file of the kind.
        words: soft words that all of them together become, tags not counted.
    """

    tensors: tuple[torch.Tensor, ...]
    words: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of windows, and the shape of the first."""
        return len(self.tensors), *self.tensors[0].shape

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Windows":
        """Return the same windows with every tensor changed."""
        return Windows(tuple(map(change, self.tensors)), self.words)


class Merge(nn.Module):
    """Merge words that stand side by side; a module, so that a hook sees what became of them."""

    def forward(self, words: torch.Tensor, count: int) -> tuple[torch.Tensor, list[int]]:
        """Merge the words of one file.

        Args:
            words: [N, D], in order.
            count: how many are wanted.

        Returns:
            [min(N, count), D], and how many words each of these stands for.
        """
        merged, sizes = list(words), [1] * len(words)
        with torch.no_grad():
            likeness = F.cosine_similarity(words[:-1].float(), words[1:].float(), dim=-1).tolist()
        while len(merged) > max(count, 1):
            left = max(range(len(likeness)), key=likeness.__getitem__)
            total = sizes[left] + sizes[left + 1]
            merged[left : left + 2] = [(sizes[left] * merged[left] + sizes[left + 1] * merged[left + 1]) / total]
            sizes[left : left + 2] = [total]
            del likeness[left]
            for pair in (left - 1, left):
                if 0 <= pair < len(likeness):
                    likeness[pair] = _likeness(merged[pair], merged[pair + 1])
        return torch.stack(merged), sizes


def _likeness(one: Any, other: Any) -> float:
    with torch.no_grad():
        return float(F.cosine_similarity(one.float(), other.float(), dim=0))
