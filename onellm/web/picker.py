"""The choice of a model: what each is, how its weights may be kept here and what that takes, and how loading goes."""

import html
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from onellm.models import MODELS
from onellm.web.markup import button
from onellm.web.texts import say

if TYPE_CHECKING:
    from onellm.models import Option
    from onellm.web.engine import Engine


def table(engine: "Engine", language: str, can_switch: bool = True) -> str:
    """Return the models and the ways to keep their weights, each with its memory, or why it cannot be had.

    A click on a button acts as "switch" with the model of its form and the way chosen in it.

    Args:
        engine: what is loaded, and what could be.
        language: of the texts.
        can_switch: False shows what is loaded alone.
    """
    progress = progress_bar(engine, language, cancel=can_switch) if engine.loading else ""
    if not can_switch:
        words = say(language, "picker.fixed", model=html.escape(engine.name))
        return f'<div class="picker"><p class="hint">{words}</p>{progress}</div>'
    if not engine.options:
        return f'<div class="picker"><p class="hint">{say(language, "picker.soon")}</p>{progress}</div>'
    models = groupby(engine.options, key=lambda option: option.name)
    cards = "".join(_model(engine, name, list(options), language) for name, options in models)
    return f'<div class="picker">{progress}{cards}</div>'


def progress_bar(engine: "Engine", language: str, cancel: bool = False) -> str:
    """Return how far loading is: the step in words and a bar.

    Args:
        engine: what is being loaded.
        language: of the texts.
        cancel: with a button that acts as "cancel_switch".
    """
    progress, name = engine.progress, html.escape(engine.name)
    value = ""
    if progress is None:
        words = say(language, "picker.loading.first", model=name, seconds=f"{engine.waited_s:.0f}")
    else:
        words = say(language, f"picker.step.{progress.what}", detail=html.escape(progress.detail)).strip()
    if progress is not None and progress.total:
        scale, digits = (1e9, 1) if progress.unit == "bytes" else (1, 0)
        done, total = (f"{number / scale:.{digits}f}" for number in (progress.done, progress.total))
        words += ", " + say(language, f"picker.unit.{progress.unit}", done=done, total=total)
        value = f' value="{progress.done / progress.total:.3f}"'
    label = say(language, "picker.loading", model=name)
    end = button("cancel_switch", say(language, "picker.cancel")) if cancel else ""
    return (
        f'<div class="load-line"><span>{words}</span><progress aria-label="{label}" max="1"{value}></progress>'
        f"{end}</div>"
    )


def card(name: str, language: str) -> str:
    """Return in a few lines what a model is, what it is made of and what it cannot do; "" for an unknown one."""
    known = name.partition(" (")[0]
    if known not in MODELS:
        return ""
    description, trained_on, cannot = (
        html.escape(say(language, f"picker.card.{known}.{field}")) for field in ("description", "trained_on", "cannot")
    )
    return (
        f'<span class="model-card"><span>{description}</span>'
        f"<span><b>{say(language, 'picker.trained')}</b> {trained_on}</span>"
        f"<span><b>{say(language, 'picker.cannot')}</b> {cannot}</span></span>"
    )


def _model(engine: "Engine", name: str, options: "list[Option]", language: str) -> str:
    """Show one model: a form of its own, so that each has one way chosen."""
    wanted = (engine.origin, engine.quantize)
    chosen = next((option for option in options if (option.name, option.quantize) == wanted), None)
    chosen = chosen or next((option for option in options if option.able and not option.slow), None)
    rows = "".join(_way(engine, option, option is chosen, language) for option in options)
    title = html.escape(Path(name).name)
    idle = " disabled" if engine.loading or not any(option.able for option in options) else ""
    load = (  # submitting the form of this method does nothing but click the button: Enter works in it
        f'<button class="act text" data-act="switch" data-model="{html.escape(name)}"{idle}>'
        f"{say(language, 'picker.load', model=title)}</button>"
    )
    about = card(name, language) or f'<span class="model-card">{say(language, "picker.folder")}</span>'
    return (
        f'<form class="model" method="dialog" data-form><h4>{title}</h4>{about}'
        f"<fieldset><legend>{say(language, 'picker.mode')}</legend>{rows}</fieldset>{load}</form>"
    )


def _way(engine: "Engine", option: "Option", chosen: bool, language: str) -> str:
    """Show one way to keep a model's weights."""
    needed, free = (f"{value / 1e9:.1f}" for value in (option.memory_bytes, option.free_bytes))
    notes = []
    if option.why:
        notes.append(say(language, f"picker.why.{option.why}", needed=needed, free=free))
    else:
        notes.append(say(language, "picker.memory", needed=needed))
        if option.slow:
            notes.append(say(language, "picker.slow"))
        if _is_loaded(engine, option):
            notes.append(f"<b>{say(language, 'picker.loaded')}</b>")
    state = (" checked" if chosen else "") + ("" if option.able else " disabled")
    return (
        f'<label class="way{"" if option.able else " unable"}"><input type="radio" name="quantize" '
        f'value="{option.quantize}"{state}><span>{say(language, f"picker.mode.{option.quantize}")}</span>'
        f"<small>{', '.join(notes)}</small></label>"
    )


def _is_loaded(engine: "Engine", option: "Option") -> bool:
    return engine.ready and (option.name, option.quantize) == (engine.origin, engine.quantize)
