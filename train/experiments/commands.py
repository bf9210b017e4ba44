"""python -m train ablate | adapt | transfer | transfer-steps | forget: experiments whose end is a table."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add the commands; what each does is imported when it is asked for."""
    ablate = _add(subparsers, "ablate", _ablate, "onellm-tiny's stages with one thing changed, as a table")
    _add_results(ablate, "ablations")
    ablate.add_argument("--scale", type=float, default=0.25, help="share of the recipes' steps (default: 0.25)")
    ablate.add_argument("--variants", nargs="+", help="only these")

    adapt = _add(subparsers, "adapt", _adapt, "the LLM left alone, with LoRA and with routed adapters, as tables")
    _add_results(adapt, "adaptation")
    adapt.add_argument("--recipe", type=Path, help="of the routed adapters (default: tiny-4-routed.yaml)")
    adapt.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change keys of the recipe: steps=50")
    adapt.add_argument("--split", choices=("dev", "test"), default="test", help="dev while tuning (default: test)")
    adapt.add_argument("--limit", type=int, default=40, help="at most this many items a kind (default: 40)")
    adapt.add_argument("--variants", nargs="+", help="only these")

    move = _add(subparsers, "transfer", _transfer, "move a model's projector to another LLM")
    move.add_argument("--from", dest="source", metavar="MODEL", required=True, help="name or model folder")
    move.add_argument(
        "--to", metavar="LLM", required=True, help="gemma-3-270m or another base part, a folder, a hub name"
    )
    move.add_argument("--out", type=Path, default=Path("runs/transfer"), help="model folder (default: runs/transfer)")
    move.add_argument(
        "--start",
        choices=("converted", "random", "new"),
        default="converted",
        help="random or new: without what the old projector learnt, to compare with",
    )
    move.add_argument("--seed", type=int, default=0, help="of what is drawn at random (default: 0)")

    steps = _add(subparsers, "transfer-steps", _steps, "onellm-tiny moved to another LLM: accuracy by steps, a table")
    _add_results(steps, "transfer-steps")
    steps.add_argument("--looks", nargs="+", type=int, help="measure after these steps (default: 0 25 50 100 200)")
    steps.add_argument("--variants", nargs="+", help="only these")

    forget = _add(subparsers, "forget", _forget, "add a kind to a model and see what it forgets, as a table")
    _add_results(forget, "forgetting")
    forget.add_argument("--add", nargs="+", choices=("imu", "fmri"), default=["imu"], help="new kinds (default: imu)")
    forget.add_argument("--split", choices=("dev", "test"), default="dev", help="what is measured (default: dev)")
    forget.add_argument("--scale", type=float, default=1.0, help="share of all steps (default: 1)")


def _add(
    subparsers: argparse._SubParsersAction, name: str, run: Callable[[argparse.Namespace], str], text: str
) -> argparse.ArgumentParser:
    """Add a command that prints what a function returns."""
    parser = subparsers.add_parser(name, help=text)
    parser.set_defaults(run=lambda options: print(run(options)))
    return parser


def _add_results(parser: argparse.ArgumentParser, name: str) -> None:
    """Add where results and models go, and seeds."""
    parser.add_argument("--out", type=Path, default=Path(f"runs/{name}.json"), help="results; those in it are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="one run each (default: 0 1)")
    parser.add_argument("--runs", type=Path, default=Path(f"runs/{name}"), help="folder of the models")


def _ablate(options: argparse.Namespace) -> str:
    from train.experiments.ablations import ablate

    return ablate(options.out, options.scale, options.seeds, options.runs, options.variants)


def _adapt(options: argparse.Namespace) -> str:
    from train.experiments.adapters import RECIPE, compare
    from train.recipe import load_recipe

    recipe = load_recipe(options.recipe or RECIPE, options.set)
    return compare(recipe, options.out, options.runs, options.seeds, options.split, options.limit, options.variants)


def _transfer(options: argparse.Namespace) -> str:
    from train.experiments.transfer import transfer

    found = transfer(options.source, options.to, options.out, options.start, options.seed)
    return f"{found}\n" * (found is not None) + f"saved {options.out}; go on with train/recipes/transfer-*.yaml"


def _steps(options: argparse.Namespace) -> str:
    from train.experiments.transfer_steps import EVALUATIONS, compare

    return compare(options.out, options.seeds, options.runs, options.variants, options.looks or EVALUATIONS)


def _forget(options: argparse.Namespace) -> str:
    from train.experiments.forgetting import forget

    return forget(options.out, options.add, options.seeds, options.runs, options.split, options.scale)
