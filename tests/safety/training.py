"""A tiny run with everything a run writes, started again and again by killed_runs.py, and what it leaves."""

import contextlib
import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
CLOCK = ("runtime", "per_second", "memory_gb")  # figures of this machine and moment


@contextlib.contextmanager
def server():
    """Yield a function that has one run done in a process of its own and tells how it went."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        [sys.executable, HERE / "killed_runs.py"], stdin=-1, stdout=-1, text=True, env=environment, cwd=HERE
    ) as process:

        def order(recipe, runs, moment=0, size=0, full=False):
            order = {"recipe": str(recipe), "runs": str(runs), "seen": f"{runs}.seen", "moment": moment}
            process.stdin.write(json.dumps(order | {"bytes": size, "full": full}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield order
        process.stdin.close()


def write_recipe(settings, scans, folder):
    """Write a recipe whose run evaluates, answers, skips bad files, logs at odd steps and writes for TensorBoard."""
    for bad in range(0, 48, 6):
        (scans / f"{bad}.npy").write_bytes(b"no array")
    settings |= {"steps": 7, "save_every": 2, "log_every": 3, "report": ["tensorboard"], "evaluate_every": 4}
    settings["evaluation"] = [settings["data"][0] | {"name": "held out"}]
    settings["evaluation_batches"] = 1
    settings["samples"] = {"every": 3, "tokens": 1, "ask": [{"fmri": str(scans / "1.npy"), "question": "w9"}]}
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def left(runs):
    """Return all that a finished run leaves, in a form that compares: name -> content, without times."""
    stage, found = runs / "toy", {}
    for path in stage.rglob("*"):
        name = str(path.relative_to(stage))
        if path.is_dir() or name.startswith("logs"):
            continue
        if path.suffix in (".pt", ".pth"):
            found[name] = repr(torch.load(path, weights_only=False))  # written by this very test
        elif path.suffix == ".safetensors":
            found[name] = {key: value.tolist() for key, value in load_file(path).items()}
        elif path.name in ("losses.json", "trainer_state.json"):
            found[name] = without_times(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found | {"logs": drawn(stage / "logs")}


def without_times(content):
    """Drop the figures that no two runs share."""
    if isinstance(content, list):
        return [without_times(item) for item in content]
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if not any(part in key for part in CLOCK)}
    return content


def drawn(logs):
    """Return the points that TensorBoard draws: tag -> (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not any(part in tag for part in CLOCK)]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def batches(seen):
    """Return the batches of each start of a run: a list of (step, keys) each."""
    starts = []
    for line in Path(seen).read_text().splitlines():
        batch = json.loads(line)
        if not starts or batch[0] <= starts[-1][-1][0]:
            starts.append([])
        starts[-1].append(batch)
    return starts


def fresh(folder):
    """Yield folders for runs."""
    for number in count():
        yield folder / f"runs{number}"
