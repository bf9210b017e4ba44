"""The page: the conversation and its form on the left; files, conversations and settings on the right."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from onellm.modalities import MODALITIES
from onellm.serving.engine import Engine
from onellm.utils.limits import LIMITS
from onellm.web import records, wiring
from onellm.web.handlers import endpoints
from onellm.web.handlers.settings import DEFAULTS
from onellm.web.session import Session
from onellm.web.views import examples as example_cards
from onellm.web.views import limits, status
from onellm.web.views.markup import render
from onellm.web.views.page import Page
from onellm.web.views.texts import DEFAULT, LANGUAGES, say

TITLE = "OneLLM"
EVENTS = 200  # of all visitors that wait to be handled; questions have a queue of their own, `serving.queue`
LOGO = (Path(__file__).parent / "icons" / "logo.svg").read_text(encoding="utf-8")


def build(engine: Engine, fixed_model: bool | None = None) -> gr.Blocks:
    """Lay out the page and connect its events.

    Args:
        engine: the model, possibly still loading.
        fixed_model: visitors cannot load another one; None: those can who come through no proxy.

    Returns:
        The page, to be launched.
    """
    page = Page(engine, example_cards.read(), can_switch=not fixed_model)
    page.through_proxies = fixed_model is False
    parts = page.parts
    with endpoints.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        session = gr.State(Session())
        parts["bus"] = gr.HTML("", html_template="", js_on_load=wiring.BUS, elem_id="bus")
        keep = "watch('value', () => onellm.keep(props.value))"
        parts["record"] = gr.HTML("", html_template="", js_on_load=keep, elem_id="kept")
        save = "watch('value', () => onellm.download(props.value))"
        parts["link"] = gr.HTML("", html_template="", js_on_load=save, elem_id="link")
        _top(page)
        with gr.Row(elem_id="main", equal_height=False):
            with gr.Column(elem_id="left", scale=7, min_width=320):
                _conversation(page)
            with gr.Column(elem_id="right", scale=5, min_width=320):
                _files(page)
                _history(page)
                _settings(page)
        _said(page, gr.HTML, _html("foot", minutes=LIMITS.upload_lifetime_s / 60))
        wiring.connect(blocks, page, session)
        endpoints.add(engine)
    blocks.session_id = session._id
    return blocks.queue(max_size=EVENTS, default_concurrency_limit=4)


def _said(page: Page, component: Callable, properties: Callable[[str], dict], **fixed: Any) -> Any:
    """Make a component that holds texts, and remember its properties in each language."""
    built = component(**properties(DEFAULT), **fixed)
    page.translated.append((built, properties))
    return built


def _html(template: str, **values: Any) -> Callable[[str], dict]:
    """Return the function language -> properties of a component that shows a template."""
    return lambda language: {"value": render(template, language=language, **values)}


def _text(key: str, name: str = "value") -> Callable[[str], dict]:
    """Return the function language -> properties of a component with one text."""
    return lambda language: {name: say(language, key)}


def _top(page: Page) -> None:
    """Lay out the row with the name, the model's state, and what concerns the whole page."""
    with gr.Row(elem_id="top"):
        gr.HTML(f'<div class="title">{LOGO}<h1>{TITLE}</h1></div>', elem_id="title")
        page.parts["status"] = gr.HTML(status.badge(page.engine, DEFAULT), elem_id="status")
        _said(page, gr.HTML, _html("switches", languages=LANGUAGES), elem_id="switches")
        page.parts["new"] = _said(
            page,
            gr.Button,
            _text("new"),
            scale=0,
            min_width=104,
            size="md",
            elem_id="new",
        )


def _conversation(page: Page) -> None:
    """Lay out the conversation and the form."""
    parts = page.parts
    with gr.Column(elem_id="welcome") as parts["welcome"]:
        _said(page, gr.HTML, _html("welcome", with_examples=bool(page.examples)))
        parts["examples"] = _said(page, gr.HTML, lambda language: {"value": page.cards(language)}, elem_id="examples")
    with gr.Column(elem_id="talk", visible=False) as parts["talk"]:
        parts["conversation"] = gr.Chatbot(
            elem_id="conversation",
            show_label=False,
            height=None,
            layout="bubble",
            buttons=[],
            render_markdown=False,
            latex_delimiters=[],
            allow_tags=False,
            feedback_options=None,
        )
    parts["attached"] = gr.HTML("", elem_id="attached")
    with gr.Row(elem_id="ask", equal_height=True):
        parts["any"] = _said(
            page,
            gr.UploadButton,
            _text("files.any", "label"),
            file_count="multiple",
            scale=0,
            min_width=52,
            elem_id="any",
        )
        parts["message"] = _said(
            page,
            gr.Textbox,
            lambda language: {"label": say(language, "question"), "placeholder": say(language, "question.hint")},
            show_label=False,
            container=False,
            lines=1,
            max_lines=6,
            max_length=LIMITS.message_characters,
            autofocus=True,
            scale=8,
            min_width=120,
            elem_id="message",
        )
        button = {"scale": 0, "min_width": 88}
        parts["send"] = _said(
            page,
            gr.Button,
            _text("send"),
            variant="primary",
            elem_id="send",
            **button,
        )
        parts["stop"] = _said(
            page,
            gr.Button,
            _text("stop"),
            variant="stop",
            visible=False,
            elem_id="stop",
            **button,
        )


