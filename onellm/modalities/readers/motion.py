"""Motion recordings: the sensors' rows in tables of text, arrays and zip archives of tables, with their times.

Here is told what each column is, by its title, by words in it, or without titles by its values; which of several
sensors counts and what units they have, `Imu` decides.
"""

from __future__ import annotations

import gzip
import re
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from onellm.errors import FileError
from onellm.modalities.base import Damaged, megabytes, refuse
from onellm.modalities.readers.archives import open_zip
from onellm.modalities.readers.tables import Table, decode_text, parse_number, parse_table, parse_time
from onellm.modalities.readers.titles import Title, parse_title, sensor_of
from onellm.utils.limits import LIMITS

__all__ = ["Recording", "Stream", "is_recording", "read_tables", "still_level", "time_factor"]

_LINE_CHARACTERS = 20_000
_TABLES = 50  # of an archive
_SUFFIXES = (".csv", ".txt", ".tsv", ".dat")
_RATE = re.compile(r"(?:rate|frequency|frequenz|freq|\bfs\b)[^\d\n]{0,20}(\d+(?:\.\d+)?)\s*(?:Hz|$)", re.IGNORECASE)
_FACTORS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_EPOCH = (9e8, 4.5e9)  # seconds since 1970 of the years 1998 to 2112
_KINDS = ("acc", "linear", "gravity", "gyro")
_ANDROID = {1: "acc", 4: "gyro", 9: "gravity", 10: "linear", 16: "gyro", 35: "acc"}  # Android's numbers of sensors
ADVICE = "name the columns acc_x, acc_y, acc_z, gyro_x, gyro_y, gyro_z"


@dataclass
class Stream:
    """One sensor's rows.

    Attributes:
        sensor: "acc", "linear" (without gravity), "gravity", "gyro" or "bare" (not named).
        name: what the file calls it.
        values: [T, 3] float64, in the file's unit.
        times_s: [T] float64, or None.
        unit: "m/s2", "g", "mg", "rad/s", "deg/s", "mdeg/s", or None if the file does not say.
        weak: whether the sensor is told by a single letter or its place.
        raw_times: the times as the file has them.
    """

    sensor: str
    name: str
    values: np.ndarray
    times_s: np.ndarray | None = None
    unit: str | None = None
    weak: bool = False
    raw_times: np.ndarray | None = None


@dataclass
class Recording:
    """What a file holds.

    Attributes:
        streams: its sensors.
        rate_hz: rows a second, where the file says it in words.
        notes: what the person should know about how it was read.
        missing: a sensor's columns that are not all there, such as "gyro_z"; empty if nothing is missing.
        titles: the titles of the columns.
    """

    streams: list[Stream]
    rate_hz: float | None = None
    notes: list[str] = field(default_factory=list)
    missing: str = ""
    titles: list[str] = field(default_factory=list)


def read_tables(path: Path, expects: str) -> Recording:
    """Read a table, packed with gzip or not, or a zip archive of tables.

    Raises:
        FileError: there is none, or it is too large.
        Damaged: its rows are not numbers.
    """
    if zipfile.is_zipfile(path):
        return _read_zip(path, expects)
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        with gzip.open(path) as file:
            data = file.read(LIMITS.imu_bytes + 1)
        if len(data) > LIMITS.imu_bytes:
            raise refuse(path, "a table that is too large when unpacked", f"at most {megabytes(LIMITS.imu_bytes)}",
                         "cut the recording")  # fmt: skip
    else:
        data = path.read_bytes()
    stem = re.sub(r"\.(csv|txt|tsv|dat|gz)\b", "", path.name, flags=re.IGNORECASE)
    return read_table(path, data, stem, expects)


