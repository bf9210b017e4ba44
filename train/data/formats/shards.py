"""WebDataset tar shards, read by random access.

Two layouts. Our own: `KEY.json` holds {"messages": [...]} whose file parts have the member's suffix as `path`
("image.jpg" stands for `KEY.image.jpg`). The usual one of image-text sets: `KEY.jpg` (png, mp4, flac, npy, ...) beside
`KEY.txt`, or beside `KEY.json` with a "caption".

`shards.json` beside the shards says how many examples each holds: {"modalities": [...], "shards": {"00000.tar":
{"examples": 1000, "bytes": 123456}}}. Where it is missing, the shards' headers are read once and it is written.
"""

import json
import logging
import os
import sys
import tarfile
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from onellm.modalities import MODALITIES
from onellm.utils import atomic
from train.data.example import DataError, FileExamples, caption_messages, files_of
from train.data.formats.fetch import expand, is_address, local
from train.data.formats.lazy import LazyFile

logger = logging.getLogger(__name__)
INDEX = "shards.json"
OPEN_SHARDS = 16  # whose members' places a process remembers
ALIASES = {"fmri": "nsdgeneral"}  # what published shards call a modality's member


class Member(NamedTuple):
    """Where the bytes of a file in a tar lie."""

    offset: int
    size: int


@dataclass
class Shard:
    """What lies where in a tar.

    Attributes:
        samples: (key, suffix -> member) of every sample, in the tar's order.
        broken: why the tar ends before its time, or None.
    """

    samples: list[tuple[str, dict[str, Member]]] = field(default_factory=list)
    broken: str | None = None

    def __len__(self) -> int:
        """Count the examples; the break in a broken tar counts as one, so that it is met and named."""
        return len(self.samples) + (self.broken is not None)


class ShardExamples(FileExamples):
    """Examples in tar shards.

    Args:
        path: a shard, a folder of shards, or a pattern or address of shards.
        modalities: of the files of every example.
        prompt: a question to ask of every caption; None asks none.
    """

    def __init__(self, path: str, modalities: tuple[str, ...], prompt: str | None = None):
        self.paths, self.prompt = shard_paths(path), prompt
        super().__init__(Path(path).name, modalities, count_examples(self.paths))
        self._shards: OrderedDict[int, Shard] = OrderedDict()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_shards": OrderedDict()}

    def key(self, block: int, index: int) -> str:
        """Name an example: "00000.tar: 000000012"."""
        try:
            key = self._open(block).samples[index][0]
        except (DataError, IndexError):
            key = f"sample {index + 1}"
        return f"{os.path.basename(self.paths[block])}: {key}"

    def build(self, block: int, index: int) -> list[dict]:
        """Build an example's messages, see `FileExamples`."""
        shard, source = self._open(block), self.paths[block]
        if index >= len(shard.samples):
            found = shard.broken or f"it holds {len(shard.samples):,} samples and {INDEX} promises more"
            raise DataError(f"{found}; expected a whole tar; fetch or write the shard again.")
        key, members = shard.samples[index]
        if "json" in members:
            content = _read_json(source, members["json"])
            if "messages" in content:
                return self._own(source, key, members, content["messages"])
            caption = content.get("caption")
        else:
            caption = None
        if "txt" in members:
            caption = _read(source, members["txt"]).decode("utf-8", "replace").strip()
        if not isinstance(caption, str):
            raise DataError(
                f"the sample holds {', '.join(members)}; expected a txt, or a json with 'messages' or a 'caption'; "
                "add one."
            )
        files = [self._file(source, key, pick(members, modality), members, modality) for modality in self.modalities]
        return caption_messages(files, caption, self.prompt)

    def resolve(self, part: dict) -> dict:
        """Leave a member where it is: its loader opens it."""
        return part

    def _own(self, source: str, key: str, members: dict[str, Member], messages: Any) -> list[dict]:
        try:
            found = [{"role": m["role"], "content": [dict(part) for part in m["content"]]} for m in messages]
            for part in files_of(found):
                for option in {"path", "picture"} & part.keys():
                    part[option] = self._file(source, key, part[option], members, part["type"])["path"]
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(
                "its messages have another form; expected a list of {'role': ..., 'content': [parts]}; correct it."
            ) from error
        return found

    def _file(self, source: str, key: str, suffix: str | None, members: dict[str, Member], modality: str) -> dict:
        if suffix not in members:
            wanted = suffix or f"a file of kind {modality}"
            raise DataError(f"the sample holds {', '.join(members)}; expected {wanted}; add it, or correct the kind.")
        name = f"{os.path.basename(key)}.{suffix}"
        return {"type": modality, "path": LazyFile(name, partial(_read, source, members[suffix]))}

    def _open(self, block: int) -> Shard:
        """Return what lies where in a shard, remembered for the shards used last."""
        if block not in self._shards:
            self._shards[block] = scan(local(self.paths[block]))
            if len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(block)
        return self._shards[block]


