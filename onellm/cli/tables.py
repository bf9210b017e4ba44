"""What a terminal shows: how far loading is, what a model did, two answers side by side, which models there are."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from onellm.chat.compare import Answer, figure
from onellm.chat.outputs.media import saved
from onellm.chat.trace import Trace
from onellm.hub.catalogue import Entry
from onellm.model.runtime.quantization import CPU_MODES
from onellm.utils.progress import Progress

BAR_CHARACTERS = 20
_SIGNS = {
    "!": "! more memory than the {free:.1f} GB that are free",
    "*": "* very slow on a CPU",
    "-": "- not possible on this machine",
}


@contextmanager
def progress_bar(console: Console) -> Iterator[Any]:
    """Show how far loading is; yields the function that is to be called with each `Progress`."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("loading", total=None)

        def on_progress(progress: Progress) -> None:
            what = escape(f"{progress.what} {progress.detail}".strip())
            bars.update(task, description=what, completed=progress.done, total=progress.total or None)

        yield on_progress


def inside(trace: Trace) -> Table:
    """Show a trace: the prompt, what became of each file, and how long it took."""
    table = Table(box=None, show_header=False, title=escape(trace.model), title_justify="left")
    table.add_row("prompt", f"{trace.prompt_tokens} tokens, {trace.cached_tokens} of them remembered")
    for segment in trace.segments:
        table.add_row("", Text.assemble(f"{segment.tokens:>5} ", (f"{segment.kind:<9}", "cyan"), segment.text))
    for file in trace.files:
        table.add_row(
            file.modality, Text(f"{file.name}: {' × '.join(map(str, file.shape))} values, {file.tokens} tokens")
        )
        for number, weight in enumerate(file.experts, 1):
            bar = "█" * round(weight * BAR_CHARACTERS)
            table.add_row(
                "", Text.assemble(f"expert {number} ", (f"{bar:<{BAR_CHARACTERS}}", "cyan"), f" {weight:.2f}")
            )
        if file.words:
            table.add_row("", Text(f"nearest words: {', '.join(file.nearest)}"))
    spent = {name.removesuffix("_s"): seconds for name, seconds in vars(trace.timings).items()}
    table.add_row("seconds", ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items()))
    table.add_row("answer", f"{trace.new_tokens} tokens, {trace.tokens_per_s:.0f} a second")
    return table


def comparison(answers: Iterable[Answer]) -> Table:
    """Show answers of two models side by side."""
    answers = list(answers)
    table = Table("", *(escape(Path(answer.model).name) for answer in answers), show_lines=True)
    table.add_row("weights", *(answer.quantize for answer in answers))
    lines = ([answer.text or answer.error, *map(saved, answer.generated)] for answer in answers)
    table.add_row("answer", *(Text("\n".join(filter(None, parts)), overflow="fold") for parts in lines))
    table.add_row("first word", *(figure(answer.first_word_s, "{:.2f} s") for answer in answers))
    table.add_row("tokens a second", *(figure(answer.tokens_per_s, "{:.0f}") for answer in answers))
    if any(answer.nearest for answer in answers):
        nearest = ("; ".join(f"{name}: {', '.join(words)}" for name, words in answer.nearest) for answer in answers)
        table.add_row("soft tokens are near", *map(Text, nearest))
    return table


def catalogue(entries: Iterable[Entry]) -> str:
    """List models as plain columns, what cannot be had or does not fit marked and explained below."""
    rows = [("model", "state", "size", *CPU_MODES, "where")]
    marks: dict[str, str] = {}
    for entry in entries:
        cells = []
        for option in entry.options:
            mark = {"memory": "!", "device": "-"}.get(option.why, "*" if option.slow else "")
            marks |= {mark: _SIGNS[mark].format(free=option.free_bytes / 1e9)} if mark else {}
            cells.append(f"{option.memory_bytes / 1e9:.1f} GB{mark}" if option.memory_bytes else mark)
        state = "installed" if entry.installed else "by hand" if entry.command else "available"
        about = "" if entry.installed or entry.told else "about "
        size = f"{about}{entry.size_bytes / 1e9:.1f} GB" if entry.size_bytes else ""
        where = str(entry.folder or entry.command or entry.source)
        rows.append((entry.name, state, size, *cells, where + (" (no answer)" if entry.why == "hub" else "")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *([""] if marks else []), *marks.values()])
