"""Trains on two processes that are forked, as `torch.distributed.run` would start them: what is slow is imported once.

`python forked_processes.py`, orders and answers as lines of JSON: {"recipe", "runs", "fsdp": a configuration of
accelerate or null, "kill": true to kill both once there is a checkpoint} gives {"statuses", "said"}.

accelerate shards on GPUs alone (FSDP), so there it is told that the processes have some; they talk over gloo.
"""

import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

import yaml
from accelerate.state import DistributedType, PartialState
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from train import trainer  # noqa: E402, F401
from train.__main__ import main  # noqa: E402

PROCESSES = 2


def shard(config):
    """Set what `accelerate launch` would for a configuration of FSDP."""
    for key, value in yaml.safe_load(Path(config).read_text())["fsdp_config"].items():
        os.environ[key.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    start = PartialState.__init__

    def start_as_gpus(self, *arguments, **options):
        start(self, *arguments, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = start_as_gpus


def fork(order, rank, port, output):
    """Start one of the processes."""
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        for stream in (1, 2):
            os.dup2(output, stream)
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in variables.items()})
        tqdm.set_lock(threading.RLock())  # its own is shared, and whoever is killed holding it never lets go
        if order["fsdp"]:
            shard(order["fsdp"])
        status = main([order["recipe"], "--runs", order["runs"]])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run(order):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = os.open(f"{order['runs']}.log", os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_APPEND)
    children = [fork(order, rank, port, log) for rank in range(PROCESSES)]
    if order["kill"]:
        ends = time.monotonic() + 240
        while not list(Path(order["runs"]).glob("toy/checkpoints/checkpoint-*")) and time.monotonic() < ends:
            time.sleep(0.005)
        for child in children:
            os.kill(child, signal.SIGKILL)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(log)
    return {"statuses": statuses, "said": Path(f"{order['runs']}.log").read_text(errors="replace")}


gc.collect()
gc.freeze()  # a collection in a forked process would touch, and so copy, all that was imported
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what a run prints is no answer
for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), file=answers, flush=True)
os._exit(0)
