"""What runs in time, cut into parts: a video with its sound, second by second, and long files, window by window.

A cut file is ordinary content parts of the same modality with the load options `start_s` and `stop_s`, so that nothing
behind the processor has to know of it. The file's length stands in the part as `seconds`, see `resolve`; with it, a
prompt can be laid out again when the file is gone.
"""

import math
import os
from collections.abc import Callable

from onellm.errors import FileError, OneLLMError
from onellm.modalities import Sample
from onellm.utils.limits import LIMITS

__all__ = ["OPTIONS", "TIMED", "resolve", "seconds_of", "spans", "windows", "without_options"]

SPAN_S = 1.0  # of a video and its sound, in turns
REST_S = 0.05  # what is shorter at an end is left out
# keys of a content part that say how it is read; its others are options of `load`
OPTIONS = ("sound", "windows", "words", "seconds", "findings")
TIMED = ("video", "audio")


def resolve(part: dict, settings: dict, load: Callable[[dict], Sample]) -> dict:
    """Write into a content part how long its file lasts, where its layout depends on that; other parts stay.

    Args:
        part: a content part.
        settings: of its modality, see `OneLLMConfig.modalities`; `windows` (`seconds`, `words`) lets long files be
            read in windows.
        load: reads the file of a part.

    Returns:
        The part, or a copy with `seconds`; its `sound` is then a content part too.

    Raises:
        OneLLMError: a file cannot be read, or there is nothing to hear.
    """
    modality, sound = part["type"], part.get("sound")
    _check(part)
    known = "seconds" in part or "start_s" in part or "tokens" in part  # tokens: the model generated it
    if known or modality not in TIMED or not (sound or wanted(part, settings)):
        return part
    if "path" not in part:
        if not sound:
            return part
        raise OneLLMError("A video in memory has no sound track; give the sound as 'audio', beside it.")
    sample = load(without_options(part) | ({"frames": 1} if modality == "video" else {}))  # one frame will do
    found = part | {"seconds": seconds_of(sample)}
    if not sound:
        return found
    if sound is not True:
        heard = dict(sound) if isinstance(sound, dict) else {"path": os.fspath(sound)}
    elif sample.sound:
        heard = {"path": part["path"], "track": True}
    else:
        raise FileError(
            f"{sample.name}: there is no sound in it; expected a video with a sound track; leave its sound out, or "
            "name a sound file."
        )
    return found | {"sound": heard | {"seconds": seconds_of(load({"type": "audio", **heard}))}}


def _check(part: dict) -> None:
    """Check the options that say how a file is cut.

    Raises:
        OneLLMError: one of them means nothing here.
    """
    if part.get("sound") and part["type"] != "video":
        raise OneLLMError(f"A file of kind {part['type']} has no 'sound'; only a video has, leave it out.")
    if part.get("sound") and "seconds" not in part and ("start_s" in part or "stop_s" in part):
        raise OneLLMError("A video is heard as a whole; leave 'start_s' and 'stop_s' out, or 'sound'.")
    for name in ("windows", "words"):
        value = part.get(name)
        if value is not None and (not isinstance(value, int) or value < 0):
            raise OneLLMError(f"'{name}' is {value!r}; expected a number; correct it, or leave it out.")


def wanted(part: dict, settings: dict) -> bool:
    """Tell whether a part is to be read in windows if it is long: it says so, or the model's settings do."""
    return bool(part.get("windows", "windows" in settings))


def seconds_of(sample: Sample) -> float:
    """Return how much of a file is looked at."""
    return round(min(sample.seconds, getattr(LIMITS, f"{sample.modality}_seconds")), 3)


def spans(part: dict) -> list[dict]:
    """Cut a resolved video and its sound into spans of a second, each video before its sound; other parts stay whole.

    A long video is cut into the largest number of spans, which are longer then; a rest of less than half a span goes
    to the last.
    """
    if part["type"] != "video" or not part.get("sound"):
        return [part]
    sound = part["sound"]
    video_s, sound_s = part["seconds"], sound["seconds"]
    total_s = max(video_s, sound_s)
    span_s = max(SPAN_S, total_s / max(1, LIMITS.joint_spans))
    edges = [number * span_s for number in range(max(1, math.ceil(total_s / span_s - 0.5)))] + [total_s]
    tracks = (
        (without_options(part), video_s),
        ({"type": "audio"} | without_options(sound), sound_s),
    )
    found = []
    for start_s, stop_s in zip(edges, edges[1:], strict=False):
        for track, end_s in tracks:
            if min(stop_s, end_s) - start_s >= REST_S:
                found.append(track | _between(start_s, min(stop_s, end_s)))
    if "findings" in part:  # of the whole file: they stand behind it
        found[-1]["findings"] = part["findings"]
    return found


def windows(part: dict, settings: dict) -> list[dict]:
    """Cut a resolved part that lasts longer than a window into equal windows; of a shorter one there are none.

    Args:
        part: a content part.
        settings: as for `resolve`.

    Returns:
        Content parts, in order.
    """
    if "seconds" not in part or part.get("sound") or not wanted(part, settings):
        return []
    asked, seconds = part.get("windows"), part["seconds"]
    if isinstance(asked, int) and not isinstance(asked, bool):
        count = asked
    else:
        count = math.ceil(
            seconds / settings.get("windows", {}).get("seconds", LIMITS.window_seconds or math.inf) - 0.05
        )
    count = min(count, LIMITS.long_windows)
    if count < 2:
        return []
    edges = [seconds * number / count for number in range(count + 1)]
    return [without_options(part) | _between(*pair) for pair in zip(edges, edges[1:], strict=False)]


def _between(start_s: float, stop_s: float) -> dict:
    return {"start_s": round(start_s, 3), "stop_s": round(stop_s, 3)}


def without_options(part: dict) -> dict:
    """Return a content part without what says how it is cut."""
    return {key: value for key, value in part.items() if key not in OPTIONS}
