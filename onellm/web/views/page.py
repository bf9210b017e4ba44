"""What all handlers share: the page's parts, and the updates that show a session on it."""

import functools
import html
import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from onellm.errors import FileError, OneLLMError
from onellm.modalities import WITH_PICTURE
from onellm.serving.engine import Engine
from onellm.web import records
from onellm.web.security import uploads
from onellm.web.session import Attachment, Pending, Session, Turn
from onellm.web.views import comparison, inside, picker
from onellm.web.views.examples import Example
from onellm.web.views.markup import button, escaped, part
from onellm.web.views.previews import made, note, refusal, words
from onellm.web.views.texts import say

logger = logging.getLogger(__name__)


def as_user_error(handler: Callable) -> Callable:
    """Turn what a handler of (self, session, …) raises into a message on the page; the form stays as it is."""

    @functools.wraps(handler)
    def wrapper(self: Any, session: Session, *args: Any, **kwargs: Any) -> Any:
        try:
            return handler(self, session, *args, **kwargs)
        except OneLLMError as error:  # the page renders markup in it
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error
        except Exception as error:
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
        parts: the page's components by name; filled in by the layout.
        translated: components that hold words, each with a function language -> properties; filled in by the layout.
    """

    def __init__(self, engine: Engine, examples: list[Example], can_switch: bool):
        self.engine, self.examples, self.can_switch = engine, examples, can_switch
        self.parts: dict[str, Any] = {}
        self.translated: list[tuple[Any, Callable[[str], dict]]] = []

    def own(self, path: str) -> str:
        """Check that a path is an upload or one of the examples' files.

        Raises:
            FileError: it is neither.
        """
        if any(path in (file.path, file.picture) for example in self.examples for file in example.files):
            return path
        return uploads.check(path)

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

    def form(self, session: Session, text: str | None = None) -> dict:
        """Return updates that show the files for the next question and, unless it is None, put a text into the box."""
        updates = {self.parts["attached"]: self.chips(session)}
        return updates if text is None else updates | {self.parts["message"]: text}

    def kept(self, session: Session) -> dict:
        """Return the update that lets the browser keep the conversation."""
        return {self.parts["kept"]: records.dump(session)}

    def beat(self) -> dict:
        """Return an update that changes nothing."""
        return {self.parts["conversation"]: gr.skip()}

    def words(self, session: Session) -> dict:
        """Return updates of everything that is written in a language."""
        updates = {component: gr.update(**given(session.language)) for component, given in self.translated}
        names = ("status", "loading", "models")
        model = {self.parts[name]: shown for name, shown in zip(names, self.model(session), strict=True)}
        return updates | model | self.comparison(session)

    def model(self, session: Session) -> tuple[str, str, str]:
        """Return the model's state, how far loading is, and the choice of models."""
        return self.status(session), self.loading(session), self.models(session)

    def status(self, session: Session) -> str:
        """Return the model's state as HTML."""
        engine, language = self.engine, session.language
        if engine.ready:
            said = picker.card(engine.origin, language) or escaped(engine.description)
            return _status("ready", engine.name, refusal(engine.error) * bool(engine.error) + said)
        if engine.error and not engine.loading:
            return _status("failed", engine.name, escaped(engine.error))
        return _status("loading", engine.name, picker.progress_bar(engine, language))

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

    # The conversation.

    def messages(self, session: Session) -> list[dict]:
        """Return the conversation as `gr.Chatbot` takes it; typed text stays text."""
        shown = []
        for number, turn in enumerate(session.turns):
            asked: list[Any] = [part(f'<div class="sent-file">{self.look(session, f)}</div>') for f in turn.files]
            asked.append(words(turn.question))
            answer: list[Any] = [words(turn.answer)] if turn.answer else []
            answer += [part(made(thing, session.language)) for thing in turn.generated]
            if turn.note:
                answer.append(note(turn.note, turn.failed))
            if not session.busy:
                asked.append(part(_tools(session.language, number, ["edit"])))
                answer.append(part(self._answer_tools(session, number, turn)))
            if turn.trace is not None:
                answer.append(part(inside.panel(turn.trace, session.language)))
            shown.append({"role": "user", "content": asked})
            if answer:
                shown.append({"role": "assistant", "content": answer})
        return shown

    def _answer_tools(self, session: Session, number: int, turn: Turn) -> str:
        """Return what can be done with an answer; only the last one can be taken back."""
        acts = ["copy"] if turn.answer else []
        if turn is session.turns[-1] and not turn.failed:
            acts += ["retry", "undo"]
        return _tools(session.language, number, acts + (["up", "down"] if turn.answer else []), turn.vote)

    def look(self, session: Session, file: Attachment) -> str:
        """Return a file as HTML; one that cannot be read, or is gone, in words."""
        try:
            if not file.path:
                raise FileError(say(session.language, "file.gone", name=file.title))
            return session.look(file, self.engine.inputs).html
        except OneLLMError as error:
            return refusal(str(error))

    # The files for the next question.

    def chips(self, session: Session) -> str:
        """Return the files in the form as HTML."""
        language, head = session.language, ""
        if session.editing is not None:
            again = say(language, "edit.banner", number=session.editing + 1)
            cancel = button("cancel_edit", say(language, "edit.cancel"))
            head = f'<div class="editing" role="status">{escaped(again)} {cancel}</div>'
        rows = "".join(self._chip(session, item) for item in session.pending)
        label = html.escape(say(language, "files.pending"))
        return head + (f'<ul class="chips" aria-label="{label}">{rows}</ul>' if rows else "")

    def _chip(self, session: Session, item: Pending) -> str:
        """Return one file in the form as HTML."""
        language, modality = session.language, item.file.modality
        content = button("remove", say(language, "files.remove", name=item.file.title), "close", id=item.id)
        if len(item.modalities) > 1:
            question = escaped(say(language, "files.which"))
            choices = "".join(
                button("choose", say(language, f"kind.{other}"), pressed=other == modality, id=item.id, kind=other)
                for other in item.modalities
            )
            content += (
                f'<div class="choices" role="group" aria-label="{question}"><span>{question}</span>{choices}</div>'
            )
        if modality == "video" and item.readable and session.look(item.file, self.engine.inputs).sound:
            heard = button("sound", say(language, "files.sound"), pressed=item.file.sound, id=item.id)
            content += f'<div class="choices">{heard}</div>'
        content += self.look(session, item.file) if item.readable else f"<b>{escaped(item.file.title)}</b>"
        content += refusal(item.error) if item.error and not item.readable else ""
        if modality in WITH_PICTURE and item.readable:
            beside = "files.beside_change" if item.file.picture else "files.beside"
            content += button("beside", say(language, beside), id=item.id)
        return f'<li class="chip" data-id="{item.id}">{content}</li>'


def _status(state: str, name: str, content: str) -> str:
    return (
        f'<div class="status {state}" role="status"><span class="badge"><span class="dot"></span>'
        f"{escaped(name)}</span><span>{content}</span></div>"
    )


def _tools(language: str, number: int, acts: list[str], vote: str = "") -> str:
    """Return buttons that do something with a turn."""
    buttons = [
        button("vote", say(language, f"turn.{act}"), act, pressed=act == vote, turn=number, vote=act)
        if act in ("up", "down")
        else button(act, say(language, f"turn.{act}"), act, turn=number)
        for act in acts
    ]
    return f'<div class="tools">{"".join(buttons)}</div>' if buttons else ""
