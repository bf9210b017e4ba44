"""The shell: `python -m onellm ask | compare | chat | inspect | serve | models | convert | bench`.

Exit codes: 0 answered, 1 a user-facing error (one line on standard error), 2 usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from onellm.errors import OneLLMError
from onellm.utils import limits

COMMANDS = {
    "ask": "ask one question, about files or not",
    "compare": "ask two models the same question",
    "chat": "chat in the terminal",
    "inspect": "show what a file is taken for and what a model gets of it",
    "serve": "start the web app, as app.py does",
    "models": "list the models that are here or could be, their size and the memory they need",
    "convert": "turn a published checkpoint into a model folder",
    "bench": "measure how fast the model answers here",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; the process's own if None.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        limits.check()
        options = parser_for(arguments[0] if arguments else "").parse_args(arguments)
        if options.command not in ("inspect", "serve"):
            _silence()
        return options.run(options) or 0
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


def parser_for(command: str) -> argparse.ArgumentParser:
    """Describe the commands, and the options of the one that is used: only its modules are imported."""
    parser = argparse.ArgumentParser(prog="python -m onellm", description=sys.modules["onellm"].__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar=" | ".join(COMMANDS))
    for name, text in COMMANDS.items():
        if name != command:
            commands.add_parser(name, help=text)
            continue
        module = import_module("onellm.serve" if name == "serve" else f"onellm.cli.{name}")
        one = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_options(one)
        one.set_defaults(run=module.run, parser=one)
    return parser


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
