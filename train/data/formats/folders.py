"""A folder of files with captions beside them: `cat.jpg` and `cat.txt`, or several files of one stem and `a.txt`."""

import os
from pathlib import Path

from onellm.modalities import MODALITIES
from train.data.example import BLOCK, DataError, FileExamples, caption_messages, split_rows

TABLES = ("metadata.csv", "metadata.jsonl", "captions.tsv", "captions.csv", "captions.jsonl", "metadata.parquet")


class FolderExamples(FileExamples):
    """Files anywhere below a folder, in the order of their names.

    Args:
        folder: where they are.
        modalities: of the files of every example; each needs one file of every modality.
        prompt: a question to ask of every caption; None asks none.

    Raises:
        DataError: there are no such files.
    """

    def __init__(self, folder: Path, modalities: tuple[str, ...], prompt: str | None = None):
        self.folder, self.prompt = folder, prompt
        groups: dict[str, list[str | None]] = {}
        for path, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                for index, modality in enumerate(modalities):
                    suffix = next((s for s in MODALITIES[modality].suffixes if name.lower().endswith(s)), None)
                    if suffix:
                        file = os.path.relpath(os.path.join(path, name), folder)
                        group = groups.setdefault(file[: -len(suffix)], [None] * len(modalities))
                        group[index] = group[index] or file
        self.items = list(groups.items())
        if not self.items:
            raise DataError(
                f"{folder}: there are no files of kind {' and '.join(modalities)} in it, and none of "
                f"{', '.join(TABLES)}; "
                "expected files with captions beside them (cat.jpg, cat.txt); check the path and the kind."
            )
        super().__init__(folder.name, modalities, split_rows(len(self.items)))

    def key(self, block: int, index: int) -> str:
        """Name an example by its file."""
        return f"{self.name}/{self.items[block * BLOCK + index][0]}"

    def build(self, block: int, index: int) -> list[dict]:
        """Build an example's messages, see `FileExamples`."""
        stem, files = self.items[block * BLOCK + index]
        missing = [modality for modality, file in zip(self.modalities, files, strict=True) if file is None]
        if missing:
            raise DataError(f"there is no {missing[0]} beside it; expected one of the same name; add it.")
        try:
            caption = (self.folder / f"{stem}.txt").read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise DataError(f"there is no {Path(stem).name}.txt beside it; expected a caption; write one.") from error
        parts = [{"type": k, "path": self.folder / file} for k, file in zip(self.modalities, files, strict=True)]
        return caption_messages(parts, caption, self.prompt)