def _read_zip(path: Path, expects: str) -> Recording:
    """Read each table of an archive; what is none of a sensor is left out."""
    whole = Recording([])
    with open_zip(path) as archive:
        members = [
            member
            for member in archive.infolist()
            if member.filename.lower().endswith(_SUFFIXES) and not member.filename.startswith("__MACOSX")
        ]
        if not members:
            raise refuse(path, "a zip archive without tables (csv)", expects, "export the recording as csv")
        if len(members) > _TABLES or sum(member.file_size for member in members) > 2 * LIMITS.imu_bytes:
            found = f"a zip archive of {len(members):,} tables"
            raise refuse(path, found, f"one recording of up to {megabytes(2 * LIMITS.imu_bytes)}", "pack fewer into it")
        for member in members:
            name = PurePosixPath(member.filename)
            if name.parent.name == "meta":
                continue
            with archive.open(member) as file:
                data = file.read(2 * LIMITS.imu_bytes + 1)
            if len(data) > 2 * LIMITS.imu_bytes:
                raise Damaged("one of its tables is larger than it says")
            try:
                part = read_table(path, data, name.stem, expects)
            except (FileError, ValueError):
                if sensor_of(name.stem)[0]:
                    whole.notes.append(f"the table {name.name[:40]} has no rows and was left out")
                continue
            whole.streams += part.streams
            whole.rate_hz = whole.rate_hz or part.rate_hz
            whole.notes += [note for note in part.notes if note not in whole.notes]
            whole.missing = whole.missing or part.missing
    return whole


def read_table(path: Path, data: bytes, stem: str, expects: str) -> Recording:
    """Read one table.

    Args:
        path: the file, for errors.
        data: the table as it was stored.
        stem: the table's name, which may name its sensor.
        expects: what is expected, for the error.

    Returns:
        The recording.
    """
    count = max(data.count(b"\n"), data.count(b"\r"))
    if count > LIMITS.imu_rows + 1_000:
        raise refuse(path, f"{count:,} rows", f"at most {LIMITS.imu_rows:,}", "cut the recording")
    text = decode_text(data)
    longest = max(map(len, re.split(r"[\r\n]", text)), default=0)
    if longest > _LINE_CHARACTERS:
        raise refuse(path, f"a row of {longest:,} characters", expects, "save the recording again")
    table = parse_table(text)
    if table is None:
        names = [line for line in text.splitlines() if line.strip()]
        if len(names) == 1:
            raise refuse(path, "a header without rows", expects, "save the recording again")
        raise refuse(path, "no rows of numbers", expects, "save the recording again")
    table.rows = [row.rstrip("; ") for row in table.rows] if table.mark == "," else table.rows
    if len(table.rows) > LIMITS.imu_rows:
        raise refuse(path, f"{len(table.rows):,} rows", f"at most {LIMITS.imu_rows:,}", "cut the recording")
    notes: list[str] = []
    _drop_uneven(path, table, expects, notes)
    titles = [parse_title(title) for title in table.header] if table.header else None
    recording = _long(table, titles, stem) or (
        _named(table, titles, stem) if titles else _unnamed(path, table, expects)
    )
    recording.notes = [*notes, *recording.notes, *table.notes]
    recording.rate_hz = recording.rate_hz or _stated_rate(table.preamble)
    recording.titles = table.header or []
    _scale(recording, table.preamble)
    return recording


def _drop_uneven(path: Path, table: Table, expects: str, notes: list[str]) -> None:
    """Leave out rows that have too few or too many columns, if there are few; and titles that come again."""
    rows, wrong, again = [], [], False
    titles = table.header or [None]
    for number, row in enumerate(table.rows):
        cells = table.cells(row) or [""]
        while len(cells) > table.width and not cells[-1]:
            cells.pop()
        if cells[0] == titles[0] and cells[-1] == titles[-1]:
            again = True
            continue
        if len(cells) == table.width:
            rows.append(row)
        elif number == len(table.rows) - 1 and len(cells) < table.width and number:
            notes.append("the last row is cut short and was left out")
        else:
            wrong.append((number, len(cells)))
    if again:
        notes.append("the titles come again among the rows, as where files were joined")
    if len(wrong) > len(table.rows) / 20:
        found = f"row {wrong[0][0] + 1} has {wrong[0][1]} columns and the others have {table.width}"
        raise refuse(path, found, expects, "save the recording again")
    if wrong:
        notes.append(f"{len(wrong):,} rows of another number of columns were left out")
    table.rows = rows


def _scale(recording: Recording, preamble: list[str]) -> None:
    """Apply the scales that a GCSV log's preamble gives: seconds a tick, rad/s and g a count."""
    scales = {}
    for line in preamble:
        match = re.fullmatch(r"\s*([tga])scale\s*[,;]\s*([-+.\deE]+)\s*", line)
        if match and parse_number(match[2]):
            scales[match[1]] = parse_number(match[2])
    if not {"g", "a"} <= set(scales):
        return
    for stream in recording.streams:
        gyro = stream.sensor == "gyro"
        stream.values = stream.values * scales["g" if gyro else "a"]
        stream.unit = "rad/s" if gyro else "g"
        if stream.times_s is not None and stream.raw_times is not None and "t" in scales:
            stream.times_s = stream.raw_times * scales["t"]
    recording.notes.append("counts were scaled as the log's preamble says; its axes were left as they are")