def _files(page: Page) -> None:
    """Lay out a widget a modality, and what records."""
    parts = page.parts
    _said(page, gr.HTML, _html("tray"))
    with gr.Column(elem_id="tray"):
        for modality in MODALITIES:
            with gr.Column(elem_classes="card", elem_id=f"card-{modality}", min_width=120):
                parts[f"add-{modality}"] = _said(
                    page,
                    gr.UploadButton,
                    _text(f"kind.{modality}", "label"),
                    file_count="multiple",
                    elem_id=f"add-{modality}",
                )
                _said(page, gr.HTML, functools.partial(_below_upload, page, modality))
    parts["beside"] = gr.UploadButton("Picture beside a map", elem_id="beside", elem_classes="unseen")
    with _said(
        page,
        gr.Accordion,
        _text("record", "label"),
        open=False,
        elem_id="record",
    ):
        for name, component, options in (
            ("mic", gr.Audio, {"sources": ["microphone"], "type": "filepath"}),
            ("camera", gr.Image, {"sources": ["webcam"], "type": "filepath"}),
            ("film", gr.Video, {"sources": ["webcam"]}),
        ):
            parts[name] = _said(
                page,
                component,
                _text(f"record.{name}", "label"),
                elem_id=name,
                **options,
            )


def _below_upload(page: Page, modality: str, language: str) -> dict:
    """Return what stands below a modality's upload button: what it takes, and an example to try."""
    return {
        "value": render(
            "modality",
            language=language,
            modality=modality,
            limit=getattr(LIMITS, f"{modality}_seconds", 0),
            suffixes=[suffix.lstrip(".") for suffix in MODALITIES[modality].suffixes],
            has_example=any(file.modality == modality for example in page.examples for file in example.files),
        )
    }


def _history(page: Page) -> None:
    """Lay out the conversations the browser keeps."""
    parts = page.parts
    with _said(page, gr.Accordion, _text("history", "label"), open=False, elem_id="history"):
        _said(
            page,
            gr.HTML,
            lambda language: {key: say(language, f"history.{key}") for key in ("empty", "remove")},
            html_template='<ul class="history" data-empty="${empty}" data-remove="${remove}"></ul>',
            js_on_load="onellm.list(element); watch(['empty', 'remove'], () => onellm.list(element))",
            elem_id="conversations",
        )
        _said(page, gr.HTML, _html("exports", formats=records.FORMATS))
        parts["import"] = _said(
            page,
            gr.UploadButton,
            _text("history.import", "label"),
            file_types=[".json", ".zip"],
            size="sm",
            elem_id="import",
        )


def _settings(page: Page) -> None:
    """Lay out the settings: the model, how it answers, and what everybody is held to."""
    parts = page.parts

    def explained(name: str) -> Callable[[str], dict]:
        return lambda language: {"label": say(language, f"set.{name}"), "info": say(language, f"set.{name}.info")}

    parts["model"] = _said(page, gr.Accordion, _text("model", "label"), open=False, elem_id="model")
    with parts["model"]:
        parts["loading"] = gr.HTML("", elem_id="loading")
        parts["models"] = gr.HTML(page.models(Session()), elem_id="models")
    if page.can_switch:  # a second model takes as much memory as the first
        _comparing(page)
    with _said(page, gr.Accordion, _text("set", "label"), open=False, elem_id="settings"):
        temperature, top_p, length, seed, frames, system = DEFAULTS
        most = LIMITS.new_tokens
        parts["settings"] = [
            _said(page, gr.Slider, explained("temperature"), minimum=0, maximum=2, step=0.05, value=temperature),
            _said(page, gr.Slider, explained("top_p"), minimum=0.05, maximum=1, step=0.05, value=top_p),
            _said(page, gr.Slider, explained("length"), minimum=8, maximum=most, step=8, value=length),
            _said(page, gr.Number, explained("seed"), value=seed, precision=0),
            _said(
                page,
                gr.Slider,
                explained("frames"),
                minimum=0,
                maximum=LIMITS.video_sampled_frames,
                step=1,
                value=frames,
            ),
            _said(page, gr.Textbox, explained("system"), value=system, lines=2, max_length=LIMITS.message_characters),
        ]
        parts["reset"] = _said(page, gr.Button, _text("set.reset"), size="sm")
    with _said(page, gr.Accordion, _text("limits", "label"), open=False, elem_id="limits"):
        _said(page, gr.HTML, lambda language: {"value": limits.table(language)})


def _comparing(page: Page) -> None:
    """Lay out the drawer that asks two models the same."""
    parts = page.parts
    parts["comparing"] = _said(page, gr.Accordion, _text("compare", "label"), open=False, elem_id="comparing")
    with parts["comparing"]:
        parts["compare"] = gr.HTML("", elem_id="compare")
        parts["compared"] = gr.HTML("", elem_id="compared")
