"""Answers that a language model has to judge: MM-Vet and Objaverse classification.

The official evaluators use GPT-4 with prompts of their own; the submission files are in their form. The judge here
asks in its own words, so its numbers stand beside the official ones, not for them. It speaks to any endpoint that is
compatible with OpenAI's, through the client `openai`.
"""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from train.evaluation.metrics import Answer, Scores

MODEL = "gpt-4-0613"  # what MM-Vet's evaluator uses
AT_ONCE = 8
UNSET = "the answers are written, in the official form too, and need a judge: set OPENAI_API_KEY (and, for another \
endpoint or model, OPENAI_BASE_URL and ONELLM_JUDGE)"


@dataclass(frozen=True)
class Task:
    """What a judge is asked.

    Attributes:
        metric: name of the figure.
        ask: answer -> the judge's prompt.
        read: the judge's reply -> 0 to 1, or None where it says nothing usable.
    """

    metric: str
    ask: Callable[[Answer], str]
    read: Callable[[str], float | None]


def _ask_mm_vet(answer: Answer) -> str:
    return (
        "You grade an answer to a question about a picture that you do not see. Compare it with the correct answer. "
        "Where the correct answer says <AND>, all its parts are needed; where it says <OR>, one is enough. Reply with "
        "one number from 0.0 (wrong) to 1.0 (right) in steps of 0.1, and nothing else.\n"
        f"Question: {answer.question.info['question']}\nCorrect answer: {answer.question.answers[0]}\n"
        f"Answer to grade: {answer.text}\nGrade:"
    )


def _read_grade(reply: str) -> float | None:
    found = re.search(r"(?<![\d.])(?:0(?:\.\d+)?|1(?:\.0+)?)(?![\d.]*\d)", reply)
    return float(found[0]) if found else None


def _ask_objaverse(answer: Answer) -> str:
    return (
        "Two texts describe a 3D object each. Do they name the same kind of object? Colours, poses and details do not "
        "matter. Reply with T or F, and nothing else.\n"
        f"First: {answer.question.answers[0]}\nSecond: {answer.text}\nSame kind:"
    )


def _read_verdict(reply: str) -> float | None:
    found = re.match(r"\W*(t|f)(?:rue|alse)?\b", reply.strip().lower())
    return float(found[1] == "t") if found else None


MM_VET = Task("GPT score", _ask_mm_vet, _read_grade)
OBJAVERSE = Task("GPT accuracy", _ask_objaverse, _read_verdict)


def judged(task: Task) -> Callable[[Sequence[Answer]], Scores]:
    """Make a metric of a task; without a judge it says what is missing."""

    def score(answers: Sequence[Answer]) -> Scores:
        scores = Scores()
        if not os.environ.get("OPENAI_API_KEY"):
            scores.missing[task.metric] = UNSET
            return scores
        try:
            import openai
        except ImportError:
            scores.missing[task.metric] = "the answers are written and need a judge: pip install openai"
            return scores
        model = os.environ.get("ONELLM_JUDGE", MODEL)
        client = openai.OpenAI()  # reads OPENAI_API_KEY and OPENAI_BASE_URL, and tries failed requests again

        def grade(answer: Answer) -> float | None:
            messages = [{"role": "user", "content": task.ask(answer)}]
            reply = client.chat.completions.create(model=model, messages=messages, temperature=0)
            return task.read(reply.choices[0].message.content or "")

        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                grades = list(pool.map(grade, answers))
        except openai.OpenAIError as error:
            scores.missing[task.metric] = f"the answers are written, and the judge failed ({error})"
            return scores
        usable = [value for value in grades if value is not None]
        scores.notes.append(f"judged by {model}, not by the official evaluator's prompt")
        if len(usable) < len(grades):
            scores.notes.append(f"{len(grades) - len(usable)} replies of the judge were no grade and count as 0")
        scores.add_mean(task.metric, [100 * (value or 0.0) for value in grades])
        return scores

    return score
