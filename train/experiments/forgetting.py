"""Forgetting: what the modalities that a model knows lose when it learns one more, and what keeps them.

A model is trained on pictures, videos, sounds and point clouds (stages I and II of onellm-tiny), then learns one new
kind, in every variant from the same number of the new modality's batches. What counts is the accuracy of the soft
words, without the LLM, before and after.
"""

import logging
from pathlib import Path
from statistics import mean

from onellm.utils import atomic
from train.experiments.ablations import cell
from train.experiments.results import claim, finished, read, shortened, slug
from train.recipe import Recipe, Source, load_recipe
from train.small.soft_tokens import accuracy

logger = logging.getLogger(__name__)
RECIPES = Path(__file__).parents[1] / "recipes"
STAGES = ("tiny-1-image", "tiny-2-video-audio-point")
NEXT = "tiny-3-depth-normal-imu-fmri"  # whose rate and schedule the new modality is learned with
OLD = ("image", "video", "audio", "point")
NEW = ("imu", "fmri")
BEFORE = "before"
FROZEN = "shared parts frozen"
REPLAY = {"all parts, the new kind alone": 0.0, "all parts, replay 0.1": 0.1, "all parts, replay 0.5": 0.5}
VARIANTS = (*REPLAY, FROZEN)
STEPS = 300  # with batches of the new modality; those of old modalities come on top


def stages(seed: int, scale: float) -> list[Recipe]:
    """Return the recipes of the model that knows the old modalities.

    Args:
        seed: of both stages.
        scale: share of the recipes' steps.
    """
    return [shortened(load_recipe(RECIPES / f"{name}.yaml"), scale, seed) for name in STAGES]


def addition(modality: str, variant: str, seed: int, scale: float) -> Recipe:
    """Return the recipe that adds a modality to that model.

    Args:
        modality: one of `NEW`.
        variant: one of `VARIANTS`; replay mixes a share of the old modalities' batches in, as stage II weighs them.
        seed: of the stage.
        scale: share of `STEPS`.
    """
    share = REPLAY.get(variant, 0.0)
    old = load_recipe(RECIPES / f"{STAGES[-1]}.yaml").data
    whole = sum(source.weight for source in old)
    data = [Source(kind=modality, source="items", weight=1 - share)]
    data += [source.changed(weight=share * source.weight / whole) for source in old if share]
    recipe = load_recipe(RECIPES / f"{NEXT}.yaml")
    recipe = recipe.changed(
        name=slug(f"{modality} {variant}"),
        init=STAGES[-1],
        from_image=[modality],
        train=[modality] if variant == FROZEN else recipe.train,
        data=data,
        steps=round(STEPS / (1 - share)),
    )
    return shortened(recipe, scale, seed)


def forget(
    out: Path,
    modalities: list[str],
    seeds: list[int],
    runs: Path,
    split: str = "dev",
    scale: float = 1.0,
) -> str:
    """Add each of some modalities in every way, where that is not done yet, and measure all before and after.

    Args:
        out: JSON file of results, written after every run.
        modalities: to be added, each to the model that knows the old ones alone.
        seeds: one model and its additions each.
        runs: folder of the models; finished ones are used again.
        split: "dev", or "test" once everything is chosen.
        scale: share of all steps.

    Returns:
        Markdown tables of all that `out` holds of the split.
    """
    claim(runs, scale=scale)
    kept = read(out, scale=scale)
    results = kept["found"]
    for seed in seeds:
        output = runs / f"seed-{seed}"
        base = [finished(recipe, output) for recipe in stages(seed, scale)][-1]
        for modality in modalities:
            for variant in (BEFORE, *VARIANTS):
                done = results.setdefault(split, {}).setdefault(modality, {}).setdefault(variant, {})
                if str(seed) in done:
                    continue
                if variant == BEFORE:
                    done[str(seed)] = accuracy(base, OLD, split)
                else:
                    folder = finished(addition(modality, variant, seed, scale), output)
                    done[str(seed)] = accuracy(folder, (*OLD, modality), split)
                logger.info("%s, %s, seed %d: %s", modality, variant, seed, done[str(seed)])
                atomic.write_json(out, kept)
    return "\n\n".join(table(modality, found) for modality, found in results[split].items())


def table(modality: str, found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Lay out variant -> seed -> modality -> accuracy; the change is of the old modalities' mean.

    Args:
        modality: the new one.
        found: the accuracies.
    """
    rows = [f"| learning {modality} | {' | '.join(OLD)} | mean | change | {modality} |", "|---" * (len(OLD) + 4) + "|"]
    for variant, seeds in found.items():
        columns = [[one[old] for one in seeds.values()] for old in OLD]
        means = {seed: mean(one[old] for old in OLD) for seed, one in seeds.items()}
        columns.append(list(means.values()))
        changes = [means[seed] - mean(found[BEFORE][seed][old] for old in OLD) for seed in means]
        learned = [one[modality] for one in seeds.values() if modality in one]
        cells = [*map(cell, columns), "–" if variant == BEFORE else cell(changes), cell(learned) if learned else "–"]
        rows.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(rows)
