"""The one model of a running app: loaded in the background, exchanged for another one, and asked by all.

A model that broke (`Chat.broken`) is loaded again, as soon as `start` is called: everybody who asks, and everybody who
looks whether the app is ready, does that. A model whose answer gets on no more for `stall_seconds` counts as broken.
"""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onellm.errors import ModelError, OneLLMError
from onellm.hub.registry import MODELS
from onellm.serving.queue import RequestQueue
from onellm.utils import oom
from onellm.utils.limits import LIMITS
from onellm.utils.paths import cache_folder
from onellm.utils.progress import Cancelled, Progress

if TYPE_CHECKING:
    from onellm.hub.catalogue import Entry

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05  # at an answer that has to end before its model goes
WATCH_EVERY_S = 1.0
PAUSE_S = 5.0  # after a model could not be loaded, until that is tried again


class Engine:
    """Loads a model, opens conversations with it, and exchanges it for another one.

    Args:
        name: the model to load; None for the one that suits the machine.
        load: turns a name into a `Chat`; `onellm.load` by default.
        choices: lists what can be loaded here; `catalogue.entries` by default.
        quantize: how its weights are kept; None for what suits it.
        **options: further arguments of `load`.

    Attributes:
        queue: where all wait who want an answer.
        name: of the model that answers or is being loaded.
        quantize: how its weights are kept; None until that is known.
        origin: what it was loaded from: a name of `registry.MODELS` or a folder; None until that is known.
        description: which model answers and what it is good for; empty until the model is there.
        error: why a model could not be loaded, for the user; empty if all is well. Another one may answer nevertheless.
        progress: how far loading is; None while nothing is known.
        entries: the models there are; empty until loading began.
        listing: the hub is being asked for those that are not here.
        beside: the engine of the comparison model, see `ComparisonModel`; it goes when another first one comes.
    """

    def __init__(
        self,
        name: str | None,
        load: Callable[..., Any] | None = None,
        choices: Callable[..., "list[Entry]"] | None = None,
        *,
        llm: str | None = None,
        quantize: str | None = None,
        **options: Any,
    ):
        self.queue = RequestQueue(LIMITS.queue)
        self.name, self.quantize, self.origin = _label(name), quantize, name
        self.description = self.error = ""
        self.progress: Progress | None = None
        self.entries: list[Entry] = []
        self.listing = self.closed = False
        self.beside: Engine | None = None
        self._wanted, self._first, self._llm = (name, quantize), name, llm
        self._load, self._choices, self._load_options = load, choices, options
        self._folders = [name] if name and name not in MODELS and Path(name).is_dir() else []
        self._chat: Any = None
        self._chats: weakref.WeakSet = weakref.WeakSet()
        self._lock = threading.Lock()
        self._done, self._cancelled = threading.Event(), threading.Event()
        self._started_s = self._failed_s = 0.0
        self._watched = False

    @property
    def ready(self) -> bool:
        """Whether questions are answered at once."""
        chat = self._chat
        return chat is not None and not chat.broken

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded."""
        return self._started_s > 0 and not self._done.is_set()

    @property
    def failed(self) -> bool:
        """Whether the model could not be loaded or broke, and is not being loaded now."""
        return self._started_s > 0 and not self.ready and not self.loading

    @property
    def waited_s(self) -> float:
        """Seconds since loading began."""
        return time.monotonic() - self._started_s

    @property
    def inputs(self) -> dict[str, dict] | None:
        """What the model takes of a file: modality -> settings of its `to_tensor`; None until it is there."""
        chat = self._chat
        return None if chat is None else chat.inputs

    @property
    def converses(self) -> bool:
        """Whether the model does more with files than to name what they show; assumed until it is there."""
        chat = self._chat
        return chat is None or getattr(chat, "converses", True)

    def start(self) -> None:
        """Begin to load the model, unless that has begun; one that broke, or could not be loaded, is loaded again."""
        with self._lock:
            rested = time.monotonic() - self._failed_s >= PAUSE_S
            if not self.ready and not self.loading and rested and not self.closed:
                self._begin(*self._wanted)

    def rescue(self) -> None:
        """Load the model again if its answer gets on no more; those who wait for it are told."""
        chat = self._chat
        if chat is not None and chat.stalled_s > LIMITS.stall_seconds:
            logger.error("%s got on no more for %.0f s and is loaded again", self.name, chat.stalled_s)
            chat.give_up()
            self.start()

    def wait(self) -> None:
        """Wait until the model is loaded or has failed to."""
        self.start()
        self._done.wait()

    def new_chat(self, messages: list[dict] | None = None) -> Any:
        """Open a conversation; waits until the model is loaded.

        Args:
            messages: what was said in it so far.

        Returns:
            A `Chat`. It is `closed` once another model was loaded.

        Raises:
            ModelError: the model cannot be loaded.
        """
        self.wait()
        chat = self._chat
        if chat is None or chat.broken:
            raise ModelError(self.error or f"{self.name} is being loaded; ask again in a few seconds.")
        opened = chat.new(messages)
        self._chats.add(opened)
        return opened

    def switch(self, name: str, quantize: str | None) -> None:
        """Begin to load another model instead of the present one; `loading` tells when it is over.

        A running answer ends first. If the new model cannot be loaded, the old one is loaded again.

        Args:
            name: a model of `entries`.
            quantize: how its weights are to be kept.

        Raises:
            ModelError: it cannot be loaded here, or another one is just being loaded.
        """
        with self._lock:
            if self.loading:
                raise ModelError(f"{self.name} is just being loaded; wait for it, or cancel it, and choose again.")
            if self.ready and (name, quantize) == (self.origin, self.quantize):
                return
            entry, label = next((entry for entry in self.entries if entry.name == name), None), self.for_visitors(name)
            option = None if entry is None else entry.option(quantize)
            if entry is None or option is None:
                raise ModelError(f"There is no choice '{label}' with --quantize {quantize}; take one of the list.")
            if entry.why or not option.able:
                reason = self.for_visitors(entry.reason or option.reason)
                raise ModelError(f"{label} cannot be loaded: {reason}.")
            self._begin(name, quantize)

    def cancel(self) -> None:
        """Give up what is being loaded; `loading` tells when that is over, and `error` what answers then."""
        if self.loading:
            self._cancelled.set()

    def another(self, name: str, quantize: str) -> "Engine":
        """Return an engine for a comparison model whose questions wait in the same queue; nothing is loaded yet."""
        other = Engine(name, self._load, lambda *_: [], quantize=quantize, **self._load_options)
        other.queue = self.queue
        return other

    def for_visitors(self, text: str) -> str:
        """Return a text in which models' folders are called by their names: where they lie is not for visitors."""
        cache = "$ONELLM_CACHE" if "ONELLM_CACHE" in os.environ else "~/.cache/onellm"
        names = {str(cache_folder()): cache}
        names |= {str(entry.folder): _label(entry.name) for entry in self.entries if entry.folder}
        for folder in self._folders:
            names |= {str(path): _label(folder) for path in (folder, Path(folder), Path(folder).resolve())}
        for path in sorted(filter(os.path.isabs, names), key=len, reverse=True):
            text = text.replace(path, names[path])
        return text

    def close(self) -> None:
        """Give the model back for good; a running answer ends first."""
        with self._lock:
            self.closed, self.error = True, f"{self.name} was unloaded; load it again."
            self._cancelled.set()
        if self.loading:
            self._done.wait()
        kept, self._chat = self._chat, None
        for chat in [kept, *self._chats] if kept is not None else []:
            chat.close()
        self._done.set()
        oom.free()

    def shut(self, patience_s: float) -> bool:
        """End all answers, those who wait are told; tell whether the model is at rest.

        Args:
            patience_s: how long that may take.
        """
        with self._lock:
            self.closed, self.error = True, "The app is being stopped; ask again when it runs."
            self._cancelled.set()
        kept, self._chat = self._chat, None
        until_s = time.monotonic() + patience_s
        while True:
            for chat in list(self._chats):
                chat.stop()
            rests = not self.loading and (kept is None or not kept.busy)
            if rests and not len(self.queue) or time.monotonic() > until_s:
                return rests
            time.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """List the models anew: memory may have become free, and the hub may answer now."""
        with self._lock:
            if not self.loading and not self.listing:
                self._list(self.memory_bytes(self) + (self.memory_bytes(self.beside) if self.beside else 0), ask=True)

    def memory_bytes(self, engine: "Engine") -> int:
        """Return what the model of this engine, or of the one beside it, is reckoned to take; 0 where there is none."""
        entry = next((entry for entry in self.entries if entry.name == engine.origin), None)
        option = None if entry is None else entry.option(engine.quantize)
        return option.memory_bytes if option is not None and engine.ready else 0

    def _begin(self, name: str | None, quantize: str | None) -> None:
        """Start the thread that loads; the lock is held."""
        self._done.clear()
        self._cancelled.clear()
        self._started_s = time.monotonic()
        self.error, self.progress = "", None
        kept, self._chat = self._chat, None
        if kept is not None and kept.broken:
            self.error = f"{self.name} failed and is being loaded again; ask again in a few seconds."
        before = (self.origin, self.quantize, self.name)
        self.name, self.origin, self.quantize = _label(name), name, quantize
        threading.Thread(target=self._run, args=(kept, before), name="load-model", daemon=True).start()
        if not self._watched:
            self._watched = True
            threading.Thread(target=_watch, args=(weakref.ref(self),), name="watchdog", daemon=True).start()

    def _run(self, kept: Any, before: tuple) -> None:
        """Load what is wanted now; if that fails, go back to what was before, unless that is broken."""
        failed = False
        try:
            if kept is not None:
                self._drop(kept)
            if self.beside is not None:
                self.beside.close()
            self._list()
            self._put()
        except Exception as error:
            self.error, failed = self._as_user_error(error), not isinstance(error, Cancelled)
            oom.let_go(error)  # its frames hold what was half loaded
        oom.free()
        if self._chat is None and kept is not None:
            self.origin, self.quantize, self.name = before
            if not kept.closed:
                self._chat = kept
            elif not kept.broken:
                self._put_back()
        self._wanted = self.origin, self.quantize
        self._failed_s = time.monotonic() if failed and self._chat is None else 0.0
        self.progress = None
        self._done.set()

    def _list(self, spare_bytes: int = 0, ask: bool = False) -> None:
        """List the models with the memory that is free now and `spare_bytes` more.

        Args:
            spare_bytes: what will be free besides.
            ask: let the hub be asked meanwhile; nobody is before somebody opens the list.

        It is done where nothing answers or loads: a model without weights is built of each, for which transformers
        changes settings of the whole process. Later lists remember it.
        """
        from onellm.hub import catalogue
        from onellm.hub.registry import device_here
        from onellm.model.runtime.quantization import free_bytes

        choices = self._choices or catalogue.entries
        try:
            self.entries = choices(self._folders, free_bytes(device_here()) + spare_bytes)
        except Exception:  # one that cannot be listed must not keep another one from being loaded
            logger.exception("could not list the models")
            return
        if not ask:
            return
        self.listing = True
        threading.Thread(target=self._ask_hub, args=(self.entries,), name="ask-hub", daemon=True).start()

    def _ask_hub(self, known: "list[Entry]") -> None:
        """Complete the list, which may take seconds, unless there is a newer one."""
        from onellm.hub.catalogue import asked

        complete = asked(known)
        if self.entries is known:
            self.entries, self.listing = complete, False

    def _drop(self, kept: Any) -> None:
        """Take the model away from all conversations and free its memory, once a running answer has ended."""
        while kept.busy:
            self._note(Progress("answer"))
            time.sleep(LOOK_EVERY_S)
        self._note(None)
        for chat in [kept, *self._chats]:
            chat.close()
        oom.free()

    def _put(self) -> None:
        """Load the model and remember it."""
        load = self._load
        if load is None:
            from onellm.chat.load import load
        llm = {"llm": self._llm} if self._llm and self.origin == self._first else {}  # another model has its own
        chat = load(self.origin, quantize=self.quantize, on_progress=self._note, **llm, **self._load_options)
        self.name, self.description = chat.name, chat.description
        self.origin, self.quantize = chat.origin, chat.quantize
        self.error, self._chat = "", chat

    def _put_back(self) -> None:
        """Load what answered before once more."""
        self._cancelled.clear()
        why = self.error
        try:
            self._put()
            self.error = f"{why} {self.name} answers again."
        except Exception as error:
            self.error = f"{why} {self._as_user_error(error)}"
            oom.let_go(error)

    def _note(self, progress: Progress | None) -> None:
        """Note how far loading is.

        Raises:
            Cancelled: somebody wants it to end.
        """
        self.progress = progress
        if self._cancelled.is_set():
            raise Cancelled(f"Loading {self.name} was cancelled.")

    def _as_user_error(self, error: Exception) -> str:
        """Say why the model could not be loaded."""
        if isinstance(error, OneLLMError):
            return self.for_visitors(str(error))
        if oom.ran_out(error):
            return f"{self.name} needs more memory than there is; close other programs or start a smaller model."
        logger.error("could not load %s", self.name, exc_info=error)
        return f"{self.name} could not be loaded ({type(error).__name__}); the app's log says more."


def _watch(watched: "weakref.ref[Engine]") -> None:
    """Look after an engine as long as there is one."""
    while (engine := watched()) is not None and not engine.closed:
        try:
            engine.rescue()
        except Exception:  # it must go on
            logger.exception("the watchdog failed")
        del engine
        time.sleep(WATCH_EVERY_S)


def _label(name: str | None) -> str:
    """Return a model's name for people."""
    return Path(name).name if name else "OneLLM"
