"""What experts have in common: a sample in, a finding out, a sentence of it in the prompt."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from onellm.modalities.base import Sample


@dataclass(frozen=True)
class Finding:
    """What one expert found in a file.

    Attributes:
        expert: its name, a key of `EXPERTS`.
        text: the sentence that stands in the prompt, in English: "Objects: two cups (left), one spoon.".
        score: how sure the expert is, 0..1; None for what is computed.
        details: JSON values for people who look inside: labels, boxes as shares of width and height, times.
    """

    expert: str
    text: str
    score: float | None = None
    details: tuple[dict, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as it is kept in a content part."""
        return asdict(self) | {"details": list(self.details)}


class Expert:
    """Finds one kind of thing in a file, apart from the LLM; what it needs is loaded at its first file.

    Attributes:
        name: key of `EXPERTS`.
        modalities: of the files it reads.
        base_parts: names in `base_parts.PARTS` that it fetches.
    """

    name: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]]
    base_parts: ClassVar[tuple[str, ...]] = ()

    def find(self, sample: Sample) -> Finding | None:
        """Look at a file's content; None where there is nothing to say.

        Args:
            sample: of one of `modalities`, as `onellm.modalities.load` returns it.

        Raises:
            Exception: whatever its libraries raise; `find_all` turns it into a note.
        """
        raise NotImplementedError
