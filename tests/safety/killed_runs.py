"""Trains in forked processes that die at a chosen moment: `python killed_runs.py`, orders and answers as lines of JSON.

An order is {"recipe", "runs", "seen", "moment", "bytes"}: at the process's moment number `moment` (a training step, an
fsync, or a file below `runs` that is opened for writing, renamed or removed; 0: never) it is killed at once, or, where
`bytes` is above 0, by the kernel in the middle of the next write that takes a file beyond that size. With "full": true
such writes fail instead, as on a full disk. The answer is {"status", "moments",
"said"}; the moments are those of the first order.

The batches that were trained on go to `seen`, one line each. The first order, which must let its run live, is carried
out in this process, which has then imported and computed all that takes long.
"""

import gc
import json
import os
import resource
import signal
import sys
import threading
import traceback
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
torch.set_num_threads(1)  # a forked process has no others
tqdm.set_lock(threading.RLock())  # its own is shared by processes, and whoever is killed holding it never lets go

from train import trainer  # noqa: E402
from train.__main__ import main  # noqa: E402

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
WRITING = os.O_WRONLY | os.O_RDWR


class Doom:
    """Counts moments, and ends the process at the chosen one."""

    def __init__(self):
        self.order, self.count = {"moment": 0, "runs": "/nowhere"}, 0

    def moment(self):
        self.count += 1
        if self.count != self.order["moment"]:
            return
        if not self.order["bytes"]:
            os.kill(os.getpid(), signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.order["bytes"], resource.RLIM_INFINITY))

    def audit(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            if not flags & WRITING:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, int) and os.fsdecode(path).startswith(self.order["runs"]):
            self.moment()

    def watch(self, place, name):
        """Count the calls of a function as moments."""
        real = getattr(place, name)

        def counted(*arguments, **options):
            self.moment()
            return real(*arguments, **options)

        setattr(place, name, counted)

    def note_batches(self):
        """Write the step and the examples of every batch that is trained on."""
        real = trainer.StageTrainer.compute_loss

        def compute_loss(trainer, model, inputs, *arguments, **options):
            if model.training:
                with open(self.order["seen"], "a") as seen:
                    seen.write(json.dumps([trainer.state.global_step, *inputs["keys"]]) + "\n")
            return real(trainer, model, inputs, *arguments, **options)

        trainer.StageTrainer.compute_loss = compute_loss

    def run(self, order):
        self.order, self.count = order, 0
        return main([order["recipe"], "--runs", order["runs"]])


def run_to_death(doom, order):
    """Carry out an order in a process of its own; return its status and what it printed."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            for stream in (1, 2):
                os.dup2(send, stream)
            if not order["full"]:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
            status = doom.run(order)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(send)
    with open(receive, errors="replace") as printed:
        said = printed.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what a run prints is no answer
doom = Doom()
sys.addaudithook(doom.audit)
doom.watch(os, "fsync")
doom.watch(trainer.StageTrainer, "training_step")
doom.note_batches()
warm = False
for line in sys.stdin:
    order = json.loads(line)
    status, said = run_to_death(doom, order) if warm else (doom.run(order), "")
    if not warm:
        warm = True
        gc.collect()
        gc.freeze()  # a collection in a forked process would touch, and so copy, all of this
    answers.write(json.dumps({"status": status, "moments": doom.count, "said": said}) + "\n")
    answers.flush()
os._exit(0)  # some libraries complain at length about a process that ends
