"""Asking: a question goes from the form into the conversation, waits its turn, and its answer streams back."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import gradio as gr

from onellm.errors import OneLLMError
from onellm.modalities.base import megabytes
from onellm.model.messages import DEFAULT_QUESTION, by_modality
from onellm.serving.answers import BEAT_S, queue
from onellm.serving.metrics import counted
from onellm.serving.queue import Ticket
from onellm.utils.limits import LIMITS
from onellm.web.handlers.settings import checked
from onellm.web.security import uploads, visitors
from onellm.web.session import Attachment, Pending, Session, Turn
from onellm.web.views.inside import reading
from onellm.web.views.page import Page, as_user_error
from onellm.web.views.texts import say

logger = logging.getLogger(__name__)

SHOW_EVERY_S = 0.05  # of a streamed answer
END_S = 1.0  # for a stopped answer to leave its trace


class Asking:
    """Handlers of the conversation."""

    def __init__(self, page: Page):
        self.page = page
        self._one = threading.Lock()  # a session asks one question at a time, and it is answered once

    # Beginning.

    @as_user_error
    def begin(self, session: Session, text: str, *settings: object) -> dict:
        """Move the form into the conversation.

        Args:
            session: the visitor's session.
            text: the question.
            *settings: values of the settings, see `settings.checked`.

        Returns:
            Updates of the page.
        """
        count = len(session.turns) if session.editing is None else session.editing
        turn = self.taken(session, text, count, *settings)
        session.settle()
        with self._one:
            session.idle()
            session.cut(count)
            session.editing, session.pending = None, []
            self.append(session, turn)
        return self.page.show(session) | self.page.form(session, "")

    def taken(self, session: Session, text: str, count: int, *settings: object) -> Turn:
        """Make a question of what is in the form, which stays as it is.

        Args:
            session: the visitor's session.
            text: the question.
            count: turns that stay before it.
            *settings: values of the settings.

        Raises:
            OneLLMError: it cannot be asked.
        """
        broken = next((item for item in session.pending if item.error), None)
        if broken is not None:
            raise OneLLMError(broken.error)
        drawn, frames = checked(*settings)
        files = tuple(
            replace(item.file, frames=frames) if item.file.modality == "video" else item.file
            for item in session.pending
        )
        self.check(session, text, files, count)
        return Turn(text.strip() or DEFAULT_QUESTION, files, drawn)

    @as_user_error
    def begin_example(self, session: Session, text: str | None, event: gr.EventData) -> dict:
        """Start a new conversation with an example; its further question goes into the box `text` if that is empty."""
        index = int(event.example)
        if not 0 <= index < len(self.page.examples):
            raise OneLLMError(say(session.language, "error.gone"))
        example = self.page.examples[index]
        with self._one:
            session.idle()
            session.forget()
            self.append(session, Turn(example.question, example.files))
        offered = example.follow_up if not (text or "").strip() else ""
        return self.page.show(session) | ({self.page.parts["message"]: offered} if offered else {})

    @as_user_error
    def begin_again(self, session: Session, event: gr.EventData) -> dict:
        """Take the last answer off the page to ask once more."""
        turn = self.last(session)
        with self._one:
            session.idle()
            session.turns.remove(turn)
            self.append(session, Turn(turn.question, turn.files, turn.settings, held=turn.held))
        return self.page.show(session)

    def check(self, session: Session, text: str, files: tuple[Attachment, ...], count: int) -> None:
        """Check a question before anything changes.

        Args:
            session: the visitor's session.
            text: the question.
            files: what comes with it.
            count: turns that stay before it.

        Raises:
            OneLLMError: it cannot be asked.
        """
        language, text = session.language, text.strip()
        session.idle()
        if not text and not files:
            raise OneLLMError(say(language, "error.empty"))
        if len(text) > LIMITS.message_characters:
            most = f"{LIMITS.message_characters:,}"
            raise OneLLMError(say(language, "error.long", count=f"{len(text):,}", most=most))
        said = sum(len(turn.question) + len(turn.answer) for turn in session.turns[:count]) + len(text)
        if count >= LIMITS.chat_turns or said > LIMITS.chat_characters:
            raise OneLLMError(say(language, "error.chat_long"))
        if sum(os.path.getsize(file.path) for file in files if os.path.exists(file.path)) > LIMITS.turn_bytes:
            raise OneLLMError(say(language, "error.large", limit=megabytes(LIMITS.turn_bytes)))
        for file in files:
            session.view(file, self.page.engine.inputs)

    def append(self, session: Session, turn: Turn) -> None:
        """Put a question at the end of the conversation."""
        last = session.turns[-1] if session.turns else None
        if last is not None and last.failed and not last.held:  # its question went back into the form
            session.turns.remove(last)
        session.turns.append(turn)
        turn.note = self.waiting(session)

    # Answering.

    def answer(self, session: Session) -> Iterator[dict]:
        """Stream the answer to the question that waits; what goes wrong is said there, the form filled again.

        It yields many times a second, as Gradio can close a generator only then.
        """
        with self._one:
            turn = next((turn for turn in session.turns if turn.stage == "asked"), None)
            if turn is not None:
                turn.stage = "waiting"
        if turn is None:  # it was stopped at once
            yield self.page.show(session)
            return
        engine, ticket = self.page.engine, None
        try:
            with counted("page") as count:
                yield self.page.show(session)
                # of this answer: a stopped one before it may not have left the queue yet
                ticket = engine.queue.join(visitors.owner())
                yield from self.queue(session, turn, ticket)
                if turn.stage == "waiting":
                    turn.stage = "answering"
                    yield from self.stream(session, turn)
                count.trace = turn.trace
                count.outcome = "stopped" if turn.stage == "done" else ""
        except OneLLMError as error:
            turn.note, turn.failed = str(error), True
        except Exception:
            logger.exception("no answer")
            turn.note, turn.failed = say(session.language, "error.surprise"), True
        finally:
            turn.stage = "done"
            if ticket is not None:
                engine.start()  # if the model broke, the next in the queue waits for it
                ticket.leave()
        kept = self.page.record(session)
        if turn.failed and not turn.held:
            turn.note += " " + say(session.language, "error.back")
            session.pending[:0] = [Pending(file, (file.modality,)) for file in turn.files]
            yield self.page.show(session) | self.page.form(session, turn.question) | kept
        else:
            yield self.page.show(session) | kept

    def queue(self, session: Session, turn: Turn, ticket: Ticket) -> Iterator[dict]:
        """Wait for the model to be loaded, for one's turn in the queue, and for one's own earlier answer to end."""
        engine, before = self.page.engine, 0
        for position in queue(engine, ticket):
            if turn.stage != "waiting":
                return
            if engine.ready and position != before:
                before, turn.note = position, say(session.language, "wait.line", place=position)
                yield self.page.show(session)
            else:
                yield self.page.beat()
        while turn.stage == "waiting" and session.stream is not None and not session.stream.job.ended.is_set():
            yield self.page.beat()
            time.sleep(BEAT_S)
        if turn.stage == "waiting":
            if session.chat is None or session.chat.closed:
                session.chat = engine.new_chat(session.history(engine.inputs or ()))
            turn.note = self.waiting(session)

    def stream(self, session: Session, turn: Turn) -> Iterator[dict]:
        """Stream an answer into a turn; closing the stream stops the model."""
        chat = session.chat
        before, trace_before, shown_s = len(chat.messages), chat.trace, 0.0
        turn.model = chat.name
        chat.output_path = uploads.placer()  # in the worker's thread

        def done() -> None:
            turn.held = turn.held or len(chat.messages) > before
            turn.generated = chat.generated if chat.trace is not trace_before else []
            turn.trace = chat.trace

        options = asdict(turn.settings)
        session.stream = stream = (
            chat.retry(**options) if turn.held else chat.stream(turn.question, **options, **by_modality(turn.parts()))
        )
        stream.job.on_end = done
        try:
            for piece in stream.deltas(BEAT_S):
                if turn.stage != "answering":
                    stream.stop()
                    stream.job.ended.wait(END_S)
                    return
                turn.answer += piece
                turn.note = "" if turn.answer else turn.note
                if piece and time.monotonic() - shown_s > SHOW_EVERY_S:
                    shown_s = time.monotonic()
                    yield {self.page.parts["conversation"]: self.page.messages(session)}
                else:
                    yield self.page.beat()
        finally:
            stream.stop()
            turn.answer = turn.answer.strip()
            turn.seal = visitors.seal(turn.question, turn.answer, turn.model)
        notes = [reading(chat.trace, session.language)] if chat.trace is not None else []
        if modalities := session.unread(chat.inputs):
            names = ", ".join(say(session.language, f"kind.{modality}") for modality in modalities)
            notes.append(say(session.language, "answer.unread", model=chat.name, kinds=names))
        read = " ".join(filter(None, notes))
        turn.note = read if turn.answer or turn.generated else say(session.language, "answer.empty")

    # Stopping and taking back.

    def halt(self, session: Session) -> dict:
        """Stop the answer; what was said stays."""
        session.stop()
        return self.page.show(session)

    @as_user_error
    def undo(self, session: Session, event: gr.EventData) -> dict:
        """Take the last question back into the form."""
        turn = self.last(session)
        session.cut(len(session.turns) - 1)
        return self.refill(session, turn)

    @as_user_error
    def edit(self, session: Session, event: gr.EventData) -> dict:
        """Put a question and its files into the form again; what follows it goes when it is asked."""
        session.idle()
        turn = session.turn(event.turn)
        session.editing = session.turns.index(turn)
        return self.refill(session, turn)

    @as_user_error
    def cancel_edit(self, session: Session, event: gr.EventData) -> dict:
        """Leave a question as it is."""
        session.editing, session.pending = None, []
        return self.page.form(session, "")

    def refill(self, session: Session, turn: Turn) -> dict:
        """Fill the form with a question and its files that are still there."""
        session.pending = [Pending(file, (file.modality,)) for file in turn.files if file.path]
        return self.page.show(session) | self.page.form(session, turn.question) | self.page.record(session)

    def last(self, session: Session) -> Turn:
        """Return the last turn, which must be done with.

        Raises:
            OneLLMError: there is none, or it still runs.
        """
        session.idle()
        if not session.turns:
            raise OneLLMError(say(session.language, "error.none"))
        session.settle()
        return session.turns[-1]

    def waiting(self, session: Session) -> str:
        """Return what is said until the first word comes."""
        engine = self.page.engine
        return say(session.language, "wait.thinking" if engine.ready else "wait.loading", name=engine.name)
