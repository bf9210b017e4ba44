"""The files in the form, each with what can be done with it, as HTML."""

from onellm.modalities import WITH_PICTURE
from onellm.web.session import Session
from onellm.web.views.conversation import view_or_refusal
from onellm.web.views.markup import render


def chips(session: Session, inputs: dict | None) -> str:
    """Return the files for the next question as HTML; "" where the form is empty.

    Args:
        session: the visitor's session.
        inputs: what the model takes of a file, see `Engine.inputs`.
    """
    files = [
        (item, *(view_or_refusal(session, item.file, inputs) if item.readable else (None, item.error)))
        for item in session.pending
    ]
    return render(
        "attachments", language=session.language, editing=session.editing, files=files, with_picture=WITH_PICTURE
    )
