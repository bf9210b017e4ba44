"""What stands between the network and Gradio: who asks is known, files are sent to their owners, bodies are limited."""

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onellm.modalities.base import megabytes
from onellm.utils.limits import LIMITS
from onellm.web.security import uploads, visitors
from onellm.web.security.origins import API, Origins
from onellm.web.security.quotas import FILE_BYTES, QUOTAS, QuotaError
from onellm.web.security.sessions import SESSIONS

logger = logging.getLogger(__name__)

FILE = "file="
UPLOAD = "upload"
HEARTBEAT = "heartbeat/"
EVENTS = ("api/", "call/", "cancel", "queue/join", "reset", "run/")  # whose bodies name a session
CONFIG = "/config"  # which programs read first
# Gradio's addresses that read, fetch or write files and that this page has no use for.
CLOSED = (
    *("component_server", "custom_component", "deep_link", "dev/", "file/", "process_recording", "profiling", "proxy="),
    *("run-history", "runs", "stream/", "undo-vibe", "vibe"),
)
FORM_BYTES = 1_000_000  # of a form around its files
PATIENCE_S = 30.0  # for a body to begin
SLOWEST_BYTES_S = 10_000  # at which it has to come


class Refused(HTTPException, MultiPartException):
    """A body that is refused; to Gradio's reader of forms it is one of its own, so that it removes what it wrote.

    Args:
        status: of HTTP.
        message: what is wrong and what to do.
        retry_s: when to try again.
    """

    def __init__(self, status: int, message: str, retry_s: int | None = None):
        HTTPException.__init__(self, status, message, {"Retry-After": str(retry_s)} if retry_s else None)
        self.message = message


class Guard:
    """Middleware around the whole app.

    Args:
        app: what answers.
        root_path: where it lies behind a proxy.
        for_all: folders whose files everybody may have.
        origins: the names and the sites that are served; by default this machine's own alone.
    """

    def __init__(self, app: ASGIApp, root_path: str = "", for_all: Iterable[Path] = (), origins: Origins | None = None):
        self.app, self.for_all = app, [folder.resolve() for folder in for_all]
        self.origins = origins or Origins()
        self.cookie_path = urlsplit(root_path).path.rstrip("/") or "/"
        self.in_flight = 0  # bytes of bodies whose requests are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.origins.protect(MutableHeaders(scope=message), scope["path"])
            await send(message)

        try:
            self.origins.check(scope)
        except HTTPException as refused:
            await JSONResponse({"detail": refused.detail}, refused.status_code)(scope, receive, protected)
            return
        await self._serve(scope, receive, protected)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of somebody who may ask."""
        route = scope["path"].partition(API)[2]  # whether or not a proxy passes the app's own path on
        if route.startswith(CLOSED):
            await _absent()(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            await self._with_body(scope, receive, send, route)
        elif not self._owns_session(scope, route):
            await _absent()(scope, receive, send)
        elif route.startswith(FILE):
            await self._file(scope, receive, send, route.removeprefix(FILE))
        else:
            await self._page(scope, receive, send)

    def _owns_session(self, scope: Scope, route: str) -> bool:
        """Tell whether the session that an address names, if any, is the visitor's."""
        names = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [])
        if route.startswith(HEARTBEAT):
            names = [*names, unquote(route.removeprefix(HEARTBEAT))]
        return all(SESSIONS.may_use(name, visitors.in_session(scope, name)) for name in names)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give a cookie with the page to whoever has none."""
        if visitors.from_cookie(scope):
            await self.app(scope, receive, send)
            return

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html") or scope["path"].endswith(CONFIG):
                    headers.append("Set-Cookie", visitors.new_cookie(scope, self.cookie_path))
                    headers["Cache-Control"] = "private, no-cache"
            await send(message)

        await self.app(scope, receive, with_cookie)

    async def _file(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """Send a file to those who may have it; to others it is not there."""
        visitor = visitors.from_cookie(scope)
        # The page asks by HEAD whether a conversation may go on with an upload. Without a cookie that cannot be told,
        # so let the page upload it again.
        asks = scope["method"] == "HEAD" and visitor == visitors.NOBODY
        if asks or not await anyio.to_thread.run_sync(self._may_have, path, visitor):
            await _absent()(scope, receive, send)
            return

        async def private(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Cache-Control"] = "private"
                for name in ("authorization", "cookie"):  # Gradio sends a request's headers back with a range of bytes
                    del headers[name]
            await send(message)

        await self.app(scope, receive, private)

    def _may_have(self, path: str, visitor: str) -> bool:
        """Tell whether a file is for all, or a visitor's own."""
        try:
            real = Path(path).resolve()
        except (OSError, ValueError, RuntimeError):
            return False
        return any(folder in real.parents for folder in self.for_all) or uploads.may_fetch(path, visitor)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, route: str) -> None:
        """Answer a request that has a body."""
        body = _body_of(route)(self, scope, receive, send)
        if API not in scope["path"] and "/v1/" in scope["path"]:
            body.limit_bytes = LIMITS.turn_bytes
        try:
            await self.app(scope, body.receive, body.send)
        except Exception:
            if not route or body.answered:
                raise
            logger.info("refused event", exc_info=True)  # Gradio looks up whatever names a request brings
            detail = "The request has not the form that /gradio_api/info describes."
            await JSONResponse({"detail": detail}, 400)(scope, receive, send)
        finally:
            self.in_flight -= body.size


