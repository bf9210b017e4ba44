"""Examples from tables: captions, instruction lists, and Hugging Face data sets; a row is an example."""

import os
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from onellm.modalities import MODALITIES, modalities_of
from train.data.example import BLOCK, DataError, FileExamples, caption_messages, split_rows, text_length
from train.data.formats.conversations import conversation_messages
from train.data.formats.fetch import fetch_bytes, is_address
from train.data.formats.lazy import LazyFile
from train.data.formats.motion_windows import load_window
from train.data.formats.table_files import Table

CAPTIONS = ("caption", "text", "captions", "title", "description", "answer")
CONVERSATIONS = ("conversations", "messages", "conversation")
FILES = ("file", "url", "path", "file_name", "filename", "filepath", "uid", "image")
MAPS = ("depth", "normal")
WINDOW = ("video_uid", "window_start", "window_end")
# of data in a cell, which has no name: where its first bytes are, and what suffix they mean
_MAGIC = (
    (0, b"\x89PNG", ".png"), (0, b"\xff\xd8\xff", ".jpg"), (0, b"GIF8", ".gif"), (8, b"WEBP", ".webp"),
    (0, b"BM", ".bmp"), (0, b"II*\0", ".tif"), (0, b"MM\0*", ".tif"), (8, b"WAVE", ".wav"), (0, b"fLaC", ".flac"),
    (0, b"OggS", ".ogg"), (0, b"ID3", ".mp3"), (0, b"\xff\xfb", ".mp3"), (4, b"ftypM4A", ".m4a"), (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".webm"), (8, b"AVI ", ".avi"), (0, b"\x93NUMPY", ".npy"), (0, b"PK", ".npz"),
)  # fmt: skip


