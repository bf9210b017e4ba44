"""The sources of a recipe as streams: files on disk, and what the small corpus generates."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from onellm.errors import OneLLMError
from train.data.example import Example, caption_messages
from train.data.formats.sources import open_examples
from train.data.mixture import BatchPosition, FileStream, Stream
from train.recipe import SYNTHETIC, RecipeError, Source
from train.small.features import ClassSource, ItemSource
from train.small.questions import Conversations


class SyntheticStream:
    """Endless examples of the small corpus, drawn by the number of the batch."""

    size = None

    def __init__(self, seed: int, draw: Callable[[int, torch.Generator], list[list[dict]]]):
        self.seed, self.draw = seed, draw

    def examples(self, position: BatchPosition, count: int) -> Iterator[Example]:
        """Yield the examples of a batch; none can be bad, so none are spare."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + position.number)
        for index, messages in enumerate(self.draw(count, generator)):
            yield Example(f"batch {position.number}, {index}", messages)


def draw_names(source: ClassSource | ItemSource, count: int, generator: torch.Generator) -> list[list[dict]]:
    """Draw messages that show a file and answer with its name."""
    drawn = zip(*source.draw(count, generator), strict=True)
    return [caption_messages([{"type": source.kind, "features": features}], text) for features, text in drawn]


def file_streams(sources: list[Source], seed: int) -> dict[str, Stream]:
    """Open the sources that lie on disk: label -> stream.

    Raises:
        RecipeError: one cannot be opened.
    """
    streams = {}
    for source in sources:
        if source.source in SYNTHETIC:
            continue
        try:
            examples = open_examples(source)
            streams[source.label] = FileStream(examples, seed, source.limit)
        except OneLLMError as error:
            raise RecipeError(f"The source {source.label}: {error}") from error
    return streams


def all_streams(
    sources: list[Source], files: dict[str, Stream], objective: str, seed: int, model, processor
) -> list[tuple[str, float, Stream]]:
    """Return (label, weight, stream) of every source; for "chat", the small corpus's are one, since files meet there.

    Args:
        sources: of a recipe.
        files: what `file_streams` opened.
        objective: of the recipe.
        seed: of the recipe.
        model: whose frozen backbones extract features.
        processor: its processor.

    Raises:
        RecipeError: the model lacks a modality.
    """
    for source in sources:
        known = processor.modalities if source.request is None else processor.outputs
        for modality in source.modalities:
            if modality not in known:
                raise RecipeError(
                    f"The source {source.label} is of kind {modality}, which this model lacks; it knows "
                    f"{', '.join(known) or 'none'}."
                )
    streams: list[tuple[str, float, Stream]] = [
        (source.label, source.weight, files[source.label]) for source in sources if source.source not in SYNTHETIC
    ]
    synthetic = [
        (source, ClassSource(model, source) if source.source == "classes" else ItemSource(model, processor, source))
        for source in sources
        if source.source in SYNTHETIC
    ]
    if objective != "chat":
        return streams + [
            (source.label, source.weight, SyntheticStream(seed, partial(draw_names, drawn)))
            for source, drawn in synthetic
        ]
    if synthetic:
        weights = [source.weight for source, _ in synthetic]
        talks = SyntheticStream(seed, Conversations([drawn for _, drawn in synthetic], weights).draw)
        streams.append(("conversations", sum(weights), talks))
    return streams
