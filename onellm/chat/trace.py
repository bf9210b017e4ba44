"""What the model did for one answer: the prompt in its order, what became of each file, and how long it took.

It is plain data, so that conversations can be kept in a browser, exported and sent between processes.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Annotated, Any

from pydantic import AliasChoices, Field

from onellm.errors import OneLLMError
from onellm.model.messages import is_file, name_of

NEAREST = 3  # words shown for a soft token
SHORT = 48  # characters of a segment's text that are kept


@dataclass
class Segment:
    """A piece of the prompt.

    Attributes:
        kind: "template" (delimiters and text that the model's format adds), "system", "question", "answer", or the
            modality of a file.
        text: its beginning, or the file's name.
        tokens: positions it takes.
        cached: of these, how many were still in the key-value cache and did not run again.
        file: which of the trace's files it is; None for text.
    """

    kind: str
    text: str
    tokens: int
    cached: int = 0
    file: int | None = None


@dataclass
class FileTrace:
    """What became of a file.

    Attributes:
        modality: its modality.
        name: the file's name.
        shape: of the tensor it was read as.
        tokens: N, the tokens of each frame.
        frames: how often; 1 for what has no frames.
        router: [M, K], the weight of each expert in each soft token; every row sums to 1.
        words: for each of the M soft tokens the nearest words of the LLM with their weights; empty for a model
            without a vocabulary anchor.
        read_s: seconds to read and prepare the file.
        encode_s: seconds in tokenizer and encoder.
        project_s: seconds in the projection.
        windows: start and end, in seconds, of each window that a long file was read in; empty for others.
        sizes: for each window whose soft tokens remain, how many windows were merged into it; `router` and `words`
            are of what remains.
        window_words: soft tokens of one window.
        findings: what experts found in it besides, see `experts.Finding.as_json`.
    """

    modality: Annotated[str, Field(validation_alias=AliasChoices("modality", "kind"))]  # "kind" in older exports
    name: str
    shape: list[int]
    tokens: int = 0
    frames: int = 1
    router: list[list[float]] = field(default_factory=list)
    words: list[list[tuple[str, float]]] = field(default_factory=list)
    read_s: float = 0.0
    encode_s: float = 0.0
    project_s: float = 0.0
    windows: list[tuple[float, float]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    window_words: int = 0
    findings: list[dict] = field(default_factory=list)

    @property
    def nearest(self) -> list[str]:
        """The nearest word of each soft token, once, without punctuation."""
        nearest = dict.fromkeys(words[0][0] for words in self.words if words)
        return [word for word in nearest if any(map(str.isalnum, word))]

    @property
    def experts(self) -> list[float]:
        """[K], the weight of each expert, averaged over the soft tokens."""
        return [sum(weights) / len(weights) for weights in zip(*self.router, strict=True)]


@dataclass
class Timings:
    """Seconds of an answer, one after the other.

    Attributes:
        wait_s: for the model to be free.
        read_s: reading new files.
        encode_s: turning them into soft tokens.
        prefill_s: reading the prompt, up to the first token.
        generate_s: all further tokens.
    """

    wait_s: float = 0.0
    read_s: float = 0.0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    generate_s: float = 0.0

    @property
    def first_token_s(self) -> float:
        """From the question to the first token."""
        return self.total_s - self.generate_s

    @property
    def total_s(self) -> float:
        """From the question to the last token."""
        return sum(vars(self).values())


@dataclass
class Trace:
    """What the model did for one answer.

    Attributes:
        model: its name.
        segments: the prompt, in order.
        files: those the prompt holds, in order.
        new_tokens: tokens generated, the one that ends an answer among them.
        stopped: whether somebody stopped it.
        settings: what it was asked with.
    """

    model: str = ""
    segments: list[Segment] = field(default_factory=list)
    files: list[FileTrace] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)
    new_tokens: int = 0
    stopped: bool = False
    settings: dict[str, int | float | str | None] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        """Positions of the prompt."""
        return sum(segment.tokens for segment in self.segments)

    @property
    def cached_tokens(self) -> int:
        """Of these, how many did not run again."""
        return sum(segment.cached for segment in self.segments)

    @property
    def tokens_per_s(self) -> float:
        """Speed once the first token was there; 0 for an answer of one token."""
        return (self.new_tokens - 1) / self.timings.generate_s if self.timings.generate_s > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the trace as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Any) -> "Trace":
        """Read what `to_dict` returned.

        Raises:
            OneLLMError: it is something else.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            trace = TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]
            where = ".".join(map(str, reason["loc"]))
            raise cls._unreadable(f"{where}: {reason['msg']}") from error
        for file in trace.files:
            if len({len(row) for row in file.router}) > 1 or not all([*file.router, *file.words]):
                raise cls._unreadable(f"the weights of {file.name} are no table")
        return trace

    @staticmethod
    def _unreadable(reason: str) -> OneLLMError:
        return OneLLMError(f"The trace of an answer cannot be read ({reason}); export the conversation again.")


