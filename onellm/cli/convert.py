"""`python -m onellm convert`: turn a published checkpoint into a model folder."""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint's files and the folder to a parser."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        action="append",
        metavar="F",
        help="a .pth, .bin or .safetensors file, or a folder of transformers; several where it comes in parts",
    )
    parser.add_argument(
        "--llm", metavar="L", help="the LLM, if it is not in it or is to be another: a folder or a name"
    )
    parser.add_argument("--preset", metavar="NAME", help="which model it is, where the checkpoint does not tell")
    parser.add_argument("--tokenizer", type=Path, metavar="F", help="by default beside the LLM or the checkpoint")
    parser.add_argument("--params", type=Path, metavar="FILE", help="by default params.json beside the checkpoint")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Print the folder that was written."""
    from onellm.hub.convert import convert

    chosen = {name: getattr(options, name) for name in ("tokenizer", "params", "llm", "preset")}
    print(convert(options.checkpoint, options.out, **chosen, progress=not options.quiet))
    return 0
