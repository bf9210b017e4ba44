"""The shell: `python -m onellm ask | compare | chat | serve | models | convert | bench`.

Exit codes: 0 answered, 1 a user-facing error (one line on standard error), 2 usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES, WITH_PICTURE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; the process's own if None.

    Returns:
        The exit code.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command == "ask":
            return _ask(parser, options)
        if options.command == "compare":
            return _compare(parser, options)
        if options.command == "chat":
            return _chat(options)
        if options.command == "models":
            return _models()
        if options.command == "convert":
            return _convert(options)
        if options.command == "serve":
            from onellm.serve import serve

            serve(options)
            return 0
        return _bench(options)
    except OneLLMError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the answer has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if "ONELLM_DEBUG" in os.environ:
            raise
        return _fail(f"Something failed inside OneLLM ({type(error).__name__}: {error}); ONELLM_DEBUG=1 shows where.")


def _parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    from onellm.chat.outputs.diffusion import add_options as add_generators
    from onellm.chat.sampling import add_options as add_settings
    from onellm.hub.registry import add_options as add_model_options
    from onellm.model.runtime.quantization import CPU_MODES
    from onellm.serve import add_options

    parser = argparse.ArgumentParser(prog="python -m onellm", description=sys.modules["onellm"].__doc__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="ask | compare | chat | serve | models | convert | bench"
    )

    ask = commands.add_parser("ask", help="ask one question, about files or not", description=_ask.__doc__)
    _add_question(ask)
    add_model_options(ask)
    add_generators(ask)
    add_settings(ask)
    compare = commands.add_parser("compare", help="ask two models the same question", description=_compare.__doc__)
    _add_question(compare)
    add_model_options(compare)
    compare.add_argument("--with", dest="other", metavar="M", help="the second model; by default the first one again")
    compare.add_argument(
        "--with-quantize", choices=CPU_MODES, help="bits of the second model's weights, as --quantize of the first's"
    )
    add_settings(compare)
    chat = commands.add_parser("chat", help="chat in the terminal", description=_chat.__doc__)
    add_model_options(chat)
    add_generators(chat)
    add_settings(chat)

    serve = commands.add_parser("serve", help="start the web app, as app.py does")
    add_options(serve)
    commands.add_parser("models", help="list the models that are here or could be, their size and the memory they need")
    convert = commands.add_parser("convert", help="turn a published checkpoint into a model folder")
    convert.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        action="append",
        metavar="F",
        help="a .pth, .bin or .safetensors file, or a folder of transformers; several where the parts come apart",
    )
    convert.add_argument("--llm", type=Path, metavar="DIR", help="a folder of transformers, if the LLM comes apart")
    convert.add_argument("--preset", metavar="NAME", help="which model it is, where the checkpoint does not tell")
    convert.add_argument("--tokenizer", type=Path, metavar="F", help="by default beside the LLM or the checkpoint")
    convert.add_argument("--params", type=Path, metavar="FILE", help="by default params.json beside the checkpoint")
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    convert.add_argument("--quiet", action="store_true", help="show no progress")
    bench = commands.add_parser("bench", help="measure how fast the model answers here")
    add_model_options(bench)
    bench.add_argument(
        "--random-weights",
        action="store_true",
        help="measure a model without its weights: --model is a model, a preset or a config.json",
    )
    bench.add_argument("--plain", action="store_true", help="as transformers runs it, for comparing")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    return parser


def _add_question(parser: argparse.ArgumentParser) -> None:
    """Add a question and its files to a parser."""
    parser.add_argument("question", nargs="?", default="", help='with files and without it: "What is this?"')
    for modality in MODALITIES:
        parser.add_argument(
            f"--{modality}", action="append", default=[], metavar="FILE", help="may be given several times"
        )
    for modality in WITH_PICTURE:
        parser.add_argument(
            f"--{modality}-picture",
            action="append",
            default=[],
            metavar="FILE",
            help=f"the picture beside the {modality} map; the first belongs to the first map",
        )
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where a picture, video or sound goes")
    parser.add_argument("--video-sound", action="store_true", help="hear the videos too, second by second")


def _files(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, list]:
    """Return the files of a question as `Chat.stream` takes them, once they look right."""
    files: dict[str, list] = {
        modality: [{"path": path} for path in getattr(options, modality)] for modality in MODALITIES
    }
    for modality in WITH_PICTURE:
        pictures = getattr(options, f"{modality}_picture")
        if len(pictures) > len(files[modality]):
            parser.error(f"--{modality}-picture needs a --{modality} it belongs to")
        for item, picture in zip(files[modality], pictures, strict=False):
            item["picture"] = picture
    if options.video_sound and not files["video"]:
        parser.error("--video-sound needs a --video to be heard")
    for item in files["video"] if options.video_sound else ():
        item["sound"] = True
    if not options.question.strip() and not any(files.values()):
        parser.error(f"{options.command}: a question or a file is needed")
    for modality, items in files.items():
        for item in items:
            MODALITIES[modality].check(item["path"])  # before seconds go into loading the model
    return {modality: items for modality, items in files.items() if items}


def _ask(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Print the answer, and nothing else, on standard output; where what it made was saved, on standard error."""
    files = _files(parser, options)
    _silence()
    from onellm.chat.load import load
    from onellm.chat.outputs.media import saved
    from onellm.chat.sampling import given

    chat = load(
        options.model,
        quantize=options.quantize,
        device_map="auto" if options.offload else None,
        generators=dict(options.generator),
    )
    chat.output_path = lambda name, _: options.out / name
    begun = False
    for piece in chat.stream(options.question, **vars(given(options)), **files):
        piece = piece if begun else piece.lstrip()
        begun = begun or bool(piece)
        print(piece, end="", flush=True)
    print(flush=True)
    for part in chat.generated:
        print(saved(part), file=sys.stderr, flush=True)
    return 0


