"""Following: two files in one question, yes or no, one word, a sentence, on held-out files."""

import random
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import onellm
from onellm.modalities import MODALITIES
from train.small.ask import ask_all
from train.small.items import Item, read_items
from train.small.naming import is_right, pick, without_pictures
from train.small.questions import WORDS, whether

ITEMS = 40  # a modality, evenly spread
PAIRS = 60
BOTH = "What is in the picture and what do you hear?"
ONE_WORD = "{} Answer in one word."
SENTENCE = "Describe the {} in one sentence."


@dataclass
class Following:
    """Figures on one split.

    Attributes:
        both: share of answers about a picture and a sound that name both.
        both_n: number of these pairs.
        yes_no: mean of the shares of right answers to questions whose answer is yes and to those whose answer is no.
        yes_no_n: number of these questions, half of either.
        one_word: share of answers of at most two words ("teddy bear") when asked for one word.
        sentence: share of answers of four words or more that end in a full stop when asked for a sentence.
        shape_n: number of answers behind either of the last two.
    """

    both: float
    both_n: int
    yes_no: float
    yes_no_n: int
    one_word: float
    sentence: float
    shape_n: int


def wrong_name(item: Item, others: list[Item], choose: random.Random) -> str:
    """Choose the noun of another item that does not name this one."""
    nouns = [other.noun or other.name for other in others]
    wrong = sorted({noun for noun in nouns if not is_right(noun, item) and noun not in item.accept})
    return choose.choice(wrong)


def said_yes(answer: str) -> bool | None:
    """Read an answer's verdict; None where it has none."""
    word = answer.lower().strip(" \"'").split(" ")[0].strip(".,!:;")
    return {"yes": True, "no": False}.get(word)


def has_shape(answer: str, one_word: bool) -> bool:
    """Tell whether an answer is a word (of at most two parts) or a sentence, as it was asked for."""
    count = len(answer.split())
    return 1 <= count <= 2 if one_word else count >= 4 and answer.endswith(".")


def ask_whether(
    chat: onellm.Chat, items: dict[str, list[Item]], choose: random.Random, **options: Any
) -> tuple[float, int]:
    """Ask of every item whether it is what it is, and whether it is something else of its modality.

    Args:
        chat: a loaded model.
        items: modality -> items.
        choose: of the wrong names.
        **options: of `ask_all`.

    Returns:
        The balanced accuracy (see `Following.yes_no`) and the number of questions.
    """
    wanted, asked = [], []
    for modality, found in items.items():
        for item in found:
            for truth in (True, False):
                name = (item.noun or item.name) if truth else wrong_name(item, found, choose)
                wanted.append(truth)
                asked.append(([item], whether(modality, name)))
    verdicts = [said_yes(answer) for answer in ask_all(chat, asked, **options)]
    shares = [
        np.mean([verdict is truth for verdict, want in zip(verdicts, wanted, strict=True) if want is truth])
        for truth in (True, False)
    ]
    return float(np.mean(shares)), len(asked)


def measure_following(chat: onellm.Chat, split: str, modalities: list[str] | None = None, seed: int = 0) -> Following:
    """Ask for both of two files, for yes or no, for one word and for a sentence.

    Args:
        chat: a loaded model.
        split: "dev" or "test".
        modalities: modalities for all but the pairs, which are a picture and a sound; all by default.
        seed: of the choice of pairs and of wrong nouns.

    Returns:
        The figures.
    """
    choose = random.Random(seed)
    items = {
        modality: without_pictures(pick(read_items(modality, split), ITEMS)) for modality in modalities or MODALITIES
    }
    seen, heard = read_items("image", split), read_items("audio", split)
    pairs = [(choose.choice(seen), choose.choice(heard)) for _ in range(PAIRS)]
    answers = ask_all(chat, [(list(pair), BOTH) for pair in pairs])
    both = [all(is_right(answer, item) for item in pair) for pair, answer in zip(pairs, answers, strict=True)]

    yes_no, yes_no_n = ask_whether(chat, items, choose)
    shapes = [
        ([item], form)
        for modality, found in items.items()
        for item in found
        for form in (ONE_WORD.format(WORDS[modality][2]), SENTENCE.format(WORDS[modality][0]))
    ]
    shaped = ask_all(chat, shapes)
    return Following(
        both=float(np.mean(both)),
        both_n=len(pairs),
        yes_no=yes_no,
        yes_no_n=yes_no_n,
        one_word=float(np.mean([has_shape(answer, True) for answer in shaped[::2]])),
        sentence=float(np.mean([has_shape(answer, False) for answer in shaped[1::2]])),
        shape_n=len(shaped) // 2,
    )


def table(figures: Following) -> str:
    """Lay the figures out as Markdown."""
    values = asdict(figures)
    rows = [
        ("a picture and a sound, both right", values["both"], values["both_n"]),
        ("yes or no, balanced accuracy", values["yes_no"], values["yes_no_n"]),
        ("one word when asked for one", values["one_word"], values["shape_n"]),
        ("a sentence when asked for one", values["sentence"], values["shape_n"]),
    ]
    lines = ["| asked for | n | share |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {count} | {share:.2f} |" for name, share, count in rows])
