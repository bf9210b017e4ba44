"""One answer for a program: it waits in the request queue, streams, can be given up, and is counted."""

import errno
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onellm.errors import ModelError
from onellm.serving.engine import Engine
from onellm.serving.metrics import Count
from onellm.serving.queue import Ticket

SURPRISE = "Something went wrong inside OneLLM, and it was written to the app's log; try again."
BEAT_S = 0.25  # between looks at whether the asker is still there
FULL = (errno.ENOSPC, errno.EDQUOT)


def owner_of(address: str | None, visitor: str = "") -> str:
    """Return who asks, for a share of the queue.

    Args:
        address: that the request came from; this machine's own is many people's, if a proxy does not say whose.
        visitor: a browser's, if it is known.
    """
    here = address is None or address in ("localhost", "::1", "testclient") or address.startswith("127.")
    return visitor if here and visitor else f"address:{address}"


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder for one answer's files, which goes with it.

    Raises:
        ModelError: the disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="onellm-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ModelError("The disk of this machine is full; whoever runs it has to free some space.") from error


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
        yield ticket.position
        if loading:
            time.sleep(BEAT_S)


def stream(
    engine: Engine,
    count: Count,
    text: str,
    messages: list[dict] | None = None,
    output_path: Callable[[str, int], Path] | None = None,
    owner: str = "",
    **options: Any,
) -> Generator[str, None, list[dict]]:
    """Answer a question in a conversation of its own.

    Args:
        engine: the app's model.
        count: gets the trace of the answer.
        text: the question.
        messages: what was said before.
        output_path: where files go that the answer generates, as for `Chat`.
        owner: who asks, see `RequestQueue.join`.
        **options: options and files as for `Chat.stream`.

    Yields:
        Pieces of the answer, and an empty one whenever there was none for a moment: whoever closes the generator
        frees the model within one token.

    Returns:
        What the answer holds besides text, see `Chat.generated`.

    Raises:
        BusyError: too many wait.
        OneLLMError: the model cannot be loaded, or the question or a file is not acceptable.
    """
    ticket = engine.queue.join(owner)
    try:
        for _ in queue(engine, ticket):
            yield ""
        chat = engine.new_chat(messages)
        chat.output_path = output_path or chat.output_path
        stream = chat.stream(text, **options)
        try:
            yield from stream.deltas(BEAT_S)
        finally:
            stream.close()
            count.trace, count.finish_reason = chat.trace, stream.job.finish_reason
        return chat.generated
    finally:
        engine.start()  # if the model broke, the next in the queue waits for it
        ticket.leave()
