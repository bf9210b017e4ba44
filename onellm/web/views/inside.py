"""Look inside: what the model did for an answer, for people who have never seen the inside of one.

HTML without a script. Bars are drawings of numbers that stand beside them as text.
"""

from onellm.chat.trace import FileTrace, Trace
from onellm.modalities import MODALITIES
from onellm.web.views.markup import render, seconds
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
    counts: dict[str, int] = {}
    for segment in trace.segments:
        counts[segment.kind] = counts.get(segment.kind, 0) + segment.tokens
    files: list[FileTrace] = []
    for file in trace.files:
        if file not in files:
            files.append(file)
    steps = [(step, getattr(trace.timings, f"{step}_s")) for step in STEPS]
    steps = [(step, took_s) for step, took_s in steps if took_s >= TINY_S]
    return render(
        "inside",
        language=language,
        trace=trace,
        counts=counts,
        files=files,
        steps=steps,
        tokens_by_kind=", ".join(f"{_kind(modality, language)} {count}" for modality, count in counts.items()),
        seconds_by_step=", ".join(
            f"{say(language, f'inside.time.{step}')} {seconds(took_s)}" for step, took_s in steps
        ),
        times=_times(trace, language),
        modalities=MODALITIES,
        kind=_kind,
        colour=_colour,
        windows=_windows,
        transposed=lambda rows: zip(*rows, strict=True),
        shade=_shade,
    )


def reading(trace: Trace, language: str) -> str:
    """Say which files of the last question were too long for one look, and what was done; or nothing."""
    fresh = [segment.file for segment in trace.segments if segment.file is not None and not segment.cached]
    files = [trace.files[index] for index in fresh if trace.files[index].windows]
    return " ".join(_windows(file, language) for file in files)


def _windows(file: FileTrace, language: str) -> str:
    """Say which windows a long file was read in, and what its soft tokens were merged into."""
    (start, first), (_, stop) = file.windows[0], file.windows[-1]
    count, windows = len(file.sizes) * file.window_words, len(file.windows)
    values = {"count": count, "words": windows * file.window_words, "windows": windows}
    text = "inside.windows" if values["words"] > count else "inside.windows.all"
    span = {"start": f"{start:g}", "stop": f"{stop:g}", "each": f"{first - start:.2g}"}
    return say(language, text, name=file.name, **values, **span)


def _times(trace: Trace, language: str) -> str:
    """Say how fast the answer came, and how it was sampled."""
    settings, first = trace.settings, seconds(trace.timings.first_token_s)
    sampled = settings.get("temperature", 0)
    if trace.tokens_per_s:
        sentences = [say(language, "inside.times.say", first=first, speed=_rate(trace.tokens_per_s))]
    else:
        sentences = [say(language, "inside.times.say.one", first=first)]
    values = {"model": trace.model, "most": settings.get("max_new_tokens", "–")}
    values |= {"temperature": sampled, "top_p": settings.get("top_p", 1)}
    sentences.append(say(language, f"inside.settings.{'drawn' if sampled else 'likeliest'}", **values))
    if sampled and settings.get("seed") is not None:
        sentences.append(say(language, "inside.settings.seed", seed=settings["seed"]))
    if trace.stopped:
        sentences.append(say(language, "inside.stopped"))
    return " ".join(sentences)


def _kind(modality: str, language: str) -> str:
    """Return the name of a segment's kind, "?" for one of another version."""
    if modality in ("template", "system", "question", "answer"):
        return say(language, f"inside.kind.{modality}")
    return say(language, f"kind.{modality}") if modality in MODALITIES else "?"


def _colour(modality: str) -> str:
    """Return the class that colours a modality."""
    return f"k-{modality if modality in MODALITIES or modality in ('system', 'question', 'answer') else 'template'}"


def _shade(weight: float, least: float, most: float) -> float:
    """Return how dark a weight's cell is, `FAINT` to 1."""
    return FAINT + (1 - FAINT) * ((weight - least) / (most - least) if most > least else 1.0)


def _rate(per_s: float) -> str:
    """Return a rate with a digit after the point below 10."""
    return f"{per_s:.1f}" if per_s < 9.95 else f"{per_s:.0f}"
