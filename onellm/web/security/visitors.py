"""Who asks: a browser is known by a cookie, a program by its Gradio session, anybody else by nothing."""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection
from starlette.types import Scope

from onellm.serving.answers import owner_of
from onellm.utils.paths import cache_folder

if TYPE_CHECKING:
    import gradio as gr

COOKIE = "onellm-visitor"
TOKEN = re.compile(r"([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")  # a name, and this app's signature
KEY_BYTES = 32
NOBODY = ""  # a request with neither cookie nor session

_current: ContextVar[str | None] = ContextVar("visitor", default=None)
_proxied: ContextVar[bool] = ContextVar("proxied", default=False)
_session: ContextVar[str] = ContextVar("session", default="")
_owner: ContextVar[str] = ContextVar("owner", default="")
PROXIES = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "forwarded", "via")


def current() -> str | None:
    """Return for whom the code runs; None outside of requests.

    Threads that a request starts through anyio copy its context, and so know it too.
    """
    return _current.get()


def came_through_proxy() -> bool:
    """Tell whether the request that the code runs for came through a proxy, by what such a one adds to it."""
    return _proxied.get()


def owner() -> str:
    """Return for whom the code runs as the request queue counts them, see `answers.owner_of`; empty outside."""
    return _owner.get()


def session() -> str:
    """Return the name of the session that the code runs in; empty outside of requests."""
    return _session.get()


@contextmanager
def serving(visitor: str, scope: Scope | None = None, session: str = "") -> Iterator[None]:
    """Run the block for a visitor.

    Args:
        visitor: who it is.
        scope: the request, where there is one.
        session: its name.
    """
    headers = HTTPConnection(scope).headers if scope is not None else {}
    token, proxied = _current.set(visitor), _proxied.set(any(name in headers for name in PROXIES))
    named, address = _session.set(session), ((scope or {}).get("client") or [None])[0]
    owned = _owner.set(owner_of(address, visitor if has_cookie(visitor) else "") if scope is not None else "")
    try:
        yield
    finally:
        _current.reset(token)
        _proxied.reset(proxied)
        _session.reset(named)
        _owner.reset(owned)


def from_cookie(scope: Scope) -> str:
    """Return whose cookie a request brings; NOBODY if it brings none."""
    found = TOKEN.fullmatch(HTTPConnection(scope).cookies.get(COOKIE, ""))
    return f"cookie:{found[1]}" if found and hmac.compare_digest(found[2], _signature(found[1])) else NOBODY


def from_event(request: "gr.Request", event_id: str | None) -> str:
    """Return whose a Gradio event is.

    Args:
        request: what Gradio knows of the event's request.
        event_id: the event; Gradio takes its id for a session's where the request named none.
    """
    session = request.session_hash
    return in_session(request.request.scope, session if session != event_id else None)


def in_session(scope: Scope, session: str | None) -> str:
    """Return who asks in a session that a request names, if it does."""
    return from_cookie(scope) or (f"session:{session}" if session else NOBODY)


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
    name = secrets.token_urlsafe(32)
    return f"{COOKIE}={name}.{_signature(name)}; Path={path}; HttpOnly; {site}"


def seal(*texts: str) -> str:
    """Return what says that this app gave a text to the present visitor: nobody else can write it."""
    return _signature(json.dumps([current(), *texts]))


def _signature(name: str) -> str:
    """Return what nobody else can write below a visitor's name."""
    digest = hmac.digest(_key(), name.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@lru_cache
def _key() -> bytes:
    """Return the key of signatures: one for all starts of the app, or this process's own where none can be kept."""
    fresh, path = secrets.token_bytes(KEY_BYTES), cache_folder() / "visitors.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(fresh)
    except FileExistsError:
        kept = path.read_bytes() if os.access(path, os.R_OK) else b""
        return kept if len(kept) == KEY_BYTES else fresh
    except OSError:
        pass
    return fresh
