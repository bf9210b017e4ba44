"""Tables of numbers as text: which mark splits the columns, and whether commas are decimal points."""

from __future__ import annotations

import re

__all__ = ["split_marks"]

_COMMENT = re.compile(r"^[ \t]*[#/].*$", re.MULTILINE)
_NAMES = re.compile(r"\b(?!nan\b|inf\b)[a-z]", re.IGNORECASE)
# commas that split columns: two in a cell, or one at the edge of a cell
_SPLITTING = re.compile(r",[^;\s]*,|(?:^|[;\s]),|,(?:$|\s)", re.MULTILINE)
_TWICE = re.compile(r",[^;\n]*,")
_TITLES = 20_000  # characters of a line of names


def split_marks(text: str) -> tuple[str, str | None]:
    """Tell by all rows of a table what splits its columns, and write decimal commas as points.

    Args:
        text: the table, with or without a line of names.

    Returns:
        The text, and the mark between columns: ",", ";", a tab, or None for spaces.
    """
    rows = (_COMMENT.sub("", text) if "#" in text or "/" in text else text).lstrip()
    first, _, others = rows.partition("\n")
    if _NAMES.search(first[:_TITLES]):
        rows = others
    if "," in rows and re.search(r"[;\t ]", rows.strip()):
        if not (_TWICE if ";" in rows else _SPLITTING).search(rows):
            return text.replace(",", "."), next((mark for mark in ";\t" if mark in rows), None)
    mark = max(",;\t", key=first.count)
    return text, mark if mark in first else None
