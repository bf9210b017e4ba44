"""How fast a moved projector learns, beside ones that begin with less: accuracy on held-out files by steps, as a table.

What counts is the accuracy of the soft tokens, without the LLM, on the development split, averaged over the modalities.
All variants learn for the same number of steps, on the same data, by the recipes of the transfer.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from safetensors.torch import load_file

from onellm.hub import registry
from onellm.model.auto import OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.utils import atomic
from train.experiments.ablations import KINDS
from train.experiments.results import claim, read, slug
from train.experiments.transfer import transfer
from train.recipe import Recipe, load_recipe
from train.small.soft_tokens import word_accuracy
from train.trainer import run

logger = logging.getLogger(__name__)
STAGES = ("transfer-tiny-1-warmup", "transfer-tiny-2-tune")
SOURCE, TARGET = "onellm-tiny", "gemma-3-270m"
EVALUATIONS = (0, 25, 50, 100, 200)  # after so many steps
LIMIT = 200  # files a modality, evenly spread


@dataclass(frozen=True)
class Variant:
    """A way to a projector for the other LLM.

    Attributes:
        start: where it begins, a key of `transfer.STARTS`.
        warmup: whether its output is warmed up first.
        rate: of direct tuning, beside the recipe's: a projector that begins with less may learn faster at a higher one.
    """

    start: str
    warmup: bool = False
    rate: float = 1.0


VARIANTS = {
    "converted, warm-up, tuning": Variant("converted", warmup=True),
    "converted, tuning": Variant("converted"),
    "random converter, tuning": Variant("random"),
    "random converter, tuning at 3 times the rate": Variant("random", rate=3.0),
    "new projector, tuning": Variant("new"),
    "new projector, tuning at 3 times the rate": Variant("new", rate=3.0),
}


def recipes_of(variant: Variant, start: Path, seed: int, evaluations: Sequence[int] = EVALUATIONS) -> list[Recipe]:
    """Return the stages of a variant, of the same number of steps in sum, with a checkpoint for every look."""
    first, second = (load_recipe(Path(__file__).parents[1] / "recipes" / f"{name}.yaml") for name in STAGES)
    total, init = max(evaluations), str(start.resolve())
    common = {"seed": seed, "save_every": 25, "keep": total, "log_every": 25}
    second = second.changed(learning_rate=variant.rate * second.learning_rate, **common)
    if not variant.warmup:
        return [second.changed(init=init, steps=total)]
    return [first.changed(init=init, **common), second.changed(steps=total - first.steps)]


def measure(name: str, seed: int, runs: Path, evaluations: Sequence[int] = EVALUATIONS) -> dict[str, dict[str, float]]:
    """Train a variant and return its accuracy: steps -> modality -> accuracy.

    Args:
        name: a key of `VARIANTS`.
        seed: of the converter and the stages.
        runs: folder for the models.
        evaluations: after which steps, multiples of 25; the last one is how long it learns.
    """
    variant = VARIANTS[name]
    begin = runs / f"{variant.start}-{seed}"
    if not begin.exists():
        transfer(SOURCE, TARGET, begin, variant.start, seed)
    output, done, found = runs / f"{slug(name)}-{seed}", 0, {}
    for recipe in recipes_of(variant, begin, seed, evaluations):
        out = run(recipe, output)
        steps = [step for step in evaluations if done <= step <= done + recipe.steps and str(step) not in found]
        found |= dict(zip(map(str, steps), _evaluate(begin, out, [step - done for step in steps]), strict=True))
        begin, done = out, done + recipe.steps
    return found


def _evaluate(begin: Path, out: Path, steps: list[int]) -> Iterable[dict[str, float]]:
    """Yield the accuracy a modality after so many steps of a stage that began with the model folder `begin`."""
    model = OneLLMForConditionalGeneration.from_pretrained(begin, dtype=torch.float32).eval()
    processor = OneLLMProcessor.from_pretrained(begin)
    parameters = dict(model.named_parameters())
    for step in steps:
        trained = load_file(out / "checkpoints" / f"checkpoint-{step}" / "model.safetensors") if step else {}
        with torch.no_grad():
            for name, tensor in trained.items():
                parameters[name].copy_(tensor)
        yield {modality: word_accuracy(model, processor, modality, limit=LIMIT) for modality in KINDS}


def compare(
    out: Path, seeds: list[int], runs: Path, variants: list[str] | None = None, evaluations: Sequence[int] = EVALUATIONS
) -> str:
    """Measure variants, those that `out` does not hold yet, and return a Markdown table of all it holds.

    Args:
        out: JSON file of results, written after every run.
        seeds: one run each.
        runs: folder for the models.
        variants: keys of `VARIANTS`; None: all.
        evaluations: as for `measure`.
    """
    claim(runs, looks=evaluations)
    kept = read(out, looks=evaluations)
    results = kept["found"]
    if SOURCE not in results:
        (accuracy,) = _evaluate(registry.folder_of(SOURCE), out, [0])
        results[SOURCE] = {"0": {"0": accuracy}}
    for seed in seeds:
        for name in variants or VARIANTS:
            done = results.setdefault(name, {})
            if str(seed) not in done:
                done[str(seed)] = measure(name, seed, runs, evaluations)
                logger.info("%s, seed %d: %s", name, seed, _means(done[str(seed)]))
                atomic.write_json(out, kept)
    return table(results, evaluations)


def table(results: dict[str, dict[str, dict[str, dict[str, float]]]], evaluations: Sequence[int] = EVALUATIONS) -> str:
    """Lay out variant -> seed -> steps -> modality -> accuracy as means over the modalities, with seeds' range."""
    rows = [f"| steps | {' | '.join(map(str, evaluations))} |", "|---" * (len(evaluations) + 1) + "|"]
    for name, seeds in results.items():
        curves = [_means(found) for found in seeds.values()]
        columns = [[curve[step] for curve in curves if step in curve] for step in evaluations]
        rows.append(f"| {name} | {' | '.join(map(_cell, columns))} |")
    return "\n".join(rows)


def _means(found: dict[str, dict[str, float]]) -> dict[int, float]:
    return {int(step): mean(accuracy.values()) for step, accuracy in found.items()}


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"
