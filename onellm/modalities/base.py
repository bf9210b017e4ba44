"""The contract all modalities share: what a modality is called, which files it reads, and its three verbs."""

from __future__ import annotations

import inspect
import math
import os
import re
import stat
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from onellm.errors import FileError, OneLLMError
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch

__all__ = [
    "Damaged",
    "Modality",
    "Preview",
    "Sample",
    "Coverage",
    "check_file",
    "check_times",
    "megabytes",
    "refuse",
    "to_numpy",
]


IN_MEMORY = "data in memory"  # the name of a sample that comes from no file


@dataclass
class Sample:
    """What `load` returns: the content of one file, with nothing in it that depends on a model.

    Attributes:
        modality: name of the modality, such as ``"audio"``.
        name: the file's base name.
        array: the modality's own array; each modality states shape, dtype and unit.
        summary: one line for people, such as ``"3.2 s, 44.1 kHz, stereo"``.
        rate_hz: samples, rows or frames a second, for modalities that run in time.
        picture: [H, W, 3] uint8, the picture that belongs to a depth or normal map; None if there is none.
        notes: what the person should know about how the file was read.
        duration_s: how long a sound or video lasts, with what lies beyond the array's end; None if that is all.
        times_s: [T] float64, the time of each of a video's frames; None if that is unknown.
        size: width and height of a picture in its file, in pixels; None if they are the array's.
        sound: whether a video's file has a sound track.
        file_rate_hz: samples a second of a sound in its file.
        coloured: whether a point cloud's file has colours.
        relative: whether a depth map holds relative distances instead of metres.
    """

    modality: str
    name: str
    array: np.ndarray
    summary: str
    rate_hz: float | None = None
    picture: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    duration_s: float | None = None
    times_s: np.ndarray | None = None
    size: tuple[int, int] | None = None
    sound: bool = False
    file_rate_hz: float | None = None
    coloured: bool = True
    relative: bool = False

    @property
    def seconds(self) -> float:
        """How long the file lasts, for modalities that run in time."""
        return self.duration_s or len(self.array) / self.rate_hz


@dataclass(frozen=True)
class Coverage:
    """How much of a file reaches a model: "5" of "121" "frames".

    Attributes:
        used: what `to_tensor` takes.
        of: what the file holds.
        unit: of both: "pixels", "frames", "seconds", "points" or "voxels".
    """

    used: str
    of: str
    unit: str
    layout: tuple[str, int | None, int | None] = ("an array", None, None)

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self.used == self.of

    @classmethod
    def seconds(cls, used_s: float, of_s: float) -> Coverage:
        """Return it for what runs in time."""
        digits = 1 if of_s >= 1 else 2
        return cls(f"{used_s:.{digits}f}", f"{of_s:.{digits}f}", "seconds")


@dataclass
class Preview:
    """What people see of a sample.

    Attributes:
        kind: of content: ``"image"`` (a Pillow image), ``"gallery"`` (a list of them) or ``"plot"`` (a plotly figure).
        content: the thing itself.
        caption: one line to set below it.
        labels: what to set below each picture of a gallery.
        legend: a small Pillow image that explains the colours, or None.
        veiled: what the model does not take is there, under a grey veil.
    """

    kind: Literal["image", "gallery", "plot"]
    content: Any
    caption: str
    labels: tuple[str, ...] = ()
    legend: Any = None
    veiled: bool = False


class Damaged(ValueError):
    """A file that is not what it should be; its text is for people, and `Modality.load` turns it into a FileError."""


