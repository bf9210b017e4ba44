"""The mix of a recipe's data, batch by batch.

Batch number `g` is a function of the recipe and `g` alone: which source it is of, and which examples. So a run that
resumes goes on where it stopped, and any number of processes and loading workers sees the same batches. Nothing is
held in memory but the numbers of examples a block.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from onellm.errors import OneLLMError
from train.data.collate import Collator, Row
from train.data.example import Example, Examples
from train.recipe import Recipe, RecipeError

logger = logging.getLogger(__name__)
WINDOW = 32  # batches whose examples are sorted by length together
SPARES = 4  # examples at hand for each that turns out bad


@dataclass(frozen=True)
class BatchPosition:
    """Where a batch stands.

    Attributes:
        number: of the batch in the whole run.
        reader: which reader it comes from; each has its own share of the blocks.
        readers: how many there are.
        turn: how many batches this reader has read of the source before.
    """

    number: int
    reader: int
    readers: int
    turn: int


class Stream(Protocol):
    """A source that gives batches by their position."""

    size: int | None  # examples, where they can be counted

    def examples(self, position: BatchPosition, count: int) -> Iterator[Example | OneLLMError]:
        """Yield the `count` examples of a batch and then spare ones; an error stands for one that cannot be read."""


class FileStream:
    """Examples on disk, shuffled: the blocks of a reader, and the examples of a few blocks that lie side by side.

    Args:
        examples: where they are.
        seed: of the shuffling.
        limit: take only so many, from the first blocks.
    """

    MIXED = 8  # blocks that are shuffled together

    def __init__(self, examples: Examples, seed: int, limit: int | None = None):
        self.source, self.seed = examples, seed
        counts, left = [], limit if limit is not None else sum(examples.blocks)
        for count in examples.blocks:
            counts.append(min(count, left))
            left -= counts[-1]
        self.counts, self.size = counts, sum(counts)
        if not self.size:
            raise RecipeError("There are no examples in it; check the path.")
        self._kept: dict[tuple, Any] = {}

    def _keep(self, make: Callable, *key: int) -> Any:
        """Return `make(*key)`, computed once while it is in use."""
        key = (make.__name__, *key)
        if key not in self._kept:
            if len(self._kept) > 32:
                self._kept.clear()
            self._kept[key] = make(*key[1:])
        return self._kept[key]

    def _share(self, reader: int, readers: int) -> list[tuple[int, int, int]]:
        """Return the runs (block, start, stop) of a reader; where blocks are fewer than readers, they are cut."""
        cuts = -(-readers // len(self.counts))
        runs = []
        for block, count in enumerate(self.counts):
            edges = [count * cut // cuts for cut in range(cuts + 1)]
            runs += [(block, start, stop) for start, stop in pairwise(edges) if stop > start]
        return runs[reader % len(runs) :: readers]

    def _epoch(self, reader: int, readers: int, epoch: int) -> tuple[list[tuple[int, int, int]], np.ndarray]:
        """Return a reader's runs in the order of an epoch, and how many examples each and those before it hold."""
        runs = self._keep(self._share, reader, readers)
        order = np.random.default_rng((self.seed, reader, epoch)).permutation(len(runs))
        runs = [runs[index] for index in order]
        return runs, np.cumsum([stop - start for _, start, stop in runs])

    def _group(self, reader: int, readers: int, epoch: int, group: int) -> np.ndarray:
        """Return the (block, index) rows of a group of runs, shuffled."""
        runs = self._keep(self._epoch, reader, readers, epoch)[0][group * self.MIXED : (group + 1) * self.MIXED]
        rows = [np.stack([np.full(stop - start, block), np.arange(start, stop)], axis=1) for block, start, stop in runs]
        return np.random.default_rng((self.seed, reader, epoch, group)).permutation(np.concatenate(rows))

    def at(self, reader: int, readers: int, position: int) -> tuple[int, int]:
        """Return the (block, index) at a position of a reader's endless order."""
        total = int(self._keep(self._epoch, reader, readers, 0)[1][-1])
        epoch, position = divmod(position, total)
        ends = self._keep(self._epoch, reader, readers, epoch)[1]
        group = int(np.searchsorted(ends, position, side="right")) // self.MIXED
        before = int(ends[group * self.MIXED - 1]) if group else 0
        return tuple(self._keep(self._group, reader, readers, epoch, group)[position - before].tolist())

    def _window(self, reader: int, readers: int, window: int, count: int) -> list[list[tuple[int, int]]]:
        """Return `WINDOW` batches of `count` (block, index), the examples of each about as long as each other."""
        first = window * WINDOW * count
        found = [self.at(reader, readers, position) for position in range(first, first + WINDOW * count)]
        lengths = np.array([self.source.length(*where) for where in found])
        chance = np.random.default_rng((self.seed, reader, window, 1))
        # a little noise, so that equally long examples do not always meet
        order = np.argsort(lengths * (1 + 0.1 * chance.random(len(lengths))), kind="stable").reshape(WINDOW, count)
        return [[found[index] for index in batch] for batch in order[chance.permutation(WINDOW)]]

    def examples(self, position: BatchPosition, count: int) -> Iterator[Example | OneLLMError]:
        """Yield the examples of a batch, then spare ones."""
        window, inside = divmod(position.turn, WINDOW)
        batches = self._keep(self._window, position.reader, position.readers, window, count)
        chance = np.random.default_rng((self.seed, position.number, 2))
        spare = [batches[a][b] for a, b in chance.integers((0, 0), (WINDOW, count), (SPARES * count, 2))]
        for where in batches[inside] + spare:
            try:
                yield self.source.read(*where)
            except OneLLMError as error:
                yield error


