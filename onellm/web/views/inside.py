"""Look inside: what the model did for an answer, for people who have never seen the inside of one.

HTML without a script. Bars are drawings of numbers that stand beside them as text.
"""

import html
from collections.abc import Iterable

from onellm.chat.trace import FileTrace, Segment, Trace
from onellm.modalities import MODALITIES
from onellm.web.views import icons
from onellm.web.views.texts import say

FAINT = 0.15  # of the darkest cell of a heat map: the palest is to be seen too
STEPS = ("wait", "read", "encode", "prefill", "generate")
TINY_S = 0.005  # steps below it are left out


def panel(trace: Trace, language: str) -> str:
    """Return the panel below an answer, closed.

    Args:
        trace: what the model did.
        language: of the texts.
    """
    short = say(
        language,
        "inside.short",
        prompt=trace.prompt_tokens,
        new=trace.new_tokens,
        seconds=_seconds(trace.timings.total_s),
    )
    sections = [_sequence(trace, language), *_files(trace, language), _times(trace, language)]
    return (
        f'<details class="inside"><summary>{say(language, "inside.title")}<small>{short}</small></summary>'
        f"{''.join(sections)}</details>"
    )


def _sequence(trace: Trace, language: str) -> str:
    """Show the prompt as a row of segments, as wide as they have tokens."""
    row = "".join(_segment(segment, language) for segment in trace.segments)
    counts: dict[str, int] = {}
    for segment in trace.segments:
        counts[segment.kind] = counts.get(segment.kind, 0) + segment.tokens
    pieces = ", ".join(f"{_kind(modality, language)} {count}" for modality, count in counts.items())
    legend = "".join(
        f'<li class="{_colour(modality)}"><i></i>{_kind(modality, language)} '
        f"<b>{say(language, 'inside.tokens', count=count)}</b></li>"
        for modality, count in counts.items()
    )
    words = say(language, "inside.sequence.say", prompt=trace.prompt_tokens)
    if trace.cached_tokens:
        words += " " + say(language, "inside.sequence.cached", cached=trace.cached_tokens)
    label = say(language, "inside.sequence.label", pieces=pieces)
    return _section(
        say(language, "inside.sequence"),
        words,
        f'<div class="inside-row" role="img" aria-label="{label}">{row}</div><ul class="inside-legend">{legend}</ul>'
        + _table(trace, language),
    )


def _segment(segment: Segment, language: str) -> str:
    """Show a segment; what came from the cache is striped."""
    title = f"{_kind(segment.kind, language)}: {html.escape(segment.text)} ({segment.tokens})"
    return "".join(
        f'<span class="{_colour(segment.kind)}{stripes}" style="flex-grow:{count}" title="{title}"></span>'
        for count, stripes in ((segment.cached, " cached"), (segment.tokens - segment.cached, ""))
        if count > 0
    )


