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
from onellm.web.views import limits
from onellm.web.views.markup import button
from onellm.web.views.page import Page
from onellm.web.views.texts import DEFAULT, LANGUAGES, say

TITLE = "OneLLM"
EVENTS = 200  # of all visitors that wait to be handled; questions have a line of their own
LOGO = (Path(__file__).parent / "icons" / "logo.svg").read_text(encoding="utf-8")


def build(engine: Engine, fixed_model: bool = False) -> gr.Blocks:
    """Lay out the page and connect its events.

    Args:
        engine: the model, possibly still loading.
        fixed_model: visitors cannot load another one.

    Returns:
        The page, to be launched.
    """
    page = Page(engine, example_cards.read(), can_switch=not fixed_model)
    parts = page.parts
    with endpoints.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        session = gr.State(Session())
        parts["bus"] = gr.HTML("", html_template="", js_on_load=wiring.BUS, elem_id="bus")
        keep = "watch('value', () => onellm.keep(props.value))"
        parts["kept"] = gr.HTML("", html_template="", js_on_load=keep, elem_id="kept")
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
        _said(page, gr.HTML, _foot)
        wiring.connect(blocks, page, session)
        endpoints.add(engine)
    return blocks.queue(max_size=EVENTS, default_concurrency_limit=4)


def _foot(language: str) -> dict:
    """Return the line at the page's end: what to expect, and what becomes of what is given."""
    return {"value": f'<div class="foot">{say(language, "foot", minutes=LIMITS.upload_lifetime_s / 60)}</div>'}


def _said(page: Page, component: Callable, words: Callable[[str], dict], **fixed: Any) -> Any:
    """Make a component that holds words, and remember how they read in each language."""
    made = component(**words(DEFAULT), **fixed)
    page.translated.append((made, words))
    return made


def _top(page: Page) -> None:
    """Lay out the line with the name, the model's state, and what concerns the whole page."""
    with gr.Row(elem_id="top"):
        gr.HTML(f'<div class="title">{LOGO}<h1>{TITLE}</h1></div>', elem_id="title")
        page.parts["status"] = gr.HTML(page.status(Session()), elem_id="status")
        _said(page, gr.HTML, _switches, elem_id="switches")
        page.parts["new"] = _said(
            page,
            gr.Button,
            lambda language: {"value": say(language, "new")},
            scale=0,
            min_width=104,
            size="md",
            elem_id="new",
        )


def _switches(language: str) -> dict:
    """Return the choice of language and of light or dark as HTML."""
    languages = "".join(
        button("language", name, pressed=code == language, lang=code, language=code) for code, name in LANGUAGES.items()
    )
    return {"value": f'<div class="switches">{languages}{button("dark", say(language, "dark"), "dark")}</div>'}


def _conversation(page: Page) -> None:
    """Lay out the conversation and the form."""
    parts = page.parts
    with gr.Column(elem_id="welcome") as parts["welcome"]:
        _said(page, gr.HTML, lambda language: {"value": _welcome(language, bool(page.examples))})
        _said(
            page,
            gr.HTML,
            lambda language: {"value": example_cards.cards(page.examples, language)},
            elem_id="examples",
        )
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
            lambda language: {"label": say(language, "files.any")},
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
            lambda language: {"value": say(language, "send")},
            variant="primary",
            elem_id="send",
            **button,
        )
        parts["stop"] = _said(
            page,
            gr.Button,
            lambda language: {"value": say(language, "stop")},
            variant="stop",
            visible=False,
            elem_id="stop",
            **button,
        )


def _welcome(language: str, with_examples: bool) -> str:
    invitation = f"<p><strong>{say(language, 'welcome.examples')}</strong></p>" if with_examples else ""
    title, text = say(language, "welcome.title"), say(language, "welcome.text")
    return f'<div class="hello"><h2>{title}</h2><p>{text}</p>{invitation}</div>'


def _files(page: Page) -> None:
    """Lay out a widget a modality, and what records."""
    parts = page.parts
    _said(
        page,
        gr.HTML,
        lambda language: {
            "value": f'<div class="tray-head"><h2>{say(language, "tray")}</h2>'
            f"<span>{say(language, 'tray.how')}</span></div>"
        },
    )
    with gr.Column(elem_id="tray"):
        for modality in MODALITIES:
            with gr.Column(elem_classes="card", elem_id=f"card-{modality}", min_width=120):
                parts[f"add-{modality}"] = _said(
                    page,
                    gr.UploadButton,
                    lambda language, modality=modality: {"label": say(language, f"kind.{modality}")},
                    file_count="multiple",
                    elem_id=f"add-{modality}",
                )
                _said(page, gr.HTML, functools.partial(_card, page, modality))
    parts["beside"] = gr.UploadButton("Picture beside a map", elem_id="beside", elem_classes="unseen")
    with _said(
        page,
        gr.Accordion,
        lambda language: {"label": say(language, "record")},
        open=False,
        elem_id="record",
    ):
        for name, make, options in (
            ("mic", gr.Audio, {"sources": ["microphone"], "type": "filepath"}),
            ("camera", gr.Image, {"sources": ["webcam"], "type": "filepath"}),
            ("film", gr.Video, {"sources": ["webcam"]}),
        ):
            parts[name] = _said(
                page,
                make,
                lambda language, name=name: {"label": say(language, f"record.{name}")},
                elem_id=name,
                **options,
            )


