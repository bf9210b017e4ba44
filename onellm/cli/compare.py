"""`python -m onellm compare`: two models, or one with its weights kept in two ways, answer the same question."""

import argparse

from onellm.chat.sampling import add_options as add_settings
from onellm.chat.sampling import given
from onellm.cli.ask import add_question, files_of
from onellm.errors import OneLLMError
from onellm.hub.registry import add_options as add_model_options
from onellm.model.runtime.quantization import CPU_MODES


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the question, its files, both models and the settings to a parser."""
    add_question(parser)
    add_model_options(parser)
    parser.add_argument("--with", dest="other", metavar="M", help="the second model; by default the first one again")
    parser.add_argument(
        "--with-quantize", choices=CPU_MODES, help="bits of the second model's weights, as --quantize of the first's"
    )
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Print both answers as a table."""
    if options.other is None and options.with_quantize is None:
        options.parser.error("--with MODEL or --with-quantize MODE is needed")
    files = files_of(options)
    from rich.console import Console

    from onellm.chat.compare import compare
    from onellm.cli.tables import comparison

    ways = [(options.model, options.quantize), (options.other, options.with_quantize)]
    device_map = "auto" if options.offload else None
    answers = list(compare(ways, options.question, given(options), files, device_map, options.out))
    if all(answer.error for answer in answers):
        raise OneLLMError(answers[0].error)
    Console().print(comparison(answers))
    return 0
