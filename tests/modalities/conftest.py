import time

import pytest

from onellm.errors import FileError
from onellm.modalities import MODALITIES


@pytest.fixture
def refused():
    """Check that a file is refused quickly with one sentence that holds the given parts."""

    def check(modality, path, *parts, **options):
        start = time.monotonic()
        with pytest.raises(FileError) as caught:
            MODALITIES[modality].load(path, **options)
        text = str(caught.value)
        assert time.monotonic() - start < 10
        assert "\n" not in text and text.endswith(".") and "expected" in text and len(text) < 500, text
        for part in parts:
            assert part in text, text

    return check
