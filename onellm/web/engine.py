"""The one model of a running app, loaded in the background while the page is already there."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from onellm.errors import ModelError, OneLLMError

logger = logging.getLogger(__name__)


class Engine:
    """Loads a model once and opens conversations with it.

    Args:
        name: the model to load; None for the one that suits the machine.
        load: turns the name into a `Chat`; `onellm.load` by default.
        **options: further arguments of `load`.

    Attributes:
        description: which model answers and what it is good for; empty until the model is there.
        error: why the model could not be loaded, in words; empty if all is well.
    """

    def __init__(self, name: str | None, load: Callable[..., Any] | None = None, **options: Any):
        self.name = name or "OneLLM"
        self._asked, self._options = name, options
        self.description = ""
        self.error = ""
        self._load = load
        self._chat: Any = None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._started_s = 0.0

    @property
    def ready(self) -> bool:
        """Whether questions are answered at once."""
        return self._chat is not None

    @property
    def loading(self) -> bool:
        """Whether the model is being loaded."""
        return self._started_s > 0 and not self._done.is_set()

    @property
    def waited_s(self) -> float:
        """Seconds since loading began."""
        return time.monotonic() - self._started_s

    def start(self) -> None:
        """Begin to load the model, unless that has begun; a failed load is tried again."""
        with self._lock:
            if self.ready or self.loading:
                return
            self._done.clear()
            self.error = ""
            self._started_s = time.monotonic()
            threading.Thread(target=self._run, name="load-model", daemon=True).start()

    def wait(self) -> None:
        """Wait until the model is loaded or has failed to."""
        self.start()
        self._done.wait()

    def new_chat(self) -> Any:
        """Open a conversation; waits until the model is loaded.

        Returns:
            A fresh `Chat`.

        Raises:
            ModelError: the model cannot be loaded.
        """
        self.wait()
        if not self.ready:
            raise ModelError(self.error)
        return self._chat.new()

    def _run(self) -> None:
        """Load the model and remember it, or say why not."""
        try:
            load = self._load
            if load is None:
                from onellm.models import load
            chat = load(self._asked, **self._options)
            self.name, self.description = chat.name, chat.description
            self._chat = chat
        except OneLLMError as error:
            self.error = str(error)
        except MemoryError:
            self.error = f"{self.name} needs more memory than there is; close other programs or start a smaller model."
        except Exception as error:
            logger.exception("could not load %s", self.name)
            self.error = f"{self.name} could not be loaded ({type(error).__name__}); the app's log says more."
        finally:
            self._done.set()
