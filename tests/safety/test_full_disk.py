"""A disk that is full at any moment of a run: words, nothing half written, and the run goes on."""

import contextlib
import re
import resource
import time

import numpy as np
import pytest
import torch
import training
from published_checkpoint import published_state

from onellm.hub.convert import convert
from onellm.utils.atomic import DiskFullError

TOLD = re.compile(
    r"error: The disk with /\S+ is full: ([\d.,]+ MB are needed, )?[\d.,]+ MB are free; free some space and start "
    r"again: it (goes on from step [1-7]|begins anew)\."
)


def test_full_at_any_moment(settings, scans, tmp_path, figure, soak):
    """Writes beyond a size fail from a random moment on, in Python and in the libraries' own code."""
    wanted, recipe = soak(4, 60), training.write_recipe(settings, scans, tmp_path)
    chance, folders, begun_s = np.random.default_rng(7), training.fresh(tmp_path), time.monotonic()
    told = []
    with training.server() as order:
        unbroken = next(folders)
        done = order(recipe, unbroken)
        expected = training.left(unbroken)
        while len(told) < wanted:
            runs = next(folders)
            while True:
                moment = int(chance.integers(1, done["moments"])) if len(told) < wanted else 0
                end = order(recipe, runs, moment, int(chance.choice([3_000, 20_000, 100_000])), full=True)
                if end["status"] == 0:
                    break
                assert end["status"] == 1, end["said"]
                words = TOLD.search(end["said"].strip())
                assert words and "Traceback" not in end["said"], end["said"]
                assert not list(runs.rglob(".part.*"))
                told.append(words[2])
            found = training.left(runs)
            assert [name for name in expected.keys() | found if found.get(name) != expected.get(name)] == []
    figure(
        "full disks met by training runs",
        f"{len(told)}, all told in words ({len(set(told))} different places to go on from), "
        f"{time.monotonic() - begun_s:.0f} s",
        "nothing half written; once there is room, the end of an unbroken run",
    )


@contextlib.contextmanager
def no_file_beyond(size):
    """Let every write fail that takes a file beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 100_000])
def test_full_while_weights_are_converted(tmp_path, size):
    torch.save(published_state(), tmp_path / "consolidated.00-of-01.pth")
    before = sorted(tmp_path.iterdir())
    with no_file_beyond(size), pytest.raises(DiskFullError, match=r"The disk with .*/out is full: .* free some space"):
        convert(tmp_path / "consolidated.00-of-01.pth", tmp_path / "out", progress=False)
    assert sorted(tmp_path.iterdir()) == before
    convert(tmp_path / "consolidated.00-of-01.pth", tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "model.safetensors").exists()
