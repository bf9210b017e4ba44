"""What one visitor's page remembers: the conversation, the files for the next question, and their previews."""

import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from onellm.chat.compare import Answer
from onellm.chat.sampling import Settings
from onellm.chat.streaming import AnswerStream
from onellm.chat.trace import Trace
from onellm.errors import OneLLMError
from onellm.web.views.previews import FileView, preview_file
from onellm.web.views.texts import say


@dataclass(frozen=True)
class Attachment:
    """A file given as one modality.

    Attributes:
        modality: name of the modality.
        path: the file; "" where a kept conversation's file is gone.
        picture: the picture beside a depth or a normal map.
        frames: frames a video is read as; None leaves it to the model.
        sound: whether a video is read with its sound track.
        name: the file's name where the path is gone.
    """

    modality: str
    path: str
    picture: str | None = None
    frames: int | None = None
    name: str = ""
    sound: bool = False

    @property
    def title(self) -> str:
        """The file's name for people."""
        return self.name or Path(self.path).name

    @property
    def options(self) -> dict:
        """What `load` takes beside the path."""
        given = {"picture": self.picture, "frames": self.frames}
        return {name: value for name, value in given.items() if value}


@dataclass(eq=False)
class Pending:
    """A file that waits in the form.

    Attributes:
        file: the file as the modality it counts as.
        modalities: the modalities it may be, likeliest first; of one there is nothing to choose.
        error: why it cannot be used; empty if it can.
        readable: it could be read; the model may be unable to take it nevertheless.
        id: names it on the page.
    """

    file: Attachment
    modalities: tuple[str, ...]
    error: str = ""
    readable: bool = True
    id: str = field(default_factory=lambda: secrets.token_hex(4))


@dataclass(eq=False)
class Turn:
    """A question with its files, and the answer so far.

    Attributes:
        question: as typed.
        files: what came with it.
        settings: how the answer is drawn.
        answer: the model's text so far.
        generated: what the answer holds besides text, content parts as `Chat.generated` has them.
        note: what the app says below the answer: that it waits, was stopped, or failed.
        failed: the note is an error.
        stage: whether the question was asked, waits in the queue, is being answered, or is done or stopped.
        held: the conversation that the model keeps (`chat.messages`) holds the question.
        model: name of the model that answered.
        trace: what the model did.
        vote: the visitor's thumb, "up" or "down".
        seal: says that this app gave the answer, see `visitors.seal`; empty if it did not.
    """

    question: str
    files: tuple[Attachment, ...] = ()
    settings: Settings = Settings()
    answer: str = ""
    generated: list[dict] = field(default_factory=list)
    note: str = ""
    failed: bool = False
    stage: Literal["asked", "waiting", "answering", "done"] = "asked"
    held: bool = False
    model: str = ""
    trace: Trace | None = None
    vote: str = ""
    seal: str = ""

    def parts(self) -> list[dict]:
        """Return the files that are there as content parts of a chat message."""
        return [
            {"type": file.modality, "path": file.path, **file.options, **({"sound": True} if file.sound else {})}
            for file in self.files
            if file.path
        ]


@dataclass(eq=False)
class Comparison:
    """A question to two models.

    Attributes:
        turn: the question with its files; its note says how far it is, or why it ended.
        answers: of the app's model, and of the second one.
    """

    turn: Turn
    answers: tuple[Answer, Answer]


class Session:
    """One visitor's page.

    Attributes:
        id: names the conversation where the browser keeps it.
        begun_s: when it began, in seconds since 1970.
        language: of the page, see `texts`.
        chat: the conversation with the model; None until the first question.
        turns: what the page shows of it.
        pending: files for the next question.
        beside: id of the pending map whose picture is being chosen.
        editing: number of the turn whose question is in the form again; None if the form is for a new one.
        stream: the last answer of the model, as it comes.
        comparison: the question that went to two models last; None before the first.
    """

    def __init__(self):
        self.language = "en"
        self.chat: Any = None
        self.stream: AnswerStream | None = None
        self.turns: list[Turn] = []
        self.pending: list[Pending] = []
        self.beside = ""
        self.editing: int | None = None
        self.comparison: Comparison | None = None
        self._views: dict[tuple, FileView] = {}
        self._name()

    def _name(self) -> None:
        self.id, self.begun_s = secrets.token_hex(8), time.time()

    def view(self, file: Attachment, inputs: dict | None) -> FileView:
        """Return a file's preview; a file is read once for it.

        Args:
            file: the file.
            inputs: the model's settings by modality, which tell how much of the file it takes; None if none is loaded.

        Raises:
            FileError: the file cannot be used as that modality.
        """
        settings = None
        if inputs is not None:
            settings = inputs.get(file.modality, {}) | ({"frames": file.frames} if file.frames else {})
        key = (file, self.language, repr(settings))
        if key not in self._views:
            shown = {given for turn in self.turns for given in turn.files} | {item.file for item in self.pending}
            self._views = {known: view for known, view in self._views.items() if known[0] in shown - {file}}
            self._views[key] = preview_file(file.modality, file.path, file.options, settings, self.language, file.sound)
        return self._views[key]

    @property
    def busy(self) -> bool:
        """Whether a question waits or is being answered."""
        return any(turn.stage != "done" for turn in self.turns)

    def idle(self) -> None:
        """Refuse while an answer is on its way.

        Raises:
            OneLLMError: one is.
        """
        if self.busy:
            raise OneLLMError(say(self.language, "error.busy"))

    def turn(self, number: str) -> Turn:
        """Return the turn of a number that the page sent.

        Raises:
            OneLLMError: there is none.
        """
        if not 0 <= int(number) < len(self.turns):
            raise OneLLMError(say(self.language, "error.gone"))
        return self.turns[int(number)]

    def stop(self) -> None:
        """End what runs or waits, and say so; the model follows within one token."""
        for turn in self.turns:
            if turn.stage != "done":
                turn.stage = "done"
                turn.note = say(self.language, "stop.begun" if turn.answer else "stop.unbegun")
        if self.chat is not None:
            self.chat.stop()

    def settle(self) -> None:
        """Wait until the model has ended a stopped answer."""
        if self.stream is not None:
            self.stream.job.ended.wait()

    def forget(self) -> None:
        """Start anew; the files in the form stay."""
        self.stop()
        self.chat = self.stream = self.editing = None
        self.turns = []
        self._views.clear()
        self._name()

    def cut(self, count: int) -> None:
        """Keep the first turns alone, on the page and in the model's conversation."""
        self.settle()
        if self.chat is not None:
            del self.chat.messages[2 * sum(turn.held for turn in self.turns[:count]) :]
        del self.turns[count:]

    def history(self, modalities: Collection[str]) -> list[dict]:
        """Return what the model's conversation holds as chat messages, for a model that has not met it.

        Args:
            modalities: of files that this model reads; others are left out, see `unread`.
        """
        messages = []
        for turn in self.turns:
            if turn.held:
                asked = [part for part in turn.parts() if part["type"] in modalities]
                asked = [*asked, {"type": "text", "text": turn.question}]
                answered = [{"type": "text", "text": turn.answer}, *turn.generated]
                messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        return messages

    def unread(self, modalities: Collection[str]) -> list[str]:
        """Return the modalities in the conversation that a model does not read, each once."""
        found = (part["type"] for turn in self.turns if turn.held for part in turn.parts())
        return [modality for modality in dict.fromkeys(found) if modality not in modalities]
