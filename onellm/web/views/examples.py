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
    """A question about files that come with the app.

    Attributes:
        question: what is asked.
        files: what it is asked about.
        follow_up: a further question, offered in the message box while the first is answered.
        converses: it asks for more than the name of what a file shows.
    """

    question: str
    files: tuple[Attachment, ...]
    follow_up: str = ""
    converses: bool = False


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
            follow_up, converses = entry.get("follow_up", ""), entry.get("converses", False)
            examples.append(Example(entry["question"], tuple(files), follow_up, converses))
    return examples


def cards(examples: list[Example], language: str, converses: bool) -> str:
    """Return the examples as HTML: a button each, the conversations first, then one of every modality.

    Args:
        examples: all there are.
        language: of the page.
        converses: the model does more than to name things; without it, those that ask for more are left out.
    """
    before: Counter = Counter()
    ranked = []
    for number, example in enumerate(examples):
        modalities = tuple(file.modality for file in example.files)
        if not example.converses:
            rank = 1 + before[modalities]
            before[modalities] += 1
        elif converses:
            rank = 0
        else:
            continue
        ranked.append((rank, number, example))
    return render(
        "examples",
        language=language,
        examples=[(number, example) for _, number, example in sorted(ranked, key=lambda placed: placed[:2])],
    )


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
