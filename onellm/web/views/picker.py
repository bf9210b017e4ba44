"""The choice of a model: which are here, which could be, what each takes on this machine, and how loading goes."""

import hashlib
from typing import TYPE_CHECKING

from onellm.hub.registry import MODELS
from onellm.web.views.markup import render
from onellm.web.views.texts import say, texts

if TYPE_CHECKING:
    from onellm.hub.catalogue import Entry
    from onellm.serving.engine import Engine


def table(engine: "Engine", language: str, can_switch: bool = True) -> str:
    """Return the models that are installed and those that could be, each with its size and what it takes.

    A click on a button acts as "switch" with the model of its form and the way chosen in it.

    Args:
        engine: what is loaded, and what could be.
        language: of the texts.
        can_switch: False shows what is loaded alone.
    """
    functions = {"size": _size, "need": _need, "card": card, "model_id": model_id}
    return render("picker", language=language, engine=engine, can_switch=can_switch, **functions)


def progress_bar(engine: "Engine", language: str, cancel: bool = False) -> str:
    """Return how far loading is: the step as a sentence, and a bar.

    Args:
        engine: what is being loaded.
        language: of the texts.
        cancel: with a button that acts as "cancel_switch".
    """
    progress, share = engine.progress, None
    if progress is None:
        step = say(language, "picker.loading.first", model=engine.name, seconds=f"{engine.waited_s:.0f}")
    else:
        step = say(language, f"picker.step.{progress.what}", detail=progress.detail).strip()
        if progress.total:
            scale, digits = (1e9, 1) if progress.unit == "bytes" else (1, 0)
            done, total = (f"{number / scale:.{digits}f}" for number in (progress.done, progress.total))
            step += ", " + say(language, f"picker.unit.{progress.unit}", done=done, total=total)
            share = progress.done / progress.total
    return render("progress", language=language, name=engine.name, step=step, share=share, cancel=cancel)


def model_id(name: str) -> str:
    """Return what names a model in requests: a visitor is not to learn where a folder lies on this machine."""
    return name if name in MODELS else hashlib.sha256(name.encode()).hexdigest()[:16]


def card(name: str, language: str) -> str:
    """Return in a few lines what a model is, what it is made of and what it cannot do; "" for an unknown one."""
    if name not in MODELS:
        return ""
    fields = ("description", "trained_on", "cannot")
    return render(
        "card", language=language, **{field: texts(language).get(f"picker.card.{name}.{field}") for field in fields}
    )


def _size(entry: "Entry", language: str) -> str:
    """Return how large a model is, and whether that lies on the disk already."""
    if not entry.size_bytes:
        return ""
    how = "disk" if entry.installed else "hand" if entry.command else "download" if entry.told else "about"
    return say(language, f"picker.size.{how}", size=f"{entry.size_bytes / 1e9:.1f}")


def _need(entry: "Entry", language: str) -> str:
    """Return the memory a model needs as it is taken unless somebody chooses, or how far it is from fitting."""
    best = entry.best
    if best is not None:
        slow = f", {say(language, 'picker.slow')}" if best.slow else ""
        return say(language, "picker.need", needed=f"{best.memory_bytes / 1e9:.1f}") + slow
    short = [option for option in entry.options if option.why == "memory"]
    if not short:
        return say(language, "picker.why.device")
    least = min(short, key=lambda option: option.memory_bytes)
    needed, free = (f"{count / 1e9:.1f}" for count in (least.memory_bytes, least.free_bytes))
    return say(language, "picker.need.more", needed=needed, free=free)
