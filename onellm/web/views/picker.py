"""The choice of a model: which are here, which could be, what each takes on this machine, and how loading goes."""

import html
from pathlib import Path
from typing import TYPE_CHECKING

from onellm.hub.registry import MODELS
from onellm.web.views.markup import button
from onellm.web.views.texts import say, texts

if TYPE_CHECKING:
    from onellm.hub.catalogue import Entry, Option
    from onellm.serving.engine import Engine


def table(engine: "Engine", language: str, can_switch: bool = True) -> str:
    """Return the models that are installed and those that could be, each with its size and what it takes.

    A click on a button acts as "switch" with the model of its form and the way chosen in it.

    Args:
        engine: what is loaded, and what could be.
        language: of the texts.
        can_switch: False shows what is loaded alone.
    """
    if not can_switch:
        return f'<p class="hint">{say(language, "picker.fixed", model=html.escape(engine.name))}</p>'
    if not engine.entries:
        return f'<p class="hint">{say(language, "picker.soon")}</p>'
    groups = (
        ("installed", [entry for entry in engine.entries if entry.installed]),
        ("available", [entry for entry in engine.entries if not entry.installed]),
    )
    return "".join(_group(engine, name, entries, language) for name, entries in groups if entries)


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
    lines = [f"<span>{html.escape(say(language, f'picker.card.{known}.description'))}</span>"]
    for field, label in (("trained_on", "picker.trained"), ("cannot", "picker.cannot")):
        if text := texts(language).get(f"picker.card.{known}.{field}"):
            lines.append(f"<span><b>{say(language, label)}</b> {html.escape(text)}</span>")
    return f'<span class="model-card">{"".join(lines)}</span>'


def _group(engine: "Engine", group: str, entries: "list[Entry]", language: str) -> str:
    """Show models below a heading."""
    hint = f'<p class="hint">{say(language, "picker.available.say")}</p>' if group == "available" else ""
    models = "".join(_model(engine, entry, language) for entry in entries)
    return f'<section class="picker"><h3>{say(language, f"picker.{group}")}</h3>{hint}{models}</section>'


def _model(engine: "Engine", entry: "Entry", language: str) -> str:
    """Show one model: its size and need in a line, and what can be chosen when that is opened."""
    loaded = entry.name == engine.origin and (engine.ready or engine.loading)
    name = html.escape(Path(entry.name).name)
    state = "picker.loaded" if loaded and engine.ready else "picker.loads"
    badge = f"<b>{say(language, state)}</b>" if loaded else ""
    notes = " · ".join(filter(None, (badge, _size(entry, language), _need(entry, language))))
    about = card(entry.name, language) or f'<span class="model-card">{say(language, "picker.folder")}</span>'
    head = f"<summary><span>{name}</span><small>{notes}</small></summary>"
    return (
        f'<details class="model"{" open" if loaded else ""}>{head}'
        f"{about}{_where(entry, language)}{_form(engine, entry, name, language)}</details>"
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
    return say(language, "picker.need.more", **_gigabytes(least))


def _where(entry: "Entry", language: str) -> str:
    """Return where a model's weights are or come from, and why they cannot be had now."""
    if entry.command:
        lines = html.escape(entry.command.replace(" --", " \\\n  --"))  # one option a line, as a shell takes it
        return f'<p class="hint">{say(language, "picker.where.hand")}</p><pre><code>{lines}</code></pre>'
    if not entry.folder and not entry.source:  # a folder that cannot be read
        return "".join(f'<p class="hint">{html.escape(reason)}.</p>' for reason in {o.reason for o in entry.options})
    where = say(language, "picker.where.disk" if entry.installed else "picker.where.hub")
    silent = f" {say(language, 'picker.why.hub')}" if entry.why == "hub" else ""
    return f'<p class="hint">{where} <code>{html.escape(str(entry.folder or entry.source))}</code>.{silent}</p>'


def _form(engine: "Engine", entry: "Entry", name: str, language: str) -> str:
    """Show the ways to keep a model's weights, one of them chosen, and the button that loads it."""
    chosen = entry.option(engine.quantize) if entry.name == engine.origin else None
    chosen = chosen or entry.best
    rows = "".join(_way(engine, entry, option, option is chosen, language) for option in entry.options)
    idle = " disabled" if engine.loading or entry.why or entry.best is None else ""
    words = say(language, "picker.load", model=name)
    if not entry.installed and entry.size_bytes:
        words = say(language, "picker.download", model=name, size=f"{entry.size_bytes / 1e9:.1f}")
    load = f'<button class="act text" data-act="switch" data-model="{html.escape(entry.name)}"{idle}>{words}</button>'
    return (  # submitting the form of this method does nothing but click the button: Enter works in it
        f'<form method="dialog" data-form><fieldset><legend>{say(language, "picker.mode")}</legend>{rows}</fieldset>'
        f"{'' if entry.command else load}</form>"
    )


def _way(engine: "Engine", entry: "Entry", option: "Option", chosen: bool, language: str) -> str:
    """Show one way to keep a model's weights."""
    if option.able:
        notes = [say(language, "picker.memory", needed=_gigabytes(option)["needed"])]
        notes += [say(language, "picker.slow")] * option.slow
        is_loaded = engine.ready and (entry.name, option.quantize) == (engine.origin, engine.quantize)
        notes += [f"<b>{say(language, 'picker.loaded')}</b>"] * is_loaded
    else:
        notes = [say(language, f"picker.why.{option.why}", **_gigabytes(option))]
    state = (" checked" if chosen else "") + ("" if option.able else " disabled")
    return (
        f'<label class="way{"" if option.able else " unable"}"><input type="radio" name="quantize" '
        f'value="{option.quantize}"{state}><span>{say(language, f"picker.mode.{option.quantize}")}</span>'
        f"<small>{', '.join(notes)}</small></label>"
    )


def _gigabytes(option: "Option") -> dict[str, str]:
    """Return what a way needs and what is free, as texts take them."""
    return {"needed": f"{option.memory_bytes / 1e9:.1f}", "free": f"{option.free_bytes / 1e9:.1f}"}
