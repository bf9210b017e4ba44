"""The drawer that asks two models, as HTML: the choice of the second one, and both answers in a table."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onellm.chat.compare import Answer, figure
from onellm.web.views.markup import button, escaped
from onellm.web.views.picker import progress_bar
from onellm.web.views.previews import made, refusal
from onellm.web.views.texts import say

if TYPE_CHECKING:
    from onellm.hub.catalogue import Entry, Option
    from onellm.serving.engine import Engine
    from onellm.web.session import Comparison


def form(engine: "Engine", comparison: "Comparison | None", language: str) -> str:
    """Return the choice of the second model, and the button that asks both or stops them.

    Args:
        engine: the app's; what is installed beside its model can be chosen.
        comparison: the one before, whose second model stays chosen; None before the first.
        language: of the texts.
    """
    hint = f'<p class="hint">{say(language, "compare.say", model=html.escape(engine.name))}</p>'
    running = comparison is not None and comparison.turn.stage != "done"
    before = (comparison.answers[1].model, comparison.answers[1].quantize) if comparison else None
    choices = [
        _choice(entry, option, (entry.name, option.quantize) == before, language)
        for entry in engine.entries
        for option in entry.options
        if entry.installed and option.able and (entry.name, option.quantize) != (engine.origin, engine.quantize)
    ]
    if not choices:
        return hint + f'<p class="hint">{say(language, "compare.none" if engine.entries else "picker.soon")}</p>'
    acts = ("end_compare", "stop") if running else ("compare", "compare.ask")
    return (
        f'{hint}<form class="compare" method="dialog" data-form><label><span>{say(language, "compare.with")}</span>'
        f'<select name="other"{" disabled" if running else ""}>{"".join(choices)}</select></label>'
        f"{button(acts[0], say(language, acts[1]))}</form>"
    )


def table(comparison: "Comparison", language: str, loading: "Engine | None" = None) -> str:
    """Return a comparison as far as it is.

    Args:
        comparison: the question and the answers so far.
        language: of the texts.
        loading: the engine of the second model while that is loaded.
    """
    turn, answers = comparison.turn, comparison.answers
    asked = " · ".join([turn.question, *(file.title for file in turn.files)])
    rows = [
        _row(say(language, "compare.weights"), answers, lambda answer: say(language, f"picker.mode.{answer.quantize}")),
        _row(say(language, "compare.answer"), answers, lambda answer: _said(answer, turn.stage == "done", language)),
        _row(say(language, "compare.first"), answers, lambda answer: figure(answer.first_word_s, "{:.2f} s")),
        _row(say(language, "compare.speed"), answers, lambda answer: figure(answer.tokens_per_s, "{:.0f}")),
    ]
    for file in dict.fromkeys(file for answer in answers for file in _nearest(answer)):
        label = say(language, "compare.nearest", name=escaped(file[0]))
        rows.append(_row(label, answers, lambda answer, file=file: escaped(", ".join(_nearest(answer).get(file, [])))))
    heads = "".join(f'<th scope="col">{escaped(Path(answer.model).name)}</th>' for answer in answers)
    state = progress_bar(loading, language) if loading is not None else escaped(turn.note)
    return (
        f'<div class="compared"><p>{escaped(asked)}</p><div class="hint" role="status">{state}</div>'
        f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _choice(entry: "Entry", option: "Option", chosen: bool, language: str) -> str:
    """Return a line of the list of second models; its value is the way, a space, the name."""
    mode, needed = say(language, f"picker.mode.{option.quantize}"), f"{option.memory_bytes / 1e9:.1f}"
    slow = f", {say(language, 'picker.slow')}" if option.slow else ""
    words = f"{escaped(Path(entry.name).name)}, {mode}, {say(language, 'picker.memory', needed=needed)}{slow}"
    value = html.escape(f"{option.quantize} {entry.name}")
    return f'<option value="{value}"{" selected" if chosen else ""}>{words}</option>'


def _row(label: str, answers: tuple[Answer, Answer], cell: Callable[[Answer], str]) -> str:
    """Return a row of the table: HTML of each answer below its model."""
    cells = "".join(f"<td>{cell(answer)}</td>" for answer in answers)
    return f'<tr><th scope="row">{label}</th>{cells}</tr>'


def _nearest(answer: Answer) -> dict[tuple[str, int], list[str]]:
    """Return the nearest words of each file, by its name and how many before it have the same."""
    names = [name for name, _ in answer.nearest]
    return {(name, names[:place].count(name)): words for place, (name, words) in enumerate(answer.nearest)}


def _said(answer: Answer, done: bool, language: str) -> str:
    """Return what a model said, or why it did not."""
    if answer.error:
        return refusal(answer.error)
    shown = escaped(answer.text) + "".join(made(thing, language) for thing in answer.generated)
    return shown or (say(language, "answer.empty") if done and answer.trace else "")
