"""Judging an answer: patterns that it must match or must not, and forms that it must have."""

import json
import re
from dataclasses import dataclass, fields

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
CHINESE_NUMBERS = {sign: number for number, sign in enumerate("一二三四五六七八九", 1)} | {"两": 2}
DENIAL = re.compile(
    r"\b(no|not|none|nothing|nobody|no one|cannot|cant|without|neither|nor|never|unable|unclear|unknown|"
    r"nein|kein\w*|nicht|nichts|niemand|non|pas|aucune?|personne ne|rien|ninguna?|ningún|nada|nadie)\b|n['’]t\b|"
    r"没有|没|不|无|未",
    re.I,
)
YES = re.compile(r"^\W*(yes|yeah|correct|sí|si|oui|ja|是|有|对)(?![a-zà-ÿ])", re.I)
NO = re.compile(r"^\W*(no|nope|nein|non|不|没|否)(?![a-zà-ÿ])", re.I)
QUOTED = re.compile(r"[\"“„«][^\"”“»]*[\"”“»]|(?<!\w)['‘][^'’]*['’](?!\w)")
CLAIM = re.compile(r"\b(says|reads|spells)\b\W+(?!no\b|not\b|nothing|anything|any\b)(?=\w)", re.I)
QUESTION = re.compile(r"[^.!?。！？\n]*[?？]")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH = re.compile(r"\b(the|is|this|it|picture|shows|and|of|with)\b", re.I)
BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d+[.):]|[a-z][.)])\s*\S", re.I)


@dataclass(frozen=True)
class Expected:
    """What a right answer is. All that is given must hold; letters' case never matters but for `capitals`.

    Attributes:
        accept: patterns, each of which must occur: alternatives of whole words or phrases, plural or not.
        reject: patterns of which none may occur.
        said: whether the question's answer is yes or no; `accept` then is what a sentence without the word yes
            must hold to count as one.
        denies: the answer must say that something is not there or cannot be told.
        number: the first number in the answer, as digits or as a word up to twelve; "no" where 0 is right.
        words: fewest and most words.
        lines: fewest and most lines, nearly all different.
        sentences: fewest and most sentences.
        listed: so many points, one a line.
        json: keys of a JSON object; `accept` is looked for in it.
        capitals: no small letter.
        language: "zh", or another: then not English.
    """

    accept: tuple[str, ...] = ()
    reject: tuple[str, ...] = ()
    said: bool | None = None
    denies: bool = False
    number: int | None = None
    words: tuple[int, int] | None = None
    lines: tuple[int, int] | None = None
    sentences: tuple[int, int] | None = None
    listed: int | None = None
    json: tuple[str, ...] | None = None
    capitals: bool = False
    language: str | None = None

    @classmethod
    def of(cls, values: dict) -> "Expected":
        """Make it of a line of `items.yaml`, where a single pattern may stand without a list.

        Raises:
            ValueError: an unknown key.
        """
        unknown = set(values) - {one.name for one in fields(cls)}
        if unknown:
            raise ValueError(f"unknown keys {sorted(unknown)}")
        for key in ("accept", "reject", "json"):
            if key in values:
                values = values | {key: (values[key],) if isinstance(values[key], str) else tuple(values[key])}
        return cls(**values)


def occurs(pattern: str, text: str) -> bool:
    """Tell whether alternatives of words occur in a text, whole, plural or not; Chinese anywhere."""
    if CHINESE.search(pattern):
        return bool(re.search(pattern, text, re.I))
    return bool(re.search(rf"(?<![^\W_])(?:{pattern})(?:e?s)?(?![^\W_])", text, re.I))


def yes_or_no(answer: str) -> bool | None:
    """Read the verdict with which an answer begins; None where it has none."""
    if NO.search(answer):
        return False
    return True if YES.search(answer) else None


def denial(answer: str) -> bool:
    """Tell whether an answer denies something, outside of what it quotes."""
    return bool(DENIAL.search(QUOTED.sub(" ", answer)))


