"""The files that the measure of time makes, and what it counts."""

import json
from collections import Counter

import numpy as np
import pytest

from onellm.modalities import load
from onellm.modalities.audio import RATE_HZ
from train.small import timelines
from train.small.items import Item


def test_a_sound_lies_where_it_is_said():
    tone = np.sin(np.arange(RATE_HZ) / 5).astype(np.float32)
    made = timelines.placed([(25, 0.01 * tone), (5, tone)], seed=0)
    loud = np.sqrt(np.mean(made.reshape(-1, RATE_HZ) ** 2, axis=1))
    assert len(loud) == timelines.LONG_S and np.flatnonzero(loud > 0.01).tolist() == [5, 25]
    assert loud[[5, 25]] == pytest.approx(0.05, abs=0.001) and 0 < loud[0] < 0.002


def test_a_film_has_its_frames_and_its_sound(tmp_path):
    frames = np.repeat(np.arange(20, 240, 40, dtype=np.uint8), 64 * 64 * 3).reshape(-1, 64, 64, 3)
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    path = timelines.film(tmp_path / "a.mp4", frames, tone)
    seen, heard = load("video", path, frames=6), load("audio", path, track=True)
    assert seen.sound and abs(seen.seconds - timelines.FILM_S) < 0.2 and abs(heard.seconds - timelines.FILM_S) < 0.2
    assert np.abs(seen.array.mean(axis=(1, 2, 3)) - np.arange(20, 240, 40)).max() < 12
    assert abs(int(np.abs(np.fft.rfft(heard.array[RATE_HZ : 2 * RATE_HZ])).argmax()) - 440) <= 1


def test_every_way_is_measured_on_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELLM_CORPUS", str(tmp_path))
    for modality, names in {"audio": ["dog", "rain", "bell"], "video": ["chair", "lamp"]}.items():
        shared = {"kind": modality, "split": "dev", "file": None}
        items = [Item(id=n, name=n, noun=n, accept=[n], group=n, **shared) for n in names]
        (tmp_path / f"{modality}.jsonl").write_text("\n".join(json.dumps(vars(item)) for item in items))

    def sample(item):
        array = np.full((8, 32, 32, 3), 99, np.uint8) if item.kind == "video" else np.ones(RATE_HZ, np.float32)
        return type("Sample", (), {"array": array})

    asked = []

    def answer(chat, questions, batch):
        asked.extend(parts for parts, _ in questions)
        return ["A dog, rain, a bell, a chair and a lamp."] * len(questions)

    class Chat:
        class processor:
            modalities = {"audio": {"token_id": 9}}

            @staticmethod
            def lay_out(parts):
                return [9, 9, 1], list(parts)

    monkeypatch.setattr(timelines, "load_sample", sample)
    monkeypatch.setattr(timelines, "ask_all", answer)
    found = list(timelines.measure_timelines(Chat, "dev", limit=3))
    counts = Counter(title for title, _ in found)
    assert list(counts.values()) == [1 + len(timelines.WAYS), len(timelines.WAYS), 2, 2]
    assert all((row.right, row.positions, row.n) == (1, 2, 3) for _, row in found)
    ways = [part for parts in asked for part in parts if isinstance(part, dict)]
    assert sum("sound" in part for part in ways) == 3 and all("path" in part for part in ways)
    assert "| in one look | 3 | 1.00 | 1.00 | 2 |" in timelines.table(found)
