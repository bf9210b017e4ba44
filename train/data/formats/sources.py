"""Formats of training data on disk: a source of a recipe becomes examples by random access."""

from pathlib import Path
from typing import TYPE_CHECKING

from train.data.example import DataError, Examples
from train.data.formats.requests import Requests

if TYPE_CHECKING:
    from train.recipe import Source

FORMATS = {
    "webdataset": "tar shards: a.tar, a folder, shards/{000..041}.tar, or an address; samples with txt or json",
    "captions": "a table (tsv, csv, jsonl, parquet) of captions and files",
    "instructions": "a JSON list (or jsonl) with conversations and files",
    "folder": "files with captions beside them: cat.jpg and cat.txt, or a metadata.csv or captions.tsv",
    "hub": "a Hugging Face data set: a folder that save_to_disk wrote, or a name on the hub",
    "imu": "a table of motion windows (video_uid, window_start, window_end) beside one npy a video",
    "fmri": "a table of captions and npy files of voxels, one row a repetition",
    "point": "a table uid, caption beside one npy a cloud",
}


def open_examples(source: "Source") -> Examples:
    """Open a source of files.

    Args:
        source: of a recipe.

    Returns:
        Its examples.

    Raises:
        OneLLMError: it is missing, of another format, or lacks what its modality needs.
    """
    modalities = source.modalities
    if not modalities and source.source not in ("instructions", "hub", "webdataset"):
        raise DataError(f"Captions without files teach nothing, and {source.source} holds captions; give its kind.")
    if source.source == "webdataset":
        from train.data.formats.shards import ShardExamples

        examples: Examples = ShardExamples(source.path, modalities, source.prompt)
    else:
        examples = _open_rows(source, modalities)
    return examples if source.request is None else Requests(examples, source.request)


def _open_rows(source: "Source", modalities: tuple[str, ...]) -> Examples:
    """Open what is a table, or a folder."""
    from train.data.formats.folders import TABLES, FolderExamples
    from train.data.formats.hub import open_hub
    from train.data.formats.table_files import open_table
    from train.data.formats.tables import CONVERSATIONS, TableExamples

    path, columns = source.path, dict(source.columns or {})
    if source.source == "folder":
        folder = Path(path)
        if not folder.is_dir():
            raise DataError(f"{path}: there is no such folder; expected one with files and captions; check the path.")
        lists = [folder / name for name in TABLES if (folder / name).is_file()]
        if not lists:
            return FolderExamples(folder, modalities, source.prompt)
        path = str(lists[0])
    if source.source == "hub":
        table = open_hub(path, source.split)
    else:
        names = ("uid", "caption") if source.source == "point" else ()
        table = open_table(path, names, set(map(str, columns.values())))
    root = Path(source.root) if source.root else Path(path).parent
    conversations = source.source == "instructions" or (
        "caption" not in columns and ("conversations" in columns or bool({*CONVERSATIONS} & {*table.columns}))
    )
    return TableExamples(
        table, modalities, root, columns, source.prompt, conversations, only_fitting=source.source == "instructions"
    )
