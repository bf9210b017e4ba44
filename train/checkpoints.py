"""The checkpoints of a stage: which is the newest, and that nothing in one runs when it is read."""

import pickle
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import get_last_checkpoint

DESCRIBED = ".metadata"  # of a checkpoint in shards; PyTorch unpickles it, unlike its tensors, as it is
KNOWN = {
    "torch.distributed.checkpoint.metadata": None,  # every class of it
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))),
    "pathlib": ("PosixPath", "WindowsPath", "Path"),
    "collections": ("OrderedDict",),
}


def last_checkpoint(out: Path) -> tuple[str | None, int]:
    """Return the newest checkpoint of a stage and its step; None and 0 where there is none."""
    folder = out / "checkpoints"
    last = get_last_checkpoint(str(folder)) if folder.exists() else None
    return last, int(last.rpartition("-")[2]) if last else 0


def check_shards(checkpoint: str) -> None:
    """Check that what describes a checkpoint in shards builds nothing but descriptions.

    Raises:
        pickle.UnpicklingError: it asks for something else, which could run code.
    """
    for path in Path(checkpoint).rglob(DESCRIBED):
        with path.open("rb") as file:
            _Unpickler(file).load()


class _Unpickler(pickle.Unpickler):
    """Reads descriptions of shards; refuses anything else in a pickle."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a known class.

        Raises:
            pickle.UnpicklingError: any other.
        """
        names = KNOWN.get(module, ())
        found = super().find_class(module, name) if names is None or name in names else None
        if found is None or names is None and getattr(found, "__module__", None) != module:
            raise pickle.UnpicklingError(f"its {DESCRIBED} asks for {module}.{name}")
        return found
