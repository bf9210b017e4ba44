"""Which files a visitor may name: those this app itself received, and nothing else."""

from pathlib import Path

from onellm.errors import FileError
from onellm.modalities import MODALITIES
from onellm.modalities.base import display_name

WITH_PICTURE = tuple(kind for kind, modality in MODALITIES.items() if "picture" in modality.options)


def check(path: str) -> str:
    """Check that a path which came with a request is an upload.

    Args:
        path: what the request named.

    Returns:
        The file's path with every link resolved.

    Raises:
        FileError: it lies outside of the upload folder, or is gone.
    """
    from gradio.utils import get_upload_folder

    folder = Path(get_upload_folder()).resolve()
    try:
        real = Path(path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise FileError(
            f"{display_name(path)}: the upload is gone (uploads are kept for an hour); upload the file again."
        ) from error
    if not real.is_file() or folder not in real.parents:
        raise FileError(f"{display_name(path)}: this is not a file you uploaded; upload the file itself.")
    return str(real)
