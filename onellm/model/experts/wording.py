"""How experts count, list and place things in English sentences."""

from collections.abc import Sequence

_NUMBERS = "no one two three four five six seven eight nine ten eleven twelve".split()
_IRREGULAR = {
    "person": "people",
    "bus": "buses",
    "bench": "benches",
    "sheep": "sheep",
    "skis": "skis",
    "scissors": "scissors",
    "wine glass": "wine glasses",
    "knife": "knives",
    "mouse": "mice",
    "toothbrush": "toothbrushes",
    "couch": "couches",
    "sandwich": "sandwiches",
    "broccoli": "broccoli",
}


def number(count: int) -> str:
    """Return a count in words up to twelve, in digits beyond."""
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def counted(count: int, noun: str) -> str:
    """Return "one cup", "two knives"."""
    return f"{number(count)} {noun if count == 1 else _IRREGULAR.get(noun, noun + 's')}"


def listed(words: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def placed(x: float, y: float) -> str:
    """Say where a point is in a picture.

    Args:
        x: from the left, 0..1.
        y: from the top, 0..1.

    Returns:
        "left", "top right", "centre" and so on, by thirds.
    """
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    down = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    return f"{down} {across}".strip() or "centre"
