"""The page: the conversation on the left, a tray with a card a kind of file on the right."""

import functools
import html
import inspect

import gradio as gr

from onellm.limits import LIMITS
from onellm.modalities import MODALITIES
from onellm.web import examples as example_cards
from onellm.web import icons
from onellm.web.engine import Engine
from onellm.web.handlers import WITH_PICTURE, Handlers
from onellm.web.session import Session

TITLE = "OneLLM"
QUIET = {"show_progress": "hidden", "api_visibility": "private"}
LOGO = """<svg class="logo" viewBox="0 0 40 40" width="36" height="36" aria-hidden="true">
<g stroke-width="1.6" stroke="currentColor" opacity=".55"><path d="M20 20 20 5M20 20 30.6 9.4M20 20
35 20M20 20 30.6 30.6M20 20 20 35M20 20 9.4 30.6M20 20 5 20M20 20 9.4 9.4"/></g>
<circle cx="20" cy="5" r="3.4" fill="#2f7fd6"/><circle cx="30.6" cy="9.4" r="3.4" fill="#7a5fd0"/>
<circle cx="35" cy="20" r="3.4" fill="#c2548f"/><circle cx="30.6" cy="30.6" r="3.4" fill="#d05a4e"/>
<circle cx="20" cy="35" r="3.4" fill="#b9770e"/><circle cx="9.4" cy="30.6" r="3.4" fill="#4f7f2d"/>
<circle cx="5" cy="20" r="3.4" fill="#0f8f86"/><circle cx="9.4" cy="9.4" r="3.4" fill="#3f6fb5"/>
<circle cx="20" cy="20" r="7" fill="#117a70"/></svg>"""
WELCOME = """<div class="hello"><h2>Ask about a file</h2>
<p>Add a picture, a video, a sound, a point cloud, a brain scan, motion data, a depth or a normal map,
and ask what it is. Several files and further questions are fine.</p>{invitation}</div>"""
FOOTER = """<div class="foot">Answers may be wrong: check what matters. The model names the main thing in a
file; it does not read text, count, or recognise people, and brain scans are not read for medical use.
Files stay on the machine that runs this page and are deleted after an hour.</div>"""


def build(engine: Engine) -> gr.Blocks:
    """Lay out the page and connect its events.

    Args:
        engine: the model, possibly still loading.

    Returns:
        The page, to be launched.
    """
    found = example_cards.read()
    parts: dict = {"files": {}, "pictures": {}, "previews": {}, "plots": {}}
    on = Handlers(engine, found, parts)
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(600, LIMITS.upload_lifetime_s), fill_width=True
    ) as page:
        session = gr.State(Session())
        with gr.Row(elem_id="top"):
            gr.HTML(f'<div class="title">{LOGO}<h1>{TITLE}</h1></div>', elem_id="title")
            status = gr.HTML(on.status(), elem_id="status")
            parts["clear"] = gr.Button("New chat", scale=0, min_width=104, size="md", visible=False, elem_id="clear")
        with gr.Row(elem_id="main", equal_height=False):
            with gr.Column(elem_id="left", scale=7, min_width=320):
                _conversation(parts, found)
            with gr.Column(elem_id="right", scale=5, min_width=320):
                _tray(parts)
        gr.HTML(FOOTER)
        page.load(on.follow, None, status, show_progress="hidden", concurrency_limit=None, api_visibility="private")
        _connect_files(on, session)
        _connect_conversation(on, session)
        _endpoint(on)
    return page.queue(max_size=LIMITS.queue, default_concurrency_limit=4)


def _conversation(parts: dict, found: list) -> None:
    """Lay out the conversation and the message box."""
    invitation = "<p><strong>Try an example</strong></p>" if found else ""
    with gr.Column(elem_id="welcome") as parts["welcome"]:
        gr.HTML(WELCOME.format(invitation=invitation))
        parts["examples"] = gr.HTML(example_cards.cards(found), js_on_load=example_cards.ON_LOAD, elem_id="examples")
    with gr.Column(elem_id="talk", visible=False) as parts["talk"]:
        parts["conversation"] = gr.Chatbot(
            elem_id="conversation",
            label="Conversation",
            show_label=False,
            height=None,
            layout="bubble",
            buttons=["copy"],
            render_markdown=False,
            latex_delimiters=[],
            allow_tags=False,
            feedback_options=None,
        )
    with gr.Row(elem_id="ask", equal_height=True):
        parts["message"] = gr.Textbox(
            label="Question",
            show_label=False,
            container=False,
            placeholder="Ask a question…",
            lines=1,
            max_lines=6,
            max_length=LIMITS.message_characters,
            autofocus=True,
            scale=8,
            min_width=120,
            elem_id="message",
        )
        parts["send"] = gr.Button("Ask", variant="primary", scale=0, min_width=88, elem_id="send")
        parts["stop"] = gr.Button("Stop", variant="stop", scale=0, min_width=88, visible=False, elem_id="stop")


