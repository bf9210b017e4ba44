"""Modality bias: of two files that agree, contradict each other or come alone, which one an answer follows."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onellm
from train.small.ask import ask_all
from train.small.items import Item, read_items
from train.small.naming import chance_of, is_right, without_pictures
from train.small.questions import WORDS

PAIRS = (("image", "audio"), ("video", "audio"), ("depth", "image"), ("point", "video"))
COUNT = 40  # pairs of files for each pair of modalities
QUESTION = "What is this?"


@dataclass
class Row:
    """What the answers about pairs of files, one of either modality, followed.

    Attributes:
        shown: which files were shown, in order, and what was asked beyond "What is this?".
        n: answers.
        first: share that names the thing of the first modality's file alone.
        second: share that names that of the second modality's file alone.
        both: share that names both.
        chance_first: share that would name the first modality's thing of another pair.
        chance_second: share that would name the second modality's thing of another pair.
    """

    shown: str
    n: int
    first: float
    second: float
    both: float
    chance_first: float
    chance_second: float

    @property
    def neither(self) -> float:
        """Share that names neither."""
        return 1 - self.first - self.second - self.both


def draw_pairs(first: list[Item], second: list[Item], agree: bool, count: int, choose: random.Random) -> list[tuple]:
    """Draw pairs of items that show the same thing, or things of which neither's names fit the other.

    Args:
        first: items of one modality.
        second: items of another.
        agree: whether they show the same.
        count: how many at most; of things that agree there may be fewer.
        choose: source of chance.
    """

    def fits(one: Item, other: Item) -> bool:
        if agree:
            return one.noun is not None and one.noun == other.noun
        return not set(one.accept) & set(other.accept)

    fitting = [(one, other) for one in first for other in second if fits(one, other)]
    return choose.sample(fitting, min(count, len(fitting)))


def score(shown: str, answers: list[str], pairs: list[tuple[Item, Item]]) -> Row:
    """Count which thing of each pair its answer names."""
    named = [tuple(is_right(answer, item) for item in pair) for answer, pair in zip(answers, pairs, strict=True)]
    chances = [chance_of(answers, [[pair[index]] for pair in pairs]) for index in (0, 1)]
    shares = [named.count(verdict) / len(named) for verdict in ((True, False), (False, True), (True, True))]
    return Row(shown, len(answers), *shares, *chances)


def measure_bias(
    chat: onellm.Chat,
    split: str,
    modalities: tuple[tuple[str, str], ...] = PAIRS,
    count: int = COUNT,
    seed: int = 0,
) -> Iterator[tuple[str, Row]]:
    """Ask about pairs of files of two modalities.

    Args:
        chat: a loaded model.
        split: "dev" or "test".
        modalities: pairs of modalities.
        count: pairs of files for each.
        seed: of the choice of pairs.

    Yields:
        Pair of modalities ("image and audio"), and figures; all but the last are of the same pairs of files.
    """
    for a, b in modalities:
        choose = random.Random(seed)
        items = [without_pictures(read_items(modality, split)) for modality in (a, b)]
        differing, alike = (draw_pairs(*items, agree, count, choose) for agree in (False, True))
        shown = [
            (f"{a} alone", differing, lambda one, other: [one], QUESTION),
            (f"{b} alone", differing, lambda one, other: [other], QUESTION),
            (f"{a}, {b}", differing, lambda one, other: [one, other], QUESTION),
            (f"{b}, {a}", differing, lambda one, other: [other, one], QUESTION),
            (f"{a}, {b}, asked about the {WORDS[a][0]}", differing, lambda one, other: [one, other], WORDS[a][2]),
            (f"{a}, {b}, asked about the {WORDS[b][0]}", differing, lambda one, other: [one, other], WORDS[b][2]),
            (f"{a}, {b} of the same thing", alike, lambda one, other: [one, other], QUESTION),
        ]
        for name, pairs, files, question in shown:
            if pairs:
                answers = ask_all(chat, [(files(*pair), question) for pair in pairs])
                yield f"{a} and {b}", score(name, answers, pairs)


def table(found: Iterable[tuple[str, Row]]) -> str:
    """Lay the figures out as Markdown, a table a pair of modalities."""
    tables: dict[str, list[str]] = {}
    for modalities, row in found:
        a, b = modalities.split(" and ")
        head = f"| shown | n | {a} alone named | {b} alone named | both | neither | chance {a} | chance {b} |"
        shares = (row.first, row.second, row.both, row.neither, row.chance_first, row.chance_second)
        line = f"| {row.shown} | {row.n} | {' | '.join(f'{share:.2f}' for share in shares)} |"
        tables.setdefault(modalities, [head, "|---" * 8 + "|"]).append(line)
    return "\n\n".join("\n".join(lines) for lines in tables.values())
