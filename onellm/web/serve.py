"""Start the web app: options, limits, launch."""

import argparse
import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onellm.models import add_options as add_model_options

if TYPE_CHECKING:
    from onellm.web.engine import Engine


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the app's options to a parser."""
    on_space = "SPACE_ID" in os.environ
    add_model_options(parser)
    parser.add_argument("--host", default="0.0.0.0" if on_space else "127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")


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
    from onellm.modalities import MODALITIES
    from onellm.web import examples, theme
    from onellm.web.engine import Engine
    from onellm.web.layout import build

    device_map = "auto" if options.offload else None
    engine = Engine(options.model, quantize=options.quantize, device_map=device_map)
    engine.start()
    threading.Thread(target=_warm_up, args=(engine,), daemon=True).start()
    build(engine).launch(
        server_name=options.host,
        server_port=options.port,
        share=False,
        show_error=False,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        max_file_size=max(modality.limit_bytes for modality in MODALITIES.values()),
        allowed_paths=[str(examples.FOLDER)],
        theme=theme.theme(),
        css=theme.CSS,
    )


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
