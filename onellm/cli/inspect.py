"""`python -m onellm inspect`: what a file is taken for, and what a model gets of it. No model is loaded."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onellm.errors import FileError, OneLLMError
from onellm.modalities import MODALITIES, Sample, load
from onellm.modalities.detect import recognise


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the file and what is to be told of it to a parser."""
    kinds = parser.add_mutually_exclusive_group()
    for name, modality in MODALITIES.items():
        text = f"read it as {modality.title.lower()}, whatever its content says"
        kinds.add_argument(f"--{name}", dest="modality", action="store_const", const=name, help=text)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--frames", type=int, metavar="N", help="of a video: how many evenly spread frames are read")
    parser.add_argument("--model", default="onellm-tiny", metavar="M", help="whose view is described: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a card")
    parser.add_argument("--save", type=Path, metavar="OUT.npz", help="write the arrays: array, rgb, known")


def run(options: argparse.Namespace) -> int:
    """Read the file and describe it."""
    candidates, sample = read(options.file, options.modality, options.frames)
    if options.save is not None:
        try:
            np.savez(options.save, **MODALITIES[sample.modality].arrays(sample))
        except OSError as error:
            raise OneLLMError(f"{options.save} cannot be written ({error.strerror}); give another name.") from error
    if options.json:
        print(json.dumps(describe(sample, candidates), ensure_ascii=False, indent=1))
    else:
        from rich.console import Console

        Console().print(card(sample, candidates, options.model))
    return 0


def read(path: Path, modality: str | None = None, frames: int | None = None) -> tuple[list[str], Sample]:
    """Read a file.

    Args:
        path: the file.
        modality: what it is read as; by default the likeliest candidate that can read it.
        frames: frames of a video.

    Returns:
        The modalities that its content may be, the likeliest first, and the sample.

    Raises:
        FileError: it is none of the modalities, or not the given one.
    """
    try:
        candidates = recognise(path)
    except FileError:
        if modality is None:
            raise
        candidates = []
    return candidates, load_first([modality] if modality else candidates, path, frames)


def load_first(modalities: Sequence[str], path: Path | str, frames: int | None = None) -> Sample:
    """Read a file as the first of some modalities that can read it.

    Raises:
        FileError: none can; it says why the first one cannot.
    """
    refusals = []
    for modality in modalities:
        try:
            return load(modality, path, **{"frames": frames} if modality == "video" else {})
        except FileError as refusal:
            refusals.append(refusal)
    raise refusals[0]


def describe(sample: Sample, candidates: list[str]) -> dict[str, Any]:
    """Return what `--json` prints of a sample; rates in Hz, times in seconds, None where there is none."""
    times = sample.times_s
    return {
        "kind": sample.modality,
        "candidates": candidates,
        "shape": list(sample.array.shape),
        "unit": MODALITIES[sample.modality].unit,
        "rate_hz": sample.rate_hz,
        "file_rate_hz": sample.file_rate_hz,
        "duration_s": sample.seconds if sample.rate_hz else None,
        "times_s": None if times is None else [round(float(time), 4) for time in times],
        "notes": sample.notes,
    }


def card(sample: Sample, candidates: list[str], model: str) -> Any:
    """Describe a sample as a table for people, with what a model takes of it."""
    from rich.table import Table
    from rich.text import Text

    modality, found = MODALITIES[sample.modality], describe(sample, candidates)
    others = [name for name in candidates if name != sample.modality]
    table = Table(box=None, show_header=False, title=Text(f"{modality.icon} {sample.name}"), title_justify="left")
    rows = {
        "kind": sample.modality + (f" (could also be {' or '.join(others)})" if others else ""),
        "content": sample.summary,
        "array": f"{' × '.join(f'{side:,}' for side in found['shape'])} {sample.array.dtype}, {found['unit']}",
        "rate": f"{sample.rate_hz:g} Hz" if sample.rate_hz else "",
        "frames at": ", ".join(f"{time:.1f}" for time in found["times_s"] or ()) + " s" if found["times_s"] else "",
        f"{model} sees": coverage(sample, model),
        "notes": "\n".join(sample.notes),
    }
    for name, text in rows.items():
        if text:
            table.add_row(Text(name, style="cyan"), Text(text))
    return table


def coverage(sample: Sample, model: str) -> str:
    """Say how much of a sample a model takes, by its configuration; its weights are not needed."""
    from onellm.hub.registry import find
    from onellm.model.timeline import TIMED, windows

    settings = find(model)[0].modalities.get(sample.modality)
    if settings is None:
        return f"nothing: it reads no {sample.modality}"
    try:
        part = {"type": sample.modality, "path": sample.name}
        if sample.modality in TIMED and (parts := windows(part | {"seconds": sample.seconds}, settings)):
            return f"{parts[-1]['stop_s']:.1f} of {sample.seconds:.1f} seconds, in {len(parts)} windows"
        found = MODALITIES[sample.modality].coverage(sample, **settings.get("input", {}))
    except FileError as refused:
        return str(refused)
    return f"{found.used} of {found.of} {found.unit}" if not found.whole else f"all {found.of} {found.unit}"
