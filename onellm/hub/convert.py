"""Published checkpoints, of whatever layout, turned into a model folder.

Files are read memory-mapped and written shard by shard, so that the memory needed does not grow with them.
"""

import functools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from huggingface_hub import save_torch_state_dict, split_torch_state_dict_into_shards
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from onellm.errors import ModelError
from onellm.hub import tensor_files
from onellm.hub.base_tokenizer import load_tokenizer
from onellm.hub.layouts import Tensor, plan_with, recognise
from onellm.hub.llm import with_llm
from onellm.model import base_parts
from onellm.model.auto import OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.model.configuration import OneLLMConfig, merge
from onellm.model.processing import READER
from onellm.model.projectors import WordAnchor
from onellm.utils import atomic
from onellm.utils.progress import Report, bar

SHARD_BYTES = 1_000_000_000
LLM = "language_model."  # before the keys of an LLM that comes in a folder of its own

AnyPath = str | Path


def convert(
    checkpoint: AnyPath | Sequence[AnyPath],
    out: AnyPath,
    tokenizer: AnyPath | None = None,
    params: AnyPath | Mapping | None = None,
    progress: bool = True,
    report: Report | None = None,
    *,
    llm: AnyPath | None = None,
    preset: str | None = None,
) -> Path:
    """Turn a published checkpoint into a model folder.

    Args:
        checkpoint: a file, or a folder that transformers has written; or several of these, of which a later one
            replaces tensors of those before it.
        out: the folder to make; it must not exist.
        tokenizer: LLaMA's sentencepiece file, or a folder with a tokenizer; by default the folder of the LLM or of
            the checkpoint, or `tokenizer.model` beside it, where there is one.
        params: what shapes do not say (see the layout's `read_config`), or a JSON file of it; by default the
            config.json of the checkpoint's folder, or `params.json` beside it, where there is one.
        progress: show a progress bar on standard error.
        report: called with how far it is, instead.
        llm: a transformers folder of the LLM, for checkpoints that come without it; with a model folder whose
            perception serves any LLM, such as onellm-small's, what `llm.with_llm` takes.
        preset: which model it is, where the checkpoint's keys do not say it.

    Returns:
        `out`.

    Raises:
        ModelError: a file is not what it should be, the folder exists, or the disk is too small; nothing is left.
    """
    one = isinstance(checkpoint, str | Path)
    paths, out = [Path(path) for path in ([checkpoint] if one else checkpoint)], Path(out)
    if llm is not None and len(paths) == 1 and tensor_files.read_json(paths[0] / "config.json").get("modalities"):
        return rebuild(paths[0], str(llm), out)
    llm = None if llm is None else Path(llm)
    published = _read(paths, llm)
    layout = recognise(published, preset)

    def read() -> dict[str, torch.Tensor]:
        return {layout.rename(key): value for key, value in _read(paths, llm).items()}

    del published
    config, tensors = plan_with(layout, read(), _params(paths, llm, params), preset)
    with whole_folder(out) as folder:
        read_tokenizer = _tokenizer(tokenizer, paths, llm, config)
        if read_tokenizer:
            processor = OneLLMProcessor.from_config(read_tokenizer, config)
            processor.reader = _reader(paths, config)
            processor.save_pretrained(folder)
        else:
            print("No tokenizer.model was given: the folder gets no tokenizer, so it cannot chat.", file=sys.stderr)
        config.architectures = [OneLLMForConditionalGeneration.__name__]
        config.save_pretrained(folder)
        generation_of(config).save_pretrained(folder)
        _write_shards(read, tensors, folder, progress, report)
    return out


