"""Files are read in processes of their own: the same samples, and what breaks there breaks nothing here."""

import concurrent.futures
import ctypes
import dataclasses
import json
import os
import signal
import socket
import statistics
import time

import numpy as np
import pytest

from onellm.errors import FileError
from onellm.modalities import MODALITIES, cache, load, load_here, sandbox
from onellm.modalities.detect import recognise, recognise_here


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Have every file read, whatever was read before."""
    monkeypatch.setattr(cache, "LIMITS", dataclasses.replace(cache.LIMITS, sample_cache_bytes=0))


def limited(monkeypatch, **limits):
    monkeypatch.setattr(sandbox, "LIMITS", dataclasses.replace(sandbox.LIMITS, **limits))


@pytest.mark.parametrize("modality", MODALITIES)
def test_samples_are_the_same(modality, example_files, figure):
    here, there = load_here(modality, example_files[modality]), load(modality, example_files[modality])
    for name, value in vars(here).items():
        got = getattr(there, name)
        if isinstance(value, np.ndarray):
            assert got.dtype == value.dtype
            np.testing.assert_array_equal(got, value)
        else:
            assert got == value and type(got) is type(value)
    assert recognise(example_files[modality]) == recognise_here(example_files[modality])
    costs_s = []
    for _ in range(5):
        begun_s = time.perf_counter()
        load(modality, example_files[modality])
        between_s = time.perf_counter()
        load_here(modality, example_files[modality])
        costs_s.append(2 * between_s - begun_s - time.perf_counter())
    figure(f"cost of a process of its own, {modality}", f"{statistics.median(costs_s) * 1000:.0f} ms", "under 50 ms")


def test_options_and_errors_pass(tmp_path, monkeypatch, example_files):
    monkeypatch.chdir(example_files["depth"].parent)
    picture = os.path.relpath(example_files["image"])
    sample = load("depth", example_files["depth"].name, picture=picture, scale=np.float32(0.5))
    assert sample.picture.ndim == 3
    with pytest.raises(FileError, match="unknown option 'colour'; expected one of: picture, scale"):
        load("depth", example_files["depth"], colour="red")
    with pytest.raises(FileError, match="there is no such file"):
        load("image", tmp_path / "\udcff.png")


def test_a_reader_that_crashes_is_told():
    for job, argument in ((ctypes.string_at, 0), (os._exit, 3), (os.abort, None)):
        with pytest.raises(sandbox.Died, match="broke off"):
            sandbox.call(job, *([] if argument is None else [argument]))
    assert sandbox.call(abs, -3) == 3


def test_time_is_bounded(monkeypatch):
    limited(monkeypatch, load_seconds=0.5)
    begun_s = time.monotonic()
    with pytest.raises(sandbox.Died, match=r"takes longer than 0\.5 s"):
        sandbox.call(time.sleep, 60)
    assert time.monotonic() - begun_s < 10


def test_memory_is_bounded(monkeypatch, example_files):
    limited(monkeypatch, load_memory_bytes=200_000_000)
    with pytest.raises(sandbox.Died):
        sandbox.call(bytearray, 300_000_000)
    limited(monkeypatch, load_memory_bytes=1_000_000)
    with pytest.raises(FileError, match=r"memory|broke off"):
        load("image", example_files["image"])


def test_a_killed_template_is_started_again():
    sandbox.call(abs, -1)
    os.kill(sandbox._template._process.pid, signal.SIGKILL)
    assert sandbox.call(abs, -2) == 2


def test_many_at_once(example_files):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        samples = list(pool.map(lambda modality: load(modality, example_files[modality]), [*MODALITIES] * 3))
    assert [sample.modality for sample in samples] == [*MODALITIES] * 3


@pytest.mark.parametrize(
    "answer",
    [
        b"not json",
        b"[]",
        json.dumps({"sample": {"array": {"dtype": "|O", "shape": [1]}}}).encode(),
        json.dumps({"sample": {"array": {"dtype": "<f4", "shape": [-1, 8]}}}).encode(),
        json.dumps({"sample": {"array": {"dtype": "<f4", "shape": [10**9, 10**9]}}}).encode(),
        json.dumps({"sample": {"array": {"dtype": "<f4", "shape": [2]}, "more": 1}}).encode(),
        json.dumps({"else": 1}).encode(),
    ],
)
def test_answers_are_not_believed(answer):
    here, there = socket.socketpair()
    with there:
        there.sendall(len(answer).to_bytes(8, "little") + answer + bytes(8))
    with pytest.raises(sandbox.Died):
        sandbox._receive(here)
    here, there = socket.socketpair()
    with there:
        there.sendall((2**62).to_bytes(8, "little") + answer)
    with pytest.raises(sandbox.Died):
        sandbox._receive(here)


def test_trusted_files_are_read_here(monkeypatch, example_files):
    monkeypatch.setattr(sandbox, "_trusted", True)
    monkeypatch.setattr(sandbox._template, "request", None)
    assert load("image", example_files["image"]).array.ndim == 3
