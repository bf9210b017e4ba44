"""The model's state as HTML: which one answers, how far loading is, or why none does."""

from typing import TYPE_CHECKING

from onellm.web.views.markup import render
from onellm.web.views.picker import card, progress_bar

if TYPE_CHECKING:
    from onellm.serving.engine import Engine


def badge(engine: "Engine", language: str) -> str:
    """Return the model's name, and what it is, how far loading is, or why it could not be loaded.

    Args:
        engine: the app's.
        language: of the texts.
    """
    state = "ready" if engine.ready else "failed" if engine.error and not engine.loading else "loading"
    return render(
        "status",
        engine=engine,
        state=state,
        card=card(engine.origin, language),
        progress=progress_bar(engine, language) if state == "loading" else "",
    )
