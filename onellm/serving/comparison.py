"""The comparison model, loaded beside the app's own model; it goes when nobody wants it for a while."""

import threading

from onellm.errors import ModelError
from onellm.serving.engine import Engine

IDLE_S = 300.0


class ComparisonModel:
    """Loads a model to compare with the app's own, and gives it back.

    Whoever uses it holds the lock; `release` ends that.

    Args:
        engine: of the app's own model; the comparison model's engine is its `beside`.

    Attributes:
        lock: held while somebody compares.
    """

    def __init__(self, engine: Engine):
        self.engine, self.lock = engine, threading.Lock()
        self._timer: threading.Timer | None = None
        self._stay_s = IDLE_S

    def room(self, name: str, quantize: str) -> tuple[int, int]:
        """Return what a model needs and what is free for it, in bytes, once another comparison model has gone.

        Raises:
            ModelError: it is not installed, or not possible on this machine.
        """
        from onellm.hub.registry import device_here
        from onellm.model.runtime.quantization import free_bytes

        entry = next((entry for entry in self.engine.entries if entry.name == name and entry.installed), None)
        option = None if entry is None else entry.option(quantize)
        if option is None or option.why == "device":
            model = self.engine.for_visitors(name)
            raise ModelError(f"There is no choice '{model}' with --quantize {quantize}; take one of the list.")
        if self._is_there(name, quantize):
            return 0, 0
        beside = self.engine.beside
        return option.memory_bytes, free_bytes(device_here()) + (self.engine.memory_bytes(beside) if beside else 0)

    def get(self, name: str, quantize: str) -> Engine:
        """Return the comparison model's engine, which begins to load it unless it is there; the lock is held."""
        self._stay_s = IDLE_S
        self._stop_timer()
        if not self._is_there(name, quantize):
            self._drop()
            self.engine.beside = self.engine.another(name, quantize)
        self.engine.beside.start()
        return self.engine.beside

    def release(self) -> None:
        """End the comparison; the model stays a while for the next one."""
        self.lock.release()
        self._stop_timer()
        self._timer = threading.Timer(self._stay_s, self._give_back)
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        """Give the model back, as soon as nobody uses it."""
        self._stay_s = 0.0
        self._give_back()

    def _give_back(self) -> None:
        if self.lock.acquire(blocking=False):  # else `release` comes later
            try:
                self._drop()
            finally:
                self.lock.release()

    def _drop(self) -> None:
        beside, self.engine.beside = self.engine.beside, None
        if beside is not None:
            beside.close()

    def _is_there(self, name: str, quantize: str) -> bool:
        beside = self.engine.beside
        return beside is not None and not beside.closed and (beside.origin, beside.quantize) == (name, quantize)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