def _card(page: Page, modality: str, language: str) -> dict:
    """Return what stands below a modality's upload button: what it takes, and an example to try."""
    suffixes = " ".join(suffix.lstrip(".") for suffix in MODALITIES[modality].suffixes)
    example = ""
    if any(file.modality == modality for example in page.examples for file in example.files):
        name = say(language, "sample.of", kind=say(language, f"kind.{modality}"))
        example = button("sample", say(language, "sample"), name=name, kind=modality)
    expects = say(language, f"kind.{modality}.expects", limit=getattr(LIMITS, f"{modality}_seconds", 0))
    return {
        "value": f'<div class="card-foot"><span class="card-expects">{expects}</span>'
        f'<span class="card-suffixes">{suffixes}</span>{example}</div>'
    }


def _history(page: Page) -> None:
    """Lay out the conversations the browser keeps."""
    parts = page.parts
    with _said(page, gr.Accordion, lambda language: {"label": say(language, "history")}, open=False, elem_id="history"):
        _said(
            page,
            gr.HTML,
            lambda language: {key: say(language, f"history.{key}") for key in ("empty", "remove")},
            html_template='<ul class="history" data-empty="${empty}" data-remove="${remove}"></ul>',
            js_on_load="onellm.list(element); watch(['empty', 'remove'], () => onellm.list(element))",
            elem_id="conversations",
        )
        _said(page, gr.HTML, _exports)
        parts["import"] = _said(
            page,
            gr.UploadButton,
            lambda language: {"label": say(language, "history.import")},
            file_types=[".json", ".zip"],
            size="sm",
            elem_id="import",
        )


def _exports(language: str) -> dict:
    """Return the buttons that download the conversation as HTML."""
    buttons = "".join(button("export", say(language, f"history.{form}"), format=form) for form in records.FORMATS)
    return {"value": f'<div class="exports"><span>{say(language, "history.export")}</span>{buttons}</div>'}


def _settings(page: Page) -> None:
    """Lay out the settings: the model, how it answers, and what everybody is held to."""
    parts = page.parts

    def words(name: str) -> Callable[[str], dict]:
        return lambda language: {"label": say(language, f"set.{name}"), "info": say(language, f"set.{name}.info")}

    parts["model"] = _said(
        page, gr.Accordion, lambda language: {"label": say(language, "model")}, open=False, elem_id="model"
    )
    with parts["model"]:
        parts["loading"] = gr.HTML("", elem_id="loading")
        parts["models"] = gr.HTML(page.models(Session()), elem_id="models")
    if page.can_switch:  # a second model takes as much memory as the first
        _comparing(page)
    with _said(page, gr.Accordion, lambda language: {"label": say(language, "set")}, open=False, elem_id="settings"):
        temperature, top_p, length, seed, frames, system = DEFAULTS
        most = LIMITS.new_tokens
        parts["settings"] = [
            _said(page, gr.Slider, words("temperature"), minimum=0, maximum=2, step=0.05, value=temperature),
            _said(page, gr.Slider, words("top_p"), minimum=0.05, maximum=1, step=0.05, value=top_p),
            _said(page, gr.Slider, words("length"), minimum=8, maximum=most, step=8, value=length),
            _said(page, gr.Number, words("seed"), value=seed, precision=0),
            _said(
                page, gr.Slider, words("frames"), minimum=0, maximum=LIMITS.video_sampled_frames, step=1, value=frames
            ),
            _said(page, gr.Textbox, words("system"), value=system, lines=2, max_length=LIMITS.message_characters),
        ]
        parts["reset"] = _said(page, gr.Button, lambda language: {"value": say(language, "set.reset")}, size="sm")
    with _said(page, gr.Accordion, lambda language: {"label": say(language, "limits")}, open=False, elem_id="limits"):
        _said(page, gr.HTML, lambda language: {"value": limits.table(language)})


def _comparing(page: Page) -> None:
    """Lay out the drawer that asks two models the same."""
    parts = page.parts
    parts["comparing"] = _said(
        page, gr.Accordion, lambda language: {"label": say(language, "compare")}, open=False, elem_id="comparing"
    )
    with parts["comparing"]:
        parts["compare"] = gr.HTML("", elem_id="compare")
        parts["compared"] = gr.HTML("", elem_id="compared")