def _tray(parts: dict) -> None:
    """Lay out a card a kind: what it takes, the upload, the preview."""
    gr.HTML(
        '<div class="tray-head"><h2>Files for your question</h2><span>Click a card or drop a file on it.</span></div>'
    )
    with gr.Column(elem_id="tray"):
        for kind, modality in MODALITIES.items():
            with gr.Column(elem_classes="card", elem_id=f"card-{kind}", min_width=120):
                suffixes = " ".join(suffix.lstrip(".") for suffix in modality.suffixes)
                gr.HTML(
                    f'<div class="card-head" title="{html.escape(modality.expects)}">{icons.svg(kind)}<span>'
                    f'<span class="card-title">{html.escape(modality.title)}</span>'
                    f'<span class="card-suffixes">{html.escape(suffixes)}</span></span></div>'
                )
                parts["files"][kind] = gr.File(
                    label=modality.title, show_label=False, container=False, elem_classes="drop", height=64
                )
                parts["previews"][kind] = gr.HTML(visible=False, elem_classes="look")
                parts["plots"][kind] = gr.Plot(visible=False, show_label=False, container=False, elem_classes="plot")
                if kind in WITH_PICTURE:
                    parts["pictures"][kind] = gr.File(
                        label=f"Picture beside the {kind} map (optional)",
                        elem_classes="beside",
                        height=64,
                    )


def _connect_files(on: Handlers, session: gr.State) -> None:
    """Show a preview whenever a card's file changes."""
    parts = on.parts
    for kind in MODALITIES:
        inputs = [parts[group][kind] for group in ("files", "pictures") if kind in parts[group]]
        gr.on(
            [component.change for component in inputs],
            functools.partial(on.show, kind),
            [session, *inputs],
            [parts["previews"][kind], parts["plots"][kind]],
            show_progress="minimal",
            show_progress_on=parts["previews"][kind],
            concurrency_id="files",
            concurrency_limit=2,
            api_visibility="private",
        )


def _connect_conversation(on: Handlers, session: gr.State) -> None:
    """Connect asking, answering, stopping and taking back."""
    parts = on.parts
    form = [parts["message"], *parts["files"].values(), *parts["pictures"].values()]
    page = [parts[name] for name in ("welcome", "talk", "conversation", "send", "stop", "clear")]
    model = QUIET | {"concurrency_id": "model", "concurrency_limit": 1, "trigger_mode": "multiple"}

    asked = gr.on([parts["send"].click, parts["message"].submit], on.begin, [session, *form], page + form, **QUIET)
    chosen = parts["examples"].click(on.begin_example, session, page + form, **QUIET)
    again = parts["conversation"].retry(on.begin_again, session, page + form, **QUIET)
    for begun in (asked, chosen, again):
        begun.success(on.answer, session, page + form, **model)
    # No `cancels`: a page forgets a cancelled event's successor until the event's last step is over.
    parts["stop"].click(on.halt, session, page, queue=False, **QUIET)
    parts["clear"].click(on.clear, session, page, queue=False, **QUIET)
    parts["conversation"].undo(on.undo, session, page + form, **QUIET)


def _endpoint(on: Handlers) -> None:
    """Add what gradio_client calls: /ask with a message and up to one file a kind."""
    with gr.Row(visible=False):
        message = gr.Textbox(label="message")
        files = [gr.File(label=kind) for kind in MODALITIES]
        answer = gr.Textbox(label="answer")

        def ask(*inputs: str | None) -> str:
            """Ask one question, about up to one file of each kind; returns the answer."""
            return on.ask(*inputs)

        # gradio_client's names and defaults of the arguments come from the signature.
        named = inspect.Parameter.POSITIONAL_OR_KEYWORD
        ask.__signature__ = inspect.Signature(
            [inspect.Parameter("message", named)]
            + [inspect.Parameter(kind, named, default=None) for kind in MODALITIES]
        )
        gr.Button().click(ask, [message, *files], answer, api_name="ask", concurrency_id="model", concurrency_limit=1)
