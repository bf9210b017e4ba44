"""The form: files come in by widget, drop, paste, microphone or camera, are recognised, shown, and taken out again."""

import logging
from dataclasses import replace
from typing import Any

import gradio as gr

from onellm.errors import OneLLMError
from onellm.modalities import WITH_PICTURE
from onellm.modalities.detect import recognise
from onellm.utils.limits import LIMITS
from onellm.web.session import Attachment, Pending, Session
from onellm.web.views.page import Page, as_user_error
from onellm.web.views.texts import say

logger = logging.getLogger(__name__)


class Composer:
    """Handlers of the files for the next question."""

    def __init__(self, page: Page):
        self.page = page

    @as_user_error
    def add(
        self, session: Session, paths: list[str] | str | None, modality: str | None = None, recorder: Any = None
    ) -> dict:
        """Add uploads.

        Args:
            session: the visitor's session.
            paths: the uploads; a recording comes alone.
            modality: the modality whose widget took them; None lets their content say.
            recorder: what recorded them; it is made ready for the next recording.

        Returns:
            Updates of the form.
        """
        for path in [paths] if isinstance(paths, str) else paths or []:
            self.room(session)
            session.pending.append(self.pending(session, self.page.check_path(path), modality))
        return self.page.form(session) | ({} if recorder is None else {recorder: None})

    def room(self, session: Session) -> None:
        """Refuse more files than a question takes.

        Raises:
            OneLLMError: the form is full.
        """
        if len(session.pending) >= LIMITS.files_per_turn:
            raise OneLLMError(say(session.language, "files.many", count=LIMITS.files_per_turn))

    def pending(self, session: Session, path: str, modality: str | None) -> Pending:
        """Make a file of the form out of an upload: the first modality that can read it, or the reason why none can."""
        try:
            modalities = (modality,) if modality else tuple(recognise(path))
        except OneLLMError as error:
            return Pending(Attachment("", path), (), str(error), readable=False)
        items = []
        for candidate in modalities:
            items.append(self.with_preview(session, Pending(Attachment(candidate, path), modalities)))
            if items[-1].readable:
                return items[-1]
        return items[0]

    def with_preview(self, session: Session, item: Pending) -> Pending:
        """Read a file for its preview, and note why it cannot be used if so."""
        try:
            item.readable, item.error = True, session.view(item.file, self.page.engine.inputs).error
        except OneLLMError as error:
            item.readable, item.error = False, str(error)
        except Exception:
            logger.exception("no preview of a %s file", item.file.modality)
            item.readable, item.error = False, say(session.language, "error.surprise")
        return item

    @as_user_error
    def sample(self, session: Session, event: gr.EventData) -> dict:
        """Put an example of a modality into the form."""
        files = [file for example in self.page.examples for file in example.files if file.modality == event.kind]
        if not files:
            raise OneLLMError(say(session.language, "error.gone"))
        self.room(session)
        session.pending.append(self.with_preview(session, Pending(files[0], (files[0].modality,))))
        return self.page.form(session)

    @as_user_error
    def remove(self, session: Session, event: gr.EventData) -> dict:
        """Take a file out of the form."""
        session.pending.remove(self.find(session, event.id))
        return self.page.form(session)

    @as_user_error
    def choose(self, session: Session, event: gr.EventData) -> dict:
        """Let a file count as another of the modalities it may be."""
        item = self.find(session, event.id)
        if event.kind not in item.modalities:
            raise OneLLMError(say(session.language, "error.gone"))
        item.file = Attachment(event.kind, item.file.path)
        self.with_preview(session, item)
        return self.page.form(session)

    @as_user_error
    def sound(self, session: Session, event: gr.EventData) -> dict:
        """Have a video's sound track heard with it, second by second, or not."""
        item = self.find(session, event.id)
        item.file = replace(item.file, sound=not item.file.sound)
        self.with_preview(session, item)
        return self.page.form(session)

    @as_user_error
    def want_beside(self, session: Session, event: gr.EventData) -> None:
        """Remember which map the next picture belongs to: the page opens the file dialogue at once."""
        session.beside = self.find(session, event.id).id

    @as_user_error
    def add_beside(self, session: Session, path: str | None) -> dict:
        """Put a picture beside the map it was chosen for."""
        item = self.find(session, session.beside)
        if path and item.file.modality in WITH_PICTURE:
            with_picture = Attachment(item.file.modality, item.file.path, self.page.check_path(path))
            session.view(with_picture, self.page.engine.inputs)  # one that does not fit is refused
            item.file = with_picture
        return self.page.form(session)

    def find(self, session: Session, item_id: Any) -> Pending:
        """Return the file of an id.

        Raises:
            OneLLMError: it is in the form no more.
        """
        found = next((item for item in session.pending if item.id == item_id), None)
        if found is None:
            raise OneLLMError(say(session.language, "error.gone"))
        return found
