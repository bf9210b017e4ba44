"""One answer for a program: it waits in the line of all, streams, can be given up, and is counted."""

import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from onellm.serving.background import Reader
from onellm.serving.engine import Engine
from onellm.serving.metrics import Count
from onellm.serving.queue import Ticket

SURPRISE = "Something went wrong inside OneLLM, and it was written to the app's log; try again."
BEAT_S = 0.25  # between looks at whether the asker is still there


def queue(engine: Engine, ticket: Ticket) -> Iterator[int]:
    """Wait until a ticket's turn has come and the model is loaded, anew if it broke meanwhile.

    Yields:
        How many are served before, again and again, so that whoever waits can leave.
    """
    while True:
        engine.start()
        loading = engine.loading
        if ticket.wait(0 if loading else BEAT_S) and not loading:
            return
        yield ticket.place
        if loading:
            time.sleep(BEAT_S)


def stream(
    engine: Engine,
    count: Count,
    text: str,
    messages: list[dict] | None = None,
    place: Callable[[str, int], Path] | None = None,
    **options: Any,
) -> Generator[str, None, list[dict]]:
    """Answer a question in a conversation of its own.

    Args:
        engine: the app's model.
        count: gets the trace of the answer.
        text: the question.
        messages: what was said before.
        place: where files go that the answer makes, as for `Chat`.
        **options: options and files as for `Chat.stream`.

    Yields:
        Pieces of the answer, and an empty one whenever there was none for a moment: whoever closes the stream
        frees the model within one token.

    Returns:
        What the answer made besides text, see `Chat.generated`.

    Raises:
        BusyError: too many wait.
        OneLLMError: the model cannot be loaded, or the question or a file is not acceptable.
    """
    ticket = engine.queue.join()
    try:
        for _ in queue(engine, ticket):
            yield ""
        chat = engine.new_chat(messages)
        chat.output_path = place or chat.output_path
        reader = Reader(chat.stream(text, **options), lambda: None)
        try:
            yield from reader.pieces(BEAT_S)
        finally:
            while reader.is_alive():  # a stop that comes before the model begins is not heard: say it again
                chat.stop()
                reader.join(BEAT_S)
            count.trace = chat.trace
        return chat.generated
    finally:
        engine.start()  # if the model broke, the next in line waits for it
        ticket.leave()
