"""Asking the conversation benchmark's questions, and reporting."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from onellm.errors import OneLLMError
from onellm.hub.llm import PLAIN_TEMPLATE
from onellm.model.base_parts import LLMS
from onellm.utils import atomic
from train.small.conversation import files
from train.small.conversation.items import FAMILIES, Item, Turn, fingerprint, read_items
from train.small.conversation.scoring import is_right

SYSTEM = "What a file shows is written before a question; answer the question from it and from what you know."
CONSTANT = ("Yes.", "No.", "I cannot see that in the picture.", "The picture shows a cat.", "图片里是一只猫。", "Two.")
ALL = "all"  # the row of all families
DRAWS = 20  # of other items' answers, for chance


class Answerer(Protocol):
    """What answers the turns of conversations.

    Attributes:
        batch: how many conversations it holds side by side.
    """

    batch: int

    def answer(self, items: list[Item]) -> list[list[str | OneLLMError]]:
        """Hold conversations; return the answers to the turns of each, or why there is none."""


class ModelAnswerer:
    """A loaded model, asked as the app asks it.

    Args:
        chat: a conversation with it.
    """

    batch = 1

    def __init__(self, chat: Any):
        self.chat = chat

    def answer(self, items: list[Item]) -> list[list[str | OneLLMError]]:
        """Hold conversations."""
        return [self._converse(item) for item in items]

    def _converse(self, item: Item) -> list[str | OneLLMError]:
        chat, answers = self.chat.new(), []
        for turn in item.turns:
            shown: dict[str, list[str]] = {}
            for file in turn.files:
                shown.setdefault(file.modality, []).append(str(files.prepare(file)))
            try:
                answers.append(chat.ask(turn.ask, max_new_tokens=turn.new_tokens, **shown))
            except OneLLMError as error:  # a modality that the model lacks, say
                answers.append(error)
        return answers


class NotedLLM:
    """A language model alone, which reads what the files show: the ceiling of what perception can bring.

    Args:
        folder: of the language model, in transformers' form.
        noted: False leaves the notes out: what can be guessed without perception.

    Raises:
        OneLLMError: there is no such model.
    """

    batch = 16

    def __init__(self, folder: Path, noted: bool = True):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
            self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise OneLLMError(
                found=f"{folder} holds no causal LLM that transformers knows ({reason})",
                advice=f"give --llm one of {', '.join(LLMS)}, or a folder of such an LLM",
            ) from error
        self.model.eval()
        if self.tokenizer.chat_template is None:
            self.tokenizer.chat_template = PLAIN_TEMPLATE
        self.noted = noted

    def answer(self, items: list[Item]) -> list[list[str | OneLLMError]]:
        """Hold conversations, a turn of all of them at a time."""
        dialogues = [[{"role": "system", "content": SYSTEM}] if self.noted else [] for _ in items]
        answers: list[list[str | OneLLMError]] = [[] for _ in items]
        for number in range(max(len(item.turns) for item in items)):
            asked = [index for index, item in enumerate(items) if number < len(item.turns)]
            turns = [items[index].turns[number] for index in asked]
            for index, turn in zip(asked, turns, strict=True):
                text = "\n".join([*(notes(turn) if self.noted else []), turn.ask])
                dialogues[index].append({"role": "user", "content": text})
            found = self._generate([dialogues[index] for index in asked], [turn.new_tokens for turn in turns])
            for index, answer in zip(asked, found, strict=True):
                dialogues[index].append({"role": "assistant", "content": answer})
                answers[index].append(answer)
        return answers

    def _generate(self, dialogues: list[list[dict]], new_tokens: list[int]) -> list[str]:
        inputs = self.tokenizer.apply_chat_template(
            dialogues, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        tokens = self.model.generate(
            **inputs, max_new_tokens=max(new_tokens), do_sample=False, temperature=None, top_p=None, top_k=None,
            repetition_penalty=1.0, pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
        )  # fmt: skip
        start = inputs["input_ids"].shape[1]
        rows = [row[start : start + count] for row, count in zip(tokens, new_tokens, strict=True)]
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]


def notes(turn: Turn) -> list[str]:
    """Return what a turn's files show, one note each; files of the same modality are numbered."""
    found, modalities = [], [file.modality for file in turn.files]
    for index, file in enumerate(turn.files):
        note = file.note
        if modalities.count(file.modality) > 1:
            number = ("first", "second", "third")[modalities[:index].count(file.modality)]
            note = note.replace("The ", f"The {number} ", 1)
        found.append(note)
    return found


