"""The conversation as content of a `gr.Chatbot`: questions with files, answers, and what can be done with them."""

import html
from typing import Any

from onellm.errors import FileError, OneLLMError
from onellm.web.gradio_internals import message_part
from onellm.web.session import Attachment, Session, Turn
from onellm.web.views.inside import panel
from onellm.web.views.markup import render
from onellm.web.views.previews import FileView
from onellm.web.views.texts import say


def messages(session: Session, inputs: dict | None) -> list[dict]:
    """Return the conversation as `gr.Chatbot` takes it; typed text stays text.

    Args:
        session: the visitor's session.
        inputs: what the model takes of a file, see `Engine.inputs`.
    """
    shown = []
    for number, turn in enumerate(session.turns):
        asked: list[Any] = []
        for file in turn.files:
            view, refusal = view_or_refusal(session, file, inputs)
            asked.append(message_part(render("sent_file", view=view, refusal=refusal)))
        asked.append(text(turn.question))
        answer: list[Any] = [text(turn.answer)] if turn.answer else []
        answer += [message_part(render("generated", language=session.language, part=thing)) for thing in turn.generated]
        if turn.note:
            answer.append(message_part(render("note", text=turn.note, failed=turn.failed)))
        if not session.busy:
            asked.append(message_part(_tools(session.language, number, ["edit"])))
            if acts := _answer_acts(session, turn):
                answer.append(message_part(_tools(session.language, number, acts, turn.vote)))
        if turn.trace is not None:
            answer.append(message_part(panel(turn.trace, session.language)))
        shown.append({"role": "user", "content": asked})
        if answer:
            shown.append({"role": "assistant", "content": answer})
    return shown


def text(content: str) -> dict:
    """Return text as message content in which nothing is markup."""
    return {"type": "text", "text": html.escape(content, quote=False)}


def view_or_refusal(session: Session, file: Attachment, inputs: dict | None) -> tuple[FileView | None, str]:
    """Return a file's preview, or why there is none: it cannot be read, or is gone."""
    try:
        if not file.path:
            raise FileError(say(session.language, "file.gone", name=file.title))
        return session.view(file, inputs), ""
    except OneLLMError as error:
        return None, str(error)


def _answer_acts(session: Session, turn: Turn) -> list[str]:
    """Return what can be done with an answer; only the last one can be taken back."""
    acts = ["copy"] if turn.answer else []
    if turn is session.turns[-1] and not turn.failed:
        acts += ["retry", "undo"]
    return acts + (["up", "down"] if turn.answer else [])


def _tools(language: str, number: int, acts: list[str], vote: str = "") -> str:
    """Return buttons that do something with the turn of a number."""
    return render("tools", language=language, turn=number, acts=acts, vote=vote)
