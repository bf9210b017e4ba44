"""Memory: how it goes back to the system, and what is said and freed when it was not enough."""

import contextlib
import ctypes
import errno
import gc
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import lru_cache

from onellm.errors import ModelError

# How PyTorch's allocators, its libraries and the system say it where they have no error of their own for it.
SIGNS = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "std::bad_alloc"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "can't start new thread", "could not create a primitive"),
)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that the memory was not enough."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    if getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | OSError) and any(sign.lower() in str(error).lower() for sign in SIGNS)


def let_go(error: BaseException) -> None:
    """Empty the frames that an error came through, and those it came from: their variables hold tensors."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__


def trim() -> None:
    """Give freed memory back to the system; takes a few milliseconds.

    glibc keeps it for each of its arenas: after a model was loaded half a gigabyte, and more with every thread.
    """
    give_back = _malloc_trim()
    if give_back is not None:
        give_back(0)


@lru_cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function; None where there is another library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def free() -> None:
    """Give back what nothing uses any more; takes a moment, as all objects are looked at."""
    gc.collect()
    trim()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):  # of a GPU that answers no more
            torch.cuda.empty_cache()


@contextlib.contextmanager
def as_user_error(message: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory within the block into an error for people, once everything half done is freed.

    Args:
        message: what is said; called when there is memory again.

    Raises:
        ModelError: the memory was not enough.
    """
    try:
        yield
        return
    except Exception as error:
        if not ran_out(error):
            raise
        let_go(error)
    free()
    raise ModelError(message()) from None
