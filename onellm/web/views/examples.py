"""The examples on the page, from examples/examples.json."""

import html
import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from onellm.modalities import MODALITIES
from onellm.web.session import Attachment
from onellm.web.views import icons
from onellm.web.views.texts import say

FOLDER = Path(__file__).resolve().parents[3] / "examples"


@dataclass(frozen=True)
class Example:
    """A question about files that come with the app."""

    question: str
    files: tuple[Attachment, ...]


def read(folder: Path = FOLDER) -> list[Example]:
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
    seen: Counter = Counter()
    ranked = []
    for index, example in enumerate(examples):
        modalities = tuple(file.modality for file in example.files)
        ranked.append((seen[modalities], index))
        seen[modalities] += 1
    return (
        f'<div class="examples">{"".join(_card(index, examples[index], language) for _, index in sorted(ranked))}</div>'
    )


def _card(index: int, example: Example, language: str) -> str:
    pictures = "".join(icons.svg(file.modality) for file in example.files)
    modalities = " + ".join(say(language, f"kind.{file.modality}") for file in example.files)
    names = ", ".join(Path(file.path).name for file in example.files)
    return (
        f'<button type="button" class="example" data-example="{index}" title="{html.escape(names)}">'
        f'<span class="example-icons">{pictures}</span><span class="example-words">'
        f'<span class="example-kind">{html.escape(modalities)}</span>'
        f'<span class="example-question">{html.escape(example.question)}</span></span></button>'
    )


def _attachment(modality: str, given: str | dict, folder: Path) -> Attachment | None:
    """Turn an entry's file into an attachment; None if it is not there."""
    options = dict(given) if isinstance(given, dict) else {"path": given}
    found = {}
    for key in ("path", "picture"):
        if key in options:
            places = [place / options[key] for place in (folder, folder.parent)]
            found[key] = next((str(place) for place in places if place.is_file()), None)
    if modality not in MODALITIES or None in found.values():
        return None
    return Attachment(modality, **found)
