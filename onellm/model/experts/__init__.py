"""Experts: what is found in a file besides its name, each as a sentence that the LLM reads behind the soft tokens.

They see samples, never paths, and know no LLM. One that fails, or whose package is missing, costs its own sentence.
"""

import threading
from collections.abc import Sequence

from onellm.modalities.base import Sample
from onellm.model.experts.base import Expert, Finding
from onellm.model.experts.colours import Colours
from onellm.model.experts.measures import Measures
from onellm.model.experts.objects import Objects
from onellm.model.experts.sounds import Sounds
from onellm.model.experts.speech import Speech
from onellm.model.experts.text import Text

__all__ = ["EXPERTS", "Expert", "Finding", "find_all"]

EXPERTS: dict[str, Expert] = {
    expert.name: expert for expert in (Colours(), Objects(), Text(), Measures(), Sounds(), Speech())
}
_turn = threading.Lock()  # of two files one is looked at


def find_all(names: Sequence[str], sample: Sample) -> tuple[list[Finding], list[str]]:
    """Let experts look at a file.

    Args:
        names: keys of `EXPERTS`, in the order of their sentences; those that do not read the modality are left out.
        sample: the file's content.

    Returns:
        What was found, and a note for people for every expert that failed.
    """
    found: list[Finding] = []
    notes = [
        f"There is no expert '{name}'; correct the model's configuration." for name in names if name not in EXPERTS
    ]
    experts = [EXPERTS[name] for name in names if name in EXPERTS]
    for expert in (expert for expert in experts if sample.modality in expert.modalities):
        try:
            with _turn:
                finding = expert.find(sample)
        except Exception as error:  # of any library; the answer goes on without this sentence
            notes.append(f"{expert.name} could not look at {sample.name} ({str(error).strip().rstrip('.')}).")
            continue
        if finding is not None:
            found.append(finding)
    return found, notes
