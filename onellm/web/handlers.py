"""What happens on the page: files are shown, questions asked, answers streamed, errors worded."""

import asyncio
import functools
import html
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import gradio as gr

from onellm.errors import OneLLMError
from onellm.limits import LIMITS
from onellm.modalities import MODALITIES
from onellm.modalities.base import megabytes
from onellm.web import uploads
from onellm.web.engine import Engine
from onellm.web.examples import Example
from onellm.web.previews import refusal
from onellm.web.reader import Reader
from onellm.web.session import Attachment, Session, Turn

logger = logging.getLogger(__name__)

WITH_PICTURE = tuple(kind for kind, modality in MODALITIES.items() if "picture" in modality.options)
BEAT_S = 0.25  # between looks at a model that has nothing to say yet
SHOW_EVERY_S = 0.05  # of a streamed answer
SURPRISE = "Something went wrong inside OneLLM, and it was written to the app's log; try again or reload the page."


def worded(handler: Callable) -> Callable:
    """Turn what a handler raises into a message on the page; the form stays as it is."""

    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except OneLLMError as error:  # the page renders markup in it
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error
        except Exception as error:
            logger.exception("%s failed", handler.__name__)
            raise gr.Error(SURPRISE, print_exception=False) from error

    return wrapper


class Handlers:
    """The page's event handlers.

    Args:
        engine: the app's model.
        examples: the examples on the page.
        parts: the page's components by name; filled in by the layout.
    """

    def __init__(self, engine: Engine, examples: list[Example], parts: dict[str, Any]):
        self.engine, self.examples, self.parts = engine, examples, parts

    # The model's state, at the top of the page.

    async def follow(self) -> AsyncIterator[str]:
        """Say how loading goes until it is over."""
        while self.engine.loading:
            yield self.status()
            await asyncio.sleep(0.5)
        yield self.status()

    def status(self) -> str:
        """Return the model's state as HTML."""
        engine = self.engine
        if engine.ready:
            return _status("ready", engine.name, engine.description.removeprefix(f"{engine.name}: "))
        if engine.error:
            return _status("failed", engine.name, engine.error)
        seconds = f" {engine.waited_s:.0f} s" if engine.loading else ""
        return _status("loading", engine.name, f"Loading {engine.name}…{seconds} You can already add files and ask.")

    # Files.

    def show(self, kind: str, session: Session, path: str | None, picture: str | None = None) -> tuple:
        """Show the preview of a file that was added or removed.

        Args:
            kind: name of the modality.
            session: the visitor's session.
            path: the upload; None if there is none.
            picture: the picture beside a depth or a normal map.

        Returns:
            Updates of the preview's HTML and plot.
        """
        try:
            if not path:
                return gr.HTML("", visible=False), gr.Plot(None, visible=False)
            look = session.look(self.attach(kind, path, picture))
            return gr.HTML(look.html, visible=True), gr.Plot(look.plot, visible=look.plot is not None)
        except OneLLMError as error:
            words = str(error)
        except Exception:
            logger.exception("no preview of a %s file", kind)
            words = SURPRISE
        return gr.HTML(refusal(words), visible=True), gr.Plot(None, visible=False)

    def attach(self, kind: str, path: str, picture: str | None = None) -> Attachment:
        """Make an attachment of uploads.

        Raises:
            FileError: a path is not an upload.
        """
        return Attachment(kind, self.own(path), self.own(picture) if picture else None)

    def own(self, path: str) -> str:
        """Check that a path is an upload or one of the examples' files."""
        if any(path in (file.path, file.picture) for example in self.examples for file in example.files):
            return path
        return uploads.check(path)

    # Asking.

    @worded
    def begin(self, session: Session, text: str, *paths: str | None) -> dict:
        """Move the form into the conversation.

        Args:
            session: the visitor's session.
            text: the question.
            *paths: the uploads, in the order of the kinds, then the pictures beside maps.

        Returns:
            Updates of the page.
        """
        pictures = dict(zip(WITH_PICTURE, paths[len(MODALITIES) :], strict=True))
        files = zip(MODALITIES, paths[: len(MODALITIES)], strict=True)
        attached = tuple(self.attach(kind, path, pictures.get(kind)) for kind, path in files if path)
        return self.place(session, text, attached)

    @worded
    def begin_example(self, session: Session, event: gr.EventData) -> dict:
        """Start a new conversation with an example."""
        index = int(event.example)
        if not 0 <= index < len(self.examples):
            raise OneLLMError("There is no such example; reload the page.")
        self.idle(session)
        session.forget()
        example = self.examples[index]
        return self.place(session, example.question, example.files)

    def place(self, session: Session, text: str, files: tuple[Attachment, ...]) -> dict:
        """Add a question to the conversation on the page.

        Raises:
            OneLLMError: the question or a file is not acceptable.
        """
        self.idle(session)
        text = (text or "").strip()
        if not text and not files:
            raise OneLLMError("There is no question yet; type one, or add a file.")
        if len(text) > LIMITS.message_characters:
            limit = f"{LIMITS.message_characters:,}"
            raise OneLLMError(f"The question has {len(text):,} characters; at most {limit} fit; shorten it.")
        said = sum(len(turn.question) + len(turn.answer) for turn in session.turns) + len(text)
        if len(session.turns) >= LIMITS.chat_turns or said > LIMITS.chat_characters:
            raise OneLLMError("This chat has become too long for the model; start a new one to go on.")
        if sum(os.path.getsize(file.path) for file in files) > LIMITS.turn_bytes:
            limit = megabytes(LIMITS.turn_bytes)
            raise OneLLMError(f"These files are larger than {limit} together; send them in several questions.")
        for file in files:
            session.look(file)
        from onellm.chat import DEFAULT_QUESTION

        last = session.turns[-1] if session.turns else None
        if last is not None and last.failed and not last.held:  # its question went back into the form
            session.turns.remove(last)
        session.turns.append(Turn(text or DEFAULT_QUESTION, files, note=self._waiting()))
        return self.page(session) | self.form("", ())

    @worded
    def begin_again(self, session: Session) -> dict:
        """Take the last answer off the page to ask once more."""
        turn = self.last(session)
        fresh = Turn(turn.question, turn.files, note=self._waiting(), held=turn.held)
        session.turns[-1] = fresh
        return self.page(session) | self.form("", ())

    def answer(self, session: Session) -> Iterator[dict]:
        """Stream the answer to the question that waits; what goes wrong is said there, the form filled again.

        It yields many times a second, as Gradio can close a generator only then.
        """
        turn = next((turn for turn in session.turns if turn.stage == "waiting"), None)
        if turn is None:  # it was stopped while it stood in the queue
            yield self.page(session)
            return
        turn.stage = "answering"
        try:
            yield self.page(session)
            yield from self.prepare(session)
            if turn.stage == "answering":
                yield from self.stream(session, turn)
        except OneLLMError as error:
            turn.note, turn.failed = str(error), True
        except Exception:
            logger.exception("no answer")
            turn.note, turn.failed = SURPRISE, True
        finally:
            turn.stage = "done"
        if turn.failed and not turn.held:
            turn.note += " Your question and files are back in the form."
            yield self.page(session) | self.form(turn.question, turn.files)
        else:
            yield self.page(session)

    def prepare(self, session: Session) -> Iterator[dict]:
        """Wait for the model to be loaded and for an earlier answer to have ended."""
        self.engine.start()
        while self.engine.loading or (session.reader is not None and session.reader.is_alive()):
            yield self.beat()
            time.sleep(BEAT_S)
        if session.chat is None:
            session.chat = self.engine.new_chat()

    def stream(self, session: Session, turn: Turn) -> Iterator[dict]:
        """Stream an answer into a turn; closing the stream stops the model."""
        chat = session.chat
        before, shown_s = len(chat.messages), 0.0

        def done() -> None:
            turn.held = turn.held or len(chat.messages) > before

        pieces = chat.retry() if turn.held else chat.stream(turn.question, **session.arguments(turn))
        session.reader = Reader(pieces, done)
        try:
            for piece in session.reader.pieces(BEAT_S):
                if turn.stage != "answering":
                    return
                turn.answer += piece
                turn.note = turn.note if not turn.answer else ""
                if piece and time.monotonic() - shown_s > SHOW_EVERY_S:
                    shown_s = time.monotonic()
                    yield {self.parts["conversation"]: session.messages()}
                else:
                    yield self.beat()
        finally:
            chat.stop()
        turn.note = "" if turn.answer else "The model had nothing to say; ask in other words."

    def halt(self, session: Session) -> dict:
        """Stop the answer; what was said stays."""
        session.stop()
        return self.page(session)

    @worded
    def undo(self, session: Session) -> dict:
        """Take the last question back into the form."""
        turn = self.last(session)
        session.turns.remove(turn)
        if turn.held:
            session.chat.undo()
        return self.page(session) | self.form(turn.question, turn.files)

    def clear(self, session: Session) -> dict:
        """Start a new conversation."""
        session.forget()
        return self.page(session)

    def last(self, session: Session) -> Turn:
        """Return the last turn, which must be done with.

        Raises:
            OneLLMError: there is none, or it still runs.
        """
        self.idle(session)
        if not session.turns:
            raise OneLLMError("There is no question yet; ask one first.")
        session.settle()
        return session.turns[-1]

    def idle(self, session: Session) -> None:
        """Refuse while an answer is on its way.

        Raises:
            OneLLMError: one is.
        """
        if session.busy:
            raise OneLLMError("An answer is still on its way; wait for its end, or stop it.")

    # The /ask endpoint.

    def ask(self, message: str, *paths: str | None) -> str:
        """Answer one question about uploads in a conversation of its own."""
        try:
            files = {kind: uploads.check(path) for kind, path in zip(MODALITIES, paths, strict=True) if path}
            return self.engine.new_chat().ask(message or "", **files)
        except OneLLMError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            logger.exception("/ask failed")
            raise gr.Error(SURPRISE, print_exception=False) from error

    # What the handlers send to the page.

    def page(self, session: Session) -> dict:
        """Return updates of the conversation and of the buttons."""
        parts, busy = self.parts, session.busy
        messages = session.messages()
        return {
            parts["welcome"]: gr.Column(visible=not messages),
            parts["talk"]: gr.Column(visible=bool(messages)),
            parts["conversation"]: messages,
            parts["send"]: gr.Button(visible=not busy),
            parts["stop"]: gr.Button(visible=busy),
            parts["clear"]: gr.Button(visible=bool(messages)),
        }

    def beat(self) -> dict:
        """Return an update that changes nothing."""
        return {self.parts["conversation"]: gr.skip()}

    def form(self, text: str, files: tuple[Attachment, ...]) -> dict:
        """Return updates that fill the form, or clear it."""
        by_kind = {file.kind: file for file in files}
        updates: dict = {self.parts["message"]: text}
        for kind in MODALITIES:
            updates[self.parts["files"][kind]] = by_kind[kind].path if kind in by_kind else None
        for kind in WITH_PICTURE:
            updates[self.parts["pictures"][kind]] = by_kind[kind].picture if kind in by_kind else None
        return updates

    def _waiting(self) -> str:
        return "Thinking…" if self.engine.ready else f"Waiting for {self.engine.name} to load…"


def _status(state: str, name: str, text: str) -> str:
    return (
        f'<div class="status {state}" role="status"><span class="chip"><span class="dot"></span>'
        f"{html.escape(name)}</span><span>{html.escape(text)}</span></div>"
    )
