"""Opening, recording, exporting and importing conversations; thumbs."""

import json
import os
import shutil
import threading
import time
from collections import OrderedDict
from pathlib import Path

import gradio as gr

from onellm.errors import OneLLMError
from onellm.utils.limits import LIMITS
from onellm.utils.paths import cache_folder
from onellm.web import records
from onellm.web.security import visitors
from onellm.web.security.quotas import SPARE_BYTES
from onellm.web.security.sessions import SESSIONS
from onellm.web.session import Session
from onellm.web.views.markup import file_url
from onellm.web.views.page import Page, as_user_error
from onellm.web.views.texts import say

_writing = threading.Lock()
CHANGES = 4  # of the thumb below one answer: given, taken back, and once more
REMEMBERED = 100_000  # answers


class Archive:
    """Handlers of whole conversations."""

    def __init__(self, page: Page):
        self.page = page
        self._votes: OrderedDict[str, int] = OrderedDict()  # seal -> how often

    def may_log(self, seal: str, log: Path, size: int) -> bool:
        """Tell whether one more line about an answer may be logged.

        Args:
            seal: of the answer.
            log: the file.
            size: bytes of the line.
        """
        kept = log.stat().st_size if log.is_file() else 0
        room = kept + size <= LIMITS.feedback_bytes and shutil.disk_usage(log.parent).free > size + SPARE_BYTES
        if not room or self._votes.get(seal, 0) >= CHANGES:
            return False
        self._votes[seal] = self._votes.get(seal, 0) + 1
        self._votes.move_to_end(seal)
        while len(self._votes) > REMEMBERED:
            self._votes.popitem(last=False)
        return True

    @as_user_error
    def new(self, session: Session) -> dict:
        """Start a new conversation."""
        session.forget()
        return self.page.show(session) | self.page.form(session) | self.page.record(session)

    @as_user_error
    def open(self, session: Session, event: gr.EventData) -> dict:
        """Open a conversation the browser kept."""
        return self.restore(session, str(event.record))

    @as_user_error
    def read(self, session: Session, path: str | None) -> dict:
        """Open a conversation that was exported."""
        return self.restore(session, records.read(self.page.check_path(path or "")))

    def restore(self, session: Session, text: str) -> dict:
        """Show a conversation instead of the present one; the browser keeps both."""
        session.idle()
        records.restore(self.page, session, text)
        SESSIONS.keep(visitors.session(), len(text))
        return self.page.show(session) | self.page.form(session) | self.page.record(session)

    @as_user_error
    def export(self, session: Session, event: gr.EventData) -> str:
        """Return a link to the conversation as a file, which the page downloads at once."""
        if event.format not in records.FORMATS:
            raise OneLLMError(say(session.language, "error.gone"))
        if not session.turns:
            raise OneLLMError(say(session.language, "error.none"))
        return file_url(records.export(session, event.format))

    @as_user_error
    def vote(self, session: Session, event: gr.EventData) -> dict:
        """Log a thumb on this machine; the same thumb again takes it back."""
        turn, vote = session.turn(event.turn), str(event.vote)
        if vote not in ("up", "down"):
            raise OneLLMError(say(session.language, "error.gone"))
        if not turn.answer or turn.seal != visitors.seal(turn.question, turn.answer, turn.model):
            raise OneLLMError(say(session.language, "error.gone"))  # nothing that this app said
        wanted = "" if turn.vote == vote else vote
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "conversation": session.id,
            "turn": int(event.turn),
            "model": turn.model,
            "kinds": [file.modality for file in turn.files],
            "question": turn.question,
            "answer": turn.answer,
            "vote": wanted,
        }
        log = Path(os.environ.get("ONELLM_FEEDBACK", cache_folder() / "feedback.jsonl"))
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
        with _writing:
            log.parent.mkdir(parents=True, exist_ok=True)
            if not self.may_log(turn.seal, log, len(line)):
                raise OneLLMError(say(session.language, "error.votes"))
            with open(log, "ab") as file:
                file.write(line)
        turn.vote = wanted
        return {self.page.parts["conversation"]: self.page.messages(session)} | self.page.record(session)
