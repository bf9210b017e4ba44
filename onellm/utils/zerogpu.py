"""ZeroGPU: Spaces that have a GPU only while a marked function runs, in a process forked for it."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

DURATION_S = 60  # the longest an answer may hold the GPU


def is_zero() -> bool:
    """Whether this is a ZeroGPU Space."""
    wanted = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
    return wanted and importlib.util.find_spec("spaces") is not None


def prepare() -> None:
    """Let `spaces` take CUDA over, where it must; it has to come before anything asks for a GPU."""
    if is_zero():
        import spaces  # noqa: F401


def on_gpu(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Return a generator function that has the GPU while it runs.

    On ZeroGPU it runs in a forked process: arguments and what it yields are pickled, whatever else it changes is
    lost, and closing the generator ends it there. Elsewhere it is the function itself.
    """
    if not is_zero():
        return function
    import spaces

    return spaces.GPU(duration=DURATION_S)(function)
