"""Table files become memory-mapped Arrow: one JSON text a row, made once and kept in the cache.

Every row keeps the types and the fields it has in the file, however they differ from row to row. A row that cannot be
read stays in its place and says why, so that it is met and named like any other bad example.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from onellm.modalities import modalities_of
from onellm.utils import atomic
from onellm.utils.paths import cache_folder
from train.data.example import BLOCK, DataError
from train.data.formats.fetch import is_address, local

if TYPE_CHECKING:
    import datasets

SUFFIXES = (".tsv", ".txt", ".csv", ".json", ".jsonl", ".parquet")
# a first row with one of these is a header
HEADERS = (
    "caption",
    "text",
    "title",
    "conversations",
    "url",
    "file",
    "path",
    "file_name",
    "uid",
    "image",
    "video",
    "audio",
)
CHUNK = 1 << 20  # characters read at a time
VERSION = 1  # of the kept rows; raise it when they change


class Table:
    """Rows by random access.

    Attributes:
        name: for people.
        columns: names of the first row's fields.
        signatures: for rows of text files, which fields name which files: "image:.jpg"; else None.
    """

    def __init__(self, name: str, rows: "datasets.Dataset", packed: bool):
        self.name, self.rows, self.packed = name, rows, packed
        if not len(rows):
            raise _empty(name)
        self.columns = list(json.loads(rows[0]["row"])) if packed else rows.column_names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        """Return a row as a dict.

        Raises:
            DataError: it cannot be read.
        """
        row = self.rows[index]
        if not self.packed:
            return row
        if row["problem"]:
            raise DataError(row["problem"])
        return json.loads(row["row"])

    def narrow(self, names: set[str]) -> "Table":
        """Return the rows with only these columns, where columns can be read apart."""
        kept = [name for name in self.columns if name in names]
        return self if self.packed or not kept else Table(self.name, self.rows.select_columns(kept), packed=False)

    @property
    def signatures(self) -> Any:
        """Return which fields of each row name files, as an Arrow column; None where rows are no text."""
        return self.rows.data.column("files") if self.packed else None


def open_table(path: str, names: tuple[str, ...] = (), known: set[str] = frozenset()) -> Table:
    """Open a table file; the first time, its rows are copied into the cache.

    Args:
        path: tsv, csv, json, jsonl or parquet; an address is fetched first.
        names: columns of a csv or tsv without a header; by default a caption and a file.
        known: names that make the first row a header, besides the usual ones.

    Raises:
        DataError: it is missing, of another format, or empty.
    """
    file = local(path)
    if not file.is_file():
        raise DataError(f"{path}: there is no such file; expected a table ({', '.join(SUFFIXES)}); check the path.")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: it is no table by its name; expected {', '.join(SUFFIXES)}; convert it.")
    name = path.rsplit("/", 1)[-1] if is_address(path) else file.name
    status = file.stat()
    origin = [VERSION, str(file.resolve()), status.st_size, status.st_mtime_ns, names, sorted(known)]
    fingerprint = hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:24]
    try:
        import datasets

        if suffix == ".parquet":
            folder, shown = cache_folder() / "tables", not datasets.utils.are_progress_bars_disabled()
            datasets.disable_progress_bars()
            try:
                return Table(name, datasets.Dataset.from_parquet(str(file), cache_dir=str(folder)), packed=False)
            finally:
                if shown:
                    datasets.enable_progress_bars()
        kept = cache_folder() / "tables" / f"{fingerprint}.arrow"
        if not kept.exists():
            _copy(_rows(file, names, known), kept)
        return Table(name, datasets.Dataset.from_file(str(kept)), packed=True)
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise DataError(f"{name}: it cannot be read as a table ({reason}); expected a whole one; check it.") from error


def _empty(name: str) -> DataError:
    return DataError(f"{name}: there are no rows in it; expected at least one; check the file.")


def _copy(rows: Iterator[tuple[str, str, str | None]], out: Path) -> None:
    """Write rows as an Arrow file, which appears when it is whole; of several processes one does."""
    import pyarrow
    from filelock import FileLock

    schema = pyarrow.schema([(name, pyarrow.string()) for name in ("row", "files", "problem")])
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{out}.lock"):
        if out.exists():
            return
        with atomic.whole(out) as part:
            with pyarrow.OSFile(str(part), "wb") as file, pyarrow.ipc.new_stream(file, schema) as stream:
                while batch := list(islice(rows, BLOCK)):
                    columns = [pyarrow.array(column, pyarrow.string()) for column in zip(*batch, strict=True)]
                    stream.write_batch(pyarrow.record_batch(columns, schema=schema))


def _rows(path: Path, names: tuple[str, ...], known: set[str]) -> Iterator[tuple[str, str, str | None]]:
    """Yield every row of a text file as its JSON, its signature, and why it cannot be read."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        if path.suffix.lower() in (".json", ".jsonl"):
            rows = _json_rows(path.name, file)
        else:
            rows = _cell_rows(path, file, names, known)
        row = None
        for row, problem in rows:
            yield json.dumps(row, ensure_ascii=False), signature(row), problem
        if row is None:
            raise _empty(path.name)


