"""Start the web app: options, limits, launch; the page listens first, the model loads behind it."""

import argparse
import contextlib
import functools
import inspect
import ipaddress
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from onellm import gpu
from onellm.generators import add_options as add_generators
from onellm.limits import LIMITS
from onellm.models import add_options as add_model_options

if TYPE_CHECKING:
    from onellm.web.engine import Engine

PLOTLY = "/onellm/plotly.min.js"
WEEK_S = 604_800


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
    for name in ("model", "quantize", "host", "port", "root_path"):
        if given := os.environ.get(f"ONELLM_{name.upper()}"):
            parser.set_defaults(**{name: given})


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse options and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="app.py", description="OneLLM in the browser.")
    add_options(parser)
    serve(parser.parse_args(arguments))


def serve(options: argparse.Namespace) -> None:
    """Serve the app.

    Args:
        options: what `add_options` parsed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from onellm.web import uploads

    uploads.choose_folder()
    with _without_stubs():
        import gradio  # noqa: F401
    from starlette.middleware import Middleware

    from onellm.modalities import MODALITIES
    from onellm.web import examples, theme
    from onellm.web.engine import Engine
    from onellm.web.guard import Guard
    from onellm.web.layout import build

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's stop ends as Ctrl-C does
    fixed = options.fixed_model if options.fixed_model is not None else _on_space() or not _is_loopback(options.host)
    engine = Engine(
        options.model,
        quantize=options.quantize,
        device_map="auto" if options.offload else None,
        generators=dict(options.generator),
    )
    if gpu.is_zero():  # its workers are forked at launch, and the model must be in what they copy
        engine.wait()
    page = build(engine, fixed_model=fixed)
    guard = Middleware(Guard, root_path=options.root_path, for_all=[examples.FOLDER])
    launch = functools.partial(
        page.launch,
        server_name=options.host,
        server_port=options.port,
        root_path=options.root_path or None,
        prevent_thread_lock=True,
        app_kwargs={"routes": routes(engine), "middleware": [guard]},
        share=False,
        show_error=False,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        max_threads=40 + LIMITS.queue,  # those who wait hold threads; 40 are Gradio's default
        max_file_size=max(modality.limit_bytes for modality in MODALITIES.values()),
        allowed_paths=[str(examples.FOLDER)],
        theme=theme.theme(),
        css=theme.CSS,
        head=theme.HEAD,
    )
    with contextlib.suppress(KeyboardInterrupt):
        try:
            launch()
        except OSError:
            sys.exit(f"Port {options.port} of {options.host} is taken, or cannot be had; give another one with --port.")
        uploads.keep_swept()
        engine.start()  # not before: the page would wait for it
        threading.Thread(target=_warm_up, args=(engine,), daemon=True).start()
        while True:
            time.sleep(3600)
    for one in filter(None, (engine, engine.beside)):
        one.cancel()  # else Python waits at its end for the threads that load
    page.close(verbose=False)
    uploads.clear()


def routes(engine: "Engine") -> list[Any]:
    """Return what the process answers beside the page: programs' and hosts' routes, and the plots' script.

    Args:
        engine: the app's model.
    """
    from fastapi.responses import FileResponse
    from starlette.routing import Mount, Route

    from onellm.api import health, openai

    def plotly(_: Any) -> FileResponse:
        from importlib.resources import files

        script = files("plotly") / "package_data/plotly.min.js"
        return FileResponse(str(script), media_type="text/javascript", headers={"Cache-Control": f"max-age={WEEK_S}"})

    server = openai.app(engine)

    async def v1(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/v1/"):  # Mount counts on --root-path, and the proxy has taken it off
            scope = {**scope, "root_path": "/v1"}
        await server(scope, receive, send)

    return [Route(PLOTLY, plotly), Mount("/v1", v1), *health.router(engine).routes]


def _on_space() -> bool:
    """Whether this is a Hugging Face Space."""
    return "SPACE_ID" in os.environ


def _is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def _without_stubs() -> Iterator[None]:
    """Keep Gradio from writing type stubs for editors while it is imported, which is half of its 2.7 s.

    It skips a component whose source file cannot be named (gradio/component_meta.py).
    """
    real = inspect.getfile

    def getfile(thing: Any) -> str:
        if getattr(thing, "__module__", "").startswith("gradio."):
            raise OSError("not wanted now")
        return real(thing)

    inspect.getfile = getfile
    try:
        yield
    finally:
        inspect.getfile = real


def _warm_up(engine: "Engine") -> None:
    """Show one example a kind to nobody: the readers' libraries take seconds to import."""
    from onellm.errors import OneLLMError
    from onellm.web import examples
    from onellm.web.previews import look_at

    engine.wait()
    if sys.platform == "linux":  # where a thread has a priority of its own: answers come first
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
    files = {file.kind: file for example in examples.read() for file in example.files}
    for file in files.values():
        with contextlib.suppress(OneLLMError):
            look_at(file.kind, file.path, file.options)
