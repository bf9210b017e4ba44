"""The web app: Gradio set up and launched around an engine."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES
from onellm.utils.limits import LIMITS
from onellm.utils.paths import EXAMPLES

if TYPE_CHECKING:
    from onellm.serving.engine import Engine

PLOTLY = "/onellm/plotly.min.js"
WEEK_S = 604_800


class WebApp:
    """The page of one engine.

    Args:
        engine: the app's model.
        fixed_model: visitors cannot switch it; None: those can who come through no proxy.
        root_path: path or URL behind a reverse proxy.
        names: host names that the app is reached by, besides this machine's own.
    """

    def __init__(
        self, engine: "Engine", *, fixed_model: bool | None = None, root_path: str = "", names: Iterable[str] = ()
    ):
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from onellm.web import gradio_internals
        from onellm.web.security import uploads

        uploads.choose_folder()
        gradio_internals.load_gradio()
        from onellm.web.layout import build

        self.engine, self.root_path, self.names = engine, root_path, [*names, urlsplit(root_path).netloc]
        self.page = build(engine, fixed_model=fixed_model)

    def launch(self, host: str, port: int, routes: list[Any]) -> None:
        """Listen, and return.

        Args:
            host: address to listen on.
            port: port to listen on.
            routes: what is answered beside the page.

        Raises:
            OSError: the port is taken.
        """
        from starlette.middleware import Middleware

        from onellm.web.security import connections, uploads
        from onellm.web.security.guard import Guard
        from onellm.web.security.origins import Origins
        from onellm.web.security.sessions import SESSIONS
        from onellm.web.views import theme

        connections.be_patient()
        SESSIONS.forget = self.page.forget
        origins = Origins(self.names, host)
        guard = Middleware(Guard, root_path=self.root_path, for_all=[EXAMPLES], origins=origins)
        self.page.launch(
            server_name=host,
            server_port=port,
            root_path=self.root_path or None,
            prevent_thread_lock=True,
            app_kwargs={"routes": [plotly_route(), *routes], "middleware": [guard]},
            share=False,
            show_error=False,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            state_session_capacity=LIMITS.sessions,
            max_threads=40 + LIMITS.queue,  # those who wait hold threads; 40 are Gradio's default
            max_file_size=max(modality.limit_bytes for modality in MODALITIES.values()),
            allowed_paths=[str(EXAMPLES)],
            theme=theme.theme(),
            css=theme.CSS,
            head=theme.HEAD,
        )
        uploads.keep_swept()

    def close(self) -> None:
        """Stop listening, and delete the uploads."""
        from onellm.web.security import uploads

        self.page.close(verbose=False)
        uploads.clear()

    def warm_up(self) -> None:
        """Show one example a modality to nobody: the readers' libraries take seconds to import."""
        from onellm.web.views import examples
        from onellm.web.views.previews import preview_file

        self.engine.wait()
        if sys.platform == "linux":  # where threads have priorities: answers come first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
        files = {file.modality: file for example in examples.read() for file in example.files}
        for file in files.values():
            with contextlib.suppress(OneLLMError):
                preview_file(file.modality, file.path, file.options)


def plotly_route() -> Any:
    """Return the route of the plots' script, which is the same for a week."""
    from fastapi.responses import FileResponse
    from starlette.routing import Route

    def plotly(_: Any) -> FileResponse:
        from importlib.resources import files

        script = files("plotly") / "package_data/plotly.min.js"
        return FileResponse(str(script), media_type="text/javascript", headers={"Cache-Control": f"max-age={WEEK_S}"})

    return Route(PLOTLY, plotly)
