"""Which event of the page calls which handler, and what its answer changes."""

import functools
from typing import Any

import gradio as gr

from onellm.modalities import MODALITIES
from onellm.web.handlers.archive import Archive
from onellm.web.handlers.asking import Asking
from onellm.web.handlers.comparing import Comparing
from onellm.web.handlers.composer import Composer
from onellm.web.handlers.settings import Options
from onellm.web.views.page import Page

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
FREE = QUIET | {"queue": False}  # what answers at once, whoever else waits
# Gradio's own queue tells nobody how long it is: those who wait for the model stand in `serving.queue`, which
# serves the other faces too and refuses at once where it is full.
ALL = QUIET | {"concurrency_limit": None}
FILES = QUIET | {"concurrency_id": "files", "concurrency_limit": 4}
# What page.js passes on from buttons in HTML; Gradio allows the events that are named in the script.
ACTS = (
    *("sample", "remove", "choose", "sound", "beside", "example", "retry", "undo", "edit", "cancel_edit"),
    *("vote", "open", "export", "language", "switch", "cancel_switch", "compare", "end_compare"),
)
BUS = f"onellm.connect(trigger, {list(ACTS)!r})"
MODEL = ("status", "loading", "models")
COMPARED = ("compare", "compared")
RECORDERS = {"mic": "audio", "camera": "image", "film": "video"}


def connect(blocks: gr.Blocks, page: Page, session: gr.State) -> None:
    """Connect all events of a page that is laid out."""
    _connect_page(blocks, page, session)
    _connect_files(page, session)
    _connect_conversation(page, session)


def _connect_page(blocks: gr.Blocks, page: Page, session: gr.State) -> None:
    """Connect what concerns the page as a whole, its conversations and its settings."""
    parts, bus = page.parts, page.parts["bus"]
    archive, settings = Archive(page), Options(page)
    everything = [component for component, _ in page.translated] + _page(parts) + [parts[name] for name in MODEL]
    everything += [parts[name] for name in COMPARED if page.can_switch]
    everything = list(dict.fromkeys(everything))
    language = gr.Textbox(visible=False)
    spoken = "(session) => [session, onellm.language()]"  # page.js notes a choice before it passes the click on
    opened = blocks.load(settings.translate, [session, language], everything, js=spoken, **FREE)
    opened.then(None, js="() => onellm.reopen()", **FREE)
    bus.language(settings.translate, [session, language], everything, js=spoken, **FREE)

    followed = [*(parts[name] for name in MODEL), parts["examples"]]
    blocks.load(settings.follow, session, followed, **ALL)
    bus.switch(settings.switch, session, None, **FREE).then(settings.follow, session, followed, **ALL)
    bus.cancel_switch(settings.cancel, session, None, **FREE).then(settings.follow, session, followed, **ALL)
    parts["model"].expand(settings.list_models, None, None, **FREE).then(settings.follow, session, followed, **ALL)
    parts["reset"].click(settings.reset, None, parts["settings"], **FREE)

    shown = [*_page(parts), parts["record"]]
    parts["new"].click(archive.new, session, shown, **FREE)
    bus.open(archive.open, session, shown, **FILES)
    parts["import"].upload(archive.read, [session, parts["import"]], shown, **FILES)
    bus.export(archive.export, session, parts["link"], **FILES)
    bus.vote(archive.vote, session, [parts["conversation"], parts["record"]], **FREE)


def _connect_files(page: Page, session: gr.State) -> None:
    """Connect the widgets that take files, and the files in the form."""
    parts, bus, on = page.parts, page.parts["bus"], Composer(page)
    attached = parts["attached"]
    parts["any"].upload(on.add, [session, parts["any"]], attached, **FILES)
    for modality in MODALITIES:
        widget = parts[f"add-{modality}"]
        widget.upload(functools.partial(on.add, modality=modality), [session, widget], attached, **FILES)
    for name, modality in RECORDERS.items():
        taken = parts[name].input if name == "camera" else parts[name].stop_recording
        add = functools.partial(on.add, modality=modality, recorder=parts[name])
        taken(add, [session, parts[name]], [attached, parts[name]], **FILES)
    parts["beside"].upload(on.add_beside, [session, parts["beside"]], attached, **FILES)
    bus.beside(on.want_beside, session, None, **FREE)
    bus.sample(on.sample, session, attached, **FILES)
    bus.remove(on.remove, session, attached, **FILES)
    bus.choose(on.choose, session, attached, **FILES)
    bus.sound(on.sound, session, attached, **FILES)


def _connect_conversation(page: Page, session: gr.State) -> None:
    """Connect asking, answering, stopping and taking back."""
    parts, bus, on = page.parts, page.parts["bus"], Asking(page)
    shown = _page(parts)
    asking = [session, parts["message"], *parts["settings"]]
    asked = gr.on([parts["send"].click, parts["message"].submit], on.begin, asking, shown, **ALL)
    chosen = bus.example(on.begin_example, [session, parts["message"]], shown, **ALL)
    again = bus.retry(on.begin_again, session, shown, **ALL)
    for begun in (asked, chosen, again):
        begun.success(on.answer, session, [*shown, parts["record"]], **ALL, trigger_mode="multiple")
    # No `cancels`: a page forgets a cancelled event's successor until the event's last step is over.
    parts["stop"].click(on.halt, session, shown, **FREE)
    bus.undo(on.undo, session, [*shown, parts["record"]], **FREE)
    bus.edit(on.edit, session, [*shown, parts["record"]], **FREE)
    bus.cancel_edit(on.cancel_edit, session, shown, **FREE)
    if page.can_switch:
        _connect_comparing(page, Comparing(page, on), session)


def _connect_comparing(page: Page, on: Comparing, session: gr.State) -> None:
    """Connect the drawer that asks two models."""
    parts, bus = page.parts, page.parts["bus"]
    shown = [parts[name] for name in COMPARED]
    parts["comparing"].expand(on.show, session, shown, **FREE)
    parts["comparing"].collapse(on.close, session, shown, **FREE)
    asked = bus.compare(on.begin, [session, parts["message"], *parts["settings"]], shown, **ALL)
    stop = "() => document.querySelector('[data-act=end_compare]')?.focus()"  # where the button was that was pressed
    asked.success(None, js=stop, **FREE)
    asked.success(on.answer, session, shown, **ALL, trigger_mode="multiple")
    bus.end_compare(on.halt, session, shown, **FREE)


def _page(parts: dict) -> list:
    """Return the components that `Page.show` and `Page.form` update."""
    return [parts[name] for name in ("welcome", "talk", "conversation", "send", "stop", "attached", "message")]