def segments(runs: list[tuple[str | dict, list[int]]], roles: dict[int, str], cached: int) -> list[Segment]:
    """Describe a prompt.

    Args:
        runs: pieces with their token ids, from `OneLLMProcessor.runs`.
        roles: `id` of a content part of text -> role of its message.
        cached: positions at the start that the key-value cache holds.
    """
    found: list[Segment] = []
    files = 0
    for piece, ids in runs:
        if not ids:
            continue
        kept = min(cached, len(ids))
        cached -= kept
        if is_file(piece):
            found.append(Segment(piece["type"], name_of(piece), len(ids), kept, files))
            files += 1
            continue
        typed = isinstance(piece, dict)
        role = roles.get(id(piece), "user") if typed else "template"
        kind = {"user": "question", "assistant": "answer"}.get(role, role)
        text = shorten(piece.get("text", piece["type"]) if typed else piece)
        if not typed and found and found[-1].kind == kind:
            last = found[-1]
            last.text, last.tokens, last.cached = (
                shorten(f"{last.text} {text}"),
                last.tokens + len(ids),
                last.cached + kept,
            )
        else:
            found.append(Segment(kind, text, len(ids), kept))
    return found


def shorten(text: str) -> str:
    """Return the beginning of a text, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= SHORT else text[: SHORT - 1].rstrip() + "…"


@contextmanager
def watch(model: Any, tokenizer: Any, trace: FileTrace) -> Iterator[None]:
    """Note in `trace` what the model does with a file while the block runs; nothing runs twice for it.

    Args:
        model: a `OneLLMForConditionalGeneration`; its modules get hooks, which are gone after the block.
        tokenizer: the LLM's, for the nearest words.
        trace: of the one file that is encoded meanwhile.
    """
    projector, modality = model.projector, trace.modality
    begun_s = _now_s(model)

    def tokenized(module: Any, _: Any, tokens: Any) -> None:  # [1, N, D], or [1, T, N, D]
        trace.tokens, trace.frames = tokens.shape[-2], tokens.shape[1] if tokens.dim() == 4 else 1

    def projecting(*_: Any) -> None:
        trace.encode_s = _now_s(model) - begun_s

    # of a file that is read in windows, each of these sees one window or several, in their order

    def routed(module: Any, _: Any, weights: Any) -> None:  # [W, M, K]
        trace.router += weights.flatten(0, 1).float().tolist()

    def anchored(module: Any, _: Any, weights: Any) -> None:  # [W, M, size]
        best = weights.flatten(0, 1).float().topk(min(NEAREST, weights.shape[-1]))
        trace.words += [
            [(projector.anchor.name(index, tokenizer), weight) for index, weight in zip(*row, strict=True)]
            for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def merged(module: Any, given: Any, output: Any) -> None:  # [W, M, D]
        trace.sizes, each = output[1], given[0].shape[1]
        trace.window_words = each
        runs = [size * each for size in trace.sizes]
        if trace.router:  # a router that does not see its input gives one row for all windows
            rows = trace.router * (sum(runs) // len(trace.router))
            alike = [run[index::each] for run in _runs(rows, runs) for index in range(each)]
            trace.router = [[sum(weights) / len(run) for weights in zip(*run, strict=True)] for run in alike]
        if trace.words:  # windows that were merged are alike
            trace.words = [row for run in _runs(trace.words, runs) for row in run[:each]]

    hooks = [
        model.tokenizer_for(modality).register_forward_hook(tokenized),
        projector.register_forward_pre_hook(projecting),
    ]
    if hasattr(model, "merging"):
        hooks.append(model.merging.register_forward_hook(merged))
    if hasattr(projector, "routers"):
        hooks.append(projector.routers[modality].register_forward_hook(routed))
    if getattr(projector, "anchor", None) is not None:
        hooks.append(projector.anchor.softmax.register_forward_hook(anchored))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    trace.project_s = _now_s(model) - begun_s - trace.encode_s


def _runs(rows: list, sizes: list[int]) -> list[list]:
    """Cut a list into runs of the given sizes."""
    ends = list(accumulate(sizes))
    return [rows[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _now_s(model: Any) -> float:
    """Return the time once the model's device has done all its work."""
    if model.device.type == "cuda":
        import torch

        torch.cuda.synchronize(model.device)
    return time.perf_counter()