def _table(trace: Trace, language: str) -> str:
    """List all segments."""
    rows = "".join(
        f'<tr class="{_colour(segment.kind)}"><td><i></i>{_kind(segment.kind, language)}</td>'
        f"<td>{html.escape(segment.text)}</td><td>{segment.tokens}</td><td>{segment.cached or ''}</td></tr>"
        for segment in trace.segments
    )
    head = "".join(f'<th scope="col">{say(language, f"inside.{name}")}</th>' for name in ("count", "cached"))
    return (
        f'<details class="inside-more"><summary>{say(language, "inside.sequence.table")}</summary>'
        f'<div class="inside-scroll" tabindex="0"><table class="inside-table"><thead><tr><th colspan="2" scope="col">'
        f"{say(language, 'inside.piece')}</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _files(trace: Trace, language: str) -> Iterable[str]:
    """Show what became of the files, each once."""
    shown: list[FileTrace] = []
    for file in trace.files:
        if file not in shown:
            shown.append(file)
    if shown:
        files = "".join(_file(file, language) for file in shown)
        yield _section(say(language, "inside.files"), say(language, "inside.files.say"), files)


def _file(file: FileTrace, language: str) -> str:
    """Show the way of one file."""
    name, modality = html.escape(file.name), _kind(file.modality, language)
    tokens = say(language, "inside.flow.tokens.frames", tokens=file.tokens, frames=file.frames)
    steps = (
        ("file", modality),
        ("tensor", " × ".join(map(str, file.shape))),
        ("tokens", tokens if file.frames > 1 else file.tokens),
        ("encoder", say(language, "inside.flow.encoder.one")),
        ("experts", len(file.experts)),
        ("words", len(file.router)),
    )
    flow = "".join(
        f"<li><b>{say(language, f'inside.flow.{step}')}</b><span>{value}</span></li>" for step, value in steps
    )
    label = say(language, "inside.flow", name=name)
    took = {name: _seconds(getattr(file, f"{name}_s")) for name in ("read", "encode", "project")}
    times = f"<small>{say(language, 'inside.file.times', **took)}</small>"
    cut = f"<p>{_windows(file, language)}</p>" if file.windows else ""
    parts = [_experts(file, language), _heat(file, language), _words(file, language)] if file.router else []
    return (
        f'<div class="inside-file {_colour(file.modality)}"><h5>{_icon(file.modality)}{name}{times}</h5>'
        f'<ol class="inside-flow" aria-label="{label}">{flow}</ol>{cut}{"".join(parts)}</div>'
    )


def reading(trace: Trace, language: str) -> str:
    """Say in words which files of the last question were too long for one look, and what was done; or nothing."""
    fresh = [segment.file for segment in trace.segments if segment.file is not None and not segment.cached]
    files = [trace.files[place] for place in fresh if trace.files[place].windows]
    return " ".join(html.unescape(_windows(file, language)) for file in files)


def _windows(file: FileTrace, language: str) -> str:
    """Say which windows a long file was read in, and what its soft tokens were merged into."""
    (start, first), (_, stop) = file.windows[0], file.windows[-1]
    count, windows = len(file.sizes) * file.window_words, len(file.windows)
    values = {"count": count, "words": windows * file.window_words, "windows": windows}
    text = "inside.windows" if values["words"] > count else "inside.windows.all"
    seconds = {"start": f"{start:g}", "stop": f"{stop:g}", "each": f"{first - start:.2g}"}
    return say(language, text, name=html.escape(file.name), **values, **seconds)


def _experts(file: FileTrace, language: str) -> str:
    """Show the experts' mean weights as bars."""
    rows = "".join(
        f'<tr><th scope="row">{say(language, "inside.expert", number=number)}</th>'
        f'<td class="inside-bar"><i style="width:{100 * weight:.1f}%"></i></td><td>{weight:.0%}</td></tr>'
        for number, weight in enumerate(file.experts, 1)
    )
    return (
        f"<h6>{say(language, 'inside.experts')}</h6><p>{say(language, 'inside.experts.say')}</p>"
        f'<table class="inside-experts"><tbody>{rows}</tbody></table>'
    )


def _heat(file: FileTrace, language: str) -> str:
    """Show the weights soft token by soft token, from the palest to the darkest."""
    weights = [weight for row in file.router for weight in row]
    least, most = min(weights), max(weights)
    rows = []
    for number, row in enumerate(zip(*file.router, strict=True), 1):
        cells = "".join(
            f'<td style="--heat:{FAINT + (1 - FAINT) * _share(weight - least, most - least):.2f}" '
            f'title="{say(language, "inside.word", number=word)}: {weight:.0%}">'
            f'<span class="inside-unseen">{weight:.0%}</span></td>'
            for word, weight in enumerate(row, 1)
        )
        rows.append(f'<tr><th scope="row">{say(language, "inside.expert", number=number)}</th>{cells}</tr>')
    scale = say(language, "inside.heat.scale", least=f"{least:.0%}", most=f"{most:.0%}")
    caption = f"{say(language, 'inside.heat')} ({scale})"
    return f'<table class="inside-heat"><caption>{caption}</caption><tbody>{"".join(rows)}</tbody></table>'


def _words(file: FileTrace, language: str) -> str:
    """Show the words that the soft tokens are made of."""
    title = f"<h6>{say(language, 'inside.words')}</h6>"
    if not file.words:
        return f"{title}<p>{say(language, 'inside.words.none')}</p>"
    chips = []
    for near in file.words:
        first, *others = [(html.escape(word) or "␣", weight) for word, weight in near]
        more = "".join(f"<small>{word} {weight:.0%}</small>" for word, weight in others if weight >= 0.01)
        chips.append(f"<li><b>{first[0]}</b> {first[1]:.0%}{more}</li>")
    return f'{title}<p>{say(language, "inside.words.say")}</p><ol class="inside-words">{"".join(chips)}</ol>'


def _times(trace: Trace, language: str) -> str:
    """Show the seconds as one bar, step by step."""
    timings, drawn = trace.timings, trace.settings.get("temperature", 0)
    steps = [(step, getattr(timings, f"{step}_s")) for step in STEPS]
    steps = [(step, took_s) for step, took_s in steps if took_s >= TINY_S]
    bar = "".join(f'<span class="t-{step}" style="flex-grow:{took_s:.3f}"></span>' for step, took_s in steps)
    named = [(step, say(language, f"inside.time.{step}"), _seconds(took_s)) for step, took_s in steps]
    legend = "".join(
        f'<li class="t-{step}"><i></i>{name} <b>{say(language, "inside.seconds", seconds=took)}</b></li>'
        for step, name, took in named
    )
    total = say(language, "inside.seconds", seconds=_seconds(timings.total_s))
    legend += f"<li>{say(language, 'inside.time.total')} <b>{total}</b></li>"
    label = say(language, "inside.times.label", pieces=", ".join(f"{name} {took}" for _, name, took in named))
    first = _seconds(timings.first_token_s)
    if trace.tokens_per_s:
        words = [say(language, "inside.times.say", first=first, speed=_rate(trace.tokens_per_s))]
    else:
        words = [say(language, "inside.times.say.one", first=first)]
    settings = {"model": trace.model, "most": "–", "top_p": 1} | {
        {"max_new_tokens": "most"}.get(name, name): value for name, value in trace.settings.items()
    }
    settings = {name: html.escape(str(value)) for name, value in settings.items()}
    words.append(say(language, f"inside.settings.{'drawn' if drawn else 'likeliest'}", **settings))
    if drawn and trace.settings.get("seed") is not None:
        words.append(say(language, "inside.settings.seed", seed=settings["seed"]))
    if trace.stopped:
        words.append(say(language, "inside.stopped"))
    return _section(
        say(language, "inside.times"),
        " ".join(words),
        f'<div class="inside-row" role="img" aria-label="{label}">{bar}</div><ul class="inside-legend">{legend}</ul>',
    )


def _section(title: str, words: str, content: str) -> str:
    return f"<section><h4>{title}</h4><p>{words}</p>{content}</section>"


def _kind(modality: str, language: str) -> str:
    """Return the name of a segment's kind."""
    known = modality in ("template", "system", "question", "answer")
    return (
        say(language, f"inside.kind.{modality}" if known else f"kind.{modality}")
        if known or modality in MODALITIES
        else "?"
    )


def _colour(modality: str) -> str:
    """Return the class that colours a modality."""
    return f"k-{modality if modality in MODALITIES or modality in ('system', 'question', 'answer') else 'template'}"


def _icon(modality: str) -> str:
    return icons.svg(modality) if modality in MODALITIES else ""


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 1.0


def _seconds(seconds: float) -> str:
    """Return seconds with two digits after the point below 10."""
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def _rate(per_s: float) -> str:
    """Return a rate with a digit after the point below 10."""
    return f"{per_s:.1f}" if per_s < 9.95 else f"{per_s:.0f}"
