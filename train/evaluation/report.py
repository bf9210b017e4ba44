"""Results in words: one JSON a benchmark, and Markdown tables beside the paper's numbers."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from train.evaluation.benchmark import Benchmark, BenchmarkError
from train.evaluation.metrics import Answer, Scores

if TYPE_CHECKING:
    from train.evaluation.runner import Settings

LIBRARIES = ("accelerate", "nltk", "numpy", "onellm", "pycocoevalcap", "torch", "transformers")
HEAD = ["| benchmark | split | n | metric | measured | OneLLM-7B, paper | others' best | trained on it |"]
HEAD += ["|---|---|---|---|---|---|---|---|"]


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a figure depends on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the project itself runs without being installed
            continue
    return found


def describe(
    benchmark: Benchmark,
    split: str,
    answered: Sequence[Answer],
    scores: Scores,
    model: str,
    settings: "Settings",
) -> dict:
    """Return the result of a benchmark as it is kept."""
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "table": benchmark.table,
        "split": split,
        "model": model,
        "n": len(answered),
        "metrics": {name: round(value, 3) for name, value in scores.values.items()},
        "standard_errors": {name: round(value, 3) for name, value in scores.errors().items()},
        "by_category": {name: round(value, 3) for name, value in scores.groups.items()},
        "missing": scores.missing,
        "notes": scores.notes,
        "paper": benchmark.paper,
        "best": benchmark.best,
        "tuned": benchmark.tuned,
        "settings": asdict(settings),
        "versions": versions(),
    }


def rows(result: dict) -> list[str]:
    """Return a Markdown row a metric that the paper reports, or that came out in its place."""
    names = dict.fromkeys(result["paper"])
    names |= {name: None for name in result["metrics"] if name.startswith("METEOR (")}
    lines = []
    for index, name in enumerate(names):
        best, tuned = (result["best"], result["tuned"]) if index == 0 else (None, None)
        cells = [result["title"], result["split"], f"{result['n']:,}", name, measured(result, name)]
        cells += [figure(result["paper"].get(name)), named(best), named(tuned)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def measured(result: dict, name: str) -> str:
    """Return a figure with its standard error, or that it is missing."""
    if name not in result["metrics"]:
        return "not measured"
    error = result["standard_errors"].get(name)
    return figure(result["metrics"][name]) + (f" ± {error:.1f}" if error is not None else "")


def figure(value: float | None) -> str:
    """Return a number with one decimal, or a dash."""
    return "–" if value is None else f"{value:.1f}"


def named(pair: Sequence | None) -> str:
    """Return a number and whose it is, or a dash."""
    return "–" if pair is None else f"{pair[1]:.1f} ({pair[0]})"


def remarks(result: dict) -> list[str]:
    """Return what the reader of a result should know, a line each."""
    title, lines = result["title"], []
    lines += [f"{title}: no {name}: {reason}." for name, reason in result["missing"].items()]
    lines += [f"{title}: {note}." for note in result["notes"]]
    skipped = result["skipped"]
    if skipped["count"]:
        first, reason = next(iter(skipped["named"].items()))
        lines.append(f"{title}: {skipped['count']:,} questions were left out, the first ({first}): {reason}")
    files = result["files"]
    if files:
        where = files[0] if len(files) == 1 else f"{len(files)} files in {Path(files[0]).parent}"
        lines.append(f"{title}: written for the official evaluation: {where}")
    return lines


def table(results: Sequence[dict]) -> str:
    """Lay results out: a Markdown table a model, then remarks."""
    blocks = []
    for model in dict.fromkeys(result["model"] for result in results):
        own = [result for result in results if result["model"] == model]
        notes = [line for result in own for line in remarks(result)]
        head = [f"**{model}** ({own[0]['settings']['decode']})", "", *HEAD]
        blocks.append("\n".join(head + [line for result in own for line in rows(result)] + [""] * bool(notes) + notes))
    return "\n\n".join(blocks)


def read_results(paths: Sequence[Path]) -> list[dict]:
    """Read results from files.

    Raises:
        BenchmarkError: a file is no result.
    """
    results = []
    for path in paths:
        try:
            result = json.loads(Path(path).read_text(encoding="utf-8"))
            rows(result)
            remarks(result)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BenchmarkError(
                f"{path} is no result of python -m train evaluate ({type(error).__name__}: {error}); give the JSON "
                "files it wrote."
            ) from error
        results.append(result)
    return results


def overview(benchmarks: Sequence[Benchmark], data: Path) -> str:
    """List benchmarks: what they need, whether it is there, and the paper's numbers."""
    lines = ["| benchmark | table | split | needs | found | metric | paper |", "|---|---|---|---|---|---|---|"]
    for benchmark in benchmarks:
        for name, split in benchmark.splits.items():
            missing = benchmark.missing(data, name)
            needs = ", ".join(f"{benchmark.folder}/{need}" for need in split.needs)
            if len(split.needs) > 4:
                needs = f"{benchmark.folder}/{split.needs[0]} and {len(split.needs) - 1} more"
            found = "yes" if not missing else f"no: {missing[0].relative_to(data)}"
            metric, paper = next(iter(benchmark.paper.items()))
            scored = metric if split.scored else "official server"
            lines.append(f"| {benchmark.name} | {benchmark.table} | {name} | {needs} | {found} | {scored} | {paper} |")
    return "\n".join(lines)
