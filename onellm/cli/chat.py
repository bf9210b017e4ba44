"""`python -m onellm chat`: files and questions in, streamed answers out; in a pipe it is plain text."""

import argparse
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from onellm.chat.chat import Chat
from onellm.chat.markdown import as_markdown
from onellm.chat.outputs.diffusion import add_options as add_generators
from onellm.chat.outputs.media import saved
from onellm.chat.sampling import HELP, Settings, given, parse
from onellm.chat.sampling import add_options as add_settings
from onellm.cli.inspect import load_first
from onellm.cli.tables import inside, progress_bar
from onellm.errors import OneLLMError
from onellm.hub.registry import add_options as add_model_options
from onellm.modalities import MODALITIES
from onellm.modalities.detect import recognise
from onellm.model.messages import by_modality
from onellm.utils.limits import LIMITS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the model and the settings of its answers to a parser."""
    add_model_options(parser)
    add_generators(parser)
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Chat in the terminal: questions and files in, streamed answers out; /help lists the commands."""
    console, errors = Console(), Console(stderr=True)
    from onellm.chat.load import load

    with progress_bar(errors) as on_progress:
        chat = load(
            options.model,
            llm=options.llm,
            quantize=options.quantize,
            device_map="auto" if options.offload else None,
            generators=dict(options.generator),
            on_progress=on_progress,
        )
    return Terminal(chat, given(options), console, errors).run()


class Leave(Exception):
    """Raised to end the chat."""


