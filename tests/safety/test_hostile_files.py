"""Hostile files: each is refused in words, or read where it is odd but fine; quickly, in little memory."""

import dataclasses
import os
import re
import time

import hostile_media  # noqa: F401  # adds its files
import hostile_numbers  # noqa: F401
import hostile_pictures  # noqa: F401
import hostile_shapes  # noqa: F401
import pytest
from hostile_files import HOSTILE
from verdicts import judge, judge_kind

from onellm.modalities import sandbox

LONGEST_S = 20
GROWTH_MB = 300
PATIENCE_S = 6  # in the short form, in place of the 20 s that a reader has
TRIED = []


def memory_mb(field):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{field}:\s+(\d+) kB", file.read())[1]) / 1000


def named(case):
    name = re.sub(r"[^\w.,-]+", "_", case.name)[:60]
    return pytest.param(case, id=name, marks=[pytest.mark.soak] * case.slow)


@pytest.mark.parametrize("case", [named(case) for case in HOSTILE])
def test_it_is_refused_or_fine(case, tmp_path, monkeypatch, soak):
    patience_s = soak(PATIENCE_S, sandbox.LIMITS.load_seconds)
    monkeypatch.setattr(sandbox, "LIMITS", dataclasses.replace(sandbox.LIMITS, load_seconds=patience_s))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "uploads"
    folder.mkdir()
    path = folder / case.name
    case.make(path)
    number = HOSTILE.index(case)  # the short form tries one kind, not always the first; and every other file as any
    turns = soak([case.modalities[number % len(case.modalities)], "any"][: 1 + number % 2], [*case.modalities, "any"])
    for tried in turns:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
        before_mb, begun_s = memory_mb("VmRSS"), time.monotonic()
        verdict, said = judge_kind(path) if tried == "any" else judge(tried, path, preview=True)
        seconds, growth_mb = time.monotonic() - begun_s, memory_mb("VmHWM") - before_mb
        TRIED.append((seconds, growth_mb, verdict, tried, case.name, said))
        assert seconds < LONGEST_S + 2 and growth_mb < GROWTH_MB, f"{seconds:.1f} s, {growth_mb:.0f} MB: {said}"
        assert verdict != "sample" or case.fine, f"read as {tried}: {said}"
    assert not (tmp_path / "owned").exists() and not (folder / "owned").exists()


def test_in_all(figure, soak):
    """What the tests above measured; they run before."""
    names = {name for *_, name, _ in TRIED}
    assert len({case.name for case in HOSTILE}) >= 60
    if len(names) < 60:
        pytest.skip("not all of the files were tried")
    slowest, largest = max(TRIED, key=lambda one: one[0]), max(TRIED, key=lambda one: one[1])
    ended = {name for *_, verdict, _, name, _ in TRIED if verdict == "died"}
    figure("hostile files", f"{len(names)}, process {os.getpid()} still here", "at least 60, same process")
    figure("slowest hostile file", f"{slowest[0]:.1f} s ({slowest[4]})", f"under {LONGEST_S} s")
    figure("most memory for a hostile file", f"{largest[1]:.0f} MB ({largest[4]})", f"under {GROWTH_MB} MB")
    figure("hostile files that ended their reader", len(ended), "any number: the app goes on")
    for seconds, growth_mb, verdict, modality, name, said in sorted(TRIED, reverse=True):
        if verdict == "died" or seconds > 3:
            print(f"{seconds:5.1f} s {growth_mb:4.0f} MB {verdict} {modality} {name}: {said}")