def _stated_rate(preamble: list[str]) -> float | None:
    """Return the rate that lines before the table say, such as "OutputRate:,60Hz", or None."""
    for line in preamble:
        match = _RATE.search(line)
        if match and 0.1 <= float(match[1]) <= 100_000:
            return float(match[1])
    return None


# ---- columns with titles ---------------------------------------------------------------------------------------------


def _named(table: Table, titles: list[Title], stem: str) -> Recording:
    """Read the columns of a table by their titles."""
    groups = _groups(titles)
    table_sensor = sensor_of(stem)[0]
    whole = {key: columns for key, columns in groups.items() if len(columns) == 3}
    named = {titles[columns["x"]].sensor for columns in whole.values()} - {"bare"}
    recording = Recording([])
    for (sensor, _), columns in groups.items():
        if len(columns) < 3 and sensor in ("acc", "gyro") and sensor not in named:
            lacking = next(axis for axis in "xyz" if axis not in columns)
            recording.missing = recording.missing or f"{sensor}_{lacking}"
    if not whole:
        recording.missing = recording.missing or "acc_x"
        return recording
    whole = {key: columns for key, columns in whole.items() if key[0] != "bare" or not {"acc", "gyro"} <= named}
    wanted = [columns[axis] for columns in whole.values() for axis in "xyz"]
    times_s, raw = _times(table, titles)
    numbers = _all_numbers(table, wanted)
    for index, ((sensor, name), columns) in enumerate(whole.items()):
        title = titles[columns["x"]]
        bare = sensor == "bare"
        stream = Stream(
            table_sensor if bare and table_sensor else sensor, name or stem, numbers[:, 3 * index : 3 * index + 3],
            times_s, title.unit, title.weak or (bare and not table_sensor), raw,
        )  # fmt: skip
        recording.streams.append(stream)
    if any("sampletimefine" in title.stem for title in titles):  # Xsens DOT
        for stream in recording.streams:
            stream.unit = stream.unit or ("deg/s" if stream.sensor == "gyro" else "m/s2")
        recording.notes.append("an export of Xsens DOT, which gives turning rates in deg/s")
    return recording


def _groups(titles: list[Title]) -> dict[tuple[str, str], dict[str, int]]:
    """Group columns by sensor and stem: axis to column; numbers of axes become letters."""
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for column, title in enumerate(titles):
        if title.sensor in (*_KINDS, "bare") and title.axis:
            groups.setdefault((title.sensor, title.stem), {}).setdefault(title.axis, column)
    for columns in groups.values():
        numbers = sorted(axis for axis in columns if axis.isdigit())
        if numbers in (["0", "1", "2"], ["1", "2", "3"]):
            for axis, number in zip("xyz", numbers, strict=True):
                columns[axis] = columns.pop(number)
    return groups


def _all_numbers(table: Table, wanted: list[int]) -> np.ndarray:
    """Return [T, wanted] float64 with NaN for cells that are no numbers; Damaged if they are many."""
    try:
        return np.loadtxt(table.rows, np.float64, comments=None, delimiter=table.mark, usecols=wanted, ndmin=2)
    except ValueError:
        pass
    bad, rows = 0, []
    for row in table.columns(wanted):
        numbers = [None if cell is None else parse_number(cell) for cell in row]
        bad += None in numbers
        rows.append([float("nan") if number is None else number for number in numbers])
    if bad > len(rows) / 20:
        raise Damaged("its cells are no numbers")
    return np.array(rows, np.float64)


