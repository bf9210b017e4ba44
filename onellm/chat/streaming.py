"""Delimiters and stop strings in streamed text: neither a generator's prompt nor what follows a stop is the answer."""

from collections.abc import Iterable, Iterator


class DelimiterFilter:
    """Takes prompts out of text that comes piece by piece.

    Args:
        known: modality -> the marks before and after a prompt.

    Attributes:
        found: kind and prompt of each that was whole, in order.
        open: kind of the one that has begun; None outside.
    """

    def __init__(self, known: dict[str, tuple[str, str]]):
        self.known = known
        self.found: list[tuple[str, str]] = []
        self.open: str | None = None
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next piece; return what is certainly text."""
        self._held += text
        said = ""
        while True:
            if self.open is not None:
                prompt, mark, rest = self._held.partition(self.known[self.open][1])
                if not mark:
                    return said
                self.found.append((self.open, prompt))
                self.open, self._held = None, rest
                continue
            starts = {modality: self._held.find(start) for modality, (start, _) in self.known.items()}
            begun = {modality: place for modality, place in starts.items() if place >= 0}
            if not begun:
                kept = _beginning(self._held, (start for start, _ in self.known.values()))
                cut = len(self._held) - kept
                said, self._held = said + self._held[:cut], self._held[cut:]
                return said
            self.open = min(begun, key=begun.get)
            place = begun[self.open]
            said += self._held[:place]
            self._held = self._held[place + len(self.known[self.open][0]) :]

    def end(self) -> str:
        """Return the text that was held back; to be called when nothing more comes."""
        held, self._held = self._held, ""
        return "" if self.open is not None else held


def _beginning(text: str, marks: Iterable[str]) -> int:
    """Return how many characters at the end of a text may be the beginning of a mark."""
    return max((n for mark in marks for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0)


def until(pieces: Iterable[str], stops: list[str]) -> Iterator[str]:
    """Pass text on up to the first stop string; what may be the beginning of one is held back."""
    held = ""
    for piece in pieces:
        held += piece
        found = [held.index(stop) for stop in stops if stop in held]
        if found:
            yield held[: min(found)]
            return
        kept = _beginning(held, stops)
        yield held[: len(held) - kept]
        held = held[len(held) - kept :]
    yield held
