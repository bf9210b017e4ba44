"""Forgetting: what the kinds that a model knows lose when it learns one more, and what keeps them.

A model is trained on pictures, videos, sounds and point clouds (stages I and II of onellm-tiny), then learns one new
kind, in every variant from the same number of the new kind's batches. What counts is the accuracy of the soft words,
without the LLM, before and after.
"""

import logging
from dataclasses import replace
from pathlib import Path
from statistics import mean

from onellm import disk
from train.ablations import cell
from train.evaluation.words import accuracy
from train.recipe import Recipe, Source, load_recipe
from train.results import claim, finished, read, shortened, slug

logger = logging.getLogger(__name__)
RECIPES = Path(__file__).parent / "recipes"
STAGES = ("tiny-1-image", "tiny-2-video-audio-point")
NEXT = "tiny-3-depth-normal-imu-fmri"  # whose rate and schedule the new kind is learned with
OLD = ("image", "video", "audio", "point")
NEW = ("imu", "fmri")
BEFORE = "before"
FROZEN = "shared parts frozen"
REPLAY = {"all parts, the new kind alone": 0.0, "all parts, replay 0.1": 0.1, "all parts, replay 0.5": 0.5}
VARIANTS = (*REPLAY, FROZEN)
STEPS = 300  # with batches of the new kind; those of old kinds come on top


def stages(seed: int, scale: float) -> list[Recipe]:
    """Return the recipes of the model that knows the old kinds.

    Args:
        seed: of both stages.
        scale: share of the recipes' steps.
    """
    return [shortened(load_recipe(RECIPES / f"{name}.yaml"), scale, seed) for name in STAGES]


def addition(kind: str, variant: str, seed: int, scale: float) -> Recipe:
    """Return the recipe that adds a kind to that model.

    Args:
        kind: one of `NEW`.
        variant: one of `VARIANTS`; replay mixes a share of the old kinds' batches in, as stage II weighs them.
        seed: of the stage.
        scale: share of `STEPS`.
    """
    share = REPLAY.get(variant, 0.0)
    old = load_recipe(RECIPES / f"{STAGES[-1]}.yaml").data
    whole = sum(source.weight for source in old)
    data = [Source(kind, "items", weight=1 - share)]
    data += [replace(source, weight=share * source.weight / whole) for source in old if share]
    recipe = load_recipe(RECIPES / f"{NEXT}.yaml")
    recipe = replace(
        recipe,
        name=slug(f"{kind} {variant}"),
        init=STAGES[-1],
        from_image=[kind],
        train=[kind] if variant == FROZEN else recipe.train,
        data=data,
        steps=round(STEPS / (1 - share)),
    )
    return shortened(recipe, scale, seed)


def forget(
    out: Path,
    kinds: list[str],
    seeds: list[int],
    runs: Path,
    split: str = "dev",
    scale: float = 1.0,
) -> str:
    """Add each of some kinds in every way, where that is not done yet, and measure all kinds before and after.

    Args:
        out: JSON file of results, written after every run.
        kinds: to be added, each to the model that knows the old ones alone.
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
        place = runs / f"seed-{seed}"
        base = [finished(recipe, place) for recipe in stages(seed, scale)][-1]
        for kind in kinds:
            for variant in (BEFORE, *VARIANTS):
                done = results.setdefault(split, {}).setdefault(kind, {}).setdefault(variant, {})
                if str(seed) in done:
                    continue
                if variant == BEFORE:
                    done[str(seed)] = accuracy(base, OLD, split)
                else:
                    folder = finished(addition(kind, variant, seed, scale), place)
                    done[str(seed)] = accuracy(folder, (*OLD, kind), split)
                logger.info("%s, %s, seed %d: %s", kind, variant, seed, done[str(seed)])
                disk.write_json(out, kept)
    return "\n\n".join(table(kind, found) for kind, found in results[split].items())


def table(kind: str, found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Lay out variant -> seed -> kind -> accuracy; the change is of the old kinds' mean.

    Args:
        kind: the new one.
        found: the accuracies.
    """
    rows = [f"| learning {kind} | {' | '.join(OLD)} | mean | change | {kind} |", "|---" * (len(OLD) + 4) + "|"]
    for variant, seeds in found.items():
        columns = [[one[old] for one in seeds.values()] for old in OLD]
        means = {seed: mean(one[old] for old in OLD) for seed, one in seeds.items()}
        columns.append(list(means.values()))
        changes = [means[seed] - mean(found[BEFORE][seed][old] for old in OLD) for seed in means]
        learned = [one[kind] for one in seeds.values() if kind in one]
        cells = [*map(cell, columns), "–" if variant == BEFORE else cell(changes), cell(learned) if learned else "–"]
        rows.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(rows)
