"""Two real processes (gloo, on the CPU): the same losses as one, however the work is shared; killed and resumed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "train" / "accelerate"


def launch(recipe, runs, *options):
    """Start a run as a person would; returns the process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *(options or ("-m", "train")), str(recipe), "--runs", str(runs)]
    return subprocess.Popen(
        command, cwd=runs.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]


def train(recipe, runs, *options):
    runs.mkdir(exist_ok=True)
    finish(launch(recipe, runs, *options))
    log = json.loads((runs / "toy" / "losses.json").read_text())
    return [line["loss"] for line in log if "loss" in line], load_file(runs / "toy" / "model.safetensors")


LAUNCH = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0")
DDP = (*LAUNCH, "--config_file", str(CONFIGS / "cpu.yaml"), "-m", "train")
FSDP = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
FSDP += (str(Path(__file__).parent / "fsdp_on_cpu.py"), str(CONFIGS / "fsdp.yaml"))


@pytest.fixture
def recipe(settings, tmp_path):
    """Two kinds of batches in turns, shared by two processes or accumulated by one."""
    text = tmp_path / "text.json"
    turns = [{"from": "human", "value": "w9 w8"}, {"from": "gpt", "value": "w3 w4 w5"}]
    text.write_text(json.dumps([{"id": str(index), "conversations": turns} for index in range(40)]))
    settings["data"].append({"kind": "text", "source": "instructions", "path": str(text), "weight": 0.5})
    settings |= {"objective": "chat", "train": ["tokenizers", "projector", "language_model"], "learning_rate": 1e-3}
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(settings | {"micro_batch": 2, "lockstep": 2, "workers": 1}))
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_understands_every_configuration(path):
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(path))
    assert found.num_processes > 1
    assert found.mixed_precision == "no"  # the recipe says


@pytest.mark.slow
@pytest.mark.parametrize("how", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_give_the_losses_of_one(recipe, tmp_path, how):
    one, weights = train(recipe, tmp_path / "one")
    both, shared = train(recipe, tmp_path / "two", *how)
    assert both == pytest.approx(one, rel=1e-3)
    assert all(torch.allclose(value, shared[name], atol=1e-4) for name, value in weights.items())


@pytest.mark.slow
@pytest.mark.parametrize("how", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_killed_go_on_as_if_never_stopped(recipe, tmp_path, how):
    values = yaml.safe_load(recipe.read_text()) | {"steps": 30, "save_every": 4}
    recipe.write_text(yaml.safe_dump(values))
    whole, weights = train(recipe, tmp_path / "whole", *how)
    runs = tmp_path / "broken"
    runs.mkdir()
    process = launch(recipe, runs, *how)
    deadline = time.monotonic() + 240
    while not list(runs.glob("toy/checkpoints/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    started = psutil.Process(process.pid)
    for victim in [started, *started.children(recursive=True)]:
        victim.kill()
    process.communicate()
    assert not (runs / "toy" / "losses.json").exists()
    again, resumed = train(recipe, runs, *how)
    assert again == whole
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())