class Modality(ABC):
    """One modality: how it is read, turned into a tensor and shown.

    Attributes:
        name: singular name, the same in code, messages, config and UI.
        title: the name as shown to people.
        icon: one emoji.
        suffixes: file name endings it reads, lower case, with the dot.
        expects: what a good file is, to follow "expected" in an error.
        unit: what the values of a sample's array are.
        layout: shape of a sample's array for people, its number of dimensions, and the size of its last one or None.
        libraries: modules that `read` imports when it needs them, and functions that import more ("module:function").
        siblings: all modalities by name, as the package lists them.
    """

    name: str
    title: str
    icon: str
    suffixes: tuple[str, ...]
    expects: str
    unit: str
    libraries: tuple[str, ...] = ("PIL.Image:init", "PIL.ImageOps")
    siblings: ClassVar[dict[str, Modality]] = {}

    @property
    def limit_bytes(self) -> int:
        """Largest file that is read: the limit `<name>_bytes`, or what a question may bring where there is none."""
        return getattr(LIMITS, f"{self.name}_bytes", LIMITS.turn_bytes)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options `load` takes."""
        return tuple(list(inspect.signature(self.read).parameters)[1:])

    def load(self, path: str | os.PathLike, **options) -> Sample:
        """Read a file.

        Args:
            path: the file.
            **options: the modality's own options, see its `read`; None means "not given".

        Returns:
            The file's content as a sample.

        Raises:
            FileError: if the file is missing, empty, too large, of another modality or broken, or if an option
                is not one of the modality's.
        """
        path = self.check(path)
        options = {key: value for key, value in options.items() if value is not None}
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            valid = ", ".join(self.options) or "none"
            raise refuse(path, f"unknown option {unknown[0]!r}", f"one of: {valid}", "correct the option's name")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.read(path, **options)
        except OneLLMError:
            raise
        except MemoryError as error:
            raise refuse(path, "it needs more memory than there is", self.expects, "use a smaller file") from error
        except ImportError as error:
            raise refuse(
                path,
                f"its reader is not installed ({error.name or 'unknown'})",
                "the packages of requirements.txt and packages.txt",
                "install them and start again",
            ) from error
        except Exception as error:
            found = f"{describe(path)} that cannot be read ({_reason(error)})"
            raise refuse(path, found, self.expects, "check that the file is whole, or save it anew") from error

    def check(self, path: str | os.PathLike) -> Path:
        """Check what can be known of a file without opening it as its modality.

        Args:
            path: the file.

        Returns:
            The same path as a `Path`.

        Raises:
            FileError: if it is not a file of this modality's size and suffixes.
        """
        path, size_bytes = check_file(path, self.expects)
        if not path.name.lower().endswith(self.suffixes):
            found = f"the name ends in {path.suffix.lower()}" if path.suffix else "the name has no suffix"
            raise refuse(path, found, self.expects, _suggest(self.name, path))
        if size_bytes == 0:
            raise refuse(path, "the file is empty", self.expects, "save or download it again")
        if size_bytes > self.limit_bytes:
            found = f"the file has {megabytes(size_bytes)}"
            raise refuse(path, found, f"at most {megabytes(self.limit_bytes)}", "use a smaller or shorter one")
        return path

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a file's content is surely of this modality; what several share, `detect` tells apart.

        Args:
            path: the file.
            head: its first 64 kB.
        """
        return False

    @abstractmethod
    def read(self, path: Path, **options) -> Sample:
        """Read a file that passed `check`; called by `load`, which turns what this raises into a FileError."""

    def clean(self, path: Path, array: np.ndarray, notes: list[str]) -> np.ndarray:
        """Treat what is no number in an array; what is done is noted, and what holds nothing else is refused."""
        return array

    def from_memory(self, value: Any, **options: Any) -> Sample:
        """Turn an array into a sample.

        Args:
            value: an array or a tensor as a sample of the modality holds it.
            **options: those of `Sample`.

        Raises:
            FileError: its shape is not the modality's.
        """
        array = self.check_layout(np.array(to_numpy(value), np.float32))
        notes: list[str] = []
        return Sample(self.name, IN_MEMORY, self.clean(Path(IN_MEMORY), array, notes), "", notes=notes, **options)

    def check_layout(self, array: np.ndarray) -> np.ndarray:
        """Return an array whose shape is the modality's.

        Raises:
            FileError: it is not.
        """
        words, dimensions, last = self.layout
        fits = dimensions in (None, array.ndim) and last in (None, *array.shape[-1:])
        if not fits or not 1 <= array.ndim <= 4 or not array.size:
            raise refuse(IN_MEMORY, f"an array of shape {list(array.shape)}", words, "give it in this shape")
        return array

    def arrays(self, sample: Sample) -> dict[str, np.ndarray]:
        """Return a sample's arrays by name: "array", and where a modality has them "rgb" [P, 3] and "known" (bool)."""
        return {"array": sample.array}

    @abstractmethod
    def to_tensor(self, sample: Sample, **settings) -> torch.Tensor:
        """Turn a sample into what a model's tokenizer takes; the settings come from the model's config."""

    @abstractmethod
    def coverage(self, sample: Sample, **settings) -> Coverage:
        """Say how much of a sample `to_tensor` takes with the same settings; it raises the same errors."""

    @abstractmethod
    def preview(self, sample: Sample, **settings) -> Preview:
        """Turn a sample into what people see of it; where `to_tensor`'s settings are given, show what it takes."""


