"""Who asks: a browser is known by a cookie, a program by its Gradio session, anybody else by nothing."""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection
from starlette.types import Scope

if TYPE_CHECKING:
    import gradio as gr

COOKIE = "onellm-visitor"
TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
NOBODY = ""  # a request with neither cookie nor session

_current: ContextVar[str | None] = ContextVar("visitor", default=None)


def current() -> str | None:
    """Return for whom the code runs; None outside of requests.

    Threads that a request starts through anyio copy its context, and so know it too.
    """
    return _current.get()


@contextmanager
def serving(visitor: str) -> Iterator[None]:
    """Run the block for a visitor."""
    token = _current.set(visitor)
    try:
        yield
    finally:
        _current.reset(token)


def from_cookie(scope: Scope) -> str:
    """Return whose cookie a request brings; NOBODY if it brings none."""
    token = HTTPConnection(scope).cookies.get(COOKIE, "")
    return f"cookie:{token}" if TOKEN.fullmatch(token) else NOBODY


def from_event(request: "gr.Request", event_id: str | None) -> str:
    """Return whose a Gradio event is.

    Args:
        request: what Gradio knows of the event's request.
        event_id: the event; Gradio takes its id for a session's where the request named none.
    """
    session = request.session_hash
    named = f"session:{session}" if session and session != event_id else NOBODY
    return from_cookie(request.request.scope) or named


def has_cookie(visitor: str) -> bool:
    """Tell whether a visitor can be known again in any request."""
    return visitor.startswith("cookie:")


def new_cookie(scope: Scope, path: str) -> str:
    """Make a cookie that names a new visitor.

    Args:
        scope: the request of the page; over https the page may be in a frame of another site, as on a Space.
        path: below which the app lies.

    Returns:
        The header's value. Python 3.11 knows no "Partitioned", so it is written here.
    """
    scheme = HTTPConnection(scope).headers.get("x-forwarded-proto", scope.get("scheme", "http")).partition(",")[0]
    site = "SameSite=None; Secure; Partitioned" if scheme.strip() == "https" else "SameSite=Lax"
    return f"{COOKIE}={secrets.token_urlsafe(32)}; Path={path}; HttpOnly; {site}"
