"""HTML from templates/, where every value is escaped once."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from jinja2.ext import Extension
from markupsafe import Markup

from onellm.web.views import icons
from onellm.web.views.texts import say

FOLDER = Path(__file__).parent / "templates"


class _OneLine(Extension):
    """Drops line breaks and indentation of templates: a stream sends all messages at every step."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return re.sub(r"\n\s*", "", source)


@jinja2.pass_context
def _say(context: jinja2.runtime.Context, key: str, **values: object) -> str:
    """Return a text in the language that `render` was given."""
    return say(context["language"], key, **values)


@lru_cache
def _environment() -> jinja2.Environment:
    """Return the templates, each of which is compiled when it is first used."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        auto_reload=False,
        undefined=jinja2.StrictUndefined,
        extensions=[_OneLine],
    )
    environment.globals |= {"say": _say, "svg": icons.svg, "generated_url": generated_url}
    environment.filters |= {
        "filename": lambda path: Path(path).name,
        "gigabytes": lambda count: f"{count / 1e9:.1f}",
        "percent": lambda share: f"{share:.0%}",
        "seconds": seconds,
    }
    return environment


def render(template: str, **values: Any) -> Markup:
    """Return HTML.

    Args:
        template: a file of templates/, without its suffix.
        **values: the template's variables; `language` is that of its texts.

    Raises:
        jinja2.UndefinedError: the template needs a value that is not given.
    """
    return Markup(_environment().get_template(f"{template}.html").render(values))


def seconds(value_s: float) -> str:
    """Return seconds with two digits after the point below 10."""
    return f"{value_s:.2f}" if value_s < 10 else f"{value_s:.0f}"


def file_url(path: str | Path) -> str:
    """Return a served file's address, relative to the page so that it holds behind any proxy."""
    return f"gradio_api/file={quote(str(path))}"


def generated_url(generated: dict) -> str:
    """Return the address of what an answer holds besides text, a content part; empty where the file is gone."""
    path = generated.get("path", "")
    return file_url(path) if Path(path).is_file() else ""