def signature(row: dict) -> str:
    """Say which fields of a row name files: "image:.jpg video_uid"."""
    found = []
    for key, value in row.items():
        value = value[0] if isinstance(value, list) and value else value
        if key == "video_uid":
            found.append(key)
        elif isinstance(value, str) and "." in value[-8:] and len(value) < 1000 and modalities_of(value):
            found.append(f"{key}:{''.join(Path(value).suffixes[-2:]) if value.endswith('.gz') else Path(value).suffix}")
    return " ".join(sorted(found)).lower()


def _cell_rows(path: Path, file: IO[str], names: tuple[str, ...], known: set[str]) -> Iterator[tuple[dict, str | None]]:
    """Yield the rows of a csv or tsv file; a first row without a known column name is no header."""
    tabs = path.suffix.lower() != ".csv"
    reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(file)
    first = next(reader, None)
    if first is None:
        return
    first = [_unquote(cell) if tabs else cell for cell in first]
    header = [cell.strip() for cell in first]
    if not {cell.lower() for cell in header} & {*HEADERS, *known}:
        header = list(names) or _guess_names(path, header)
        yield _row(header, first)
    for cells in reader:
        if cells:
            yield _row(header, [_unquote(cell) for cell in cells] if tabs else cells, reader.line_num)


def _row(header: list[str], cells: list[str], number: int = 1) -> tuple[dict, str | None]:
    if len(cells) == len(header):
        return dict(zip(header, cells, strict=True)), None
    problem = f"line {number} has {len(cells)} columns; expected {len(header)} ({', '.join(header)}); correct the line."
    return {}, problem


def _guess_names(path: Path, cells: list[str]) -> list[str]:
    """Name the two columns of a table without a header: the caption comes first unless the first cell is a file."""
    if len(cells) != 2:
        raise DataError(
            f"{path.name}: its {len(cells)} columns have no names that are known ({', '.join(cells)[:100]}); expected "
            "two columns, caption and file, or a header; add one, or name them under 'columns'."
        )
    file_first = (is_address(cells[0]) or modalities_of(cells[0])) and not (
        is_address(cells[1]) or modalities_of(cells[1])
    )
    return ["file", "caption"] if file_first else ["caption", "file"]


def _unquote(cell: str) -> str:
    """Take away the quotes some programs set around a cell; other quotes are the text's own."""
    inner = cell[1:-1]
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _json_rows(name: str, file: IO[str]) -> Iterator[tuple[dict, str | None]]:
    """Yield the objects of a JSON list, or of a file with one object a line."""
    head = file.read(CHUNK).lstrip()
    if head.startswith("["):
        values = _json_list(name, file, head)
    else:
        file.seek(0)
        values = _json_lines(name, file)
    for value, problem in values:
        if problem is None and not isinstance(value, dict):
            value, problem = {}, f"it is a {type(value).__name__}; expected an object; correct it."
        yield value, problem


def _json_lines(name: str, file: IO[str]) -> Iterator[tuple[Any, str | None]]:
    for number, line in enumerate(file, 1):
        line = line.lstrip("\ufeff").strip()
        if not line:
            continue
        try:
            yield json.loads(line), None
        except ValueError as error:
            if number == 1:
                raise DataError(
                    f"{name}: its first line is no JSON ({error}); expected a list of objects, or one a line; check it."
                ) from error
            yield {}, f"line {number} is no JSON ({error}); expected an object; correct the line."


def _json_list(name: str, file: IO[str], text: str) -> Iterator[tuple[Any, None]]:
    """Yield the values of a JSON list without holding all of it."""
    decoder, position, count = json.JSONDecoder(), 1, 0
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        if position < len(text) and text[position] == "]":
            return
        try:
            value, stop = decoder.raw_decode(text, position)
            ended = stop < len(text)  # a number at the end of what was read may go on
        except ValueError as error:
            ended, failure = False, error
        else:
            failure = None
        if ended:
            yield value, None
            position, count = stop, count + 1
            continue
        more = file.read(CHUNK)
        if not more:
            reason = failure or "the closing bracket is missing"
            raise DataError(
                f"{name}: the JSON list breaks off after {count:,} entries ({reason}); expected a whole list; "
                "save or download it again."
            )
        text, position = text[position:] + more, 0
