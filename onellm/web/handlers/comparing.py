"""Comparing: the question in the form goes to the app's model and to the comparison model."""

import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import gradio as gr

from onellm.chat.compare import Answer
from onellm.errors import OneLLMError
from onellm.model.messages import by_modality
from onellm.serving import answers
from onellm.serving.answers import BEAT_S
from onellm.serving.comparison import ComparisonModel
from onellm.serving.engine import Engine
from onellm.serving.metrics import counted
from onellm.web.handlers.asking import SHOW_EVERY_S, Asking
from onellm.web.security import uploads, visitors
from onellm.web.session import Comparison, Session, Turn
from onellm.web.views.page import Page, as_user_error
from onellm.web.views.texts import say

logger = logging.getLogger(__name__)


class Comparing:
    """Handlers of the drawer.

    Args:
        page: the page.
        asking: checks a question as it does for the conversation.
    """

    def __init__(self, page: Page, asking: Asking):
        self.page, self.asking, self.comparison_model = page, asking, ComparisonModel(page.engine)
        self._one = threading.Lock()  # a session compares one question at a time

    def show(self, session: Session) -> dict:
        """Return updates of the drawer."""
        return self.page.comparison(session)

    @as_user_error
    def begin(self, session: Session, event: gr.EventData, text: str, *settings: object) -> dict:
        """Take the question of the form, which stays there, once there is room for the comparison model.

        Args:
            session: the visitor's session.
            event: names the comparison model: how its weights are kept, a space, its name.
            text: the question.
            *settings: values of the settings, see `settings.checked`.
        """
        language, engine = session.language, self.page.engine
        self.page.changeable(session)
        self._idle(session)
        if not engine.ready:
            raise OneLLMError(say(language, "wait.loading", name=engine.name))
        quantize, _, name = str(event.other).partition(" ")
        name = self.page.model_name(name)
        if (name, quantize) == (engine.origin, engine.quantize):
            raise OneLLMError(say(language, "compare.same"))
        turn = self.asking.taken(session, text, 0, *settings)
        needed, free = self.comparison_model.room(name, quantize)
        if needed > free:
            sizes = {"needed": f"{needed / 1e9:.1f}", "free": f"{free / 1e9:.1f}"}
            raise OneLLMError(say(language, "compare.memory", model=Path(name).name, first=engine.name, **sizes))
        first = Answer(str(engine.origin), str(engine.quantize))
        with self._one:
            self._idle(session)
            session.comparison = Comparison(turn, (first, Answer(name, quantize)))
        return self.show(session)

    @staticmethod
    def _idle(session: Session) -> None:
        """Refuse what cannot be done while a comparison runs."""
        if session.comparison is not None and session.comparison.turn.stage != "done":
            raise OneLLMError(say(session.language, "error.busy"))

    def answer(self, session: Session) -> Iterator[dict]:
        """Ask both models; yields many times a second, as Gradio can close a generator only then."""
        with self._one:
            comparison = session.comparison
            asked = comparison is not None and comparison.turn.stage == "asked"
            if asked:
                comparison.turn.stage = "waiting"
        if not asked:  # it was stopped at once
            yield self.show(session)
            return
        turn, shown_s = comparison.turn, 0.0
        try:
            for loading in self._steps(comparison, session.language):
                if loading is None and time.monotonic() - shown_s < SHOW_EVERY_S:
                    yield {self.page.parts["compared"]: gr.skip()}
                else:
                    shown_s = time.monotonic()
                    yield self.page.compared(session, loading)
            turn.note = turn.note if turn.stage == "done" else ""
        except Exception:
            logger.exception("no comparison")
            turn.note, turn.failed = say(session.language, "error.surprise"), True
        finally:
            turn.stage = "done"
        yield self.show(session)

    def _steps(self, comparison: Comparison, language: str) -> Iterator[Engine | None]:
        """Go through a comparison; yields the engine of the comparison model while that is loaded."""
        turn, (first, second) = comparison.turn, comparison.answers
        turn.note = say(language, "compare.others")
        while not self.comparison_model.lock.acquire(blocking=False):
            yield None
            if turn.stage == "done":
                return
            time.sleep(BEAT_S)
        try:
            beside = self.comparison_model.get(second.model, second.quantize)
            while beside.loading:
                if turn.stage == "done":
                    beside.cancel()
                yield beside
                time.sleep(BEAT_S)
            for answer, engine in ((first, self.page.engine), (second, beside)):
                if turn.stage == "done":
                    break
                if engine is beside and not beside.ready:
                    answer.error = beside.error
                else:
                    turn.note = say(language, "compare.asking", model=engine.name)
                    yield from self._ask(turn, answer, engine)
        finally:
            self.comparison_model.release()

    def _ask(self, turn: Turn, answer: Answer, engine: Engine) -> Iterator[None]:
        """Let one model answer; it waits in the request queue."""
        try:
            with counted("compare") as count:
                options = asdict(turn.settings) | by_modality(turn.parts()) | {"output_path": uploads.placer()}
                options["owner"] = visitors.owner()
                try:
                    with closing(answers.stream(engine, count, turn.question, **options)) as pieces:
                        for piece in _said(pieces, answer):
                            if turn.stage == "done":
                                break
                            answer.text += piece
                            yield None
                    count.outcome = "stopped" if turn.stage == "done" else ""
                finally:
                    if engine.ready:  # somebody may have switched
                        answer.model, answer.quantize = str(engine.origin), str(engine.quantize)
                    answer.text, answer.trace = answer.text.strip(), count.trace
        except OneLLMError as error:
            answer.error = str(error)

    def halt(self, session: Session) -> dict:
        """Stop; what was said stays."""
        if session.comparison is not None and session.comparison.turn.stage != "done":
            session.comparison.turn.stage = "done"
            session.comparison.turn.note = say(session.language, "stop.begun")
        return self.show(session)

    def close(self, session: Session) -> dict:
        """Stop, and give the comparison model back."""
        shown = self.halt(session)
        self.comparison_model.close()
        return shown


def _said(pieces: Generator[str, None, list[dict]], answer: Answer) -> Iterator[str]:
    """Pass an answer's text on, and keep what it generated besides."""
    answer.generated = yield from pieces