def judge(item: Item, answers: list[str | OneLLMError]) -> dict:
    """Judge a conversation.

    Returns:
        Its record: id, family, `right` for the whole, and its turns with questions, answers and verdicts.
    """
    turns = []
    for turn, answer in zip(item.turns, answers, strict=True):
        line: dict[str, Any] = {"ask": turn.ask, "files": [file.name for file in turn.files], "answer": answer}
        if isinstance(answer, OneLLMError):  # the answer is wrong, and the reason stands
            line |= {"answer": "", "error": str(answer)}
        if turn.expected:
            line["right"] = is_right(line["answer"], turn.expected)
        turns.append(line)
    right = all(line.get("right", True) for line in turns)
    return {"id": item.id, "family": item.family, "right": right, "turns": turns}


@dataclass
class Share:
    """Figures of one family: the number of items, the share that is right, and what chance gets."""

    family: str
    n: int
    right: float
    chance: float


def measure(
    load: Callable[[], Answerer],
    about: dict,
    families: list[str] | None = None,
    limit: int | None = None,
    out: Path | None = None,
) -> tuple[list[Share], list[dict]]:
    """Hold all conversations; one that was stopped goes on where its JSON file ends.

    Args:
        load: returns what answers.
        about: what is measured, such as `model` and `llm`.
        families: only these.
        limit: at most so many items a family.
        out: write every answer and figure there, as it grows.

    Returns:
        Figures of the families, the last of all together, and the records.
    """
    items = read_items(families, limit)
    about = {**about, "benchmark": fingerprint(), "items": len(items)}
    for file in {file.name: file for item in items for file in item.files}.values():
        files.prepare(file)  # what is missing is told before a model is loaded
    records = kept(out, about)
    known = {record["id"] for record in records}
    left = [item for item in items if item.id not in known]
    answerer = load() if left else None
    with tqdm(total=len(left), desc="conversations", mininterval=5) as bar:
        while left:
            asked, left = left[: answerer.batch], left[answerer.batch :]
            records += [judge(item, answers) for item, answers in zip(asked, answerer.answer(asked), strict=True)]
            bar.update(len(asked))
            if out:
                atomic.write_json(out, {**about, "finished": False, "answers": records})
    found = shares(items, records)
    if out:
        lines = [vars(share) for share in found]
        atomic.write_json(out, {**about, "finished": True, "families": lines, "answers": records})
    return found, records


def kept(out: Path | None, about: dict) -> list[dict]:
    """Read the records of a run that was stopped; none of one that was finished, or of another model or benchmark."""
    if not out or not out.exists():
        return []
    try:
        found = json.loads(out.read_text(encoding="utf-8"))
    except ValueError:
        return []
    same = isinstance(found, dict) and all(found.get(key) == value for key, value in about.items())
    return found["answers"] if same and found.get("finished") is False else []


def chance_of(items: list[Item]) -> float:
    """Return what items get without looking.

    The higher of two: the best of some answers that are always the same, and the written answers of other items, drawn
    several times.
    """
    choose = random.Random(0)
    best = max(np.mean([_always(answer, item) for item in items]) for answer in CONSTANT)
    return float(max(best, np.mean([_swapped(item, items, choose) for item in items for _ in range(DRAWS)])))


def _always(answer: str, item: Item) -> bool:
    """Tell whether an answer to every turn is right."""
    return all(is_right(answer, turn.expected) for turn in item.turns if turn.expected)


def _swapped(item: Item, own: list[Item], choose: random.Random) -> bool:
    """Tell whether another item's written answers are right."""
    others = [one for one in own if one is not item] or own
    written = [turn.answer for turn in choose.choice(others).turns if turn.expected]
    counted = [turn for turn in item.turns if turn.expected]
    return all(is_right(written[min(at, len(written) - 1)], turn.expected) for at, turn in enumerate(counted))


def shares(items: list[Item], records: list[dict]) -> list[Share]:
    """Count the families, and all together; chance is that of all their items."""
    right = {record["id"]: record["right"] for record in records}
    found = []
    for family in (*FAMILIES, ALL):
        own = [right[item.id] for item in items if family in (item.family, ALL)]
        if own:
            chance = chance_of(read_items(None if family == ALL else [family]))
            found.append(Share(family, len(own), float(np.mean(own)), chance))
    return found


def table(found: list[Share]) -> str:
    """Lay the figures out as Markdown."""
    rows = ["| family | n | right | chance |", "|---|---|---|---|"]
    return "\n".join(rows + [f"| {s.family} | {s.n} | {s.right:.2f} | {s.chance:.2f} |" for s in found])
