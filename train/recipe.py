"""A recipe: one YAML file a stage. It says what trains, on what, how; everything else stays frozen."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import yaml

from onellm.errors import OneLLMError

OBJECTIVES = ("anchor", "language")


class RecipeError(OneLLMError):
    """A recipe that cannot be followed, in words."""


@dataclass
class Source:
    """One ingredient of the data mix."""

    kind: str
    source: str  # "classes": the names a frozen stem knows, mixed synthetically; "items": the corpus
    weight: float = 1.0


@dataclass
class Recipe:
    """One stage of training.

    Attributes:
        name: of the stage; its checkpoints and result go to `<runs>/<name>`.
        model: the preset.
        start: name of the stage whose result it continues, or None to start from the preset.
        objective: "anchor" (soft words against the words of the name, without the LLM) or "language" (the
            answer's tokens through the LLM).
        train: names of the parts that train, as prefixes of the model's parameter names.
        data: the mix; one batch is of one source.
        steps: optimiser steps.
        batch: samples a step.
        copy_image: kinds whose projection starts as a copy of the image's (the paper's stages II and III).
        learning_rate: peak; warm-up over `warmup` steps, then cosine to zero.
    """

    name: str
    model: str
    objective: str
    train: list[str]
    data: list[Source]
    steps: int
    batch: int
    learning_rate: float
    start: str | None = None
    copy_image: list[str] = field(default_factory=list)
    warmup: int = 50
    weight_decay: float = 0.01
    save_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked before anything loads."""
        self.data = [item if isinstance(item, Source) else _build(Source, item, "data") for item in self.data]
        if self.objective not in OBJECTIVES:
            raise RecipeError(f"The objective '{self.objective}' is not known; choose one of {', '.join(OBJECTIVES)}.")


def _build(cls: type, values: dict, where: str):
    valid = [item.name for item in fields(cls)]
    unknown = sorted(set(values) - set(valid))
    if unknown:
        raise RecipeError(f"{where}: the key '{unknown[0]}' is not known; valid keys are {', '.join(valid)}.")
    missing = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in missing if name not in values]
    if missing:
        raise RecipeError(f"{where}: the key '{missing[0]}' is missing.")
    return cls(**values)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: the file is missing, no YAML mapping, or has unknown or missing keys.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"The recipe {path} cannot be read ({error}); give a YAML file.") from error
    if not isinstance(values, dict):
        raise RecipeError(f"The recipe {path} holds no mapping of keys to values; see train/recipes.")
    return _build(Recipe, values, str(path))
