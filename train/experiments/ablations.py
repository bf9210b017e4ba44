"""The paper's ablations that a small model can repeat (tables 7 and 8): onellm-tiny's stages with one thing changed.

Every variant runs stages 1 to 3 at a share of their steps; what counts is the accuracy of the soft tokens, without the
LLM, on the development split, a modality.
"""

import copy
import logging
from pathlib import Path
from statistics import mean, stdev

from onellm.utils import atomic
from train.experiments.results import claim, read, shortened, slug
from train.recipe import Recipe, load_recipe
from train.small.soft_tokens import accuracy
from train.trainer import run

logger = logging.getLogger(__name__)
STAGES = ("tiny-1-image", "tiny-2-video-audio-point", "tiny-3-depth-normal-imu-fmri")
KINDS = ("image", "video", "audio", "point", "fmri", "imu", "depth", "normal")
DEFAULT = "3 experts, input-aware router, image first, joint"
VARIANTS = {
    DEFAULT: {},
    "1 expert": {"experts": 1},
    "5 experts": {"experts": 5},
    "constant router": {"router": "constant"},
    "sparse router": {"router": "sparse"},
    "soft router": {"router": "softmax"},
    "all kinds at once, no image first": {},
    "a model a kind": {},
}


def recipes_of(variant: str, scale: float, seed: int) -> list[list[Recipe]]:
    """Return the chains of stages of a variant, all of about the same number of steps in sum.

    Args:
        variant: a key of `VARIANTS`.
        scale: share of the recipes' steps.
        seed: of all of them.
    """
    recipes = (load_recipe(Path(__file__).parents[1] / "recipes" / f"{name}.yaml") for name in STAGES)
    stages = [shortened(recipe, scale, seed) for recipe in recipes]
    stages[0].config = {"projector": VARIANTS[variant]} if VARIANTS[variant] else {}
    if variant == "all kinds at once, no image first":
        steps = sum(stage.steps for stage in stages)
        return [[stages[2].changed(name="all", init=None, preset=stages[0].preset, from_image=[], steps=steps)]]
    if variant == "a model a kind":
        return [_alone(stages, modality) for modality in KINDS]
    return [stages]


def _alone(stages: list[Recipe], modality: str) -> list[Recipe]:
    """Return a stage of one modality, of as many steps as the modality has in the joint stages."""
    steps, data = 0.0, []
    for stage in stages:
        share = sum(source.weight for source in stage.data)
        steps += stage.steps * sum(source.weight for source in stage.data if source.kind == modality) / share
        data = [source for source in stage.data if source.kind == modality] or data
    first = copy.deepcopy(stages[0])
    warmup = min(first.warmup, round(steps / 10))
    return [first.changed(name=modality, data=data, steps=max(1, round(steps)), warmup=warmup)]


def measure(variant: str, scale: float, seed: int, runs: Path) -> dict[str, float]:
    """Train a variant and return its accuracy a modality.

    Args:
        variant: a key of `VARIANTS`.
        scale: share of the recipes' steps.
        seed: of all stages.
        runs: folder for the models.
    """
    found = {}
    for chain in recipes_of(variant, scale, seed):
        folder = [run(recipe, runs) for recipe in chain][-1]
        found |= accuracy(folder, KINDS if variant != "a model a kind" else [chain[0].name])
    return found


def ablate(out: Path, scale: float, seeds: list[int], runs: Path, variants: list[str] | None = None) -> str:
    """Measure variants, those that `out` does not hold yet, and return a Markdown table of all it holds.

    Args:
        out: JSON file of results, written after every run.
        scale: share of the recipes' steps.
        seeds: one run each.
        runs: folder for the models.
        variants: keys of `VARIANTS`; None: all.
    """
    claim(runs, scale=scale)
    kept = read(out, scale=scale)
    results = kept["found"]
    for seed in seeds:
        for variant in variants or VARIANTS:
            done = results.setdefault(variant, {})
            if str(seed) not in done:
                output = runs / f"{slug(variant)}-{seed}"
                done[str(seed)] = measure(variant, scale, seed, output)
                logger.info("%s, seed %d: %s", variant, seed, done[str(seed)])
                atomic.write_json(out, kept)
    return table(results)


def table(accuracy: dict[str, dict[str, dict[str, float]]]) -> str:
    """Lay out variant -> seed -> modality -> accuracy, as means and, of several seeds, standard deviations."""
    rows = [f"| variant | {' | '.join(KINDS)} | mean |", "|---" * (len(KINDS) + 2) + "|"]
    for variant, seeds in accuracy.items():
        columns = [[found[modality] for found in seeds.values()] for modality in KINDS]
        columns.append([mean(found[modality] for modality in KINDS) for found in seeds.values()])
        rows.append(f"| {variant} | {' | '.join(map(cell, columns))} |")
    return "\n".join(rows)


def cell(values: list[float]) -> str:
    """Write a mean and, of several values, their standard deviation."""
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"
