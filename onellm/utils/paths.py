"""Where things lie on this machine."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
EXAMPLES = PACKAGE / "examples"  # where the package was installed
if not EXAMPLES.exists():  # in a checkout, where they stand at the top
    EXAMPLES = PACKAGE.parent / "examples"


def cache_folder() -> Path:
    """Return the folder for everything that is fetched: `ONELLM_CACHE`, by default ~/.cache/onellm."""
    return Path(os.environ.get("ONELLM_CACHE", Path.home() / ".cache" / "onellm"))
