"""Two real processes (gloo, on the CPU): the same losses as one, however the work is shared; killed and resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from train.recipe import load_recipe
from train.trainer import run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIGS = ROOT / "train" / "accelerate"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
LAUNCH = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0")


@pytest.fixture(scope="module")
def forked():
    """Run a recipe on two processes; see forked_processes.py."""
    command = [sys.executable, HERE / "forked_processes.py"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=ENVIRONMENT) as server:

        def order(recipe, runs, fsdp=None, kill=False):
            order = {"recipe": str(recipe), "runs": str(runs), "fsdp": fsdp and str(fsdp), "kill": kill}
            server.stdin.write(json.dumps(order) + "\n")
            server.stdin.flush()
            done = json.loads(server.stdout.readline())
            assert done["statuses"] == ([-9, -9] if kill else [0, 0]), done["said"][-3000:]

        yield order
        server.stdin.close()


@pytest.fixture
def recipe(settings, tmp_path):
    """Two kinds of batches in turns, shared by two processes or accumulated by one."""
    text = tmp_path / "text.json"
    turns = [{"from": "human", "value": "w9 w8"}, {"from": "gpt", "value": "w3 w4 w5"}]
    text.write_text(json.dumps([{"id": str(index), "conversations": turns} for index in range(40)]))
    settings["data"].append({"kind": "text", "source": "instructions", "path": str(text), "weight": 0.5})
    settings |= {"objective": "chat", "train": ["tokenizers", "projector", "language_model"], "learning_rate": 1e-3}
    settings |= {"micro_batch": 2, "lockstep": 2, "workers": 1, "steps": 16, "save_every": 8}
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def result(runs):
    log = json.loads((runs / "toy" / "losses.json").read_text())
    return [line["loss"] for line in log if "loss" in line], load_file(runs / "toy" / "model.safetensors")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_understands_every_configuration(path):
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(path))
    assert found.num_processes > 1
    assert found.mixed_precision == "no"  # the recipe says


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [None, CONFIGS / "fsdp.yaml"], ids=["ddp", "fsdp"])
def test_two_processes_are_one_and_go_on_when_killed(recipe, tmp_path, forked, fsdp):
    """They give the losses of one process; killed, the end of two that were never stopped, bit by bit."""
    run(load_recipe(recipe), tmp_path / "one")
    forked(recipe, tmp_path / "two", fsdp)
    (losses, weights), (both, shared) = result(tmp_path / "one"), result(tmp_path / "two")
    assert both == pytest.approx(losses, rel=1e-3)
    assert all(torch.allclose(value, shared[name], atol=1e-4) for name, value in weights.items())
    broken = tmp_path / "broken"
    forked(recipe, broken, fsdp, kill=True)
    assert not (broken / "toy" / "losses.json").exists()
    forked(recipe, broken, fsdp)
    again, resumed = result(broken)
    assert again == both
    assert all(torch.equal(value, resumed[name]) for name, value in shared.items())


@pytest.mark.slow
def test_two_processes_start_as_a_person_starts_them(recipe, tmp_path):
    command = [sys.executable, *LAUNCH, "--config_file", CONFIGS / "cpu.yaml", "-m", "train", recipe]
    command += ["--set", "steps=2", "--runs", tmp_path / "runs"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(result(tmp_path / "runs")[0]) == 2
