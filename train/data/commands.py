"""python -m train data inspect | convert | bench: look at training data, turn it into shards, measure its loading."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from onellm.modalities import MODALITIES
from onellm.utils import atomic
from train.data.example import DataError
from train.data.formats.sources import FORMATS

if TYPE_CHECKING:
    from train.recipe import Source


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add the command "data" with its three parts."""
    data = subparsers.add_parser("data", help="look at training data, turn it into shards, measure its loading")
    data.set_defaults(run=run)
    commands = data.add_subparsers(dest="data_command", required=True)
    what = "\n".join(f"  {name:12} {text}" for name, text in FORMATS.items())
    look = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": f"formats:\n{what}"}

    inspect = commands.add_parser("inspect", help="write a page that shows examples as the model gets them", **look)
    _add_source(inspect)
    inspect.add_argument("--model", default="onellm-tiny", help="whose inputs are shown: a name or a model folder")
    inspect.add_argument(
        "--objective", choices=["chat", "caption"], help="layout of the tokens (default: the recipe's)"
    )
    inspect.add_argument("--count", type=int, default=20, help="examples to show (default: 20)")
    inspect.add_argument("--check", type=int, default=100, help="examples to read and decode a source (default: 100)")
    inspect.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")

    convert = commands.add_parser("convert", help="write any source as tar shards; a stopped run goes on", **look)
    _add_source(convert)
    convert.add_argument("--out", type=Path, required=True, help="folder of the shards")
    convert.add_argument("--shard-mb", type=float, default=200, help="size of a shard (default: 200)")
    convert.add_argument("--workers", type=int, default=0, help="processes that read and check files (default: 0)")

    bench = commands.add_parser("bench", help="measure how many examples a second load", **look)
    _add_source(bench)
    bench.add_argument("--model", default="onellm-tiny", help="whose inputs are made: a name or a model folder")
    bench.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of processes to try")
    bench.add_argument("--seconds", type=float, default=10, help="of each measurement (default: 10)")
    bench.add_argument("--wanted", type=float, default=100, help="examples a second a GPU takes (default: 100)")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", metavar="X", help="a recipe, one source as YAML, shards, a table or a folder"
    )
    parser.add_argument("--source", choices=FORMATS, help="format; by default guessed from X")
    parser.add_argument("--path", help="where the data lies; the same as X")
    parser.add_argument("--root", help="folder that file names in a table are relative to (default: the table's)")
    parser.add_argument("--kind", nargs="+", choices=[*MODALITIES, "text"], help="of the files")
    parser.add_argument("--prompt", help="a question to ask of every caption")
    parser.add_argument("--limit", type=int, help="only so many examples")
    parser.add_argument("--split", default="train", help="of a Hugging Face data set (default: train)")
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="ROLE=NAME", help="names of a table's columns, such as caption=alt"
    )


def run(options: argparse.Namespace) -> int:
    """Run one of the commands; errors in words are the caller's to print."""
    return {"inspect": _inspect, "convert": _convert, "bench": _bench}[options.data_command](options)


def _inspect(options: argparse.Namespace) -> int:
    from train.data.inspect import inspect_source
    from train.data.report import render

    sources, objective = sources_of(options)
    processor = _processor(options.model)
    objective = options.objective or objective
    count = max(1, options.count // len(sources))
    reports, shown = [], []
    for source in sources:
        report, examples = inspect_source(source, processor, objective, count, max(count, options.check))
        reports.append(report)
        shown += examples
        print(
            f"{report.label}: {report.examples:,} examples; of {report.checked:,} looked at {len(report.bad):,} are bad"
        )
    title = options.what or options.path
    page = render(reports, shown, Path(title).name if "://" not in title else title, options.model, objective)
    atomic.write(options.out, page)
    print(f"wrote {options.out} ({len(page) / 1e6:.1f} MB)")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from train.data.convert import convert, summary

    sources, _ = sources_of(options)
    if len(sources) > 1:
        raise DataError(f"{options.what}: it lists {len(sources)} sources; expected one a folder of shards; give one.")
    print(summary(convert(sources[0], options.out, options.shard_mb, options.workers), options.out))
    return 0


def _bench(options: argparse.Namespace) -> int:
    from train.data.throughput import measure, table

    sources, _ = sources_of(options)
    processor = _processor(options.model)
    speeds = [measure(source, processor, count, options.seconds) for source in sources for count in options.workers]
    print(table(speeds, options.wanted))
    return 0


def _processor(model: str):
    from onellm.hub.registry import folder_of
    from onellm.model.auto import OneLLMProcessor

    return OneLLMProcessor.from_pretrained(folder_of(model))


def sources_of(options: argparse.Namespace) -> tuple[list["Source"], str]:
    """Return the sources that the options describe, and the objective of their tokens' layout.

    Raises:
        OneLLMError: nothing is described, or it cannot be told what it is.
    """
    from train.recipe import SYNTHETIC, Source, build, load_recipe, read_mapping

    path = options.path or options.what
    if not path:
        raise DataError(
            "There is nothing to look at; give a recipe, shards, a table or a folder, or --source and --path."
        )
    if path.endswith((".yaml", ".yml")):
        values = read_mapping(path)
        if "data" not in values:
            return [build(Source, values)], "chat"
        recipe = load_recipe(Path(path))
        sources = [source for source in recipe.data if source.source not in SYNTHETIC]
        if not sources:
            raise DataError(
                f"{path}: all of its data is generated from the small corpus; expected files; give another recipe."
            )
        return sources, "chat" if recipe.objective == "chat" else "caption"
    values = {key: getattr(options, key) for key in ("root", "prompt", "limit", "split")}
    values |= {"kind": options.kind or _guess_kind(path), "source": options.source or guess_format(path), "path": path}
    values["columns"] = dict(pair.partition("=")[::2] for pair in options.columns)
    return [build(Source, values)], "chat"


def guess_format(path: str) -> str:
    """Tell the format of data from its path.

    Raises:
        DataError: it cannot be told.
    """
    folder = Path(path)
    if path.endswith(".tar") or folder.is_dir() and any(folder.glob("*.tar")):
        return "webdataset"
    if folder.is_dir():
        described = ("dataset_info.json", "dataset_dict.json")
        return "hub" if any((folder / name).exists() for name in described) else "folder"
    if path.endswith((".json", ".jsonl")):
        from train.data.formats.table_files import open_table
        from train.data.formats.tables import CONVERSATIONS

        return "instructions" if {*CONVERSATIONS} & {*open_table(path).columns} else "captions"
    if path.endswith((".tsv", ".csv", ".parquet")):
        return "captions"
    raise DataError(f"{path}: its format cannot be told; expected one of {', '.join(FORMATS)}; name it with --source.")


def _guess_kind(path: str) -> list[str]:
    """Read the kinds of shards that this program wrote; other data does not say."""
    from train.data.formats.shards import read_index, shard_paths

    if guess_format(path) == "webdataset":
        modalities = read_index(os.path.dirname(shard_paths(path)[0])).get("kinds")
        if modalities is not None:
            return modalities or ["text"]
    raise DataError(f"{path}: it does not say of what kind its files are; name it with --kind, such as --kind image.")
