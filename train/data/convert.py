"""Any source to tar shards: bad examples are left out and named, and a stopped conversion goes on."""

from collections.abc import Iterator
from pathlib import Path

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from onellm.errors import OneLLMError
from train.data.example import DataError, Examples, Positions
from train.data.formats.shard_writer import LEFT_OUT, Packed, ShardWriter, pack
from train.data.formats.sources import open_examples
from train.recipe import Source

MEGA = 1_000_000
CHUNK = 8  # examples a loading process packs at once


class PackedExamples(Dataset):
    """Examples by number, packed for a shard, or the reason why they cannot be."""

    def __init__(self, examples: Examples, count: int):
        self.examples, self.positions = examples, Positions(examples.blocks, count)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> tuple[int, Packed | str]:
        """Pack one example."""
        try:
            example = self.examples.read(*self.positions[number])
        except OneLLMError as error:
            return number, str(error)
        try:
            return number, pack(example)
        except OneLLMError as error:
            return number, f"{example.key}: {error}"


def convert(source: Source, out: Path, shard_mb: float = 200.0, workers: int = 0) -> dict:
    """Write the examples of a source as shards.

    Args:
        source: what to convert.
        out: folder of the shards.
        shard_mb: size of a shard in megabytes.
        workers: processes that read and check files.

    Returns:
        The shards' index, `shards` (name -> examples and bytes) and `modalities`, and `bad` (number and reason).

    Raises:
        OneLLMError: the source cannot be opened, the folder holds other shards, or no example is good.
    """
    if source.source == "webdataset" and Path(source.path).resolve() == out.resolve():
        raise DataError(f"{out}: it is the source itself; expected another folder; choose one.")
    examples = open_examples(source)
    packed = PackedExamples(examples, source.limit)
    # what decides which bytes are written
    origin = {key: getattr(source, key) for key in ("source", "path", "root", "prompt", "limit", "columns", "split")}
    writer = ShardWriter(out, examples.modalities, int(shard_mb * MEGA), origin | {"shard_mb": shard_mb})
    if not writer.index["complete"]:
        bar = {
            "desc": source.label,
            "total": len(packed),
            "initial": writer.done,
            "disable": None,
        }  # None: in a terminal
        for number, found in tqdm(_read(packed, writer.done, workers), **bar):
            if isinstance(found, str):
                writer.refuse(number, found)
            else:
                writer.add(number, found)
    index = writer.close(len(packed))
    if not index["shards"]:
        first = index["bad"][0]["reason"] if index["bad"] else "there are none"
        raise DataError(f"None of {len(packed)} examples can be used; the first: {first}")
    return index


def _read(packed: PackedExamples, start: int, workers: int) -> Iterator[tuple[int, Packed | str]]:
    """Yield packed examples in order."""
    loader = DataLoader(packed, CHUNK, sampler=range(start, len(packed)), num_workers=workers, collate_fn=list)
    for chunk in loader:
        yield from chunk


def summary(index: dict, out: Path) -> str:
    """Say what a conversion wrote, and which examples it left out."""
    examples = sum(entry["examples"] for entry in index["shards"].values())
    size = sum(entry["bytes"] for entry in index["shards"].values()) / MEGA
    modalities = "+".join(index["kinds"]) or "text"
    lines = [f"{out}: {examples:,} examples ({modalities}) in {len(index['shards']):,} shards, {size:,.1f} MB"]
    bad = index["bad"]
    if bad:
        lines.append(f"left out {len(bad):,} bad examples; all of them are named in {out / LEFT_OUT}:")
        lines += [f"  {entry['reason']}" for entry in bad[:10]]
        lines += [f"  ... and {len(bad) - 10:,} more"] if len(bad) > 10 else []
    return "\n".join(lines)