def to_numpy(value: Any) -> np.ndarray:
    """Return an array, a tensor or a list as an array."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def check_file(path: str | os.PathLike, expects: str) -> tuple[Path, int]:
    """Check that a path names a file that can be opened without waiting.

    Args:
        path: the file.
        expects: what is expected, for the error.

    Returns:
        The same path as a `Path`, and the file's size in bytes.

    Raises:
        FileError: if there is nothing, or no regular file.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise refuse(path, "there is no such file", expects, "check the path") from error
    if not stat.S_ISREG(status.st_mode):
        found = "this is a folder" if stat.S_ISDIR(status.st_mode) else "this is not a regular file"
        raise refuse(path, found, expects, "choose a file")
    if not os.access(path, os.R_OK):
        raise refuse(path, "it may not be opened", expects, "change who may read it")
    return path, status.st_size


def check_times(path: Path, start_s: float | None, stop_s: float | None) -> None:
    """Check the part of a file that is to be read.

    Raises:
        FileError: the part ends before it begins.
    """
    if not 0 <= (start_s or 0) < (math.inf if stop_s is None else stop_s):
        found = f"the part from {start_s or 0:g} s to {'the end' if stop_s is None else f'{stop_s:g} s'}"
        raise refuse(path, found, "0 <= start_s < stop_s", "choose other times")


def refuse(path: str | os.PathLike, found: str, expected: str, advice: str) -> FileError:
    """Compose an error: the file's name, what was found, what was expected, what to do.

    Args:
        path: the file; only its base name is shown.
        found: what was found, without a full stop.
        expected: what was expected, to follow "expected".
        advice: what to do next, as an imperative.

    Returns:
        The error, to be raised by the caller.
    """
    fields = {"found": _printable(found), "expected": _printable(expected), "advice": _printable(advice)}
    return FileError(_printable(f"{display_name(path)}: {found}; expected {expected}; {advice}."), **fields)


def display_name(path: str | os.PathLike, length: int = 60) -> str:
    """Return a file's base name in printable characters and of limited length."""
    name = _printable(os.path.basename(os.fspath(path))) or "?"
    return name if len(name) <= length else f"{name[: length - 12]}…{name[-11:]}"


def _printable(text: str) -> str:
    """Replace what cannot be seen, such as line ends in names that a file holds, by question marks."""
    return "".join(c if c.isprintable() else "?" for c in text)


def megabytes(count_bytes: int) -> str:
    """Return a size for people: ``"3.2 MB"``."""
    if count_bytes < 1_000_000:
        return f"{max(1, round(count_bytes / 1000))} kB"
    size, unit = (count_bytes / 1e9, "GB") if count_bytes >= 1e9 else (count_bytes / 1e6, "MB")
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"


def describe(path: Path) -> str:
    """Say what a file looks like from its first bytes, such as ``"a PDF document"``."""
    with open(path, "rb") as file:
        head = file.read(512)
    for offset, magic, words in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return words
    if head.lstrip()[:1] == b"<":
        return "a web page or XML text"
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return "data"
    return "plain text" if all(c.isprintable() or c in "\r\n\t" for c in text) else "data"


_MAGIC = (
    (0, b"version https://git-lfs", "a Git LFS pointer"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (8, b"WEBP", "a WebP picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (4, b"ftypheic", "a HEIC picture"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftyp", "an MP4 or QuickTime file"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska file"),
    (8, b"AVI ", "an AVI video"),
    (8, b"WAVE", "a WAV sound"),
    (0, b"fLaC", "a FLAC sound"),
    (0, b"OggS", "an Ogg file"),
    (0, b"ID3", "an MP3 sound"),
    (0, b"glTF", "a GLB model"),
    (0, b"ply", "a PLY file"),
    (0, b"OFF", "an OFF mesh"),
    (0, b"v/1\x01", "an EXR picture"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
)
_CUT_SHORT = re.compile(r"truncated|end of file|\bEOF\b|ended before|got \d+ bytes", re.IGNORECASE)


def _reason(error: BaseException, length: int = 100) -> str:
    """Say in one short phrase why a file could not be read; what libraries say only speaks to programmers."""
    if not isinstance(error, Damaged):
        return "it is cut short" if _CUT_SHORT.search(str(error)) else "it is damaged, or of another kind"
    text = str(error).replace(";", ",").strip(" .:")
    return text if len(text) <= length else text[: length - 1] + "…"


def _suggest(name: str, path: Path) -> str:
    """Say what to do with a file whose suffix this modality does not read."""
    others = [m.name for m in Modality.siblings.values() if m.name != name and path.name.lower().endswith(m.suffixes)]
    return f"give it as {' or '.join(others)}, or convert it" if others else "convert it to one of these"