def claims_words(answer: str) -> bool:
    """Tell whether an answer says what something says: "The sign says STOP.", not "There is no sign that says STOP"."""
    starts = (found.start() for found in CLAIM.finditer(answer))
    return any(not denial(re.split(r"[.!?]\s", answer[:start])[-1]) for start in starts)


def first_number(answer: str, none: bool = False) -> int | None:
    """Return the first number of an answer, in digits or words; None where there is none, or two to choose from.

    Args:
        answer: the answer.
        none: whether "no" and "none" count, as 0.
    """
    words = "|".join([*NUMBERS, *(["no", "none", "nobody"] if none else [])])
    one = rf"\b(?:\d+|{words})\b(?! (?:can|could|may|might|sees)\b)|[一二两三四五六七八九]"
    found = re.search(one, answer.lower())
    if not found or re.match(rf"\s*(?:or|to|–|-|或)\s*(?:{one})", answer.lower()[found.end() :]):
        return None
    if found[0] in CHINESE_NUMBERS:
        return CHINESE_NUMBERS[found[0]]
    return int(found[0]) if found[0].isdigit() else {word: n for n, word in enumerate(NUMBERS)}.get(found[0], 0)


def json_object(answer: str) -> dict | None:
    """Return the JSON object in an answer, in a fence or not; None where there is none."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        found = json.loads(answer[start : end + 1]) if start >= 0 else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def is_right(answer: str, expected: Expected) -> bool:
    """Judge an answer; questions in it say nothing."""
    answer = answer.strip()
    text = QUESTION.sub(" ", answer).strip()
    if not text or any(occurs(pattern, text) for pattern in expected.reject):
        return False
    if expected.said is not None:
        return _says(text, expected) and _has_form(answer, expected)
    if expected.json is not None:
        found = json_object(answer)
        if found is None or not {key.lower() for key in expected.json} <= {str(key).lower() for key in found}:
            return False
        text = json.dumps(found, ensure_ascii=False)
    return all(occurs(pattern, text) for pattern in expected.accept) and _has_form(answer, expected)


def _says(answer: str, expected: Expected) -> bool:
    verdict = yes_or_no(answer)
    if verdict is not None:
        return verdict is expected.said
    if not expected.said:
        return denial(re.split(r"(?<=[.!?])\s", answer)[0])
    return not denial(answer) and bool(expected.accept) and all(occurs(one, answer) for one in expected.accept)


def _has_form(answer: str, expected: Expected) -> bool:
    lines = [line.strip() for line in answer.splitlines() if line.strip(" `*#-")]
    counts = {
        "words": len(re.findall(r"[\w'’-]+", answer)),
        "lines": len(lines),
        "sentences": len([one for one in re.split(r"[.!?]+(?:\s|$)|[。！？]", answer) if one.strip(" \n\"'”")]),
    }
    for key, count in counts.items():
        bounds = getattr(expected, key)
        if bounds and not bounds[0] <= count <= bounds[1]:
            return False
    if expected.lines and len({line.lower() for line in lines}) < 0.75 * len(lines):
        return False  # it repeats itself
    if expected.denies and (not denial(answer) or claims_words(answer)):
        return False
    if expected.number is not None and first_number(answer, none=expected.number == 0) != expected.number:
        return False
    if expected.listed is not None and len(list(filter(BULLET.search, lines))) != expected.listed:
        return False
    if expected.capitals and (answer != answer.upper() or answer == answer.lower()):
        return False
    return _in_language(answer, expected.language)


def _in_language(answer: str, language: str | None) -> bool:
    if language == "zh":
        latin = len(re.findall(r"[a-z]+", answer, re.I))
        return len(CHINESE.findall(answer)) > latin
    words = len(re.findall(r"\w+", answer))
    return language is None or len(ENGLISH.findall(answer)) <= 0.2 * words