def rebuild(folder: Path, llm: str, out: Path) -> Path:
    """Write a model folder with another LLM behind the perception of the one in `folder`; the LLM is not copied.

    Args:
        folder: of a model whose soft tokens are anchored to words.
        llm: as for `with_llm`.
        out: the folder to make; it must not exist.

    Raises:
        ModelError: as `with_llm`, or `out` exists.
    """
    config, tokenizer = with_llm(OneLLMConfig.from_pretrained(folder), llm)
    tensors = {name: value for file in base_parts.weight_files(folder) for name, value in load_file(file).items()}
    anchor = WordAnchor(**config.projector["anchor"], length=config.projector["queries"])
    anchor.spell(tokenizer)
    tensors["projector.anchor.token_ids"] = anchor.token_ids
    perception = {name: value for name, value in tensors.items() if not name.startswith("language_model.")}
    with whole_folder(out) as made:
        OneLLMProcessor.from_config(tokenizer, config).save_pretrained(made)
        config.save_pretrained(made)
        generation_of(config).save_pretrained(made)
        save_torch_state_dict(perception, made, max_shard_size="9MB", shared_tensors_to_discard=[])
    return out


def _read(paths: Sequence[Path], llm: Path | None) -> dict[str, torch.Tensor]:
    """Map the files into memory and join them."""
    joined = {} if llm is None else {LLM + key: value for key, value in tensor_files.read(llm).items()}
    for path in paths:
        joined |= tensor_files.read(path)
    return joined


def _params(paths: Sequence[Path], llm: Path | None, given: AnyPath | Mapping | None) -> dict:
    """Gather what shapes do not say."""
    if given is not None and not isinstance(given, Mapping):
        given = tensor_files.read_json(Path(given))
    found: dict = {}
    for path in paths:
        file = path / "config.json" if path.is_dir() else path.with_name("params.json")
        found |= tensor_files.read_json(file) if given is None and file.exists() else {}
    if llm is not None:
        found["text_config"] = tensor_files.read_json(llm / "config.json")
    return merge(found, given or {})


def _tokenizer(given: AnyPath | None, paths: Sequence[Path], llm: Path | None, config: OneLLMConfig) -> Any:
    """Find and load the tokenizer; None where there is none."""
    if given is None:
        folders = [path for path in (llm, *reversed(paths)) if path is not None and path.is_dir()]
        beside = [path.with_name("tokenizer.model") for path in paths]
        given = next((path for path in (*folders, *beside) if path.exists()), None)
    return None if given is None else load_tokenizer(given, config)


def _reader(paths: Sequence[Path], config: OneLLMConfig) -> Any:
    """Load the tokenizer of a projector that reads the question; None where it does not."""
    if not config.instructed:
        return None
    from transformers import AutoTokenizer

    folder = next((path / READER for path in reversed(paths) if (path / READER).is_dir()), None)
    if folder is None:
        raise ModelError(
            f"The projector reads the question, and no folder '{READER}' with its tokenizer lies in the checkpoint's "
            "folder; download it too."
        )
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def generation_of(config: OneLLMConfig) -> GenerationConfig:
    """Say how answers begin and end, unless somebody says otherwise."""
    text = config.text_config
    ids = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    special = {name: getattr(text, name, None) for name in ids}
    return GenerationConfig(**(special | {"stop_strings": config.stop_strings} | config.generation))


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Lend a hidden folder that becomes `out` if all goes well, and vanishes otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.with_name(f".{out.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            try:
                if out.exists():
                    raise ModelError(f"{out} exists already; remove it or give another folder.")
                with atomic.whole(out) as hidden:
                    hidden.mkdir()
                    yield hidden
            finally:
                with suppress(OSError):  # Windows removes it itself
                    lock.unlink()
    except Timeout as error:
        raise ModelError(f"Another process is making {out} just now; wait for it or give another folder.") from error


def _write_shards(
    read: Callable[[], dict[str, torch.Tensor]],
    tensors: dict[str, Tensor],
    folder: Path,
    progress: bool,
    report: Report | None,
) -> None:
    """Write our tensors in files of about `SHARD_BYTES`."""
    published = read()
    ours = {}
    for name, tensor in tensors.items():
        dtype = functools.reduce(torch.promote_types, [published[key].dtype for key in tensor.keys])
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
    ) as progress_bar:
        for file, names in split.filename_to_tensors.items():
            published = read()  # anew, which gives back the memory of the pages read for the last file
            shard = {name: tensors[name].build(published) for name in names}
            save_file(shard, folder / file, metadata={"format": "pt"})
            progress_bar.update(sum(value.nbytes for value in shard.values()))
            del published, shard
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
