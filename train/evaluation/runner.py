"""Running benchmarks: questions -> answers, in batches, over any number of processes, resumable -> scores.

Answers are kept as JSON lines and never asked for twice. A question whose file is broken or missing is left out,
counted and named; it is tried again the next time.
"""

import json
import re
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from onellm.chat.chat import Chat
from onellm.errors import OneLLMError
from onellm.utils import atomic
from train.evaluation.benchmark import Benchmark, BenchmarkError, Question
from train.evaluation.metrics import Answer, Scores
from train.evaluation.report import describe
from train.small.ask import answer_batch

LOADERS = 4  # threads that read files while the model answers
NAMED = 20  # skipped questions that a result names


@dataclass(frozen=True)
class Settings:
    """How answers are made.

    Attributes:
        decode: "greedy" takes the likeliest tokens; "paper" draws at temperature 0.1 from the likeliest 75 %.
        new_tokens: longest answer.
        seed: of the draws; with "paper" they also depend on the batch.
        weights: which weights answer, so that answers of others are not taken for theirs.
    """

    decode: str = "greedy"
    new_tokens: int = 128
    seed: int = 1
    weights: str = ""


class Answerer(Protocol):
    """What answers questions: a model, or a test's script."""

    name: str

    def load(self, question: Question) -> Any:
        """Read a question's files; may raise whatever a broken file leads to."""

    def answer(self, batch: list[tuple[Question, Any]], number: int) -> list[str]:
        """Answer questions with their loaded files; `number` is the batch's."""


class ModelAnswerer:
    """A OneLLM that answers in batches, its files read the app's own way."""

    def __init__(self, chat: Chat, settings: Settings):
        self.chat, self.settings, self.name = chat, settings, chat.name

    def load(self, question: Question) -> list[dict]:
        """Return a question's content parts, each with its tensor."""
        parts = [part["make"]() if "make" in part else part for part in question.files]
        to_tensor = self.chat.processor.to_tensor
        return [{"type": part["type"], "tensor": to_tensor(part)} for part in parts if part is not None]

    def answer(self, batch: list[tuple[Question, list[dict]]], number: int) -> list[str]:
        """Generate answers up to a stop string."""
        from transformers import set_seed

        conversations = [
            [{"role": "user", "content": [*parts, {"type": "text", "text": question.text}]}]
            for question, parts in batch
        ]
        sampling: dict[str, Any] = {"do_sample": False}
        if self.settings.decode == "paper":
            set_seed(self.settings.seed * 1_000_003 + number)
            sampling = {"do_sample": True, "temperature": 0.1, "top_p": 0.75}
        sampling["max_new_tokens"] = self.settings.new_tokens
        return answer_batch(self.chat, conversations, lambda part: part["tensor"], **sampling)


@dataclass
class Progress:
    """Answers and skipped questions, by id."""

    answers: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def run_benchmark(
    benchmark: Benchmark,
    answerer: Answerer,
    data: Path,
    out: Path,
    split: str | None = None,
    limit: int | None = None,
    batch: int = 16,
    settings: Settings | None = None,
) -> dict | None:
    """Answer a benchmark's questions and score the answers; every process of a launch calls it.

    Args:
        benchmark: what to run.
        answerer: what answers.
        data: folder of all benchmarks.
        out: folder of results.
        split: name of the split; the benchmark's default for None.
        limit: about so many questions.
        batch: questions a batch.
        settings: how answers are made, for the record.

    Returns:
        The result, which is also written to `<out>/<model>.<benchmark>.<split>.json`; None but for the first process.

    Raises:
        BenchmarkError: files are missing or wrong, nothing could be answered, or answers of another run are there.
    """
    settings, started = settings or Settings(), time.monotonic()
    split = benchmark.split(split)
    questions = benchmark.questions(data, split, limit)
    label = f"{slug(answerer.name)}.{benchmark.name}.{split}"
    progress = ask(answerer, questions, out / label, batch, settings, benchmark.name)
    if progress is None:
        return None
    answered = [Answer(q, progress.answers[q.id]) for q in questions if q.id in progress.answers]
    if not answered:
        raise BenchmarkError(
            f"{benchmark.name}: none of {len(questions)} questions could be asked, the first because: "
            f"{next(iter(progress.skipped.values()))}"
        )
    result = describe(benchmark, split, answered, _score(benchmark, split, answered), answerer.name, settings)
    named = dict(list(progress.skipped.items())[:NAMED])
    result["skipped"] = {"count": len(progress.skipped), "named": named}
    result["files"] = _submit(benchmark, answered, out / label)
    result["seconds"] = round(time.monotonic() - started, 1)
    atomic.write_json(out / f"{label}.json", result)
    return result


