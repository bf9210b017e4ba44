"""What may come of a file from a stranger: an error in words, or a sample that makes sense."""

import re
from pathlib import Path

import numpy as np

from onellm.errors import FileError
from onellm.modalities import MODALITIES, load, sandbox
from onellm.modalities.base import display_name
from onellm.modalities.detect import recognise
from onellm.utils.limits import LIMITS

# what only libraries and Python say
RAW = re.compile(r"Traceback|Error\b|Errno|\b0x[0-9a-f]{4}|<class|object at|NoneType|dtype\(|__|std::|\bNone\b|\bnan\b")
LONGEST_S = 1e7  # of anything that is played; four months


def judge(modality, path, preview=False):
    """Load a file as the app does, and what follows; returns "refused", "died" or "sample", and what was said."""
    try:
        sample = load(modality, path)
    except FileError as error:
        check_words(str(error), path)
        return "died" if isinstance(error.__cause__, sandbox.Died) else "refused", str(error)
    check_sample(sample)
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        tensor = MODALITIES[modality].to_tensor(sample)
        assert bool(tensor.isfinite().all()), sample.summary
        if preview:
            assert MODALITIES[modality].preview(sample).caption
    return "sample", sample.summary


def judge_kind(path):
    """Recognise a file as the app does; returns "refused", "died" or "kinds", and what was said."""
    try:
        modalities = recognise(path)
    except FileError as error:
        check_words(str(error), path)
        return "died" if isinstance(error.__cause__, sandbox.Died) else "refused", str(error)
    assert modalities and set(modalities) <= set(MODALITIES)
    return "kinds", ", ".join(modalities)


def check_words(text, path):
    """Check an error's form: name, what was found, what was expected, what to do; one line for people."""
    name = display_name(path)
    assert text.startswith(f"{name}: "), text
    said = text.removeprefix(f"{name}: ")
    assert re.fullmatch(r".+; expected .+; .+\.", said) and said.isprintable() and len(text) < 500, text
    assert not RAW.search(re.sub(r"'.*?'", "", said)), text  # but for what the file says
    assert str(Path(path).parent) not in text, text


def check_sample(sample):
    """Check that a sample's numbers are such as its kind has, whatever the file was."""
    array, about = sample.array, f"{sample.name}: {sample.summary}, {sample.array.shape}"
    lines = [sample.summary, *sample.notes]
    assert all(line.isprintable() and 0 < len(line) < 300 and not RAW.search(line) for line in lines), lines
    assert array.size and array.nbytes <= LIMITS.fmri_decoded_bytes, about
    for number in (sample.rate_hz, sample.duration_s):
        assert number is None or 0 <= number < LONGEST_S, f"{about}, {number}"
    assert array.dtype == (np.uint8 if sample.modality in ("image", "video") else np.float32), about
    if sample.modality == "depth":
        known = array[~np.isnan(array)]
        assert array.ndim == 2 and known.size and 0 <= known.min() and known.max() < 1e6, about
        return
    assert np.isfinite(array).all(), about
    largest = float(np.abs(array.astype(np.float32)).max())
    if sample.modality == "image":
        assert array.ndim == 3 and array.shape[2] == 3 and max(array.shape) <= LIMITS.image_side_pixels, about
    elif sample.modality == "video":
        assert array.ndim == 4 and len(array) <= LIMITS.video_sampled_frames and array.shape[3] == 3, about
        assert np.isfinite(sample.times_s).all() and len(sample.times_s) == len(array), about
    elif sample.modality == "audio":
        assert array.ndim == 1 and largest <= 8 and len(array) <= LIMITS.audio_seconds * sample.rate_hz + 1, about
    elif sample.modality == "point":
        assert array.shape[1:] == (6,) and len(array) <= LIMITS.point_count and largest < 1e9, about
        assert 0 <= array[:, 3:].min() and array[:, 3:].max() <= 1, about
    elif sample.modality == "fmri":
        assert array.ndim in (2, 4) and largest <= 1e12, about
    elif sample.modality == "imu":
        assert array.shape[1:] == (6,) and 2 <= len(array) <= LIMITS.imu_rows, about
    elif sample.modality == "normal":
        lengths = np.linalg.norm(array, axis=2)
        assert array.shape[2] == 3 and (np.abs(lengths[lengths > 0] - 1) < 1e-3).all(), about
