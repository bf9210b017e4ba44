"""How fast a source loads: read, decode and make tensors, without a model."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from onellm.errors import OneLLMError
from train.data.example import DataError, Examples, Places, files_of
from train.data.formats.sources import open_examples
from train.recipe import Source

NEIGHBOURS = 8  # blocks whose examples are mixed, as training mixes them


@dataclass
class Speed:
    """How fast a source loaded.

    Attributes:
        label: of the source.
        modalities: of its files.
        workers: loading processes; 0 loads in this one.
        samples: examples that arrived while the clock ran.
        bad: of these, the ones that could not be used.
        seconds: how long it ran.
    """

    label: str
    modalities: tuple[str, ...]
    workers: int
    samples: int
    bad: int
    seconds: float

    @property
    def rate(self) -> float:
        """Return examples a second, of all workers together."""
        return self.samples / self.seconds

    @property
    def worker_rate(self) -> float:
        """Return examples a second and worker."""
        return self.rate / max(1, self.workers)


class LoadedExamples(Dataset):
    """The tensors of an example's files, by number; None for a bad one."""

    def __init__(self, examples: Examples, places: Places, processor):
        self.examples, self.places, self.processor = examples, places, processor

    def __getitem__(self, number: int) -> list[torch.Tensor] | None:
        """Load one example as training does."""
        try:
            example = self.examples.read(*self.places[number])
            return [self.processor.to_tensor(part) for part in files_of(example.messages)]
        except OneLLMError:
            return None


class Order:
    """Endless numbers of examples in training's manner: blocks in random order, a few of them mixed."""

    def __init__(self, places: Places, seed: int = 0):
        self.places, self.seed = places, seed

    def __iter__(self):
        chance = np.random.default_rng(self.seed)
        starts = [0, *self.places.ends[:-1]]
        while True:
            blocks = chance.permutation(len(starts))
            for first in range(0, len(blocks), NEIGHBOURS):
                chosen = blocks[first : first + NEIGHBOURS]
                numbers = np.concatenate([np.arange(starts[block], self.places.ends[block]) for block in chosen])
                yield from chance.permutation(numbers[numbers < len(self.places)]).tolist()


def measure(source: Source, processor, workers: int, seconds: float) -> Speed:
    """Load examples of a source for a while.

    Args:
        source: what to load.
        processor: the model's; its settings decide the tensors' sizes.
        workers: loading processes.
        seconds: how long the clock runs; it starts when every worker has delivered.

    Raises:
        OneLLMError: the source cannot be opened, the model lacks a modality, or nothing in it can be used.
    """
    examples = open_examples(source)
    missing = [modality for modality in examples.modalities if modality not in processor.modalities]
    if missing:
        raise DataError(f"The source {source.label} is of kind {missing[0]}, which this model lacks; choose another.")
    places = Places(examples.blocks, source.limit)
    loaded = LoadedExamples(examples, places, processor)
    loader = iter(DataLoader(loaded, None, sampler=Order(places), num_workers=workers))
    for _ in range(max(1, 2 * workers)):
        next(loader)
    start, samples, bad = time.perf_counter(), 0, 0
    while (passed := time.perf_counter() - start) < seconds:
        bad += next(loader) is None
        samples += 1
    if bad == samples:
        raise DataError(f"None of {samples:,} examples of {source.label} can be used; look at them with: data inspect")
    return Speed(source.label, examples.modalities, workers, samples, bad, passed)


def table(speeds: list[Speed], wanted: float) -> str:
    """Lay speeds out as Markdown, with the workers that give `wanted` examples a second."""
    rows = [
        f"| source | kinds | workers | samples/s | a worker | bad | workers for {wanted:g}/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for speed in speeds:
        needed = math.ceil(wanted / speed.worker_rate)
        rows.append(
            f"| {speed.label} | {' + '.join(speed.modalities) or 'text'} | {speed.workers} | {speed.rate:,.1f} "
            f"| {speed.worker_rate:,.1f} | {speed.bad} of {speed.samples:,} | {needed} |"
        )
    return "\n".join(rows)
