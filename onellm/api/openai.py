"""An OpenAI-style server: /v1/models and /v1/chat/completions, streamed or not, for the model of this process."""

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Generator
from typing import Any

import anyio
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from onellm.api import media
from onellm.api.schema import Completion
from onellm.chat.sampling import Settings
from onellm.errors import BusyError, ModelError, OneLLMError
from onellm.serving import answers
from onellm.serving.engine import Engine
from onellm.serving.metrics import Count, counted
from onellm.utils.limits import LIMITS

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0  # without text for so long, a stream begins, and says that it lives
# proxies must neither keep the pieces back nor remember them
STREAMED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def app(engine: Engine) -> FastAPI:
    """Make the server; it is mounted at /v1.

    Args:
        engine: the app's model.
    """
    server = FastAPI(title="OneLLM", docs_url=None, redoc_url=None)
    _openai_errors(server)
    begun_s = int(time.time())

    def model() -> dict:
        return {"id": _model_id(engine), "object": "model", "created": begun_s, "owned_by": "onellm"}

    @server.get("/models")
    def models() -> dict:
        """List the one model."""
        return {"object": "list", "data": [model()]}

    @server.get("/models/{name:path}")
    def one(name: str) -> dict:
        """Describe the model."""
        _check_model(engine, name)
        return model()

    @server.post("/chat/completions")
    async def complete(request: Request, asked: Completion) -> Any:
        """Answer the last message of a conversation."""
        _check_model(engine, asked.model)
        if not engine.ready:
            if engine.failed:
                engine.start()
            reason = engine.error or f"{engine.name} is being loaded; ask again in a few seconds."
            raise HTTPException(503, reason, {"Retry-After": "5"})
        answer = Answer(engine, asked, answers.owner_of(request.client and request.client.host))
        pieces = _while_connected(request, answer.pieces())
        if not asked.stream:
            text = "".join([piece async for piece in pieces])
            return answer.whole(text)
        first = await _first(pieces)  # the status says what is wrong with the request
        return StreamingResponse(answer.events(first, pieces), media_type="text/event-stream", headers=STREAMED)

    return server


class Answer:
    """The answer to one request.

    Args:
        engine: the app's model.
        asked: the request.
        owner: who asks, see `RequestQueue.join`.
    """

    def __init__(self, engine: Engine, asked: Completion, owner: str = ""):
        self.engine, self.asked, self.owner = engine, asked, owner
        self.count = Count()
        self.most = min(asked.max_completion_tokens or asked.max_tokens or Settings.max_new_tokens, LIMITS.new_tokens)
        self.media: list[dict] = []
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": _model_id(engine),
        }

    def pieces(self) -> Generator[str, None, None]:
        """Yield the answer piece by piece, and empty pieces in between; the request's files live as long."""
        asked = self.asked
        with counted("openai") as self.count, answers.private_folder() as folder:
            self.engine.queue.check(self.owner)  # before anything is read
            talk = media.read(asked.messages, folder)
            pieces = answers.stream(
                self.engine,
                self.count,
                talk.text,
                talk.messages,
                lambda name, _: folder / name,
                owner=self.owner,
                system=talk.system,
                max_new_tokens=self.most,
                temperature=asked.temperature or 0.0,
                top_p=asked.top_p or 1.0,
                stop=asked.stop or [],
                seed=None if asked.seed is None else asked.seed % 2**32,
                **talk.files,
            )
            generated = yield from pieces
            self.media = [media.describe(part) for part in generated]  # its files go with the request

    def whole(self, text: str) -> dict:
        """Return the answer at once."""
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self.media:
            message["media"] = self.media
        choice = {"index": 0, "message": message, "finish_reason": self.count.finish_reason, "logprobs": None}
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": self._usage()}

    async def events(self, first: str, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
        """Yield the answer as server-sent events."""
        yield self._event({"role": "assistant", "content": first})
        said_s = time.monotonic()
        try:
            async for piece in pieces:
                if piece:
                    yield self._event({"content": piece})
                elif time.monotonic() - said_s > PATIENCE_S:
                    yield ": still at it\n\n"
                else:
                    continue
                said_s = time.monotonic()
        except Exception as error:  # the status has been sent
            yield _data({"error": _described(error)[1]})
            return
        yield self._event({"media": self.media} if self.media else {}, self.count.finish_reason)
        if self.asked.stream_options and self.asked.stream_options.include_usage:
            yield _data(self._head | {"object": "chat.completion.chunk", "choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"

    def _event(self, delta: dict, reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _data(self._head | {"object": "chat.completion.chunk", "choices": [choice]})

    def _usage(self) -> dict:
        """Count the tokens that the model read and wrote."""
        trace = self.count.trace
        read, written = (trace.prompt_tokens, trace.new_tokens) if trace is not None else (0, 0)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def _while_connected(request: Request, pieces: Generator[str, None, None]) -> AsyncIterator[str]:
    """Pass pieces on while somebody listens; then close their source, which frees the model."""
    try:
        async for piece in iterate_in_threadpool(pieces):
            if await request.is_disconnected():
                return
            yield piece
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(pieces.close)


async def _first(pieces: AsyncIterator[str]) -> str:
    """Return the first piece of an answer that says something; an empty one if that takes long."""
    begun_s = time.monotonic()
    async for piece in pieces:
        if piece or time.monotonic() - begun_s > PATIENCE_S:
            return piece
    return ""


def _data(content: dict) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _model_id(engine: Engine) -> str:
    """Return the model's name without how its weights are kept."""
    return engine.name.partition(" (")[0]


def _check_model(engine: Engine, name: str) -> None:
    if name not in (_model_id(engine), engine.name):
        raise UnknownModelError(f"There is no model '{name}' here; use '{_model_id(engine)}', the one of /v1/models.")


class UnknownModelError(OneLLMError):
    """A request for a model that does not run here."""


def _described(error: Exception) -> tuple[int, dict]:
    """Return an error's status and description, in OpenAI's form."""
    status, kind, code, param, message = 400, "invalid_request_error", None, None, str(error)
    if isinstance(error, UnknownModelError):
        status, code, param = 404, "model_not_found", "model"
    elif isinstance(error, BusyError):
        status, kind, code = 429, "rate_limit_error", "busy"
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        param = ".".join(str(step) for step in first["loc"][1:]) or None
        message = f"{param or 'The body'}: {first['msg']}."
    elif isinstance(error, StarletteHTTPException):
        status, message = error.status_code, str(error.detail)
        kind = "invalid_request_error" if status < 500 else "server_error"
    elif isinstance(error, ModelError):  # it failed, or was too large: the request is well-formed
        status, kind = 503, "server_error"
    elif not isinstance(error, OneLLMError):
        logger.error("no answer", exc_info=error)
        status, kind = 500, "server_error"
        message = answers.SURPRISE
    return status, {"message": message, "type": kind, "param": param, "code": code}


def _openai_errors(server: FastAPI) -> None:
    """Answer every error of a server in OpenAI's form."""

    def answer(_: Request, error: Exception) -> JSONResponse:
        status, described = _described(error)
        headers = dict(getattr(error, "headers", None) or {})
        if isinstance(error, BusyError):
            headers["Retry-After"] = str(error.seconds)
        return JSONResponse({"error": described}, status, headers)

    for kind in (OneLLMError, RequestValidationError, StarletteHTTPException, Exception):
        server.add_exception_handler(kind, answer)
