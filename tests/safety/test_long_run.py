"""A long life: many turns with uploads, and neither the app's memory nor its folder of uploads grows."""

import time

import httpx
import numpy as np
from PIL import Image
from visitor import Visitor, free_s

GROWTH_BYTES = 100_000_000
LIFETIME_S = 60
TURNS_A_CHAT = 20


def memory_bytes(url):
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes"))


def size_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def talk(url, turns, example_files, tmp_path, first=0):
    """Have a visitor ask so many questions, each about a file that nobody brought before; yields after each."""
    random, modalities, asked = np.random.default_rng(first), list(example_files), TURNS_A_CHAT
    for number in range(first, first + turns):
        if asked == TURNS_A_CHAT:
            visitor, asked = Visitor(url), 0
        asked += 1
        if number % 3:
            path = tmp_path / f"{number}.png"
            Image.fromarray(random.integers(0, 255, (300, 400, 3), np.uint8)).save(path)
            visitor.upload(path)
            path.unlink()
        else:
            visitor.upload(example_files[modalities[number // 3 % len(modalities)]])
        visitor.ask(f"What is this? {number}")
        assert len(visitor.record["turns"]) == asked and not visitor.told, (visitor.told, visitor.note)
        yield


def test_memory_stays_and_uploads_go(request, soak, example_files, tmp_path, figure):
    long = soak(False, True)
    if long:
        url = request.getfixturevalue("own_app")(ONELLM_LIMIT_UPLOAD_LIFETIME_S=str(LIFETIME_S))
    else:
        url = request.getfixturevalue("ready_url")
    warm, turns = soak((4, 6), (80, 420))
    for _ in talk(url, warm, example_files, tmp_path):
        pass
    free_s(url)
    before, most = memory_bytes(url), 0
    for _ in talk(url, turns, example_files, tmp_path, first=warm):
        if long:
            most = max(most, size_bytes(tmp_path / "uploads"))
    grown = memory_bytes(url) - before
    figure(
        f"{warm + turns} turns with uploads, memory growth after the first {warm}", f"{grown / 1e6:.0f} MB", "< 100 MB"
    )
    assert grown < GROWTH_BYTES
    if long:
        time.sleep(LIFETIME_S * 1.5)
        left = size_bytes(tmp_path / "uploads")
        brought = turns * 2 / 3 * 300 * 400 * 3
        found = f"{brought / 1e6:.0f} MB brought, at most {most / 1e6:.0f} MB there, {left / 1e6:.1f} MB at the end"
        figure(f"uploads kept for {LIFETIME_S} s", found, "less there than was brought, 0 at the end")
        assert left < most < brought and left < 1e6
