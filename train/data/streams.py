"""The sources of a recipe as streams: files on disk, and what the small corpus makes up."""

from collections.abc import Iterator

import torch

from onellm.errors import OneLLMError
from train.data.batches import ClassSource, ItemSource
from train.data.example import Example
from train.data.formats import open_examples
from train.data.mixture import FileStream, Place, Stream
from train.data.questions import Conversations
from train.recipe import MADE, RecipeError, Source


class MadeStream:
    """Endless examples of the small corpus, drawn by the number of the batch."""

    size = None

    def __init__(self, seed: int):
        self.seed = seed

    def examples(self, place: Place, count: int) -> Iterator[Example]:
        """Yield the examples of a batch; none can be bad, so none are spare."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + place.number)
        for index, messages in enumerate(self.draw(count, generator)):
            yield Example(f"batch {place.number}, {index}", messages)

    def draw(self, count: int, generator: torch.Generator) -> list[list[dict]]:
        """Draw chat messages."""
        raise NotImplementedError


class Names(MadeStream):
    """Files and their names."""

    def __init__(self, source: ClassSource | ItemSource, seed: int):
        super().__init__(seed)
        self.source = source

    def draw(self, count: int, generator: torch.Generator) -> list[list[dict]]:
        """Draw messages that show a file and answer with its name."""
        return [
            [
                {"role": "user", "content": [{"type": self.source.kind, "features": features}]},
                {"role": "assistant", "content": [{"type": "text", "text": text}]},
            ]
            for features, text in zip(*self.source.draw(count, generator), strict=True)
        ]


class Talks(MadeStream):
    """Conversations about files of several sources."""

    def __init__(self, conversations: Conversations, seed: int):
        super().__init__(seed)
        self.draw = conversations.draw


def file_streams(sources: list[Source], seed: int) -> dict[str, Stream]:
    """Open the sources that lie on disk: label -> stream.

    Raises:
        RecipeError: one cannot be opened.
    """
    streams = {}
    for source in sources:
        if source.source in MADE:
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
        model: whose frozen stems extract features.
        processor: its processor.

    Raises:
        RecipeError: the model lacks a kind.
    """
    for source in sources:
        for kind in source.kinds:
            if kind not in processor.modalities:
                raise RecipeError(
                    f"The source {source.label} is of kind {kind}, which this model lacks; it knows "
                    f"{', '.join(processor.modalities)}."
                )
    streams: list[tuple[str, float, Stream]] = [
        (source.label, source.weight, files[source.label]) for source in sources if source.source not in MADE
    ]
    made = [
        (source, ClassSource(model, source) if source.source == "classes" else ItemSource(model, processor, source))
        for source in sources
        if source.source in MADE
    ]
    if objective != "chat":
        return streams + [(source.label, source.weight, Names(drawn, seed)) for source, drawn in made]
    if made:
        weights = [source.weight for source, _ in made]
        talks = Talks(Conversations([drawn for _, drawn in made], weights), seed)
        streams.append(("conversations", sum(weights), talks))
    return streams
