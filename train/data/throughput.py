"""How fast a source loads: read, decode and make tensors, without a model."""

import math
import time
from dataclasses import dataclass
from functools import partial
from itertools import count

import torch
from torch.utils.data import DataLoader, Dataset

from onellm.errors import OneLLMError
from train.data.example import DataError, Examples, files_of
from train.data.formats.sources import open_examples
from train.data.mixture import FileStream
from train.recipe import Source


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
    """The tensors of an example's files, by (block, index); None for a bad one."""

    def __init__(self, examples: Examples, processor):
        self.examples, self.processor = examples, processor

    def __getitem__(self, where: tuple[int, int]) -> list[torch.Tensor] | None:
        """Load one example as training does."""
        try:
            example = self.examples.read(*where)
            return [self.processor.to_tensor(part) for part in files_of(example.messages)]
        except OneLLMError:
            return None


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
    order = map(partial(FileStream(examples, 0, source.limit).at, 0, 1), count())
    loader = iter(DataLoader(LoadedExamples(examples, processor), None, sampler=order, num_workers=workers))
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
