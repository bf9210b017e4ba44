"""What the page and its visitors are held to: every limit, as a table."""

from dataclasses import asdict

from onellm.modalities.base import megabytes
from onellm.utils.limits import LIMITS
from onellm.web.views.texts import say


def table(language: str) -> str:
    """Return all limits with what each is of, as HTML.

    Args:
        language: of the texts.
    """
    rows = "".join(
        f'<tr><th scope="row">{say(language, f"limit.{name}")}</th><td>{value(name, number)}</td></tr>'
        for name, number in asdict(LIMITS).items()
    )
    return f'<p class="hint">{say(language, "limits.say")}</p><table class="limits"><tbody>{rows}</tbody></table>'


def value(name: str, number: float) -> str:
    """Return a limit's value for people; the last word of its name is its unit."""
    unit = name.rpartition("_")[2]
    if unit == "bytes":
        return megabytes(int(number))
    return f"{number:,g} s" if unit in ("s", "seconds") else f"{number:,}"
