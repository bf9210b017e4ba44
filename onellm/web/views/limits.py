"""What the page and its visitors are held to: every limit, as a table."""

from dataclasses import asdict

from onellm.modalities.base import megabytes
from onellm.utils.limits import LIMITS
from onellm.web.views.markup import render


def table(language: str) -> str:
    """Return all limits with what each is of, as HTML.

    Args:
        language: of the texts.
    """
    values = {name: value(name, number) for name, number in asdict(LIMITS).items()}
    return render("limits", language=language, values=values)


def value(name: str, number: float) -> str:
    """Return a limit's value for people; the last word of its name is its unit."""
    unit = name.rpartition("_")[2]
    if unit == "bytes":
        return megabytes(int(number))
    return f"{number:,g} s" if unit in ("s", "seconds") else f"{number:,}"
