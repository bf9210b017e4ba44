"""Tables of numbers as text: where they begin, what splits their columns, how they are named, and their numbers."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

__all__ = ["Table", "decode_text", "parse_number", "parse_table", "split_marks"]

_COMMENT = re.compile(r"^[ \t]*[#/].*$", re.MULTILINE)
_NAMES = re.compile(r"\b(?!nan\b|inf\b)[a-z]", re.IGNORECASE)
# commas that split columns: two in a cell, or one at the edge of a cell
_SPLITTING = re.compile(r",[^;\s]*,|(?:^|[;\s]),|,(?:$|\s)", re.MULTILINE)
_TWICE = re.compile(r",[^;\n]*,")
_TITLES = 20_000  # characters of a line of names
_PROBE = 200  # rows whose form is looked at
_CELLS = re.compile(r"[,;\t |]+")
_HEADER_LINES = 4  # above the first row in which the names are looked for
_DATE = re.compile(
    r"(?:(\d{4})[-/.](\d\d?)[-/.](\d\d?)|(\d\d?)[-/.](\d\d?)[-/.](\d{4}))?[T _]?"
    r"(\d\d?)[:\-](\d\d)[:\-](\d\d(?:[.,:]\d{1,9})?)\s*(Z|[+-]\d\d:?\d\d)?"
)
_NO_VALUES = frozenset(("", "-", "--", "na", "n/a", "nan", "null", "none", "nil", "#n/a", "?"))


@dataclass
class Table:
    """A table that was written as text.

    Attributes:
        preamble: the lines before the names of the columns.
        header: the names of the columns, or None.
        rows: the lines of the body.
        mark: what splits their columns: ",", ";", "|", a tab, or None for spaces.
        width: how many columns most rows have.
        notes: what the person should know about how it was read.
    """

    preamble: list[str]
    header: list[str] | None
    rows: list[str]
    mark: str | None
    width: int
    notes: list[str] = field(default_factory=list)

    def cells(self, line: str) -> list[str]:
        """Split a row into its cells."""
        if '"' in line or "'" in line:
            quote = '"' if '"' in line else "'"
            found = next(csv.reader([line], delimiter=self.mark or " ", quotechar=quote, skipinitialspace=True), [])
            return [cell.strip() for cell in found]
        return line.split() if self.mark is None else [cell.strip() for cell in line.split(self.mark)]

    def columns(self, wanted: Sequence[int]) -> list[list[str]]:
        """Return the cells of some columns of each row; rows with fewer cells lack them."""
        return [[cells[i] if i < len(cells) else None for i in wanted] for cells in map(self.cells, self.rows)]

    def numbers(self, wanted: Sequence[int]) -> np.ndarray:
        """Read some columns.

        Args:
            wanted: their indices.

        Returns:
            [rows, wanted] float64; cells that are empty are not numbers (NaN).

        Raises:
            ValueError: more than one row of twenty, and of few any, has other words, or too few cells.
        """
        try:
            found = np.loadtxt(self.rows, np.float64, comments=None, delimiter=self.mark, usecols=wanted, ndmin=2)
            return found
        except ValueError:
            pass
        numbers = [[None if cell is None else parse_number(cell) for cell in row] for row in self.columns(wanted)]
        good = [row for row in numbers if None not in row]
        bad = len(numbers) - len(good)
        if bad > len(numbers) / 20:
            raise ValueError("cells that are no numbers")
        if bad:
            self.notes.append(f"{bad:,} rows without all of the numbers were left out")
        return np.array(good, np.float64).reshape(len(good), len(wanted))


def decode_text(data: bytes) -> str:
    """Decode a text file: by its byte order mark, else as UTF-8, else as what Windows writes.

    Raises:
        ValueError: it is not text.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data[: len(data) // 2 * 2].decode("utf-16")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
        if sum(character < " " and character not in "\t\r\n" for character in text[:4096]) > 2:
            raise ValueError("it is not text") from None
    return text


def parse_number(cell: str) -> float | None:
    """Read a cell: a number, also with a decimal comma; NaN if it is empty or says so; None if it is other text."""
    if cell.lower() in _NO_VALUES:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        pass
    try:
        return float(cell.replace(",", ".") if "." not in cell else cell.replace(",", ""))
    except ValueError:
        return None


def parse_time(cell: str) -> float | None:
    """Read a date and time, or a time of day, as seconds; None if it is neither."""
    match = _DATE.fullmatch(cell.strip())
    if not match:
        return None
    year, month, day, other_day, other_month, other_year, hour, minute, second, zone = match.groups()
    if not 0 <= int(hour) < 24 or int(minute) > 59:
        return None
    whole, _, part = re.sub("[,:]", ".", second).partition(".")
    seconds = int(hour) * 3600 + int(minute) * 60 + int(whole) + float(f"0.{part or 0}")
    if year or other_year:
        try:
            date = datetime(int(year or other_year), int(month or other_month), int(day or other_day), tzinfo=UTC)
        except ValueError:
            return None
        seconds += date.timestamp()
    if zone and zone != "Z":
        digits = zone.replace(":", "")
        seconds -= (1 if zone[0] == "+" else -1) * (int(digits[1:3]) * 3600 + int(digits[3:5]) * 60)
    return seconds


def parse_table(text: str) -> Table | None:
    """Find the table in a text.

    Lines before its rows are its preamble; the nearest of them that has as many names as the rows have columns is
    its header, also where it is a comment. Decimal commas of the rows become points.

    Args:
        text: all of it; its lines are not too long.

    Returns:
        The table, or None if the text has no rows of numbers.
    """
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    start = _first_row(lines)
    if start is None:
        return None
    rows = [line for line in lines[start:] if line.lstrip()[0] not in "#/%"]
    body, mark = _split_rows("\n".join(rows), "|" in rows[0])
    if body is not None:
        rows = body.split("\n")
    table = Table(lines[:start], None, rows, mark, 0)
    probe = [table.cells(line) for line in rows[:_PROBE]]
    table.width = Counter(map(len, probe)).most_common(1)[0][0]
    empty_end = table.width > 1 and all(not cells[-1] for cells in probe if len(cells) == table.width)
    _find_header(table, empty_end)
    if empty_end and (table.header is None or len(table.header) < table.width):
        table.width -= 1
    return table


def _split_rows(body: str, bars: bool) -> tuple[str | None, str | None]:
    """Return the rows with decimal points if they have decimal commas, else None; and the mark."""
    if bars and "|" in body.partition("\n")[0]:
        return None, "|"
    text, mark = split_marks(body)
    return (text if text is not body else None), mark


def _first_row(lines: list[str]) -> int | None:
    """Return the index of the first row of numbers, by what the last lines look like."""
    tail = [_CELLS.split(line.strip(" ,;\t|")) for line in lines[-_PROBE:] if line.lstrip()[0] not in "#/%"]
    if not tail:
        return None
    usual = sorted(map(len, tail))[len(tail) // 2]
    for index, line in enumerate(lines):
        if line.lstrip()[0] in "#/%" and not line.lstrip()[1:2].isdigit():
            continue
        cells = _CELLS.split(line.strip(" ,;\t|"))
        close = 0.5 * usual <= len(cells) <= 2 * usual and (len(cells) > 1 or usual == 1)
        numbers = sum(parse_number(cell.strip("\"'")) is not None or _is_date(cell) for cell in cells)
        if close and numbers > len(cells) / 2:
            return index
    return None


def _is_date(cell: str) -> bool:
    return len(cell) >= 8 and cell[:2].isdigit() and any(mark in cell for mark in "-:/")


def _find_header(table: Table, empty_end: bool) -> None:
    """Take the names of the columns from the lines above the rows."""
    widths = {table.width, table.width - 1} if empty_end else {table.width}
    for index in range(len(table.preamble) - 1, max(-1, len(table.preamble) - 1 - _HEADER_LINES), -1):
        names = _names(table, table.preamble[index], widths | {table.width - 1})
        if names is None:
            continue
        above = _names(table, table.preamble[index - 1], {len(names)}) if index else None
        if above and all(not name or name[0] in "[(" or len(name) <= 5 for name in names) and _are_units(names):
            names = [f"{name} [{unit.strip('[]()')}]" for name, unit in zip(above, names, strict=True)]
            index -= 1
        if len(names) < table.width and not empty_end:  # a first column of row numbers has no name
            names = ["", *names]
        table.header, table.preamble = names, table.preamble[:index] + table.preamble[index + 1 :]
        return


def _are_units(names: list[str]) -> bool:
    """Tell a line of units from a line of names."""
    known = {"", "s", "ms", "us", "ns", "g", "mg", "m/s^2", "m/s2", "m/s²", "rad/s", "deg/s", "dps", "°/s", "hz", "-"}
    return sum(name.lower().strip("[]() ") in known for name in names) > 0.6 * len(names)


def _names(table: Table, line: str, widths: set[int]) -> list[str] | None:
    """Split a line into as many names as there are columns, or return None."""
    line = re.sub(r"^\s*(#+|/+|%+|;)\s*", "", line)
    if line.startswith("%"):
        line = line[1:]
    ways = [table.cells(line)]
    ways += [[cell.strip().strip("\"'") for cell in line.split(mark)] for mark in ",;\t|"] + [line.split()]
    for names in ways:
        while names and len(names) > max(widths) and not names[-1]:
            names = names[:-1]
        words = sum(parse_number(name) is None for name in names)
        if len(names) in widths and words >= max(1, len(names) / 2):
            return names
    return None


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
