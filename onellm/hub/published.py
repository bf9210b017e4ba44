"""The published weights by name: found in a cache or downloaded, checked, converted once, kept."""

import errno
import shutil
import sys
from pathlib import Path
from typing import Any

from onellm.errors import ModelError, OneLLMError
from onellm.hub import download
from onellm.hub.download import Published
from onellm.utils.paths import cache_folder
from onellm.utils.progress import Progress, Report

PUBLISHED = {
    "onellm-7b": Published("csuhan/OneLLM-7B", ("params.json", "tokenizer.model", "consolidated.00-of-01.pth")),
    "blip2-opt-2.7b": Published("Salesforce/blip2-opt-2.7b"),
    "blip2-flan-t5-xl": Published("Salesforce/blip2-flan-t5-xl"),
    "instructblip-vicuna-7b": Published("Salesforce/instructblip-vicuna-7b"),
    "llava-1.5-7b": Published("llava-hf/llava-1.5-7b-hf"),
    "idefics-9b": Published("HuggingFaceM4/idefics-9b-instruct", convert=False),
}
# model -> what `convert` makes it of: files that no hub hands out in one piece (docs/systems.md says where they are)
BY_HAND = {
    "llava-1-7b": "--checkpoint clip-vit-large-patch14 --checkpoint LLaVA-7B-v1-1",
    "minigpt4-7b": "--checkpoint blip2_pretrained_flant5xxl.pth --checkpoint pretrained_minigpt4_7b.pth "
    "--llm vicuna-7b-v0",
    "mplug-owl-7b": "--checkpoint mplug-owl-llama-7b",
    "vl-vicuna-7b": "--checkpoint blip2_pretrained_flant5xxl.pth --checkpoint vl-vicuna.pth --llm vicuna-7b "
    "--preset vl-vicuna-7b",
    "lavin-7b": "--checkpoint clip-vit-large-patch14 --checkpoint LLaMA-7B/consolidated.00.pth "
    "--checkpoint sqa-llama-7b.pth",
    "pandagpt-7b": "--checkpoint imagebind_huge.pth --checkpoint pytorch_model.pt --llm vicuna-7b-v0",
}


def model_folder(name: str) -> Path:
    """Return where the converted model lies in the cache, or would lie."""
    return cache_folder() / "models" / name


def folder(name: str) -> Path | None:
    """Return the converted model's folder in the cache, or None where there is none."""
    return model_folder(name) if (model_folder(name) / "config.json").exists() else None


def here(name: str) -> Path | None:
    """Return where a model's weights are without a download: its folder, or the files in a cache; None if nowhere."""
    if (found := folder(name)) or name not in PUBLISHED:
        return found
    files = PUBLISHED[name].files or download.listed_here(name, PUBLISHED[name])
    found = [download.cached(name, PUBLISHED[name], file) for file in files]
    return found[0].parent if found and all(found) else None


def command(name: str) -> str:
    """Return the command that makes a model of `BY_HAND` where it is found then; "" for others."""
    return f"python -m onellm convert {BY_HAND[name]} --out {model_folder(name)}" if name in BY_HAND else ""


def download_bytes(name: str) -> int | None:
    """Ask the hub how much `fetch` would download; None where it does not answer within seconds."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    source = PUBLISHED[name]
    try:
        files = _files(name, timeout_s=3)
        urls = [hf_hub_url(source.repository, file, revision=source.revision) for file in reversed(files)]
        return sum(get_hf_file_metadata(url, timeout=3).size or 0 for url in urls)
    except Exception:  # whatever it is, the hub has not answered
        return None


def available(name: str) -> bool:
    """Tell within seconds whether `fetch` has a chance: the model is in a cache, or the hub answers."""
    return here(name) is not None or name in PUBLISHED and download_bytes(name) is not None


def fetch(name: str, report: Report | None = None) -> Path:
    """Return the model's folder; download, check and convert the published files where the cache has none.

    Args:
        name: a name of `PUBLISHED`.
        report: called with how far it is; by default bars are drawn on standard error.

    Raises:
        ModelError: the name is unknown, the hub cannot be reached, the disk is too small, or a file is not the
            published one. A broken download is kept and goes on next time.
    """
    from filelock import FileLock, Timeout

    if by_hand := command(name):
        raise ModelError(f"{name} is not here, and its weights have to be fetched by hand; then run `{by_hand}`.")
    if name not in PUBLISHED:
        raise ModelError(f"No model '{name}' is published; choose one of {', '.join(PUBLISHED)}.")
    downloads = cache_folder() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    lock = FileLock(downloads / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is fetching {name}; waiting for it", file=sys.stderr)
        _wait_for(lock, name, report)
    try:
        if found := folder(name):
            return found
        files = _files(name)
        download.check_room(name, PUBLISHED[name], files)
        return _convert(name, report, [download.obtain(name, PUBLISHED[name], file, report) for file in files])
    except OneLLMError:
        raise
    except Exception as error:  # versions of the hub's library differ in their transport, and so in its errors
        raise _as_user_error(name, error) from error
    finally:
        lock.release()


def _wait_for(lock: Any, name: str, report: Report | None) -> None:
    """Wait for another process and report it: the report may raise to give up."""
    from filelock import Timeout

    while not lock.is_locked:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            if report is not None:
                report(Progress("wait", name))


def _files(name: str, timeout_s: float | None = None) -> list[str]:
    """Return the files that are needed, the small ones first; of a folder of transformers the hub lists them.

    Raises:
        ModelError: the repository holds no weights.
    """
    from huggingface_hub import HfApi

    source = PUBLISHED[name]
    if source.files:
        return list(source.files)
    if files := download.listed_here(name, PUBLISHED[name]):
        return files
    info = HfApi().model_info(source.repository, revision=source.revision, timeout=timeout_s)
    return download.needed(source, [file.rfilename for file in info.siblings or ()])


def _convert(name: str, report: Report | None, files: list[Path]) -> Path:
    """Make the model's folder, then remove what was downloaded here (what lies in the hub's own cache is not ours)."""
    from onellm.hub.convert import convert

    source, downloads = PUBLISHED[name], download.download_folder(name)
    if source.files:
        params, tokenizer, checkpoint = files
        out = convert(checkpoint, model_folder(name), tokenizer, params, report=report)
    elif source.convert:
        out = convert(downloads, model_folder(name), preset=name, report=report)
    else:
        model_folder(name).parent.mkdir(exist_ok=True)
        return downloads.replace(model_folder(name))
    shutil.rmtree(downloads, ignore_errors=True)
    return out


def _as_user_error(name: str, error: Exception) -> ModelError:
    """Say why there is no model, and how to get it by hand."""
    from huggingface_hub import constants

    source = PUBLISHED[name]
    if getattr(error, "errno", None) == errno.ENOSPC:
        return ModelError(f"The disk of {cache_folder()} is full; make room or set ONELLM_CACHE to another folder.")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    what = ", ".join(source.files) or "its files"
    checkpoint = source.files[-1] if source.files else "FOLDER"
    advice = f"run `python -m onellm convert --checkpoint {checkpoint} --out DIR`"
    beside = " beside them" if source.files else ""
    advice = f"{advice}{beside}, and use --model DIR" if source.convert else "use --model"
    return ModelError(
        f"{name} could not be fetched from {constants.ENDPOINT}/{source.repository} ({reason}); connect and try again "
        f"(a download goes on where it stopped), or get {what} by hand, {advice}."
    )