class Terminal:
    """A conversation at the terminal.

    Attributes:
        chat: the conversation.
        settings: options of the next answers.
        console: where answers go: standard output.
        errors: where everything else goes: standard error.
        files: content parts for the next question.
    """

    def __init__(self, chat: Chat, settings: Settings, console: Console, errors: Console):
        self.chat, self.settings, self.console, self.errors = chat, settings, console, errors
        self.files: list[dict] = []
        self.commands = {name.removeprefix("do_"): getattr(self, name) for name in vars(Terminal) if name[:3] == "do_"}

    def run(self) -> int:
        """Talk until the person leaves; returns the exit code."""
        if self.console.is_terminal:
            self.greet()
        with suppress(Leave, EOFError, KeyboardInterrupt):
            while True:
                self.handle(self.read())
        return 0

    def greet(self) -> None:
        """Say which model answers and what can be typed."""
        modalities = ", ".join(modality.title.lower() for modality in MODALITIES.values())
        lines = [
            self.chat.description,
            "",
            f"Ask about files of {len(MODALITIES)} kinds: {modalities}.",
            "Add one with /add FILE or drop it here, then type a question.  /help lists the commands.",
            "Ctrl-C stops an answer; /exit leaves.",
        ]
        self.console.print(Panel(Text("\n".join(lines)), title="OneLLM", title_align="left", border_style="cyan"))

    def read(self) -> str:
        """Return a typed line."""
        if not (self.console.is_terminal and sys.stdin.isatty()):
            return input()
        with suppress(ImportError):
            import readline  # noqa: F401  -- gives `input` its history
        hidden = "\001{}\002"  # readline does not count what stands between these
        return input(f"{hidden.format(chr(27) + '[1;36m')}you>{hidden.format(chr(27) + '[0m')} ")

    def handle(self, line: str) -> None:
        """Run the command of a typed line, or ask its question."""
        try:
            question, paths = split_files(line)
            name, _, rest = line.strip().partition(" ")
            if name.startswith("/") and not (paths and Path(name).is_file()):
                self.command(name[1:], rest.strip())
                return
            for path in paths:
                self.add(recognise(path), path)
            if question:
                self.answer(self.chat.stream(question, **vars(self.settings), **self.take()))
        except OneLLMError as error:
            self.errors.print(Text(" ".join(str(error).split()), style="red"), soft_wrap=True)

    def command(self, name: str, rest: str) -> None:
        """Run a command.

        Raises:
            OneLLMError: there is none of this name.
        """
        if name in MODALITIES:
            for path in _words(rest) or [""]:
                self.add([name], path)
        elif name in self.commands:
            self.commands[name](rest)
        else:
            raise OneLLMError(f"There is no command /{name}; /help lists them.")

    # Files.

    def add(self, modalities: list[str], path: str) -> None:
        """Add a file to the next question: the first kind that can read it."""
        if len(self.files) >= LIMITS.files_per_turn:
            raise OneLLMError(f"{LIMITS.files_per_turn} files fit one question; ask it, then add further ones.")
        if not path:
            raise OneLLMError(f"Which file? Type /{modalities[0]} FILE.")
        sample = load_first(modalities, path)
        others = [modality for modality in modalities if modality != sample.modality]
        self.files.append({"type": sample.modality, "path": path})
        self.errors.print(
            Text.assemble((f" {sample.modality} ", "reverse"), f" {sample.name}  ", (sample.summary, "dim"))
        )
        for note in sample.notes:
            self.errors.print(Text(f"  {note}", style="dim"))
        if others:
            also = " or ".join(f"/{modality} {shlex.quote(path)}" for modality in others)
            self.errors.print(Text(f"  it could be read otherwise: /drop, then {also}", style="dim"))

    def take(self) -> dict[str, list[dict]]:
        """Return the files for a question, which are then sent."""
        files, self.files = by_modality(self.files), []
        return files

    # Answers.

    def answer(self, texts: Iterator[str]) -> None:
        """Print an answer while it is generated."""
        with self.stoppable(), self.console.status("thinking…", spinner="dots") as status:
            for piece in texts:
                status.stop()  # twice is once
                self.console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
        self.console.print()
        for part in self.chat.generated:
            self.errors.print(Text(saved(part), style="dim"), soft_wrap=True)
        if self.chat.trace is not None and self.chat.trace.stopped:
            self.errors.print("stopped", style="dim")

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Let Ctrl-C end the answer, and a second one everything."""

        def stop(*_: Any) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.chat.stop()

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # Commands: their docstrings are their help.

    def do_add(self, rest: str) -> None:
        """FILE…  add files; their content tells which kind they are."""
        for path in _words(rest) or [""]:
            self.add(recognise(path) if path else ["add"], path)

    def do_drop(self, rest: str) -> None:
        """Take the files for the next question out again."""
        self.files = []

    def do_sound(self, rest: str) -> None:
        """Hear the last video's sound too, second by second, or no longer."""
        video = next((part for part in reversed(self.files) if part["type"] == "video"), None)
        if video is None:
            raise OneLLMError("There is no video to be heard; type /video FILE first.")
        video["sound"] = not video.get("sound")
        state = "its sound is heard too" if video["sound"] else "its sound is not heard"
        self.errors.print(Text(f"  {Path(video['path']).name}: {state}", style="dim"))

    def do_retry(self, rest: str) -> None:
        """Answer the last question again."""
        self.answer(self.chat.retry(**vars(self.settings)))

    def do_undo(self, rest: str) -> None:
        """Take the last question and its answer back."""
        if not self.chat.messages:
            raise OneLLMError("There is no question to take back; ask one first.")
        self.chat.undo()

    def do_new(self, rest: str) -> None:
        """Start a new conversation."""
        self.chat, self.files = self.chat.new(), []

    def do_save(self, rest: str) -> None:
        """FILE.md  write the conversation to a file."""
        path = Path(next(iter(_words(rest)), "conversation.md")).expanduser()
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(as_markdown(self.chat.messages, f"A conversation with {self.chat.name}", self.chat.name))
        except FileExistsError as error:
            raise OneLLMError(f"{path} is there already; give another name.") from error
        except OSError as error:
            raise OneLLMError(f"{path} cannot be written ({error.strerror}); give another name.") from error
        self.errors.print(Text(f"written to {path}", style="dim"))

    def do_settings(self, rest: str) -> None:
        """[NAME VALUE]  show the settings, or change one."""
        name, _, value = rest.partition(" ")
        if name:
            if name not in HELP:
                raise OneLLMError(f"There is no setting '{name}'; use one of {', '.join(HELP)}.")
            try:
                changed = parse(name, value.strip()) if value.strip() else getattr(Settings(), name)
                self.settings = replace(self.settings, **{name: changed})
            except argparse.ArgumentTypeError as error:
                raise OneLLMError(f"{name}: {error}.") from error
        table = Table("setting", "value", "what it does", box=None)
        for key, (_, words) in HELP.items():
            table.add_row(key, escape(str(getattr(self.settings, key))), words)
        self.console.print(table)

    def do_inside(self, rest: str) -> None:
        """Show what the model did for the last answer."""
        if self.chat.trace is None:
            raise OneLLMError("There is no answer to look into yet; ask something first.")
        self.console.print(inside(self.chat.trace))

    def do_help(self, rest: str) -> None:
        """List the commands."""
        table = Table(box=None, show_header=False)
        table.add_row(f"/{' /'.join(MODALITIES)}", "FILE…  add files of a kind")
        for name, command in self.commands.items():
            table.add_row(f"/{name}", escape(command.__doc__ or ""))
        self.console.print(table)

    def do_exit(self, rest: str) -> None:
        """Leave."""
        raise Leave


def split_files(line: str) -> tuple[str, list[str]]:
    """Take the files out of a line, which a terminal types, quoted, when they are dropped on it.

    Returns:
        The rest of the line, and the paths.
    """
    paths, rest = [], line
    for word in re.findall(r"""'[^']+'|"[^"]+"|(?:\\.|\S)+""", line):
        path = next(iter(_words(word)), "")
        if path.lower().endswith(tuple(s for m in MODALITIES.values() for s in m.suffixes)) and Path(path).is_file():
            paths.append(path)
            rest = rest.replace(word, "", 1)
    return " ".join(rest.split()) if paths else line.strip(), paths


def _words(text: str) -> list[str]:
    """Split typed paths; quotes, escaped spaces and file URLs are as terminals write them."""
    try:
        words = shlex.split(text)
    except ValueError:  # an apostrophe is not a quote
        words = text.split()
    return [unquote(urlsplit(word).path) if word.startswith("file://") else word for word in words]
