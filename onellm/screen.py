"""What the terminal chat shows: how far loading is, and what the model did."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from onellm.progress import Progress
from onellm.trace import FileTrace, Trace

BAR_CHARACTERS = 20


@contextmanager
def progress_bar(console: Console) -> Iterator[Any]:
    """Show how far loading is; yields what is to be told."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("loading", total=None)

        def tell(progress: Progress) -> None:
            what = escape(f"{progress.what} {progress.detail}".strip())
            bars.update(task, description=what, completed=progress.done, total=progress.total or None)

        yield tell


def inside(trace: Trace) -> Table:
    """Show a trace: the prompt, what became of each file, and how long it took."""
    table = Table(box=None, show_header=False, title=escape(trace.model), title_justify="left")
    table.add_row("prompt", f"{trace.prompt_tokens} tokens, {trace.cached_tokens} of them remembered")
    for segment in trace.segments:
        table.add_row("", Text.assemble(f"{segment.tokens:>5} ", (f"{segment.kind:<9}", "cyan"), segment.text))
    for file in trace.files:
        table.add_row(file.kind, Text(f"{file.name}: {' × '.join(map(str, file.shape))} values, {file.tokens} tokens"))
        for number, weight in enumerate(file.experts, 1):
            bar = "█" * round(weight * BAR_CHARACTERS)
            table.add_row(
                "", Text.assemble(f"expert {number} ", (f"{bar:<{BAR_CHARACTERS}}", "cyan"), f" {weight:.2f}")
            )
        if file.words:
            table.add_row("", Text(f"nearest words: {_nearest(file)}"))
    spent = {name.removesuffix("_s"): seconds for name, seconds in vars(trace.timings).items()}
    table.add_row("seconds", ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items()))
    table.add_row("answer", f"{trace.new_tokens} tokens, {trace.tokens_per_s:.0f} a second")
    return table


def _nearest(file: FileTrace) -> str:
    """Return the nearest word of each soft word, once."""
    return ", ".join(dict.fromkeys(words[0][0] for words in file.words if words))
