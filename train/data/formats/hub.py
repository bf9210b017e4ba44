"""Data sets in Hugging Face's format: a folder that `save_to_disk` wrote, or a name on the hub."""

from pathlib import Path

from train.data.example import DataError
from train.data.formats.table_files import Table


def open_hub(path: str, split: str) -> Table:
    """Open a data set, memory-mapped; pictures, sounds and videos in it stay encoded.

    Args:
        path: a folder that `save_to_disk` wrote, or a name such as "owner/name" or "owner/name:configuration".
        split: of a data set that has several.

    Raises:
        DataError: it cannot be opened, or has no such split.
    """
    import datasets

    try:
        if Path(path).is_dir():
            opened = datasets.load_from_disk(path)
        else:
            name, _, configuration = path.partition(":")
            opened = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: the data set cannot be opened ({reason}); expected a folder written by save_to_disk or a name on "
            "the hub; check the path, the split and the connection."
        ) from error
    if isinstance(opened, datasets.DatasetDict):
        if split not in opened:
            raise DataError(f"{path}: there is no split '{split}'; expected one of {', '.join(opened)}; choose one.")
        opened = opened[split]
    for column, feature in opened.features.items():
        inner = getattr(feature, "feature", None)
        if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
            opened = opened.cast_column(column, type(feature)(decode=False))
        elif isinstance(inner, datasets.Image | datasets.Audio | datasets.Video):
            opened = opened.cast_column(column, datasets.List(type(inner)(decode=False)))
    return Table(path, opened, packed=False)
