"""Files for a while: which ones a visitor may name (uploads, nothing else), and where the app puts its own."""

import secrets
import shutil
import time
from pathlib import Path

from onellm.errors import FileError
from onellm.limits import LIMITS
from onellm.modalities.base import display_name


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


def fresh(name: str) -> Path:
    """Return a path for a file of the app's own that the page can fetch; nobody can guess it."""
    folder = _made() / secrets.token_urlsafe(16)
    folder.mkdir(parents=True)
    return folder / name


def sweep() -> None:
    """Remove what the app made as long ago as uploads are kept: Gradio removes only what it stored itself."""
    oldest_s = time.time() - LIMITS.upload_lifetime_s
    for folder in _made().glob("*"):
        try:
            if folder.stat().st_mtime < oldest_s:
                shutil.rmtree(folder)
        except FileNotFoundError:  # another thread was faster
            continue


def _made() -> Path:
    from gradio.utils import get_upload_folder

    return Path(get_upload_folder()).resolve() / "made"
