"""The items of the conversation benchmark, as they stand in `files.yaml` and `items.yaml`."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from onellm.errors import OneLLMError
from train.small.conversation.scoring import Expected

HERE = Path(__file__).parent
FAMILIES = {  # family -> longest answer, in tokens
    "unrelated": 40, "naming": 40, "yes or no": 40, "follow-up": 40, "knowledge": 40, "writing": 90,
    "Chinese": 40, "languages": 40, "format": 40, "colour": 40, "count": 40, "people": 40, "place": 40,
    "reading": 40, "speech": 40, "two files": 60, "new file": 40, "absence": 40,
}  # fmt: skip
SHORT = 16  # tokens of an answer in one word


@dataclass(frozen=True)
class File:
    """A file of the benchmark.

    Attributes:
        name: by which items refer to it.
        modality: of the file.
        source: `{"corpus": id}`, or what `files` makes: `{"scene": …}`, `{"sign": …}`, `{"spoken": …}`.
        note: what it shows, as a sentence that a language model without perception could answer from.
    """

    name: str
    modality: str
    source: dict
    note: str


@dataclass(frozen=True)
class Turn:
    """A question, the files that come with it, and what a right answer is; None where the answer does not count."""

    ask: str
    files: list[File] = field(default_factory=list)
    expected: Expected | None = None
    answer: str = ""  # an example of a right one
    new_tokens: int = 40


@dataclass(frozen=True)
class Item:
    """A conversation, which is right if every answer that counts is."""

    id: str
    family: str
    turns: list[Turn]

    @property
    def files(self) -> list[File]:
        """All its files."""
        return [file for turn in self.turns for file in turn.files]


def read(path: Path) -> dict | list:
    """Read a YAML file of the benchmark."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_files(path: Path = HERE / "files.yaml") -> dict[str, File]:
    """Read the benchmark's files: name -> file."""
    found = {}
    for name, entry in read(path).items():
        source = {key: value for key, value in entry.items() if key not in ("modality", "note")}
        found[name] = File(name, entry["modality"], source, entry["note"])
    return found


def read_items(families: list[str] | None = None, limit: int | None = None) -> list[Item]:
    """Read the benchmark's items.

    Args:
        families: only these.
        limit: at most so many a family, evenly spread.

    Raises:
        OneLLMError: a family is unknown.
    """
    unknown = sorted(set(families or ()) - set(FAMILIES))
    if unknown:
        raise OneLLMError(
            found=f"There is no family {', '.join(unknown)}",
            expected=f"some of {', '.join(FAMILIES)}",
            advice="correct --families",
        )
    files = read_files()
    found = []
    for family, entries in read(HERE / "items.yaml").items():
        if families and family not in families:
            continue
        entries = [_item(f"{family} {number}", family, entry, files) for number, entry in enumerate(entries, 1)]
        step = max(len(entries) / limit, 1) if limit else 1
        found += [entries[int(index * step)] for index in range(int(len(entries) / step))]
    return found


def _item(name: str, family: str, entry: dict | list, files: dict[str, File]) -> Item:
    """Make an item of its lines: one turn, or a list of turns."""
    turns = []
    for line in entry if isinstance(entry, list) else [entry]:
        shown = line.get("files", [])
        shown = [files[one] for one in ([shown] if isinstance(shown, str) else shown)]
        rest = {key: value for key, value in line.items() if key not in ("files", "ask", "answer")}
        short = rest.get("words", (0, 99))[1] <= 4
        turns.append(
            Turn(
                line["ask"],
                shown,
                Expected.of(rest) if rest else None,
                str(line.get("answer", "")),
                SHORT if short else FAMILIES[family],
            )
        )
    return Item(name, family, turns)


def fingerprint() -> str:
    """Name this state of the benchmark."""
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in ("files.yaml", "items.yaml"))).hexdigest()[:8]