def ask(
    answerer: Answerer, questions: list[Question], folder: Path, batch: int, settings: Settings, title: str
) -> Progress | None:
    """Ask the questions that have no answer yet, dealt to all processes of the launch.

    Args:
        answerer: what answers.
        questions: all questions, the same in every process.
        folder: of the answers.
        batch: questions a batch.
        settings: how answers are made.
        title: of the progress bar.

    Returns:
        All answers, earlier ones too; None but for the first process.

    Raises:
        BenchmarkError: answers of another run are there.
    """
    from accelerate.utils import broadcast_object_list, gather_object

    state = processes()
    # all go by what the first process saw, as others may already be writing: answers, or what is wrong with them
    known: list[Any] = [_known_answers(folder, asdict(settings)) if state.is_main_process else None]
    broadcast_object_list(known)
    if isinstance(known[0], str):
        raise BenchmarkError(known[0])
    batches = list(enumerate(into_batches([q for q in questions if q.id not in known[0]], batch)))
    mine = batches[state.process_index :: state.num_processes]
    total = sum(len(members) for _, members in mine)
    progress = Progress()
    with (
        open_lines(folder / f"answers.{state.process_index}.jsonl") as file,
        tqdm(total=total, desc=title, unit="question", disable=None if mine else True) as bar,
    ):
        for members, texts, skipped in _answer(answerer, mine):
            for question, text in texts:
                file.write(json.dumps({"id": question.id, "answer": text}, ensure_ascii=False) + "\n")
            file.flush()
            progress.answers |= {question.id: text for question, text in texts}
            progress.skipped |= skipped
            bar.update(len(members))
    gathered = gather_object([progress])
    if not state.is_main_process:
        return None
    whole = Progress(dict(known[0]))
    for part in gathered:
        whole.answers |= part.answers
        whole.skipped |= part.skipped
    return whole


def processes() -> Any:
    """Return accelerate's view of the launch: how many processes there are, and which one this is."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())  # unless told so, it takes CPU processes for single ones


def _score(benchmark: Benchmark, split: str, answered: list[Answer]) -> Scores:
    """Score answers, or say that only a server can."""
    if benchmark.splits[split].scored:
        return benchmark.metric(answered)
    return Scores(missing={benchmark.headline: f"the answers of {split} lie on the official server; upload the file"})


def _submit(benchmark: Benchmark, answered: list[Answer], folder: Path) -> list[str]:
    """Write the official submission; return the paths."""
    written = []
    for name, content in (benchmark.submit(answered) if benchmark.submit else {}).items():
        atomic.write(folder / name, content)
        written.append(str(folder / name))
    return written


def into_batches(questions: list[Question], size: int) -> list[list[Question]]:
    """Group questions with the same modalities and prompts of like length, so that little is padding."""
    ordered = sorted(questions, key=lambda question: (question.modalities, len(question.text)))
    batches: list[list[Question]] = []
    for question in ordered:
        if not batches or len(batches[-1]) == size or batches[-1][0].modalities != question.modalities:
            batches.append([])
        batches[-1].append(question)
    return batches


def _answer(
    answerer: Answerer, batches: list[tuple[int, list[Question]]]
) -> Iterator[tuple[list[Question], list[tuple[Question, str]], dict[str, str]]]:
    """Answer batches while the next one's files are read: questions, answers, and why others were skipped."""
    waiting: deque[tuple[int, list[Question], list[Future]]] = deque()
    with ThreadPoolExecutor(LOADERS) as pool:
        for batch in [*batches, None]:
            if batch is not None:
                waiting.append((*batch, [pool.submit(answerer.load, question) for question in batch[1]]))
            while waiting and (batch is None or len(waiting) > 1):
                number, members, futures = waiting.popleft()
                ready, skipped = [], {}
                for question, future in zip(members, futures, strict=True):
                    try:
                        ready.append((question, future.result()))
                    except Exception as error:  # whatever a broken file leads to
                        known = isinstance(error, OneLLMError)
                        skipped[question.id] = str(error) if known else f"{type(error).__name__}: {error}"
                texts = answerer.answer(ready, number) if ready else []
                yield members, list(zip([question for question, _ in ready], texts, strict=True)), skipped


def slug(name: str) -> str:
    """Turn a model's name into part of a file name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def _known_answers(folder: Path, settings: dict) -> dict[str, str] | str:
    """Return the answers of an earlier start, or an error's text where they were made otherwise."""
    file = folder / "settings.json"
    if file.exists():
        found = json.loads(file.read_text())
        changed = [key for key in settings if found.get(key) != settings[key]]
        if changed:
            return (
                f"{folder} holds answers made with {changed[0]} {found.get(changed[0])!r} instead of "
                f"{settings[changed[0]]!r}; delete it, or give another folder with --out."
            )
        return read_answers(folder)
    atomic.write_json(file, settings)
    return {}


def read_answers(folder: Path) -> dict[str, str]:
    """Read the answers of all processes; a line that a stop cut short is left out."""
    answers = {}
    for file in sorted(folder.glob("answers.*.jsonl")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            answers[row["id"]] = row["answer"]
    return answers


def open_lines(path: Path):
    """Open a file to append lines; a last line that was cut short is closed first."""
    cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    file = open(path, "a", encoding="utf-8")
    if cut:
        file.write("\n")
    return file
