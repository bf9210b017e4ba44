"""HTML of our own: buttons that page.js passes on as events, and HTML as content of a message."""

import html
from typing import Any

from onellm.web.views import icons


def escaped(text: str) -> str:
    """Return text in which nothing is markup."""
    return html.escape(text, quote=False)


def button(
    act: str, label: str, icon: str = "", *, name: str = "", pressed: bool | None = None, lang: str = "", **data: object
) -> str:
    """Return a button.

    Args:
        act: the event its click triggers.
        label: what it says; of a button with an icon, what it is called.
        icon: a file of icons/ it shows instead of the label.
        name: what it is called where the label alone says too little.
        pressed: whether it is in force; None for a button that only does something.
        lang: the label's language, where it is not the page's.
        **data: sent with the event.

    Returns:
        The button as HTML.
    """
    called = name or (label if icon else "")
    attributes = {"class": "act" if icon else "act text", "data-act": act, "lang": lang, "aria-label": called}
    attributes |= {"title": called if icon else "", "aria-pressed": "" if pressed is None else str(pressed).lower()}
    attributes |= {f"data-{key}": value for key, value in data.items()}
    written = "".join(f' {key}="{html.escape(str(value))}"' for key, value in attributes.items() if value != "")
    return f'<button type="button"{written}>{icons.svg(icon) if icon else escaped(label)}</button>'


def part(content: str) -> Any:
    """Return HTML as content of a `gr.Chatbot` message, ready to be sent: a stream sends all messages at every step."""
    from gradio.components.chatbot import ComponentMessage

    return ComponentMessage(component="html", value=content, constructor_args={}, props={})