class _Body:
    """One body, counted as it arrives.

    Args:
        guard: counts all of them.
        scope: the request.
        receive: of ASGI.
        send: of ASGI.
    """

    limit_bytes = LIMITS.event_bytes

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send):
        self.guard, self.scope = guard, scope
        self._receive, self._send = receive, send
        self.size, self.whole, self.answered, self.begun_s = 0, False, False, time.monotonic()
        declared = Headers(scope=scope).get("content-length", "")
        self.declared = int(declared) if declared.isascii() and declared.isdigit() else 0

    async def receive(self) -> Message:
        """Receive the next piece.

        Raises:
            Refused: the body is too large, or too slow.
        """
        if self.whole:
            return await self._receive()
        try:
            if not self.size:
                self.admit(self.declared)
            message = await self._next()
            self.take(message)
            self.admit()
        except Refused:
            await self._drain()
            raise
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        self.answered = True
        await self._send(message)

    def take(self, message: Message) -> None:
        """Count a piece."""
        size = len(message.get("body", b""))
        self.size += size
        self.guard.in_flight += size

    def admit(self, more: int = 0) -> None:
        """Check the bytes received so far, and those that are to come."""
        if self.size + more > self.limit_bytes:
            raise Refused(
                413, f"The request is larger than {megabytes(self.limit_bytes)}; send fewer or smaller files."
            )
        if self.guard.in_flight + more > LIMITS.bodies_bytes:
            raise Refused(503, "Too many files are being received at once; try again in some seconds.", 10)

    async def _next(self) -> Message:
        """Wait for a piece."""
        left_s = self.begun_s + PATIENCE_S + self.size / SLOWEST_BYTES_S - time.monotonic()
        with anyio.move_on_after(left_s):
            message = await self._receive()
            self.whole = not message.get("more_body", False)
            return message
        raise Refused(408, "The request came too slowly and was given up; send it again.")

    async def _drain(self) -> None:
        """Read on for a while and keep nothing: who is still sending does not read the answer."""
        thrown = 0
        with anyio.move_on_after(PATIENCE_S):
            while not self.whole and thrown < LIMITS.turn_bytes:
                message = await self._receive()
                thrown += len(message.get("body", b""))
                self.whole = not message.get("more_body", False)


class _Event(_Body):
    """An event: the session that it names must be the visitor's."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send):
        super().__init__(guard, scope, receive, send)
        self.content: list[bytes] = []

    def take(self, message: Message) -> None:
        super().take(message)
        self.content.append(message.get("body", b""))
        if not self.whole:
            return
        content, self.content = b"".join(self.content), []
        try:
            named = json.loads(content).get("session_hash") if b"session_hash" in content else None
        except (ValueError, AttributeError, RecursionError):
            return  # Gradio refuses it
        if isinstance(named, str) and not SESSIONS.may_use(named, visitors.in_session(self.scope, named)):
            raise Refused(403, "This page belongs to another visitor; load it again.")


class _Upload(_Body):
    """An upload: what Gradio answers names the files, which are the visitor's from then on."""

    limit_bytes = LIMITS.turn_bytes + FORM_BYTES

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send):
        super().__init__(guard, scope, receive, send)
        self.visitor = visitors.from_cookie(scope)
        self.payer = self.visitor or f"address:{scope['client'][0] if scope.get('client') else ''}"
        self.refused: Refused | None = None
        self.answer = b""

    async def receive(self) -> Message:
        try:
            return await super().receive()
        except Refused as refused:
            self.refused = refused
            raise

    def take(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            raise Refused(400, "The upload was broken off; send it again.")
        super().take(message)
        QUOTAS.spend(self.payer, len(message.get("body", b"")))

    def admit(self, more: int = 0) -> None:
        super().admit(more)
        try:
            QUOTAS.check(self.payer, more, uploads.folder())
        except QuotaError as error:
            raise Refused(error.status, str(error)) from error

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.refused is not None:  # Gradio knows 400 and 413 alone
                message = {**message, "status": self.refused.status_code}
                for name, value in (self.refused.headers or {}).items():
                    MutableHeaders(scope=message)[name] = value
            self.status = message["status"]
        elif self.status == 200:
            self.answer += message.get("body", b"")
            if not message.get("more_body", False):
                paths = json.loads(self.answer)
                uploads.give(paths, self.visitor)
                QUOTAS.spend(self.payer, FILE_BYTES * len(paths))
        await super().send(message)


def _body_of(route: str) -> type[_Body]:
    """Return what reads the body of a request."""
    if route.startswith(UPLOAD):
        return _Upload
    return _Event if route.startswith(EVENTS) else _Body


def _absent() -> JSONResponse:
    """Say that nothing is here, whatever is."""
    return JSONResponse({"detail": "There is no such file here for you, or no longer."}, 404)
