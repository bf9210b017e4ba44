"""What all handlers share: the page's components, and the updates that show a session on it."""

import functools
import html
import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from onellm.errors import OneLLMError
from onellm.serving.engine import Engine
from onellm.web import records
from onellm.web.security import uploads, visitors
from onellm.web.session import Session
from onellm.web.views import attachments, comparison, conversation, examples, picker, status
from onellm.web.views.texts import say

logger = logging.getLogger(__name__)


ODD = (AttributeError, TypeError, ValueError, OverflowError)  # of values that are missing or of another type


def as_user_error(handler: Callable) -> Callable:
    """Turn what a handler of (self, session, …) raises into a message on the page; the form stays as it is."""

    @functools.wraps(handler)
    def wrapper(self: Any, session: Session, *args: Any, **kwargs: Any) -> Any:
        try:
            return handler(self, session, *args, **kwargs)
        except OneLLMError as error:  # the page renders markup in it
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error
        except Exception as error:
            if isinstance(error, ODD) and any(isinstance(given, gr.EventData) for given in args):
                logger.info("refused event", exc_info=True)  # its values are whatever somebody sent
                raise gr.Error(say(session.language, "error.gone"), print_exception=False) from error
            logger.exception("%s failed", handler.__name__)
            raise gr.Error(say(session.language, "error.surprise"), print_exception=False) from error

    return wrapper


class Page:
    """The page of all visitors.

    Args:
        engine: the app's model.
        examples: the examples on the page.
        can_switch: visitors may choose another model.

    Attributes:
        through_proxies: also those who come through a proxy, and so may be anybody.
        parts: the page's components by name; filled in by the layout.
        translated: components that hold texts, each with a function language -> properties; filled in by the layout.
    """

    def __init__(self, engine: Engine, examples: list[examples.Example], can_switch: bool):
        self.engine, self.examples, self.can_switch = engine, examples, can_switch
        self.through_proxies = False
        self.parts: dict[str, Any] = {}
        self.translated: list[tuple[Any, Callable[[str], dict]]] = []

    def check_path(self, path: str) -> str:
        """Check that a path is an upload or one of the examples' files.

        Raises:
            FileError: it is neither.
        """
        if any(path in (file.path, file.picture) for example in self.examples for file in example.files):
            return path
        return uploads.check(path)

    def changeable(self, session: Session) -> None:
        """Refuse where the host has fixed the model, or the visitor came through a proxy.

        Raises:
            OneLLMError: it is fixed.
        """
        if not self.can_switch or visitors.came_through_proxy() and not self.through_proxies:
            raise OneLLMError(say(session.language, "error.fixed"))

    def model_name(self, model_id: str) -> str:
        """Return the model of the list that a request chose; an id of none of them stays as it is."""
        names = {picker.model_id(entry.name): entry.name for entry in self.engine.entries}
        return names.get(model_id, model_id)

    # Updates.

    def show(self, session: Session) -> dict:
        """Return updates of the conversation and of the buttons."""
        parts, busy = self.parts, session.busy
        messages = self.messages(session)
        return {
            parts["welcome"]: gr.Column(visible=not messages),
            parts["talk"]: gr.Column(visible=bool(messages)),
            parts["conversation"]: messages,
            parts["send"]: gr.Button(visible=not busy),
            parts["stop"]: gr.Button(visible=busy),
        }

    def cards(self, language: str) -> str:
        """Return the examples that suit the model, as HTML."""
        return examples.cards(self.examples, language, self.engine.converses)

    def messages(self, session: Session) -> list[dict]:
        """Return the conversation as `gr.Chatbot` takes it."""
        return conversation.messages(session, self.engine.inputs)

    def form(self, session: Session, text: str | None = None) -> dict:
        """Return updates that show the files for the next question and, unless it is None, put a text into the box."""
        updates = {self.parts["attached"]: attachments.chips(session, self.engine.inputs)}
        return updates if text is None else updates | {self.parts["message"]: text}

    def record(self, session: Session) -> dict:
        """Return the update that lets the browser keep the conversation."""
        return {self.parts["record"]: records.dump(session)}

    def beat(self) -> dict:
        """Return an update that changes nothing."""
        return {self.parts["conversation"]: gr.skip()}

    def texts(self, session: Session) -> dict:
        """Return updates of everything that the page says in the session's language."""
        updates = {component: gr.update(**given(session.language)) for component, given in self.translated}
        names = ("status", "loading", "models")
        model = {self.parts[name]: shown for name, shown in zip(names, self.model(session), strict=True)}
        return updates | model | self.comparison(session)

    def model(self, session: Session) -> tuple[str, str, str]:
        """Return the model's state, how far loading is, and the choice of models."""
        badge = status.badge(self.engine, session.language)
        return badge, self.loading(session), self.models(session)

    def loading(self, session: Session) -> str:
        """Return how far loading is as HTML, above the choice of models."""
        engine = self.engine
        return picker.progress_bar(engine, session.language, cancel=self.can_switch) if engine.loading else ""

    def models(self, session: Session) -> str:
        """Return the choice of models as HTML."""
        return picker.table(self.engine, session.language, self.can_switch)

    def comparison(self, session: Session) -> dict:
        """Return updates of the drawer that asks two models; none where there is no such drawer."""
        if not self.can_switch:
            return {}
        form = comparison.form(self.engine, session.comparison, session.language)
        return {self.parts["compare"]: form} | self.compared(session)

    def compared(self, session: Session, loading: Engine | None = None) -> dict:
        """Return the update of two models' answers; `loading` is the second one's engine while it is loaded."""
        shown = comparison.table(session.comparison, session.language, loading) if session.comparison else ""
        return {self.parts["compared"]: shown}