class TableExamples(FileExamples):
    """Rows of a table.

    Args:
        table: the rows.
        modalities: of the files of every example.
        root: the folder that file names are relative to.
        columns: what the table calls "file" (or a modality, where there are several), "caption", "conversations",
            "prompt" and "picture"; the usual names are found without.
        prompt: a question to ask of every caption; None asks none.
        conversations: rows hold conversations, not captions.
        only_fitting: leave out rows whose files are of other modalities, as lists of mixed modalities have them.

    Raises:
        DataError: the table lacks a wanted column.
    """

    def __init__(
        self,
        table: Table,
        modalities: tuple[str, ...],
        root: Path,
        columns: dict[str, str] | None = None,
        prompt: str | None = None,
        conversations: bool = False,
        only_fitting: bool = False,
    ):
        self.table, self.root, self.prompt, self.conversations = table, root, prompt, conversations
        self.columns, self.modalities = columns or {}, modalities
        self._check_columns()
        self.rows = self._fitting() if only_fitting else None
        # rows without their files: cheap to read, even where these lie in the table
        roles = CONVERSATIONS if conversations else CAPTIONS
        self.texts = table.narrow(
            {*roles, *self.columns.values()} - {self.columns.get(modality) for modality in (*modalities, "file")}
        )
        super().__init__(table.name, modalities, split_rows(len(table) if self.rows is None else len(self.rows)))

    def key(self, block: int, index: int) -> str:
        """Name an example: "captions.tsv, row 12"."""
        return f"{self.name}, row {self._row(block, index) + 1:,}"

    def build(self, block: int, index: int) -> list[dict]:
        """Build an example's messages, see `FileExamples`."""
        row = self.table[self._row(block, index)]
        return self._messages(row, [part for modality in self.modalities for part in self._files(row, modality)])

    def length(self, block: int, index: int) -> int:
        """Count the characters of an example's text, see `Examples`."""
        try:
            return text_length(self._messages(self.texts[self._row(block, index)], []))
        except DataError:
            return 0

    def _messages(self, row: dict, files: list[dict]) -> list[dict]:
        if self.conversations:
            return conversation_messages(self._field(row, "conversations", CONVERSATIONS), files)
        caption = self._field(row, "caption", CAPTIONS)
        if isinstance(caption, list) and caption:
            caption = caption[0]
        if not isinstance(caption, str):
            raise DataError(f"the caption is {caption!r:.40}; expected words; correct it, or leave the row out.")
        prompt = row.get(self.columns["prompt"]) if "prompt" in self.columns else self.prompt
        return caption_messages(files, caption.strip(), prompt)

    def resolve(self, part: dict) -> dict:
        """Cut motion windows; look whether files are there."""
        if "window" in part:
            array, rate_hz = load_window(self.root, *part["window"])
            return {"type": "imu", "imu": array, "rate_hz": rate_hz}
        if "path" in part and not isinstance(part["path"], LazyFile):
            return super().resolve(part | {"path": _complete(part["path"], MODALITIES[part["type"]].suffixes)})
        return part

    def _row(self, block: int, index: int) -> int:
        row = block * BLOCK + index
        return row if self.rows is None else int(self.rows[row])

    def _field(self, row: dict, role: str, usual: tuple[str, ...]) -> Any:
        """Return what a row holds in a role; None where nothing is."""
        names = [self.columns[role]] if role in self.columns else usual
        return next((row[name] for name in names if row.get(name) is not None), None)

    def _names(self, modality: str) -> tuple[str, ...]:
        """Names a column with files of a modality may have."""
        if modality in self.columns:
            return (self.columns[modality],)
        if "file" in self.columns and len(self.modalities) == 1:
            return (self.columns["file"],)
        return (modality, f"{modality}_path", f"{modality}_image", f"{modality}_url", f"{modality}s", *FILES)

    def _files(self, row: dict, modality: str) -> list[dict]:
        """Make the parts of a row's files of a modality."""
        if modality == "imu" and row.get(WINDOW[0]):
            try:
                return [{"type": modality, "window": (str(row[WINDOW[0]]), *(float(row[key]) for key in WINDOW[1:]))}]
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"the window has no times; expected {' and '.join(WINDOW[1:])} in seconds; add them."
                ) from error
        name = next((name for name in self._names(modality) if row.get(name) not in (None, "", [])), None)
        if name is None:
            raise DataError(f"there is no {modality} in it, only {', '.join(row)}; expected a file; add it.")
        value = row[name]
        several = isinstance(value, list) and not isinstance(value[0], int | float | list)
        parts = [self._part(one, modality) for one in (value if several else [value])]
        if modality in MAPS:
            picture = self._field(row, "picture", ("picture", "image") if name not in FILES else ("picture",))
            for part in parts:
                if picture:
                    part["picture"] = self._part(picture, "image")["path"]
        return parts

    def _part(self, value: Any, modality: str) -> dict:
        """Make a file part of a name, an address, bytes, or numbers."""
        if isinstance(value, dict) and (value.get("bytes") or value.get("path")):
            if not value.get("bytes"):
                return self._part(value["path"], modality)
            name = value.get("path") or modality
            if not name.lower().endswith(MODALITIES[modality].suffixes):
                name = Path(name).stem + _suffix_of(value["bytes"], modality)
            return {"type": modality, "path": LazyFile(name, partial(bytes, value["bytes"]))}
        if isinstance(value, list | np.ndarray):
            return {"type": modality, modality: np.asarray(value, np.float32)}
        if not isinstance(value, str):
            raise DataError(f"its {modality} is {value!r:.40}; expected a file's name, an address or data; correct it.")
        if is_address(value):
            name = os.path.basename(urlsplit(value).path) or modality
            if not name.lower().endswith(MODALITIES[modality].suffixes):
                name += MODALITIES[modality].suffixes[0]  # the loaders of what is found on the web look at the content
            return {
                "type": modality,
                "path": LazyFile(name, partial(fetch_bytes, value, MODALITIES[modality].limit_bytes)),
            }
        return {"type": modality, "path": self.root / value}

    def _check_columns(self) -> None:
        """Check the first row's fields, so that a wrong table is told before training."""
        there = set(self.table.columns)
        usual = CONVERSATIONS if self.conversations else CAPTIONS
        role = "conversations" if self.conversations else "caption"
        wanted = {role: (self.columns[role],) if role in self.columns else usual}
        wanted |= {"prompt": (self.columns["prompt"],)} if "prompt" in self.columns else {}
        if not self.conversations:  # of a list, single entries may have no file
            wanted |= {
                modality: self._names(modality)
                for modality in self.modalities
                if not (modality == "imu" and WINDOW[0] in there)
            }
        for role, names in wanted.items():
            if not there & set(names):
                raise DataError(
                    f"{self.table.name}: there is no column for '{role}' among {', '.join(self.table.columns)}; "
                    f"expected {' or '.join(names[:4])}; name it in the recipe, columns: {{{role}: NAME}}."
                )

    def _fitting(self) -> np.ndarray | None:
        """Return the indices of the rows whose files are of this source's modalities, or None for all of them."""
        column = self.table.signatures
        if column is None:
            return None
        import pyarrow
        import pyarrow.compute

        found = column.unique().to_pylist()
        fits = [value for value in found if self._signature_kinds(value) == set(self.modalities)]
        rows = np.flatnonzero(pyarrow.compute.is_in(column, pyarrow.array(fits, pyarrow.string())).to_numpy())
        if not len(rows):
            modalities = " and ".join(self.modalities) or "text"
            raise DataError(
                f"{self.table.name}: none of its {len(column):,} entries is of kind {modalities}; they have "
                f"{', '.join(sorted(value for value in found if value))[:200] or 'no files'}; correct the kind."
            )
        return None if len(rows) == len(column) else rows

    def _signature_kinds(self, signature: str) -> set[str]:
        """Tell the kinds of an entry's files from the fields that name them, such as "image:.jpg"."""
        fields = dict(field.partition(":")[::2] for field in signature.split())
        found = set()
        for field, suffix in fields.items():
            if field == WINDOW[0]:
                found.add("imu")
                continue
            if field == "image" and any(
                name in fields for modality in MAPS for name in (modality, f"{modality}_image")
            ):
                continue  # the picture beside a map
            modalities = [
                k for k in MODALITIES if field in (self.columns.get(k), k, f"{k}_path", f"{k}_image", f"{k}s")
            ]
            if field in FILES or field == self.columns.get("file"):
                modalities = modalities_of(f"x{suffix}")
                # published lists name files of every modality under "image"
                if field == self.columns.get("file") or "image" not in modalities:
                    modalities = [modality for modality in modalities if modality in self.modalities] or modalities
            found.update(modalities[:1])
        return found


def _complete(path: Path, suffixes: tuple[str, ...]) -> Path:
    """Find the file of a name without a suffix, as lists of ids have them; PointLLM's names end in _8192."""
    if path.name.lower().endswith(suffixes):
        return path
    endings = [f"{part}{suffix}" for part in ("", "_8192") for suffix in suffixes]
    found = (path.with_name(path.name + ending) for ending in endings)
    return next((file for file in found if file.is_file()), path)


def _suffix_of(data: bytes, modality: str) -> str:
    """Tell a file's suffix from its first bytes; the modality's first one where nothing fits."""
    suffixes = MODALITIES[modality].suffixes
    found = [suffix for index, magic, suffix in _MAGIC if data[index : index + len(magic)] == magic]
    return next((suffix for suffix in found if suffix in suffixes), suffixes[0])
