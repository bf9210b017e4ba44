"""What an answer is worth: every metric but the caption ones, which are in captions.py. Values are in percent."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from train.evaluation.benchmark import Question
from train.evaluation.prompts import LETTERS

ROUNDS = 1000  # of the bootstrap


@dataclass
class Answer:
    """What a model said to a question."""

    question: Question
    text: str


@dataclass
class Scores:
    """Figures of one benchmark.

    Attributes:
        values: metric -> value, in percent.
        each: metric -> the values whose mean it is, for the metrics that are means.
        groups: category -> headline value.
        missing: metric -> why it could not be computed, in words.
        notes: what the reader should know.
    """

    values: dict[str, float] = field(default_factory=dict)
    each: dict[str, list[float]] = field(default_factory=dict)
    groups: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_mean(self, name: str, each: Sequence[float]) -> None:
        """Add a metric that is a mean over questions or groups."""
        self.each[name] = [float(value) for value in each]
        self.values[name] = float(np.mean(self.each[name]))

    def errors(self) -> dict[str, float]:
        """Return the standard error of every mean, by the bootstrap over questions."""
        errors = {}
        for name, each in self.each.items():
            generator = np.random.default_rng(0)
            values = np.asarray(each)
            means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(ROUNDS)]
            errors[name] = float(np.std(means))
        return errors


def per_question(**rules: Callable[[Answer], float]) -> Callable[[Sequence[Answer]], Scores]:
    """Make a metric of rules that judge one answer at a time with 0 to 1; the first also by category."""

    def score(answers: Sequence[Answer]) -> Scores:
        scores = Scores()
        for name, rule in rules.items():
            scores.add_mean(name, [100 * rule(answer) for answer in answers])
        first = next(iter(scores.each.values()))
        categories: dict[str, list[float]] = {}
        for answer, value in zip(answers, first, strict=True):
            if answer.question.category:
                categories.setdefault(answer.question.category, []).append(value)
        scores.groups = {name: float(np.mean(values)) for name, values in sorted(categories.items())}
        return scores

    return score


# ---- short answers ---------------------------------------------------------------------------------------------

# Contractions that are written without an apostrophe, in whole or in part, get it back.
CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd've it'll let's ma'am mightn't mightn't've "
    "might've mustn't must've needn't not've o'clock oughtn't shan't she'd've she's should've shouldn't "
    "shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd "
    "something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've "
    "'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd "
    "who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've "
    "you'd you'd've you'll you're you've"
).split()
NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def _apostrophes() -> dict[str, str]:
    """Map every way to leave apostrophes out of a contraction to the contraction."""
    table = {}
    for word in CONTRACTIONS:
        pieces = word.split("'")
        for kept in range(2 ** (len(pieces) - 1) - 1):
            apostrophes = ["'" if kept >> index & 1 else "" for index in range(len(pieces) - 1)] + [""]
            table["".join(piece + mark for piece, mark in zip(pieces, apostrophes, strict=True))] = word
    return table


APOSTROPHES = _apostrophes()


def strip_punctuation(text: str) -> str:
    """Remove punctuation as the VQA evaluation does: joined words part, full stops go unless a digit follows."""
    result = text
    grouped = re.search(r"\d,\d", text) is not None
    for mark in PUNCTUATION:
        if mark + " " in text or " " + mark in text or grouped:
            result = result.replace(mark, "")
        else:
            result = result.replace(mark, " ")
    return re.sub(r"\.(?!\d)", "", result)


def normalise(text: str) -> str:
    """Normalise a short answer as the VQA evaluation does.

    Line breaks, punctuation and articles go, numbers up to ten become digits, contractions get their apostrophe.

    Source:
        Antol et al., "VQA: Visual Question Answering", and visualqa.org/evaluation.html.
    """
    text = strip_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(APOSTROPHES.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(text: str, answers: Sequence[str], normalise_all: bool = False) -> float:
    """Return the VQA accuracy: an answer counts min(1, people who gave it / 3), averaged over leaving each one out.

    Args:
        text: the prediction.
        answers: what (ten) people answered.
        normalise_all: normalise their answers in full, as TextVQA does; VQA only strips their punctuation, and that
            only where they disagree.

    Returns:
        0 to 1.
    """
    given = normalise(text)
    people = [answer.replace("\n", " ").replace("\t", " ").strip() for answer in answers]
    if normalise_all:
        people = [normalise(answer) for answer in people]
    elif len(set(people)) > 1:
        people = [strip_punctuation(answer) for answer in people]
    equal = [answer == given for answer in people]
    return float(np.mean([min(1.0, (sum(equal) - own) / 3) for own in equal]))


def vqa(answer: Answer) -> float:
    """Judge by VQA accuracy."""
    return vqa_accuracy(answer.text, answer.question.answers)


def text_vqa(answer: Answer) -> float:
    """Judge by TextVQA's accuracy."""
    return vqa_accuracy(answer.text, answer.question.answers, normalise_all=True)


