"""A published checkpoint (csuhan/OneLLM-7B, one pickle of Meta's layout) turned into a model folder.

The file is read memory-mapped and written shard by shard, so that the memory needed does not grow with it.
"""

import functools
import json
import pickle
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers import GenerationConfig

from onellm import disk
from onellm.auto import OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.errors import ModelError
from onellm.model.layout import PREFIX, Tensor, plan
from onellm.model.llama_tokenizer import STOP, load_tokenizer
from onellm.progress import Report, bar

SHARD_BYTES = 1_000_000_000


def convert(
    checkpoint: str | Path,
    out: str | Path,
    tokenizer: str | Path | None = None,
    params: str | Path | Mapping | None = None,
    progress: bool = True,
    report: Report | None = None,
) -> Path:
    """Turn a published checkpoint into a model folder.

    Args:
        checkpoint: the `.pth` file.
        out: the folder to make; it must not exist.
        tokenizer: the sentencepiece file; by default `tokenizer.model` beside the checkpoint, where there is one.
        params: what shapes do not tell, or a JSON file of it; by default `params.json` beside the checkpoint, where
            there is one. See `layout.read_config`.
        progress: show a progress bar on standard error.
        report: is told how far it is, instead.

    Returns:
        `out`.

    Raises:
        ModelError: a file is not what it should be, the folder exists, or the disk is too small; nothing is left.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    beside = {name: checkpoint.with_name(name) for name in ("tokenizer.model", "params.json")}
    tokenizer = tokenizer or (beside["tokenizer.model"] if beside["tokenizer.model"].exists() else None)
    params = params or (beside["params.json"] if beside["params.json"].exists() else {})
    published = _read(checkpoint)
    if not any(key.startswith(PREFIX) for key in published):
        raise ModelError(
            f"{checkpoint} is the checkpoint of another model (no key begins with '{PREFIX}', the first is "
            f"'{next(iter(published), '')}'); give OneLLM's consolidated.00-of-01.pth."
        )
    config, tensors = plan(published, params if isinstance(params, Mapping) else _read_params(Path(params)))
    with _folder(out) as folder:
        if tokenizer:
            words = load_tokenizer(tokenizer, config.text_config.vocab_size)
            OneLLMProcessor.from_config(words, config).save_pretrained(folder)
        else:
            print("No tokenizer.model was given: the folder gets no tokenizer, so it cannot chat.", file=sys.stderr)
        config.architectures = [OneLLMForConditionalGeneration.__name__]
        config.save_pretrained(folder)
        text = config.text_config
        GenerationConfig(
            bos_token_id=text.bos_token_id,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.pad_token_id,
            stop_strings=[STOP] if tokenizer else None,
        ).save_pretrained(folder)
        del published
        _write_shards(checkpoint, tensors, folder, progress, report)
    return out


def _read_params(path: Path) -> dict:
    """Read Meta's params.json."""
    try:
        params = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); give the params.json of the checkpoint.") from error
    if not isinstance(params, dict):
        raise ModelError(f"{path} holds no JSON object; give the params.json of the checkpoint.")
    return params


def _read(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Map a checkpoint into memory; nothing of it is read before it is used, and no code in it runs."""
    if not checkpoint.is_file():
        raise ModelError(f"There is no file {checkpoint}; give the path of consolidated.00-of-01.pth.")
    if not zipfile.is_zipfile(checkpoint):
        with checkpoint.open("rb") as file:
            begin = file.read(2)
        if begin == b"PK":
            raise ModelError(f"{checkpoint} is cut off, its end is missing; download it again.")
        if begin[:1] == b"\x80":
            raise ModelError(
                f"{checkpoint} is a pickle of an old PyTorch, which cannot be read piece by piece; "
                "load it where there is memory enough and save it again with torch.save of PyTorch 1.6 or later."
            )
        raise ModelError(f"{checkpoint} is no PyTorch checkpoint; give OneLLM's consolidated.00-of-01.pth.")
    try:
        published = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{checkpoint} holds more than tensors, maybe code, and was not read; download it from csuhan/OneLLM-7B."
        ) from error
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise ModelError(f"{checkpoint} is damaged ({str(error).splitlines()[0]}); download it again.") from error
    table = isinstance(published, dict) and published.items()
    if not table or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in table):
        raise ModelError(f"{checkpoint} is no plain table of tensors; give OneLLM's consolidated.00-of-01.pth.")
    return published


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """Lend a hidden folder that becomes `out` if all goes well, and vanishes otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.with_name(f".{out.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            try:
                if out.exists():
                    raise ModelError(f"{out} exists already; remove it or give another folder.")
                with disk.whole(out) as hidden:
                    hidden.mkdir()
                    yield hidden
            finally:
                with suppress(OSError):  # Windows removes it itself
                    lock.unlink()
    except Timeout as error:
        raise ModelError(f"Another process is making {out} just now; wait for it or give another folder.") from error


def _write_shards(
    checkpoint: Path, tensors: dict[str, Tensor], folder: Path, progress: bool, report: Report | None
) -> None:
    """Write our tensors in files of about `SHARD_BYTES`."""
    published = _read(checkpoint)
    ours = {}
    for name, tensor in tensors.items():
        dtype = functools.reduce(torch.promote_types, [published[key].dtype for key in tensor.sources])
        ours[name] = torch.empty(tensor.shape, dtype=dtype, device="meta")
    total = sum(value.nbytes for value in ours.values())
    free = shutil.disk_usage(folder).free
    if free < total + 100_000_000:
        raise ModelError(
            f"The model needs {total / 1e9:.1f} GB on the disk of {folder.parent} and {free / 1e9:.1f} GB are free; "
            "make room or give a folder on another disk."
        )
    split = split_torch_state_dict_into_shards(ours, max_shard_size=SHARD_BYTES)
    with bar(
        report, "convert", total=total, unit="B", unit_scale=True, desc="Converting", disable=not progress
    ) as told:
        for file, names in split.filename_to_tensors.items():
            published = _read(checkpoint)  # anew, which gives back the memory of the pages read for the last file
            shard = {name: tensors[name].build(published) for name in names}
            save_file(shard, folder / file, metadata={"format": "pt"})
            told.update(sum(value.nbytes for value in shard.values()))
            del published, shard
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
