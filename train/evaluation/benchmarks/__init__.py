"""The benchmarks of the paper's tables, as declarations; docs/evaluation.md lists the files each one wants.

Tables 1 to 6 hold 25 benchmarks (12 + 4 + 2 + 3 + 2 + 2, with Objaverse counted as caption and classification). NYUv2
and SUN RGB-D are two declarations each, as depth and normal maps are measured apart; Ego4D's motion and NSD's brain
scans are reported in the paper's text only. So there are 29 declarations.
"""

from train.evaluation.benchmark import Benchmark, BenchmarkError
from train.evaluation.benchmarks import image_captions, image_questions, signals, sounds, spatial, suites, videos

__all__ = ["BENCHMARKS", "find"]

_MODULES = (image_questions, image_captions, suites, videos, sounds, spatial, signals)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for module in _MODULES for benchmark in module.BENCHMARKS}


def find(names: str) -> list[Benchmark]:
    """Return benchmarks by their names, separated by commas; "all" returns all.

    Raises:
        BenchmarkError: there is none of a name.
    """
    wanted = list(BENCHMARKS) if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in BENCHMARKS]
    if unknown or not wanted:
        raise BenchmarkError(f"There is no benchmark '{''.join(unknown[:1])}'; choose of {', '.join(BENCHMARKS)}.")
    return [BENCHMARKS[name] for name in dict.fromkeys(wanted)]
