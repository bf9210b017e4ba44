"""What hostile files, many visitors and a long life are measured with: figures, and a short and a long form."""

import os
import socket

import pytest
from toy_recipe import scans, settings, toy  # noqa: F401

SOAK = bool(os.environ.get("SOAK"))


@pytest.fixture
def figure(request):
    """Print what was measured, now and in a section at the end of the run."""

    def tell(what, value, expected):
        line = f"{what}: {value} (expected: {expected})"
        request.node.user_properties.append(("figure", line))
        print(line)

    return tell


@pytest.fixture
def soak():
    """Choose between the numbers of the short form, in the suite, and the long one, `make soak`."""
    return lambda short, long: long if SOAK else short


def pytest_collection_modifyitems(config, items):
    """Leave out of the short form what only the long one has time for."""
    if not SOAK:
        long = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.fixture(scope="session")
def page_url(tmp_path_factory):
    """Address of the whole app in this process, whose model cannot be loaded: enough for what comes before it."""
    from onellm.errors import ModelError
    from onellm.serve import routes
    from onellm.serving.engine import Engine
    from onellm.web.app import WebApp

    def load(*_, **__):
        raise ModelError("There is no model here.")

    with pytest.MonkeyPatch.context() as patch, socket.socket() as free:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        patch.setenv("ONELLM_FEEDBACK", str(tmp_path_factory.mktemp("log") / "feedback.jsonl"))
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        engine = Engine("toy", load, lambda *_: [])
        app = WebApp(engine)
        app.launch("127.0.0.1", port, routes(engine))
        yield f"http://127.0.0.1:{port}"
        app.close()
