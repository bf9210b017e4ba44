"""The stream of an answer: tokens become text, the text is filtered, and whoever asked takes it as it comes."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Literal

FinishReason = Literal["", "stop", "length"]
WINDOW = 32  # tokens that are decoded together: the text of a token depends on its neighbours
INCOMPLETE = 3  # tokens that may hold the beginning of a character of four bytes


class AnswerJob:
    """One answer, written by the generation worker, read by whoever asked.

    Args:
        write: writes the answer; is given a function that takes its text, the event that says it is to end, and the
            seconds it waited for the model; returns why it ended.
        submit: runs a function in the generation worker's thread; is given one more, for an error where that hangs.

    Attributes:
        wanted_end: set once the answer is to end.
        ended: set once it has, and the conversation is up to date.
        finish_reason: "stop" for an answer that is whole or was stopped, "length" for one that was cut off.
        on_end: is called when it ends, however that comes, before the reader sees it.
    """

    def __init__(
        self,
        write: Callable[[Callable[[str], None], threading.Event, float], FinishReason],
        submit: Callable[[Callable[[], None], Callable[[BaseException], None]], None],
    ):
        self.wanted_end, self.ended = threading.Event(), threading.Event()
        self.finish_reason: FinishReason = ""
        self.on_end: Callable[[], None] = lambda: None
        self.deltas: SimpleQueue[str | BaseException] = SimpleQueue()
        self._write, self._submit = write, submit
        self._claimed = threading.Lock()  # by the worker that writes, or by the stop that came before
        self._ending = threading.Lock()  # which comes once
        self._asked_s: float | None = None

    def begin(self) -> None:
        """Let the worker write as soon as the model is free; twice is once."""
        if self._asked_s is None and not self.ended.is_set():
            self._asked_s = time.perf_counter()
            self._submit(self._run, self._end)

    def stop(self) -> None:
        """End it: within one token, or at once where it has not begun."""
        self.wanted_end.set()
        if self._claimed.acquire(blocking=False):
            self._end(StopIteration())

    def _run(self) -> None:
        if not self._claimed.acquire(blocking=False):
            return
        end: BaseException = StopIteration()
        try:
            self.finish_reason = self._write(self.deltas.put, self.wanted_end, time.perf_counter() - self._asked_s)
        except BaseException as error:  # raised again where the answer is read
            end = error
        self._end(end)

    def _end(self, end: BaseException) -> None:
        if not self._ending.acquire(blocking=False):  # it was given up
            return
        try:
            self.on_end()
        finally:
            self.ended.set()
            self.deltas.put(end)


class AnswerStream(Iterator[str]):
    """An answer's text, piece by piece: `for piece in stream`.

    The answer begins with the first piece that is wanted. A stream that nobody holds any more ends its answer.

    Args:
        job: writes the answer that is read.
    """

    def __init__(self, job: AnswerJob):
        self.job = job
        self._end: BaseException | None = None

    def __next__(self) -> str:
        return self.next()

    def __del__(self):
        self.job.stop()

    def next(self, timeout_s: float | None = None) -> str:
        """Return the text that came meanwhile; wait for some if there is none.

        Args:
            timeout_s: how long to wait; None for as long as it takes.

        Returns:
            The text; empty if none came in time.

        Raises:
            StopIteration: the answer is over.
            OneLLMError: there is no answer, or no more of it.
        """
        self.job.begin()
        text, wait = "", True
        while self._end is None:
            try:
                delta = self.job.deltas.get(wait, timeout_s)
            except Empty:
                return text
            if isinstance(delta, BaseException):
                self._end = delta
            else:
                text, wait = text + delta, False
        if text:
            return text
        end, self._end = self._end, StopIteration()
        raise end

    def deltas(self, heartbeat_s: float) -> Iterator[str]:
        """Yield the text as it comes, and an empty piece whenever none came for `heartbeat_s`."""
        while True:
            try:
                delta = self.next(heartbeat_s)
            except StopIteration:
                return
            yield delta

    def stop(self) -> None:
        """End the answer within one token; what was said stays."""
        self.job.stop()

    def close(self) -> None:
        """End the answer and wait until it has: the model is free then, and the conversation up to date."""
        self.job.stop()
        self.job.ended.wait()


class TokenDecoder:
    """Turns tokens into text one at a time, in time linear in their number.

    Args:
        tokenizer: a transformers tokenizer; special tokens become no text.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._text = ""  # of these tokens, as far as it was returned
        self._incomplete = 0

    def feed(self, token: int) -> str:
        """Take a token; return the text that is certain now: a character may need several tokens."""
        self._tokens.append(token)
        text = self._decode()
        byte = str(self._tokenizer.convert_ids_to_tokens(token)).startswith("<0x")  # a byte of a character
        if byte and len(self._tokens) <= WINDOW or text.endswith("\ufffd") and self._incomplete < INCOMPLETE:
            self._incomplete += 1
            return ""
        return self._take(text)

    def end(self) -> str:
        """Return the text that was held back."""
        return self._take(self._decode()) if self._incomplete else ""

    def _take(self, text: str) -> str:
        new, self._text, self._incomplete = text[len(self._text) :], text, 0
        if len(self._tokens) > WINDOW:
            self._tokens = self._tokens[-WINDOW // 4 :]
            self._text = self._decode()
        return new

    def _decode(self) -> str:
        return self._tokenizer.decode(self._tokens, skip_special_tokens=True)


class _Match:
    """How much of a string the text so far ends with, in time linear in the text (Knuth, Morris and Pratt, 1977).

    Args:
        string: what is searched for.

    Attributes:
        count: characters of it that the text ends with.
    """

    def __init__(self, string: str):
        self.string, self.count = string, 0
        self._borders = [0, 0]  # of its first n characters: how many begin and end them; known as far as needed

    def feed(self, character: str) -> bool:
        """Take the next character; tell whether the text ends with the whole string."""
        while self.count and self.string[self.count] != character:
            self.count = self._border(self.count)
        self.count += self.string[self.count] == character
        return self.count == len(self.string)

    def _border(self, count: int) -> int:
        while len(self._borders) <= count:
            last = self.string[len(self._borders) - 1]
            border = self._borders[-1]
            while border and self.string[border] != last:
                border = self._borders[border]
            self._borders.append(border + (self.string[border] == last))
        return self._borders[count]


class Search:
    """Finds the first of some strings in text that comes piece by piece; of the text it keeps only what may begin one.

    The first is the one that ends first; of two that end together, the longer one.

    Args:
        strings: what is searched for.
    """

    def __init__(self, strings: Iterable[str]):
        self._matches = [_Match(string) for string in strings if string]
        self._tail = ""

    def feed(self, text: str) -> tuple[str, str | None, str]:
        """Take the next piece.

        Returns:
            What certainly lies before the next string, that string (None where none came yet), and what follows it.
        """
        known, self._tail = len(self._tail), self._tail + text
        for end, character in enumerate(text, known + 1):
            found = [match.string for match in self._matches if match.feed(character)]
            if found:
                string, text = max(found, key=len), self.end()
                return text[: end - len(string)], string, text[end:]
        kept = max((match.count for match in self._matches), default=0)
        text = self._tail
        self._tail = text[len(text) - kept :]
        return text[: len(text) - kept], None, ""

    def end(self) -> str:
        """Return the text that was held back."""
        for match in self._matches:
            match.count = 0
        tail, self._tail = self._tail, ""
        return tail


class TextFilter:
    """Leaves of what a model writes the text of the answer.

    Prompts of generators, which stand between delimiters, are taken out; the answer ends before the first stop
    string; white space around it goes. The time it takes is linear in the length of the text.

    Args:
        delimiters: modality -> what stands before and behind a prompt.
        stop_strings: texts at which an answer ends.

    Attributes:
        prompts: modality and prompt of each that was whole, in order.
        open: modality of the prompt that has begun; None outside.
        stopped: a stop string came.
    """

    def __init__(self, delimiters: dict[str, tuple[str, str]] | None = None, stop_strings: Iterable[str] = ()):
        self.delimiters = delimiters or {}
        self.prompts: list[tuple[str, str]] = []
        self.open: str | None = None
        self.stopped = False
        self._delimiter = self._starts()
        self._stop = Search(stop_strings)
        self._prompt: list[str] = []
        self._spaces: list[str] = []  # what follows says whether they are the end
        self._begun = False

    def feed(self, text: str) -> str:
        """Take the next piece; return what is certainly text of the answer."""
        kept = []
        while text:
            before, found, text = self._delimiter.feed(text)
            (self._prompt if self.open else kept).append(before)
            if found and self.open:
                self.prompts.append((self.open, "".join(self._prompt)))
                self.open, self._prompt, self._delimiter = None, [], self._starts()
            elif found:
                self.open = next(modality for modality, (start, _) in self.delimiters.items() if start == found)
                self._delimiter = Search([self.delimiters[self.open][1]])
        return self._trim(self._until_stop("".join(kept)))

    def end(self) -> str:
        """Return the text that was held back; to be called when nothing more comes."""
        text = self._until_stop("" if self.open else self._delimiter.end())
        return self._trim(text if self.stopped else text + self._stop.end())

    def _starts(self) -> Search:
        return Search(start for start, _ in self.delimiters.values())

    def _until_stop(self, text: str) -> str:
        if self.stopped:
            return ""
        before, found, _ = self._stop.feed(text)
        self.stopped = found is not None
        return before

    def _trim(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
        said = text.rstrip()
        if not said:
            self._spaces.append(text)
            return ""
        self._begun = True
        said, self._spaces = "".join(self._spaces) + said, [text[len(said) :]]
        return said