def _times(table: Table, titles: list[Title]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the times [T] in seconds of the column that suits best, and its own numbers; None where there is none."""
    best, chosen = -1.0, (None, None)
    for column, title in enumerate(titles):
        if title.sensor != "time":
            continue
        raw, dates = _time_cells([row[0] for row in table.columns([column])])
        if raw is None:
            continue
        nanos = [index for index, other in enumerate(titles) if other.sensor == "nanos"]
        if nanos and (raw == np.round(raw)).all():
            raw = raw + _time_cells([row[0] for row in table.columns([nanos[0]])])[0] * 1e-9
            seconds = raw
        else:
            seconds = raw if dates else raw * time_factor(raw, title.unit)
        steps = np.diff(seconds[np.isfinite(seconds)])
        if not (steps > 0).any():
            best, chosen = max((best, chosen), (0.0, (seconds, raw)), key=lambda one: one[0])  # to be refused
            continue
        rate = 1 / usual_step(seconds)
        score = 4.0 * (0.5 <= rate <= 20_000) + round(float((steps > 0).mean()), 1) + 0.05 * (title.unit is not None)
        if score > best:
            best, chosen = score, (seconds, raw)
    return chosen


def _time_cells(cells: list[str | None]) -> tuple[np.ndarray | None, bool]:
    """Read a column of times; returns [T] float64 or None, and whether they were dates, in seconds."""
    numbers = [parse_number(cell or "") for cell in cells]
    dates = sum(number is None for number in numbers) > len(numbers) / 2
    if dates:
        numbers = [parse_time(cell or "") for cell in cells]
    found = np.array([float("nan") if number is None else number for number in numbers], np.float64)
    good = np.isfinite(found)
    if good.mean() < 0.9:
        return None, dates
    if not good.all():
        rows = np.arange(len(found))
        found = np.interp(rows, rows[good], found[good])
    return found, dates


def time_factor(times: np.ndarray, unit: str | None) -> float:
    """Return seconds a unit of time; an unnamed unit is told by the year it is since 1970, or suits a sensor's rate."""
    if unit:
        return _FACTORS[unit]
    finite = times[np.isfinite(times)]
    step = usual_step(finite) or 1.0
    start = abs(float(np.median(finite))) if finite.size else 0.0
    for factor in _FACTORS.values():
        if _EPOCH[0] <= start * factor <= _EPOCH[1] and 1e-5 <= step * factor <= 2:
            return factor
    return next((factor for factor in _FACTORS.values() if step * factor <= 0.6), 1e-9)


def usual_step(times: np.ndarray) -> float:
    """Return the median step of times [T] that rises, or their mean step where many are the same; 0 if none rises."""
    steps = np.diff(times[np.isfinite(times)])
    if not (steps > 0).any():
        return 0.0
    if (steps == 0).mean() > 0.3:
        return float(np.abs(steps).mean())
    return float(np.median(steps[steps > 0]))


# ---- rows of several sensors -----------------------------------------------------------------------------------------


def _long(table: Table, titles: list[Title] | None, stem: str) -> Recording | None:
    """Read a table with a sensor's name in each row, or return None."""
    probe = [cells for cells in map(table.cells, table.rows[:400]) if len(cells) == table.width]
    for column in range(min(table.width, 8)):
        words = Counter(cells[column] for cells in probe)
        sensors = {word: _sensor_word(word, titles[column] if titles else None) for word in words}
        if not 2 <= len(words) <= 30 or not {"acc", "gyro"} <= set(sensors.values()):
            continue
        rest = [index for index in range(table.width) if index != column]
        return _pivot(table, titles, column, rest, stem)
    return None


def _sensor_word(word: str, title: Title | None) -> str | None:
    """Tell a sensor by a cell: words, or Android's number under a title that speaks of sensors."""
    if word.isdigit():
        speaks = title is not None and re.search("sensor|type", title.stem)
        return _ANDROID.get(int(word)) if speaks else None
    return sensor_of(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", word.rpartition(".")[2]))[0] if len(word) < 60 else None


def _pivot(table: Table, titles: list[Title] | None, column: int, rest: list[int], stem: str) -> Recording:
    """Split rows by their sensor's name and read each sensor's as a table of its own."""
    rows: dict[str, list[str]] = {}
    for row in table.rows:
        cells = table.cells(row)
        sensor = _sensor_word(cells[column], titles[column] if titles else None)
        if sensor:
            rows.setdefault(sensor, []).append(row)
    recording = Recording([], notes=["each row is of one sensor: they were brought together by their times"])
    for sensor, lines in rows.items():
        part = Table([], table.header, lines, table.mark, table.width)
        if titles and any(title.sensor == "bare" for title in titles):
            found = _named(part, titles, sensor).streams[:1]
        else:
            found = _by_place(part, rest)
        for stream in found:
            stream.sensor, stream.weak, stream.name = sensor, False, sensor
        recording.streams += found
    return recording


def _by_place(table: Table, rest: list[int]) -> list[Stream]:
    """Read a time that rises, if there is one, and the three columns after it; rows of one sensor."""
    numbers = _all_numbers(table, [i for i in rest if parse_number(table.cells(table.rows[0])[i]) is not None])
    first = _rising(numbers)
    start = 0 if first is None else first + 1
    if numbers.shape[1] < start + 3:
        return []
    times_s = None if first is None else numbers[:, first] * time_factor(numbers[:, first], None)
    return [Stream("bare", "", numbers[:, start : start + 3], times_s, weak=True)]


# ---- columns without titles ------------------------------------------------------------------------------------------


def _rising(numbers: np.ndarray) -> int | None:
    """Return the index of the first column, of the first three, that rises from row to row."""
    for column in range(min(3, numbers.shape[1])):
        steps = np.diff(numbers[:, column])
        if len(steps) and (steps >= 0).all() and (steps > 0).mean() > 0.8:
            return column
    return None


def _unnamed(path: Path, table: Table, expects: str) -> Recording:
    """Read a table without titles: a time if one rises, then three columns a sensor."""
    probe = [cells for cells in map(table.cells, table.rows[:50]) if len(cells) == table.width]
    numeric = [i for i in range(table.width) if all(parse_number(cells[i]) is not None for cells in probe)]
    if len(numeric) == 6:
        columns, times_s = numeric, None
        numbers = _all_numbers(table, columns)
    else:
        numbers = _all_numbers(table, numeric)
        first = 0 if len(numeric) == 7 else _rising(numbers)
        start = 0 if first is None else first + 1
        while first is not None and start < numbers.shape[1] - 3 and _rising(numbers[:, start : start + 1]) is not None:
            first, start = start, start + 1  # a number of the row, then the time
        times_s = None
        if first is not None:
            times_s = numbers[:, first] * time_factor(numbers[:, first], None)
            if not (np.diff(times_s) >= 0).all() and len(numeric) != 7:
                times_s = None
        numbers = numbers[:, start:]
    streams = [
        Stream("bare", "", numbers[:, at : at + 3], times_s, weak=True)
        for at in range(0, min(6, numbers.shape[1] - 2), 3)
    ]
    alone = len(streams) == 1 and numbers.shape[1] == 3 and still_level(streams[0].values)[1]
    if not (numbers.shape[1] == 6 or alone or (len(streams) == 2 and any(still_level(s.values)[1] for s in streams))):
        raise refuse(path, f"{table.width} columns without names", expects, "add a header row")
    return Recording(streams)


def still_level(values: np.ndarray) -> tuple[float, bool]:
    """Measure a sensor when it is stillest.

    Args:
        values: [T, 3].

    Returns:
        The median length of the vectors in the quarter of the windows that change least; and whether that is about
        gravity in g, m/s² or mg, in a direction that stays for some time.
    """
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 2:
        return 0.0, False
    lengths = np.linalg.norm(values, axis=1)
    width = max(2, min(25, len(values) // 8))
    count = len(values) // width
    windows = lengths[: count * width].reshape(count, width)
    calm = np.argsort(windows.std(axis=1), kind="stable")[: max(1, count // 4)]
    level = float(np.median(windows[calm]))
    parts = values[: count * width].reshape(count, width, 3).mean(axis=1)
    steady = float(np.median(np.linalg.norm(parts, axis=1))) > 0.6 * float(np.median(lengths))
    near = any(low <= level <= high for low, high in ((0.7, 1.4), (7.5, 12.5), (800, 1250)))
    return level, bool(near and steady)


# ---- recognising -----------------------------------------------------------------------------------------------------


def is_recording(table: Table, stem: str) -> bool:
    """Tell whether a table is surely a recording: by its titles, or by the sensors its rows name."""
    if not table.header:
        return _long(table, None, stem) is not None
    titles = [parse_title(title) for title in table.header]
    whole = {sensor for (sensor, _), columns in _groups(titles).items() if len(columns) == 3}
    timed = any(title.sensor == "time" for title in titles)
    if {"acc", "linear"} & whole or "gyro" in whole:
        return True
    if "bare" in whole and _long(table, titles, stem) is not None:
        return True
    others = re.search(r"red|green|blue|intens|normal|nx|rgb|class", " ".join(table.header).lower())
    return "bare" in whole and (bool(sensor_of(stem)[0]) or (timed and not others))
