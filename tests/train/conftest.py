"""A toy corpus; a toy LLM and the recipe of a run that takes seconds."""

import json

import numpy as np
import pytest
from toy_recipe import scans, settings, toy  # noqa: F401


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Build a corpus of two kinds of brain scan, w3 and w4."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    monkeypatch.setenv("ONELLM_CORPUS", str(folder))
    chance = np.random.default_rng(0)
    base = {"w3": chance.normal(size=20), "w4": chance.normal(size=20)}
    lines, rows = [], []
    for index in range(40):
        name = ["w3", "w4"][index % 2]
        rows.append(base[name] + 0.1 * chance.normal(size=20))
        lines.append(
            {"id": f"{index}", "kind": "fmri", "file": "rows.npz", "index": index, "name": name, "noun": name}
            | {"accept": [name], "group": str(index), "split": "train" if index < 30 else "test"}
        )
    np.savez(folder / "rows.npz", rows=np.array(rows, np.float32))
    (folder / "fmri.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for empty in ("imagenet", "audioset", "point", "imu"):
        (folder / f"{empty}.jsonl").write_text("")
    return folder