def pick(members: dict[str, Member], modality: str) -> str | None:
    """Choose the member of a sample that is of a modality: one named after it first, then by its suffix."""
    named = [suffix for suffix in members if {modality, ALIASES.get(modality)} & set(suffix.split(".")[:-1])]
    fitting = [suffix for suffix in named or members if f".{suffix}".endswith(MODALITIES[modality].suffixes)]
    return fitting[0] if fitting else None


def shard_paths(path: str) -> list[str]:
    """List the shards a path stands for.

    Raises:
        DataError: there are none, or one is missing.
    """
    if not is_address(path) and Path(path).is_dir():
        paths = sorted(map(str, Path(path).glob("*.tar")))
        if not paths:
            raise DataError(f"{path}: there are no .tar files in it; expected shards; check the path.")
        return paths
    paths = expand(path)
    missing = [one for one in paths if not is_address(one) and not Path(one).is_file()]
    if missing:
        raise DataError(f"{missing[0]}: there is no such file; expected a tar shard; check the path.")
    return paths


def scan(path: Path) -> Shard:
    """Read a tar's headers: which samples it holds, and where. A broken tar keeps what comes before the break."""
    shard, size, samples = Shard(), os.path.getsize(path), {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg():
                    continue
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{member.name} is cut short")
                folder, name = os.path.split(member.name)
                stem, _, suffix = name.partition(".")
                key = os.path.join(folder, stem)
                members = samples.setdefault(key, {})
                members[sys.intern(suffix.lower())] = Member(member.offset_data, member.size)
                tar.members = []  # tarfile would keep all of them
    except (tarfile.TarError, OSError, EOFError) as error:
        shard.broken = f"the tar is broken after {len(samples):,} samples ({error})"
    shard.samples = list(samples.items())
    return shard


def read_index(folder: str) -> dict:
    """Read the `shards.json` of a folder of shards; an empty dict where there is none."""
    try:
        return json.loads(local(f"{folder}/{INDEX}").read_text())
    except (OSError, ValueError, DataError):
        return {}


def count_examples(paths: list[str]) -> list[int]:
    """Return the number of examples of every shard, from `shards.json` where it is right, else by reading headers."""
    indexes, counted, counts = {}, set(), []
    for path in paths:
        folder, name = os.path.dirname(path) or ".", os.path.basename(path)
        if folder not in indexes:
            indexes[folder] = {"shards": {}} | read_index(folder)
        known = indexes[folder]["shards"]
        if name not in known or not is_address(path) and os.path.getsize(path) != known[name]["bytes"]:
            file = local(path)
            known[name] = {"examples": len(scan(file)), "bytes": os.path.getsize(file)}
            counted.add(folder)
        counts.append(known[name]["examples"])
    for folder in counted:
        if not is_address(folder):
            try:
                atomic.write_json(Path(folder) / INDEX, indexes[folder], sort_keys=True)
            except (OSError, atomic.DiskFullError):
                logger.info("%s cannot be written; the examples of its shards are counted at every start", folder)
    return counts


def _read(source: str, member: Member) -> bytes:
    """Read a member's bytes; `source` is the shard's path or address."""
    try:
        with open(local(source), "rb") as file:
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as error:
        raise DataError(f"{source}: it cannot be read ({error.strerror}); expected a shard; check it.") from error
    if len(data) < member.size:
        name = os.path.basename(source)
        raise DataError(f"{name}: it is cut short; expected {member.size:,} bytes more; fetch the shard again.")
    return data


def _read_json(source: str, member: Member) -> dict:
    try:
        content = json.loads(_read(source, member))
    except ValueError as error:
        raise DataError(f"its json is none ({error}); expected an object; correct it.") from error
    if not isinstance(content, dict):
        raise DataError(f"its json holds a {type(content).__name__}; expected an object; correct it.")
    return content