def exact(answer: Answer) -> float:
    """Judge by equality with any accepted answer after normalising both."""
    return float(normalise(answer.text) in map(normalise, answer.question.answers))


def contains(answer: Answer) -> float:
    """Judge as the released MSVD-QA script does: either of answer and expected answer contains the other.

    An empty answer, which every text contains, is wrong.
    """
    given = answer.text.strip().lower()
    return float(bool(given) and any(given in e.lower() or e.strip().lower() in given for e in answer.question.answers))


def majority(answer: Answer) -> float:
    """Judge by what most annotators answered; on a tie the one named first counts."""
    votes = Counter(map(normalise, answer.question.answers))
    return float(normalise(answer.text) == votes.most_common(1)[0][0])


# ---- choices ---------------------------------------------------------------------------------------------------


def chosen_letter(text: str, options: Sequence[str]) -> str | None:
    """Find which option an answer means.

    Args:
        text: such as "B", "(B) a cat", "The answer is B." or "a cat".
        options: texts of A, B, …

    Returns:
        The letter, or None where the answer names no option or more than one.
    """
    letters, text = LETTERS[: len(options)], text.strip()
    marked = set(re.findall(rf"\(([{letters}])\)", text))
    if marked:
        return marked.pop() if len(marked) == 1 else None
    found = re.match(rf"\(?([{letters}])(?:[).:,]|$)", text.upper() if len(text) <= 3 else text)
    found = found or re.search(rf"(?i:(?:answer|option|choice)(?:\s+is)?\s*:?\s*)([{letters}])\b", text)
    if found:
        return found[1]
    given = normalise(text)
    same = [index for index, option in enumerate(options) if normalise(option) == given]
    if not same and given:
        same = [p for p, option in enumerate(options) if re.search(rf"\b{re.escape(normalise(option))}\b", given)]
    return letters[same[0]] if len(same) == 1 else None


def choice(answer: Answer) -> float:
    """Judge by the option's letter; `info["options"]` holds the options, the answer is a letter."""
    return float(chosen_letter(answer.text, answer.question.info["options"]) == answer.question.answers[0])


def circular(answers: Sequence[Answer]) -> Scores:
    """Judge MMBench: a question is right if its letter is right in every rotation of the options.

    Source:
        Liu et al., "MMBench", section 4 (circular evaluation).
    """
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.question.group, []).append(answer)
    scores = Scores()
    scores.add_mean("accuracy", [100 * min(map(choice, group)) for group in groups.values()])
    scores.add_mean("accuracy without rotation", [100 * choice(group[0]) for group in groups.values()])
    categories: dict[str, list[float]] = {}
    for group, value in zip(groups.values(), scores.each["accuracy"], strict=True):
        categories.setdefault(group[0].question.category, []).append(value)
    scores.groups = {name: float(np.mean(values)) for name, values in sorted(categories.items())}
    return scores


PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip


def yes_or_no(text: str) -> str | None:
    """Read an answer as yes or no by its first word; None where it is neither."""
    found = re.match(r"\W*(yes|no)\b", text.strip().lower())
    return found[1] if found else None


def mme(answers: Sequence[Answer]) -> Scores:
    """Judge MME: a task's score is accuracy plus accuracy+ (both questions of a picture right), 200 at most.

    "perception" is the sum over 10 tasks, "cognition" over 4; these two are points, not percent.

    Source:
        Fu et al., "MME", section 2.
    """
    tasks: dict[str, dict[str, list[bool]]] = {}
    for answer in answers:
        right = yes_or_no(answer.text) == answer.question.answers[0].lower()
        tasks.setdefault(answer.question.category, {}).setdefault(answer.question.group, []).append(right)
    scores = Scores()
    for task, pictures in sorted(tasks.items()):
        every = [right for both in pictures.values() for right in both]
        scores.groups[task] = 100 * float(np.mean(every)) + 100 * float(np.mean([all(b) for b in pictures.values()]))
    modalities = {"perception": [], "cognition": []}
    for task, value in scores.groups.items():
        modalities["perception" if task in PERCEPTION else "cognition"].append(value)
    scores.values = {modality: float(sum(values)) for modality, values in modalities.items() if values}
    if len(modalities["perception"]) < len(PERCEPTION):
        scores.notes.append(f"only {len(modalities['perception'])} of 10 perception tasks")
    if "perception" not in scores.values:
        scores.missing["perception"] = "none of its tasks was answered"
    return scores


def scene_class(answer: Answer) -> float:
    """Judge a scene: right if the answer names its class and no other one of `info["classes"]`.

    A class that is part of a longer named one ("office" in "home office") does not count as named.
    """

    def plain(name: str) -> str:
        return re.sub(r"[\s_-]+", " ", name.lower()).strip()

    given = plain(answer.text)
    named = [plain(name) for name in answer.question.info["classes"]]
    found = []
    for name in sorted(named, key=len, reverse=True):
        if re.search(rf"\b{re.escape(name)}\b", given):
            found.append(name)
            given = re.sub(rf"\b{re.escape(name)}\b", " ", given)
    return float(found == [plain(answer.question.answers[0])])
