"""Serve the page and the programs' API on one port: options, engine, launch; the model loads behind the page."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onellm.chat.outputs.diffusion import add_options as add_generators
from onellm.errors import OneLLMError
from onellm.hub.registry import add_options as add_model_options
from onellm.utils import limits, zerogpu

if TYPE_CHECKING:
    from onellm.serving.engine import Engine

PATIENCE_S = 5.0  # for answers to end when the app does


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the app's options to a parser; what is not given comes from the environment, as hosts set it."""
    add_model_options(parser)
    add_generators(parser)
    parser.add_argument("--host", default="0.0.0.0" if _on_space() else "127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")
    parser.add_argument("--root-path", default="", metavar="P", help="path or URL behind a reverse proxy: /onellm")
    parser.add_argument(
        "--fixed-model",
        action=argparse.BooleanOptionalAction,
        help="visitors cannot switch the model; the default where others than this machine can connect",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name that the app is reached by, such as chat.example.org; again for each",
    )
    parser.add_argument("--public", action="store_true", help="strangers are served: as --fixed-model")
    for name in ("host", "port", "root_path"):
        if given := os.environ.get(f"ONELLM_{name.upper()}"):
            parser.set_defaults(**{name: given})


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse options and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="app.py", description="OneLLM in the browser.")
    add_options(parser)
    try:
        limits.check()
    except OneLLMError as wrong:
        sys.exit(str(wrong))
    run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> None:
    """Serve the app until it is interrupted.

    Args:
        options: what `add_options` parsed.
    """
    from onellm.serving.engine import Engine
    from onellm.web.app import WebApp

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's stop ends as Ctrl-C does
    names = [*options.allow_host, *os.environ.get("ONELLM_ALLOW_HOST", "").split(",")]
    engine = Engine(
        options.model,
        llm=options.llm,
        quantize=options.quantize,
        device_map="auto" if options.offload else None,
        generators=dict(options.generator),
    )
    if zerogpu.is_zero():  # its workers are forked at launch, and the model must be in what they copy
        engine.wait()
    app = WebApp(engine, fixed_model=_is_fixed(options, names), root_path=options.root_path, names=names)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            app.launch(options.host, options.port, routes(engine))
        except OSError:
            sys.exit(f"Port {options.port} of {options.host} is taken, or cannot be had; give another one with --port.")
        engine.start()  # not before: the page would wait for it
        threading.Thread(target=app.warm_up, daemon=True).start()
        while True:
            time.sleep(3600)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    rest = [one.shut(PATIENCE_S) for one in (engine, engine.beside) if one is not None]
    app.close()
    if not all(rest):  # a thread in native code cannot be ended, and Python would not end with it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def routes(engine: "Engine") -> list[Any]:
    """Return the routes for programs and hosts, which stand beside the page.

    Args:
        engine: the app's model.
    """
    from starlette.routing import Mount

    from onellm.api import health, openai

    server = openai.app(engine)

    async def v1(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/v1/"):  # Mount counts on --root-path, and the proxy has taken it off
            scope = {**scope, "root_path": "/v1"}
        await server(scope, receive, send)

    return [Mount("/v1", v1), *health.router(engine).routes]


def _on_space() -> bool:
    """Whether this is a Hugging Face Space."""
    return "SPACE_ID" in os.environ


def _is_fixed(options: argparse.Namespace, names: list[str]) -> bool | None:
    """Whether visitors cannot switch the model; None where that is up to how each of them comes."""
    if options.fixed_model is not None:
        return options.fixed_model
    from onellm.web.security.origins import is_loopback

    others = options.public or options.root_path or any(map(str.strip, names)) or _on_space()
    return True if others or not is_loopback(options.host) else None