class Mixture(Dataset):
    """All batches of a run, as a map from number to batch; an item is a whole batch.

    Args:
        recipe: weights, batch sizes and seed.
        streams: one a source, beside its name and weight.
        collator: makes tensors of examples.
        batches: how many there are.
        micro_batch: examples a batch.
        homogeneous: batches in a row that are of one source.
        workers: loading processes a training process; each has readers of its own.
    """

    def __init__(
        self,
        recipe: Recipe,
        streams: list[tuple[str, float, Stream]],
        collator: Collator,
        batches: int,
        micro_batch: int,
        homogeneous: int = 1,
        workers: int = 0,
    ):
        self.names = [name for name, _, _ in streams]
        self.streams = [stream for _, _, stream in streams]
        self.collator, self.batches, self.micro_batch, self.homogeneous = collator, batches, micro_batch, homogeneous
        self.cycle, self.seed = max(1, workers), recipe.seed
        weights = np.array([weight for _, weight, _ in streams], float)
        if recipe.temperature is not None:
            for name, stream in zip(self.names, self.streams, strict=True):
                if stream.size is None:
                    raise RecipeError(f"The source {name} has no size to weigh by; leave 'temperature' out.")
            weights *= np.array([stream.size for stream in self.streams], float) ** (1 / recipe.temperature)
        self.shares = weights / weights.sum()
        groups = -(-batches // homogeneous)
        chance = np.random.default_rng(recipe.seed)
        self.choices = chance.choice(len(streams), size=groups, p=self.shares).astype(np.int16)
        self.turns = self._count_turns()

    def _count_turns(self) -> np.ndarray:
        """Count, for every group of batches, the earlier ones of its source whose readers are the same."""
        keys = self.choices.astype(np.int64) * self.cycle + np.arange(len(self.choices)) % self.cycle
        turns = np.zeros(len(keys), np.int32)
        for key in np.unique(keys):
            positions = np.flatnonzero(keys == key)
            turns[positions] = np.arange(len(positions))
        return turns

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, number: int) -> dict:
        """Make batch `number`; bad examples are replaced, and named under "skipped"."""
        group, lane = divmod(number, self.homogeneous)
        source = int(self.choices[group])
        reader = group % self.cycle * self.homogeneous + lane
        position = BatchPosition(number, reader, self.homogeneous * self.cycle, int(self.turns[group]))
        rows, skipped = [], []
        with torch.random.fork_rng(devices=[]):  # what is varied at random depends on the number alone as well
            torch.manual_seed(self.seed * 1_000_003 + number)
            self._fill(rows, skipped, self.streams[source].examples(position, self.micro_batch))
        if not rows:
            raise RecipeError(
                f"None of {len(skipped)} examples of {self.names[source]} can be used; the first: {skipped[0]}"
            )
        return {"source": self.names[source], "skipped": skipped, **self.collator.join(rows)}

    def _fill(self, rows: list[Row], skipped: list[str], examples: Iterator[Example | OneLLMError]) -> None:
        """Encode examples until the batch is full; bad ones are named in `skipped`."""
        for example in examples:
            try:
                if isinstance(example, OneLLMError):
                    raise example
                rows.append(self.collator.encode(example))
            except OneLLMError as error:
                skipped.append(str(error) if isinstance(example, OneLLMError) else f"{example.key}: {error}")
            if len(rows) == self.micro_batch:
                break
