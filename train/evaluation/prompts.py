"""What is asked, in the forms of the paper's tables 10 and 11."""

from collections.abc import Sequence

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
REASON = "Answer the question and explain the reason in one sentence."
LETTERS = "ABCDEFGHIJ"


def short(question: str) -> str:
    """Ask for a word or phrase."""
    return f"{question.strip()}\n{SHORT}"


def short_or_unanswerable(question: str) -> str:
    """Ask for a word or phrase, or for the admission that there is no answer."""
    return f"{question.strip()}\n{UNANSWERABLE} {SHORT}"


def letter(question: str, options: Sequence[str], context: str = "") -> str:
    """Ask for the letter of one of several options, one a line."""
    lines = [context.strip(), question.strip()]
    lines += [f"{LETTERS[index]}. {option}" for index, option in enumerate(options)]
    return "\n".join([line for line in lines if line] + [LETTER])


def caption(what: str) -> str:
    """Ask for a one-sentence caption of a file."""
    return f"Provide a one-sentence caption for the provided {what}."


def scene(classes: Sequence[str]) -> str:
    """Ask for the class of a scene, the classes first."""
    return f"Class list: {', '.join(classes)}.\nWhat is the category of this scene? Choose one class from the list."
