"""Files of tensors as others publish them, mapped into memory: nothing is read before it is used, and no code runs."""

import argparse
import json
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from onellm.errors import ModelError

if TYPE_CHECKING:
    import torch

# what a transformers folder may keep its weights in, the safe form first
NAMES = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
NESTED = ("model", "state_dict")  # keys under which trainers keep the weights beside other things


def read(path: Path) -> "dict[str, torch.Tensor]":
    """Read the tensors of a file (safetensors, or a pickle of tensors), or of a folder that transformers has written.

    Raises:
        ModelError: it is missing, damaged, or something else.
    """
    if path.is_dir():
        return {key: value for file in files_of(path) for key, value in read(file).items()}
    if not path.is_file():
        raise ModelError(f"There is no file {path}; give the path of a checkpoint.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} is damaged ({str(error).splitlines()[0]}); download it again.") from error
    return _read_pickle(path)


def files_of(folder: Path) -> list[Path]:
    """Return the files that hold the weights of a transformers folder.

    Raises:
        ModelError: there are none, or its index cannot be read.
    """
    name = next((name for name in NAMES if (folder / name).exists()), None)
    if name is None:
        raise ModelError(f"The folder {folder} holds no weights; expected is one of {', '.join(NAMES)}.")
    if not name.endswith(".json"):
        return [folder / name]
    return [folder / file for file in sorted(set(read_json(folder / name)["weight_map"].values()))]


def read_json(path: Path) -> dict:
    """Read a JSON file that holds an object.

    Raises:
        ModelError: it does not.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read as JSON ({error}); give the file that came with the checkpoint."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object; give the file that came with the checkpoint.")
    return content


def _read_pickle(path: Path) -> "dict[str, torch.Tensor]":
    """Map a pickle of tensors into memory."""
    import torch

    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            begin = file.read(2)
        if begin == b"PK":
            raise ModelError(f"{path} is cut off, its end is missing; download it again.")
        if begin[:1] == b"\x80":
            raise ModelError(
                f"{path} is a pickle of an old PyTorch, which cannot be read piece by piece; "
                "load it where there is memory enough and save it again with torch.save of PyTorch 1.6 or later."
            )
        raise ModelError(f"{path} is no PyTorch checkpoint; give the file that was published.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # which trainers keep their settings in
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, maybe code, and was not read; download it from where it was published."
        ) from error
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path} is damaged ({str(error).splitlines()[0]}); download it again.") from error
    for name in NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    table = isinstance(content, dict) and content.items()
    if not table or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in table):
        raise ModelError(f"{path} is no plain table of tensors; give the file that was published.")
    return content
