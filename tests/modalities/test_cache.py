"""One decoded sample for one file: read once, anew when it changes, within a limit."""

import concurrent.futures
import dataclasses
import os

import file_makers as make
import numpy as np
import pytest
from PIL import Image

from onellm import modalities
from onellm.errors import FileError
from onellm.modalities import cache, load, sandbox
from onellm.modalities.detect import recognise


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    """Count the processes that read."""
    modalities.CACHE.clear()
    forks, call = [], sandbox.call

    def counted(job, *arguments, **options):
        forks.append(job.__name__)
        return call(job, *arguments, **options)

    monkeypatch.setattr(sandbox, "call", counted)
    yield forks
    modalities.CACHE.clear()


def picture(path, values=None):
    Image.fromarray(make.picture() if values is None else values).save(path)
    os.utime(path, (1, 1))
    return path


def test_a_file_is_read_once(tmp_path, forked):
    path = picture(tmp_path / "a.png")
    samples = [load("image", path) for _ in range(4)]
    names = [recognise(path) for _ in range(4)]
    assert forked == ["load_here", "recognise_here"] and names == [["image", "normal"]] * 4
    samples[0].notes.append("mine")
    names[0].clear()
    assert load("image", path).notes == [] and recognise(path) == ["image", "normal"]
    with pytest.raises(ValueError, match="read-only"):
        samples[1].array[0] = 0


def test_threads_share_one_reading(tmp_path, forked):
    path = picture(tmp_path / "a.png")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        samples = list(pool.map(lambda _: load("image", path), range(8)))
    assert len(forked) == 1 and all(sample.array is samples[0].array for sample in samples)


def test_changed_content_is_read_anew(tmp_path, forked):
    path = picture(tmp_path / "a.png")
    assert load("image", path).array.any()
    status = path.stat()
    picture(path, np.zeros((48, 64, 3), np.uint8))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not load("image", path).array.any() and len(forked) == 2


def test_options_and_the_picture_of_a_map_count(tmp_path, forked):
    depth = tmp_path / "d.png"
    picture(depth, make.depth_mm())
    near, far = load("depth", depth), load("depth", depth, scale=0.1)
    assert far.array[20, 20] > 10 * near.array[20, 20]
    beside = picture(tmp_path / "a.png")
    assert load("depth", depth, picture=beside).picture.any()
    picture(beside, np.zeros((48, 64, 3), np.uint8))
    os.utime(beside, ns=(0, 0))
    assert not load("depth", depth, picture=beside).picture.any()
    assert load("depth", depth, picture=None).picture is None and len(forked) == 4


def test_what_changed_a_moment_ago_is_not_kept(tmp_path, forked):
    path = picture(tmp_path / "a.png")
    os.utime(path)
    assert cache.stamp(path) is None
    load("image", path)
    picture(path, np.zeros((48, 64, 3), np.uint8))
    assert not load("image", path).array.any() and len(forked) == 2


def test_errors_are_not_kept(tmp_path, forked):
    path = tmp_path / "a.png"
    for _ in range(2):
        with pytest.raises(FileError, match="no such file"):
            load("image", path)
    picture(path)
    assert load("image", path).array.any() and len(forked) == 3


def test_memory_is_bounded(tmp_path, forked, monkeypatch):
    paths = [picture(tmp_path / f"{number}.png") for number in range(4)]
    one = make.picture().nbytes + cache.ENTRY_BYTES
    monkeypatch.setattr(cache, "LIMITS", dataclasses.replace(cache.LIMITS, sample_cache_bytes=2 * one))
    for path in (*paths, paths[3], paths[2], paths[0]):
        load("image", path)
    assert len(forked) == 5 and modalities.CACHE.size_bytes <= 2 * one
    monkeypatch.setattr(cache, "LIMITS", dataclasses.replace(cache.LIMITS, sample_cache_bytes=0))
    for _ in range(2):
        load("image", paths[0])
    assert len(forked) == 7