def _compare(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Print the answers of two models, or of one whose weights are kept in two ways, as a table."""
    if options.other is None and options.with_quantize is None:
        parser.error("compare: --with MODEL or --with-quantize MODE is needed")
    files = _files(parser, options)
    _silence()
    from rich.console import Console

    from onellm.chat.compare import compare
    from onellm.chat.sampling import given
    from onellm.cli.tables import comparison

    ways = [(options.model, options.quantize), (options.other, options.with_quantize)]
    device_map = "auto" if options.offload else None
    answers = list(compare(ways, options.question, given(options), files, device_map, options.out))
    if all(answer.error for answer in answers):
        raise OneLLMError(answers[0].error)
    Console().print(comparison(answers))
    return 0


def _chat(options: argparse.Namespace) -> int:
    """Chat in the terminal: questions and files in, streamed answers out; /help lists the commands."""
    _silence()
    from onellm.chat.sampling import given
    from onellm.cli import chat

    device_map = "auto" if options.offload else None
    return chat.start(
        options.model,
        given(options),
        quantize=options.quantize,
        device_map=device_map,
        generators=dict(options.generator),
    )


def _models() -> int:
    """List the known models."""
    _silence()
    from onellm.cli import tables
    from onellm.hub import catalogue

    print(tables.catalogue(catalogue.asked(catalogue.entries())))
    return 0


def _convert(options: argparse.Namespace) -> int:
    """Print the folder a published checkpoint was turned into."""
    _silence()
    from onellm.hub.convert import convert

    chosen = {name: getattr(options, name) for name in ("tokenizer", "params", "llm", "preset")}
    print(convert(options.checkpoint, options.out, **chosen, progress=not options.quiet))
    return 0


def _bench(options: argparse.Namespace) -> int:
    """Print how fast the model answers on this machine."""
    _silence()
    from onellm.cli import bench

    print(
        bench.run(
            options.json,
            name=options.model,
            quantize=options.quantize,
            random_weights=options.random_weights,
            plain=options.plain,
        )
    )
    return 0


def _fail(text: str) -> int:
    """Say on one line of standard error why there is no answer."""
    print(" ".join(text.split()), file=sys.stderr)
    return 1


def _silence() -> None:
    """Keep the libraries' progress bars and warnings off the shell."""
    import logging
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
