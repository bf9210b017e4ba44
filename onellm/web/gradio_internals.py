"""What the app uses of Gradio beyond its documented interface, written for Gradio 6.31; other versions are checked.

It is imported before Gradio is. What guards uploads must be there, or the app does not start; what only saves time is
left out with a line in the log.
"""

import contextlib
import inspect
import logging
import sys
from collections.abc import Iterator
from typing import Any

from onellm.errors import OneLLMError

logger = logging.getLogger(__name__)

# methods of gr.Blocks that `handlers.endpoints.Blocks` overrides, with the arguments it reads
OVERRIDDEN = {
    "process_api": {"request", "event_id"},
    "preprocess_data": {"block_fn", "inputs"},
    "postprocess_data": {"block_fn", "predictions", "state"},
}


def load_gradio() -> None:
    """Import Gradio without the type stubs it writes for editors, which take half of its 2.7 s, and check it.

    Raises:
        OneLLMError: this Gradio would not call what guards uploads.
    """
    try:
        with _without_stubs():
            import gradio
    except Exception:
        logger.warning("Gradio cannot be imported without its type stubs; it is imported with them", exc_info=True)
        for name in [name for name in sys.modules if name.split(".")[0] == "gradio"]:
            del sys.modules[name]
        import gradio
    check_blocks(gradio.Blocks)
    _leave_origins_to_us()


def _leave_origins_to_us() -> None:
    """Take out of Gradio what lets other sites' pages read its answers; it stands before any middleware of an app.

    Raises:
        OneLLMError: this Gradio does that elsewhere.
    """
    from gradio import __version__, routes

    if not hasattr(routes, "CustomCORSMiddleware"):
        raise OneLLMError(
            f"Gradio {__version__} has no routes.CustomCORSMiddleware, which the app replaces to keep other sites out; "
            "expected Gradio 6.31; run pip install 'gradio>=6.31,<7'."
        )
    routes.CustomCORSMiddleware = _PassOn


class _PassOn:
    """Middleware that does nothing: `security.origins` says who may speak to the app."""

    def __init__(self, app: Any, **_: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def check_blocks(blocks: type) -> None:
    """Check that a class has the methods that `handlers.endpoints.Blocks` overrides.

    Raises:
        OneLLMError: it lacks one, or an argument of one.
    """
    from gradio import __version__

    for name, arguments in OVERRIDDEN.items():
        method = getattr(blocks, name, None)
        if not inspect.iscoroutinefunction(method) or not arguments <= inspect.signature(method).parameters.keys():
            raise OneLLMError(
                f"Gradio {__version__} has no Blocks.{name}({', '.join(sorted(arguments))}), which the app needs to "
                "guard uploads; expected Gradio 6.31; run pip install 'gradio>=6.31,<7'."
            )


def message_part(content: str) -> Any:
    """Return HTML as content of a `gr.Chatbot` message, ready to be sent: a stream sends all messages at every step."""
    try:
        from gradio.components.chatbot import ComponentMessage
    except ImportError:  # the documented way, which builds a component each time
        from gradio import HTML

        return HTML(content)
    return ComponentMessage(component="html", value=content, constructor_args={}, props={})


@contextlib.contextmanager
def _without_stubs() -> Iterator[None]:
    """Let Gradio find no source file of its components: it writes no stub of those (gradio/component_meta.py)."""
    real = inspect.getfile

    def getfile(thing: Any) -> str:
        if getattr(thing, "__module__", "").startswith("gradio."):
            raise OSError("no stubs are wanted")
        return real(thing)

    inspect.getfile = getfile
    try:
        yield
    finally:
        inspect.getfile = real
