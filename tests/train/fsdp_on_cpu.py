"""python -m train under FSDP without a GPU: accelerate shards on GPUs alone, so it is told that these are some.

Everything else is as `accelerate launch --config_file train/accelerate/fsdp.yaml` has it; processes talk over gloo.
"""

import os
import sys

import yaml
from accelerate.state import DistributedType, PartialState

config, *arguments = sys.argv[1:]
with open(config) as file:
    for key, value in yaml.safe_load(file)["fsdp_config"].items():
        os.environ[key.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
os.environ["ACCELERATE_USE_FSDP"] = "true"
start = PartialState.__init__


def start_as_gpus(self, *arguments, **options):
    start(self, *arguments, **options)
    if self.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


PartialState.__init__ = start_as_gpus

from train.__main__ import main  # noqa: E402

sys.exit(main(arguments))
