"""Results of experiments that are run bit by bit: kept with their settings, so that no others get among them."""

import json
from pathlib import Path
from typing import Any

from onellm.errors import OneLLMError
from onellm.utils import atomic
from train.recipe import Recipe
from train.trainer import run


def read(out: Path, **settings: Any) -> dict:
    """Read what an experiment has found so far.

    Args:
        out: JSON file; there need not be one yet.
        **settings: that decide about the results.

    Returns:
        `settings`, and `found`: to be filled and written.

    Raises:
        OneLLMError: the file holds results of other settings.
    """
    settings = json.loads(json.dumps(settings, default=str))
    kept = json.loads(out.read_text()) if out.exists() else {"settings": settings, "found": {}}
    if kept.get("settings") != settings:
        raise OneLLMError(f"{out} holds results of other settings; give another file with --out, or remove it.")
    return kept


def claim(runs: Path, **settings: Any) -> None:
    """Make sure that the models of a folder are of the same settings.

    Raises:
        OneLLMError: they are of others.
    """
    try:
        kept = read(runs / "settings.json", **settings)
    except OneLLMError:
        raise OneLLMError(
            f"{runs} holds models of other settings; give another folder with --runs, or remove it."
        ) from None
    atomic.write_json(runs / "settings.json", kept)


def slug(name: str) -> str:
    """Return a variant's name as that of a folder."""
    return name.replace(",", "").replace(" ", "-").lower()


def shortened(recipe: Recipe, scale: float, seed: int) -> Recipe:
    """Return a stage with a share of its steps, saved and logged at their end alone."""
    steps = max(1, round(recipe.steps * scale))
    changes = {"steps": steps, "seed": seed, "warmup": min(recipe.warmup, steps // 10)}
    return recipe.changed(**changes, save_every=steps, log_every=steps)


def finished(recipe: Recipe, runs: Path) -> Path:
    """Return the folder of a stage, which is run unless that is done."""
    folder = runs / recipe.name
    return folder if (folder / "config.json").exists() else run(recipe, runs)
