"""What a benchmark is: where its files lie, what is asked, what is right, and which numbers others have reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onellm.errors import OneLLMError

if TYPE_CHECKING:
    from train.evaluation.metrics import Answer, Scores

DOCS = "docs/evaluation.md"


class BenchmarkError(OneLLMError):
    """A benchmark that cannot be read, run or scored, in words."""


@dataclass
class Question:
    """One question of a benchmark.

    Attributes:
        id: the official id, as text.
        files: content parts in the order the model gets them: `{"type": modality, "path": file, ...}`, or
            `{"type": modality, "make": function}`, whose function returns the part when its turn comes, or None where
            there is nothing (a video without sound).
        text: the whole prompt.
        answers: accepted answers or reference captions; empty where only a server knows them.
        group: questions that only count together have one group; by default each has its own.
        category: what results are also given by.
        info: what the metric or the official submission needs besides.
    """

    id: str
    files: list[dict]
    text: str
    answers: list[str] = field(default_factory=list)
    group: str = ""
    category: str = ""
    info: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Give a question without a group its own."""
        self.group = self.group or self.id

    @property
    def modalities(self) -> tuple[str, ...]:
        """Kinds of its files, in their order."""
        return tuple(part["type"] for part in self.files)


@dataclass(frozen=True)
class Split:
    """One split of a benchmark.

    Attributes:
        read: folder -> the questions.
        needs: files and folders, relative to the folder, that have to be there.
        scored: False where the answers lie on a server only and all there is to do is to write the submission.
    """

    read: Callable[[Path], Iterable[Question]]
    needs: tuple[str, ...]
    scored: bool = True


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: a declaration.

    Attributes:
        name: as on the command line.
        title: as in the paper's tables.
        table: of the paper, or "text" for a number that is only in its text.
        folder: of its files, below the data folder.
        splits: name -> split; the first is the default.
        metric: answers -> scores.
        paper: metric -> OneLLM-7B's number; the first metric is the headline. In percent but for MME.
        best: the best number of another model, and its name; where the paper has one, the best zero-shot one.
        tuned: the best number of a model trained on this data set, and its name, where the paper has one.
        submit: answers -> name -> content of the files that the official server or judge takes.
        url: where the files come from.
    """

    name: str
    title: str
    table: str
    folder: str
    splits: dict[str, Split]
    metric: Callable[[Sequence[Answer]], Scores]
    paper: dict[str, float]
    best: tuple[str, float] | None = None
    tuned: tuple[str, float] | None = None
    submit: Callable[[Sequence[Answer]], dict[str, str]] | None = None
    url: str = ""

    @property
    def headline(self) -> str:
        """Name of the metric that stands for the benchmark."""
        return next(iter(self.paper))

    def split(self, name: str | None) -> str:
        """Return the name of a split; the default one for None.

        Raises:
            BenchmarkError: there is no such split.
        """
        if name is None:
            return next(iter(self.splits))
        if name not in self.splits:
            raise BenchmarkError(f"{self.name} has no split '{name}'; choose one of {', '.join(self.splits)}.")
        return name

    def missing(self, data: Path, split: str) -> list[Path]:
        """List the needed files and folders that are not there."""
        paths = (data / self.folder / name for name in self.splits[split].needs)
        return [path for path in paths if not path.exists()]

    def questions(self, data: Path, split: str, limit: int | None = None) -> list[Question]:
        """Read the questions of a split.

        Args:
            data: folder of all benchmarks.
            split: a key of `splits`.
            limit: about so many questions, evenly spread; groups stay whole.

        Raises:
            BenchmarkError: a file is missing, or not as its publishers lay it out.
        """
        missing = self.missing(data, split)
        if missing:
            raise BenchmarkError(
                f"{self.name}: {missing[0]} was not found; put the published files there as {DOCS} lists them, or give "
                "another folder with --data."
            )
        try:
            questions = list(self.splits[split].read(data / self.folder))
        except OneLLMError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
            listed = [name for name in self.splits[split].needs if not (data / self.folder / name).is_dir()]
            where = " or ".join(str(data / self.folder / name) for name in listed or self.splits[split].needs)
            raise BenchmarkError(
                f"{self.name}: {where} is not laid out as published ({type(error).__name__}: {error}); fetch it again "
                f"from {self.url}."
            ) from error
        if not questions:
            raise BenchmarkError(f"{self.name}: the split {split} holds no question; fetch it again from {self.url}.")
        seen: dict[str, int] = {}
        for question in questions:  # answers are kept by id, so a repeated one gets a number
            seen[question.id] = seen.get(question.id, 0) + 1
            question.id += f"#{seen[question.id]}" if seen[question.id] > 1 else ""
        return spread(questions, limit)


def spread(questions: list[Question], limit: int | None) -> list[Question]:
    """Take about `limit` questions from whole groups, evenly spread over all of them."""
    if not limit or len(questions) <= limit:
        return questions
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.group, []).append(question)
    count = max(1, round(limit * len(groups) / len(questions)))
    names = list(groups)
    chosen = [names[int(index)] for index in np.linspace(0, len(names) - 1, count)]
    return [question for name in chosen for question in groups[name]]
