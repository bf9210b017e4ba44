"""The examples on the page, from examples/examples.json."""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from onellm.modalities import MODALITIES
from onellm.utils.paths import EXAMPLES
from onellm.web.session import Attachment
from onellm.web.views.markup import render


@dataclass(frozen=True)
class Example:
    """A question about files that come with the app."""

    question: str
    files: tuple[Attachment, ...]


def read(folder: Path = EXAMPLES) -> list[Example]:
    """Read the examples whose files are there.

    Args:
        folder: where examples.json lies; its paths are relative to it or to the folder above.

    Returns:
        The examples, in the file's order; none if there is no such file.
    """
    try:
        entries = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    examples = []
    for entry in entries:
        files = [_attachment(modality, given, folder) for modality, given in entry["files"].items()]
        if None in files:
            logging.getLogger(__name__).warning("an example's file is missing: %s", entry["files"])
        else:
            examples.append(Example(entry["question"], tuple(files)))
    return examples


def cards(examples: list[Example], language: str) -> str:
    """Return the examples as HTML: a button each, one of every modality first."""
    before: Counter = Counter()
    ranks = []
    for example in examples:
        modalities = tuple(file.modality for file in example.files)
        ranks.append(before[modalities])
        before[modalities] += 1
    ranked = sorted(enumerate(examples), key=lambda numbered: ranks[numbered[0]])
    return render("examples", language=language, examples=ranked)


def _attachment(modality: str, given: str | dict, folder: Path) -> Attachment | None:
    """Turn an entry's file into an attachment; None if it is not there."""
    options = dict(given) if isinstance(given, dict) else {"path": given}
    found = {}
    for key in ("path", "picture"):
        if key in options:
            paths = [parent / options[key] for parent in (folder, folder.parent)]
            found[key] = next((str(path) for path in paths if path.is_file()), None)
    if modality not in MODALITIES or None in found.values():
        return None
    return Attachment(modality, **found)
