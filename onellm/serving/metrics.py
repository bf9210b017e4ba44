"""The one place where answers are counted, and the figures as Prometheus reads them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from onellm.errors import BusyError, ModelError, OneLLMError

if TYPE_CHECKING:
    from onellm.chat.streaming import FinishReason
    from onellm.chat.trace import Trace
    from onellm.serving.engine import Engine

__all__ = ["Count", "counted", "render"]

BUCKETS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


@dataclass
class Count:
    """What becomes of one question.

    Attributes:
        outcome: answered, stopped by the asker, refused (a wrong file or request), busy (the queue was full), or
            failed; by default what `counted` sees.
        trace: what the model did; None if it did nothing.
        finish_reason: why the answer ended, see `AnswerJob`.
    """

    outcome: str = ""
    trace: "Trace | None" = None
    finish_reason: "FinishReason" = ""


@contextmanager
def counted(face: str) -> Iterator[Count]:
    """Count the question that is answered within.

    Args:
        face: who asks: page, compare, ask, ask_stream or openai.

    Yields:
        Where the trace is put, and the outcome if an error does not say it.
    """
    count, begun_s = Count(), time.monotonic()
    seen = "failed"
    try:
        yield count
        seen = "stopped" if count.trace is not None and count.trace.stopped else "answered"
    except GeneratorExit:
        seen = "stopped"
        raise
    except BusyError:
        seen = "busy"
        raise
    except ModelError:
        raise
    except OneLLMError:
        seen = "refused"
        raise
    finally:
        _figures().add(face, count.outcome or seen, count.trace, time.monotonic() - begun_s)


def render(engine: "Engine") -> bytes:
    """Return all figures in Prometheus's text format."""
    return _figures().render(engine)


@lru_cache
def _figures() -> "_Figures":
    return _Figures()


class _Figures:
    """The figures of this process; made when the first is needed, as their library takes a moment to import."""

    def __init__(self):
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.registry: Any = CollectorRegistry()
        registered: Any = {"registry": self.registry}
        seconds = {"buckets": BUCKETS_S, **registered}
        self.answers = Counter("onellm_answers", "Questions by what became of them", ["face", "outcome"], **registered)
        self.files = Counter("onellm_files", "Files in the conversations that were answered", ["kind"], **registered)
        self.tokens = Counter("onellm_tokens", "Tokens read (prompt) and written (answer)", ["of"], **registered)
        self.first_s = Histogram(
            "onellm_first_token_seconds",
            "From the turn's begin to its first token",
            buckets=BUCKETS_S,
            **registered,
        )
        self.whole_s = Histogram("onellm_answer_seconds", "From the question to the answer's end", **seconds)
        self.waiting = Gauge("onellm_waiting", "Questions that are answered or wait", **registered)
        self.ready = Gauge("onellm_ready", "1 where the model answers", ["model"], **registered)
        ProcessCollector(**registered)

    def add(self, face: str, outcome: str, trace: "Trace | None", whole_s: float) -> None:
        """Count one question."""
        self.answers.labels(face, outcome).inc()
        self.whole_s.observe(whole_s)
        if trace is None:
            return
        for file in trace.files:
            self.files.labels(file.modality).inc()
        self.tokens.labels("prompt").inc(trace.prompt_tokens)
        self.tokens.labels("answer").inc(trace.new_tokens)
        self.first_s.observe(trace.timings.first_token_s)

    def render(self, engine: "Engine") -> bytes:
        """Return all figures in Prometheus's text format."""
        from prometheus_client import generate_latest

        self.waiting.set(len(engine.queue))
        self.ready.clear()
        self.ready.labels(engine.name).set(int(engine.ready))
        return generate_latest(self.registry)
