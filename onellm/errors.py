"""Every error a user may see: one sentence that says what was found, what is expected and what to do."""

__all__ = ["BusyError", "FileError", "ModelError", "OneLLMError"]


class OneLLMError(Exception):
    """An error whose text is written for the person who uses OneLLM."""


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
