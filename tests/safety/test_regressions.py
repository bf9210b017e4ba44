"""Every file that once did harm: the name says which kind it was given as and what it did."""

from pathlib import Path

import pytest
from verdicts import judge, judge_kind

FILES = sorted((Path(__file__).parent / "regressions").iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_does_no_harm(path):
    judge(path.name.split("_")[0], path, preview=True)
    judge_kind(path)
