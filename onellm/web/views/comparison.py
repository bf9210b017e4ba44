"""The drawer that asks two models, as HTML: the choice of the second one, and both answers in a table."""

from typing import TYPE_CHECKING

from onellm.chat.compare import Answer
from onellm.web.views.markup import render
from onellm.web.views.picker import model_id, progress_bar

if TYPE_CHECKING:
    from onellm.serving.engine import Engine
    from onellm.web.session import Comparison


def form(engine: "Engine", comparison: "Comparison | None", language: str) -> str:
    """Return the choice of the second model, and the button that asks both or stops them.

    Args:
        engine: the app's; what is installed beside its model can be chosen.
        comparison: the one before, whose second model stays chosen; None before the first.
        language: of the texts.
    """
    choices = [
        (entry, option)
        for entry in engine.entries
        for option in entry.options
        if entry.installed and option.able and (entry.name, option.quantize) != (engine.origin, engine.quantize)
    ]
    return render(
        "comparison_form",
        language=language,
        engine=engine,
        model_id=model_id,
        choices=choices,
        before=(comparison.answers[1].model, comparison.answers[1].quantize) if comparison else None,
        running=comparison is not None and comparison.turn.stage != "done",
    )


def table(comparison: "Comparison", language: str, loading: "Engine | None" = None) -> str:
    """Return a comparison as far as it is.

    Args:
        comparison: the question and the answers so far.
        language: of the texts.
        loading: the engine of the second model while that is loaded.
    """
    turn, answers = comparison.turn, comparison.answers
    return render(
        "comparison_table",
        language=language,
        answers=answers,
        asked=[turn.question, *(file.title for file in turn.files)],
        done=turn.stage == "done",
        state=turn.note if loading is None else progress_bar(loading, language),
        files=dict.fromkeys(file for answer in answers for file in _nearest(answer)),
        nearest=_nearest,
    )


def _nearest(answer: Answer) -> dict[tuple[str, int], list[str]]:
    """Return the words nearest to each file's soft tokens, by its name and how many before it have the same name."""
    names = [name for name, _ in answer.nearest]
    return {(name, names[:index].count(name)): nearest for index, (name, nearest) in enumerate(answer.nearest)}
