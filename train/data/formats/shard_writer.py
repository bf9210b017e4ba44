"""Writes examples as tar shards of limited size; the same examples give the same bytes."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onellm.modalities import MODALITIES
from onellm.utils import atomic
from train.data.example import DataError, Example
from train.data.formats.lazy import read_bytes
from train.data.formats.shards import INDEX

LEFT_OUT = "left-out.json"  # beside the shards: the bad examples
BLOCK_BYTES = 512  # a tar rounds members up to this


@dataclass
class Packed:
    """An example ready for a shard: suffix -> bytes, the messages as "json"."""

    key: str
    members: dict[str, bytes]

    @property
    def size(self) -> int:
        """Return the bytes it takes in a tar, headers included."""
        return sum(BLOCK_BYTES + -(-len(data) // BLOCK_BYTES) * BLOCK_BYTES for data in self.members.values())


def pack(example: Example) -> Packed:
    """Decode an example's files, to see that they can be, and pack them.

    Raises:
        OneLLMError: a file cannot be used; the example's key is not in the text.
    """
    members: dict[str, bytes] = {}
    messages = []
    for message in example.messages:
        content = [part if part["type"] == "text" else _pack_file(part, members) for part in message["content"]]
        messages.append({**message, "content": content})
    described = json.dumps({"key": example.key, "messages": messages}, ensure_ascii=False, sort_keys=True)
    return Packed(example.key, {"json": described.encode(), **members})


def _pack_file(part: dict, members: dict[str, bytes]) -> dict:
    """Add a part's files to the members; return the part as the shard's JSON has it."""
    modality = part["type"]
    options = {key: value for key, value in part.items() if key not in ("path", modality)}
    if "path" not in part:
        suffix, data, units = _pack_array(modality, part[modality])
        return options | units | {"path": _add(members, modality, suffix, data)}
    read = {key: value for key, value in options.items() if key != "type"}
    sample = MODALITIES[modality].load(part["path"], **read)
    name = str(part["path"]).lower()
    suffix = max((s for s in MODALITIES[modality].suffixes if name.endswith(s)), key=len)
    if suffix == ".obj":  # its colours lie in other files
        suffix, data, _ = _pack_array(modality, sample.array)
    else:
        data = read_bytes(part["path"])
    options["path"] = _add(members, modality, suffix, data)
    if "picture" in options:
        picture = options["picture"]
        options["picture"] = _add(
            members, f"{modality}-picture", Path(str(picture)).suffix.lower(), read_bytes(picture)
        )
    return options


def _pack_array(modality: str, value: object) -> tuple[str, bytes, dict]:
    """Return suffix, bytes and load options of data in memory."""
    file = io.BytesIO()
    if modality == "image":
        from PIL import Image

        picture = value if isinstance(value, Image.Image) else Image.fromarray(np.asarray(value, np.uint8))
        picture.convert("RGB").save(file, "PNG")
        return ".png", file.getvalue(), {}
    if modality in ("audio", "video"):
        raise DataError(f"its {modality} lies in memory; expected a file, which shards can hold; save it as one.")
    np.save(file, np.asarray(value, np.float32))
    return ".npy", file.getvalue(), {"acc_unit": "m/s2", "gyro_unit": "rad/s"} if modality == "imu" else {}


def _add(members: dict[str, bytes], name: str, suffix: str, data: bytes) -> str:
    """Add a member under a free name: image.jpg, image1.jpg, ..."""
    number = sum(other.split(".")[0].rstrip("0123456789") == name for other in members)
    key = f"{name}{number or ''}{suffix}"
    members[key] = data
    return key


class ShardWriter:
    """Writes packed examples to `out/00000.tar`, ..., and `shards.json`, which also holds how far it came.

    A shard appears under its name when it is whole. After a stop, `done` says how many of the source's examples are
    dealt with, and writing goes on there. `left-out.json` lists the bad ones.

    Args:
        out: the folder.
        modalities: of the files of every example.
        shard_bytes: size a shard does not exceed, unless one example does.
        source: what is converted; a folder with shards of another source is refused.

    Raises:
        DataError: the folder holds something else.
    """

    def __init__(self, out: Path, modalities: tuple[str, ...], shard_bytes: int, source: dict):
        self.out, self.shard_bytes = out, shard_bytes
        out.mkdir(parents=True, exist_ok=True)
        self.index = {"kinds": list(modalities), "source": source, "done": 0, "complete": False, "shards": {}}
        self.bad: list[dict] = []
        if (out / INDEX).exists():
            kept = json.loads((out / INDEX).read_text())
            if kept.get("source") != source or kept.get("kinds") != list(modalities):
                raise DataError(f"{out}: it holds shards of another source; expected none; choose another folder.")
            self.index = kept
            bad = json.loads((out / LEFT_OUT).read_text()) if (out / LEFT_OUT).exists() else []
            self.bad = [entry for entry in bad if entry["number"] < kept["done"]]
        elif any(out.glob("*.tar")):
            raise DataError(f"{out}: it holds tar files of unknown origin; expected none; choose another folder.")
        atomic.clear(out)
        self._waiting: list[tuple[int, Packed]] = []
        self._size = 0

    @property
    def done(self) -> int:
        """Return how many examples of the source the finished shards account for."""
        return self.index["done"]

    def add(self, number: int, packed: Packed) -> None:
        """Add example `number` of the source; a full shard is written first."""
        if self._waiting and self._size + packed.size > self.shard_bytes:
            self._flush(number)
        self._waiting.append((number, packed))
        self._size += packed.size

    def refuse(self, number: int, reason: str) -> None:
        """Note that example `number` is bad."""
        self.bad.append({"number": number, "reason": reason})

    def close(self, count: int) -> dict:
        """Write the last shard; return the index, with what is bad.

        Args:
            count: examples the source has.
        """
        self.index["complete"] = True
        self._flush(count)
        return self.index | {"bad": self.bad}

    def _flush(self, done: int) -> None:
        """Write what waits as a shard; the source's examples before number `done` are dealt with."""
        if self._waiting:
            name = f"{len(self.index['shards']):05d}.tar"
            size = sum(packed.size for _, packed in self._waiting)
            with (
                atomic.whole(self.out / name, size) as part,
                tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar,
            ):
                for number, packed in self._waiting:
                    for suffix, data in packed.members.items():
                        member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                        member.size, member.mode = len(data), 0o644
                        tar.addfile(member, io.BytesIO(data))
            entry = {"examples": len(self._waiting), "bytes": (self.out / name).stat().st_size}
            self.index["shards"][name] = entry
        atomic.write_json(self.out / LEFT_OUT, self.bad, sort_keys=True)
        self.index["done"] = done
        atomic.write_json(self.out / INDEX, self.index, sort_keys=True)
        self._waiting, self._size = [], 0
