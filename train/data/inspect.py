"""What a model would learn from: examples as it gets them, and what is bad in a source, as one page of HTML."""

from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES, Preview
from train.data.collate import IGNORED, encode_conversation
from train.data.example import DataError, Example, Positions
from train.data.formats.sources import open_examples
from train.recipe import Source

MEASURED = 2000  # examples a source whose length is looked at
BARS = 24  # of a histogram


@dataclass
class Run:
    """Neighbouring tokens of one sort: `text` of each, "trained" (labelled), "plain", or a file's modality."""

    sort: str
    texts: list[str]


@dataclass
class File:
    """A file of an example: how it looks, and the tensor the model gets."""

    modality: str
    name: str
    preview: Preview
    notes: list[str]
    shape: tuple[int, ...]


@dataclass
class Shown:
    """An example in full."""

    key: str
    source: str
    messages: list[dict]
    files: list[File]
    runs: list[Run]
    tokens: int
    trained: int


@dataclass
class SourceReport:
    """Figures of one source.

    Attributes:
        label: what the recipe calls it.
        source: its format.
        modalities: of its files.
        examples: how many there are.
        lengths: characters of up to `MEASURED` of them.
        checked: how many were read and decoded.
        bad: what was wrong with which.
    """

    label: str
    source: str
    modalities: tuple[str, ...]
    examples: int
    lengths: list[int]
    checked: int = 0
    bad: list[str] = field(default_factory=list)

    @property
    def median_length(self) -> int:
        """Return the median number of characters."""
        return int(median(self.lengths)) if self.lengths else 0

    @property
    def histogram(self) -> list[tuple[str, int]]:
        """Return (range of characters, examples) of equally wide bars; the longest twentieth is in the last one.

        Few examples have none.
        """
        if len(self.lengths) < 10:
            return []
        ordered = sorted(self.lengths)
        top = max(BARS, ordered[int(0.95 * (len(ordered) - 1))])
        width = -(-top // BARS)
        counts = Counter(min(length // width, BARS - 1) for length in ordered)
        last = max(ordered[-1], BARS * width - 1)
        ends = [(bar + 1) * width - 1 for bar in range(BARS - 1)] + [last]
        starts = [bar * width for bar in range(BARS)]
        names = [f"{a:,}" if a == b else f"{a:,}–{b:,}" for a, b in zip(starts, ends, strict=True)]
        return [(name, counts[bar]) for bar, name in enumerate(names)]


def inspect_source(
    source: Source, processor, objective: str, count: int, check: int
) -> tuple[SourceReport, list[Shown]]:
    """Look at a source: some examples in full, more of them only to find bad ones.

    Args:
        source: what to look at.
        processor: the model's.
        objective: "chat" or "caption"; decides the layout of tokens.
        count: examples to show.
        check: examples to read and decode at least.

    Raises:
        OneLLMError: it cannot be opened, or the model lacks a modality.
    """
    examples = open_examples(source)
    for modality in examples.modalities:
        if modality not in processor.modalities:
            raise DataError(
                f"The source {source.label} is of kind {modality}, which this model lacks; it knows "
                f"{', '.join(processor.modalities)}; choose another --model."
            )
    positions = Positions(examples.blocks, source.limit)
    lengths = [examples.length(*positions[number]) for number in positions.spread(MEASURED)]
    report = SourceReport(source.label, source.source, examples.modalities, len(positions), lengths)
    shown: list[Shown] = []
    wanted, lacking = set(positions.spread(count)), 0
    for number in sorted(wanted | set(positions.spread(check))):
        report.checked += 1
        full = number in wanted or lacking > 0
        try:
            found = look(examples.read(*positions[number]), processor, objective, full)
        except OneLLMError as error:
            report.bad.append(str(error))
            lacking += number in wanted  # the next good one takes its place
        else:
            shown += [found] if found else []
            lacking -= full and number not in wanted
    for one in shown:
        one.source = source.label
    return report, shown


def look(example: Example, processor, objective: str, full: bool = True) -> Shown | None:
    """Read and encode an example; show it in full if that is wanted.

    Raises:
        DataError: it is bad; its name is in the text.
    """
    try:
        ids, labels, parts = encode_conversation(processor, example.messages, objective)
        files = [_file(part, processor, full) for part in parts]
    except OneLLMError as error:
        raise DataError(f"{example.key}: {error}") from error
    if not full:
        return None
    return _shown(example, ids, labels, files, processor)


def _file(part: dict, processor, full: bool) -> File | None:
    """Load a file as training does, and make its preview."""
    modality = part["type"]
    sample = processor.load(part)
    tensor = MODALITIES[modality].to_tensor(sample, **processor.modalities[modality].get("input", {}))
    if not full:
        return None
    return File(modality, sample.name, MODALITIES[modality].preview(sample), sample.notes, tuple(tensor.shape))


def _shown(example: Example, ids: list[int], labels: list[int], files: list, processor) -> Shown:
    """Turn tokens back into text, in runs."""
    modalities = {settings["token_id"]: modality for modality, settings in processor.modalities.items()}
    runs: list[Run] = []
    for token, label in zip(ids, labels, strict=True):
        sort = modalities.get(token) or ("plain" if label == IGNORED else "trained")
        text = "" if token in modalities else processor.tokenizer.decode([token])
        if runs and runs[-1].sort == sort:
            runs[-1].texts.append(text)
        else:
            runs.append(Run(sort, [text]))
    trained = sum(label != IGNORED for label in labels)
    return Shown(example.key, "", example.messages, files, runs, len(ids), trained)
