"""Where things lie on this machine."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def cache_folder() -> Path:
    """Return the folder for everything that is fetched: `ONELLM_CACHE`, by default ~/.cache/onellm."""
    return Path(os.environ.get("ONELLM_CACHE", Path.home() / ".cache" / "onellm"))
