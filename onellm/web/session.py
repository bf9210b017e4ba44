"""What one visitor's page remembers: the conversation, its files, and how they look."""

from dataclasses import dataclass
from typing import Any, Literal

from onellm.web.previews import Look, look_at, note, words
from onellm.web.reader import Reader


@dataclass(frozen=True)
class Attachment:
    """A file given as one kind.

    Attributes:
        kind: name of the modality.
        path: the file.
        picture: the picture beside a depth or a normal map.
    """

    kind: str
    path: str
    picture: str | None = None

    @property
    def options(self) -> dict:
        """What `load` takes beside the path."""
        return {"picture": self.picture} if self.picture else {}


@dataclass(eq=False)
class Turn:
    """A question with its files, and the answer so far.

    Attributes:
        question: as typed.
        files: what came with it.
        answer: the model's words so far.
        note: the app's words below the answer: that it waits, was stopped, or failed.
        failed: the note is an error.
        stage: whether the question waits, is being answered, or is done with; a stopped one is done with.
        held: the model's own conversation holds the question.
    """

    question: str
    files: tuple[Attachment, ...] = ()
    answer: str = ""
    note: str = ""
    failed: bool = False
    stage: Literal["waiting", "answering", "done"] = "waiting"
    held: bool = False


class Session:
    """One visitor's page.

    Attributes:
        chat: the conversation with the model; None until the first question.
        turns: what the page shows of it.
        reader: reads the last answer from the model.
    """

    def __init__(self):
        self.chat: Any = None
        self.turns: list[Turn] = []
        self.reader: Reader | None = None
        self._looks: dict[Attachment, Look] = {}

    def look(self, file: Attachment) -> Look:
        """Return a file's preview; a file is read once for it.

        Raises:
            FileError: the file cannot be used as that kind.
        """
        if file not in self._looks:
            self._looks[file] = look_at(file.kind, file.path, file.options)
        return self._looks[file]

    @property
    def busy(self) -> bool:
        """Whether a question waits or is being answered."""
        return any(turn.stage != "done" for turn in self.turns)

    def stop(self) -> None:
        """End what runs or waits; the model follows within one token."""
        for turn in self.turns:
            if turn.stage != "done":
                turn.stage = "done"
                turn.note = "Stopped." if turn.answer else "Stopped before an answer began."
        if self.chat is not None:
            self.chat.stop()

    def settle(self) -> None:
        """Wait until the model has ended a stopped answer."""
        if self.reader is not None:
            self.reader.join()

    def forget(self) -> None:
        """Start anew."""
        self.stop()
        self.chat = self.reader = None
        self.turns.clear()
        self._looks.clear()

    def arguments(self, turn: Turn) -> dict[str, list[dict]]:
        """Return a turn's files as `Chat.stream` takes them."""
        files: dict[str, list[dict]] = {}
        for file in turn.files:
            files.setdefault(file.kind, []).append({"path": file.path, **file.options})
        return files

    def messages(self) -> list[dict]:
        """Return the conversation as `gr.Chatbot` takes it; typed text stays text."""
        shown = []
        for turn in self.turns:
            files = [part for file in turn.files for part in self.look(file).parts]
            shown.append({"role": "user", "content": [*files, words(turn.question)]})
            answer = [words(turn.answer)] if turn.answer else []
            if turn.note:
                answer.append(note(turn.note, turn.failed))
            if answer:
                shown.append({"role": "assistant", "content": answer})
        return shown
