"""Every error a user may see: one sentence that says what was found, what is expected and what to do."""

__all__ = ["BusyError", "FileError", "ModelError", "OneLLMError"]


class OneLLMError(Exception):
    """An error whose text is written for the person who uses OneLLM.

    Args:
        message: the whole sentence; by default it is composed of the fields: "found; expected …; advice."
        found: what was found, without a full stop.
        expected: what was expected, to follow "expected"; may be left out.
        advice: what to do next, as an imperative; may be left out.

    Attributes:
        found: as given; the whole sentence without its full stop where only that was given.
        expected: as given, or "".
        advice: as given, or "".
    """

    def __init__(self, message: str = "", *, found: str = "", expected: str = "", advice: str = ""):
        parts = filter(None, (found, expected and f"expected {expected}", advice))
        super().__init__(message or "; ".join(parts) + ".")
        self.found, self.expected, self.advice = found or message.rstrip("."), expected, advice


class FileError(OneLLMError):
    """A file that cannot be used as what it was given as."""


class ModelError(OneLLMError):
    """A model that cannot be found, loaded or run."""


class BusyError(OneLLMError):
    """Too many ask at once.

    Attributes:
        seconds: when to try again.
    """

    def __init__(self, message: str, seconds: int):
        super().__init__(message)
        self.seconds = seconds
