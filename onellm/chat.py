"""Chat: a conversation with a model about files. The web app, the shell and Python all speak through it."""

import json
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from onellm.errors import ModelError, OneLLMError
from onellm.limits import LIMITS
from onellm.modalities import MODALITIES

DEFAULT_QUESTION = "What is this?"


class Chat:
    """One conversation.

    Attributes:
        messages: transformers' chat messages; a file is `{"type": kind, "path": ...}` with its options.
        name: the model's name.
    """

    def __init__(self, model: Any, processor: Any, name: str, lock: "threading.Lock | None" = None):
        self.model, self.processor, self.name = model, processor, name
        self.messages: list[dict] = []
        self._lock = lock or threading.Lock()  # one generation at a time a model
        self._stop = threading.Event()
        self._tensors: dict[str, Any] = {}  # of files read but not yet encoded
        self._words: dict[str, Any] = {}  # what the LLM reads of a file: encoded once a conversation
        self._past: tuple[list, Any] = ([], None)  # what the key-value cache holds, and the cache

    @property
    def description(self) -> str:
        """Which model answers and what it is good for."""
        return f"{self.name}: {self.model.config.description}"

    def new(self) -> "Chat":
        """Open a fresh conversation with the same model."""
        return Chat(self.model, self.processor, self.name, self._lock)

    def ask(self, text: str = "", **options: Any) -> str:
        """Ask and return the whole answer; arguments as for `stream`."""
        return "".join(self.stream(text, **options))

    def stream(
        self,
        text: str = "",
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        **files: Any,
    ) -> Iterator[str]:
        """Ask, and yield the answer piece by piece.

        Args:
            text: the question; with files and no text it is "What is this?".
            max_new_tokens: longest answer, in tokens.
            temperature: 0 answers with the likeliest words; higher is freer.
            top_p: only the likeliest words that make up this share are drawn.
            seed: makes drawn answers repeatable.
            **files: kind -> a path, a dict of `path` and the kind's load options, or a list of these.

        Yields:
            Pieces of the answer.

        Raises:
            OneLLMError: the message or a file is not acceptable; the conversation is as it was before.
        """
        message = self._message(text, files)
        self.messages.append(message)
        try:
            yield from self._answer(max_new_tokens, temperature, top_p, seed)
        finally:
            if self.messages and self.messages[-1] is message:  # no answer came
                self.messages.pop()

    def retry(self, **options: Any) -> Iterator[str]:
        """Answer the last question again; options as for `stream`."""
        if not self.messages:
            raise OneLLMError("There is no question to answer again; ask one first.")
        dropped = self.messages.pop()
        settings = {"max_new_tokens": 128, "temperature": 0.0, "top_p": 1.0, "seed": None} | options
        try:
            yield from self._answer(**settings)
        finally:
            if self.messages[-1]["role"] == "user":
                self.messages.append(dropped)

    def undo(self) -> None:
        """Take the last question and its answer back."""
        del self.messages[-2:]

    def clear(self) -> None:
        """Forget the conversation and its files."""
        self.messages.clear()
        self._tensors.clear()
        self._words.clear()
        self._past = ([], None)

    def stop(self) -> None:
        """End a running answer within one token; what was said stays."""
        self._stop.set()

    def _message(self, text: str, files: dict[str, Any]) -> dict:
        """Check a question and its files and make a chat message of them."""
        content: list[dict] = []
        for kind, given in files.items():
            if kind not in MODALITIES:
                raise OneLLMError(f"'{kind}' is no kind of file; use one of {', '.join(MODALITIES)}.")
            for item in given if isinstance(given, list | tuple) else [given]:
                if item is not None:
                    part = item if isinstance(item, dict) else {"path": os.fspath(item)}
                    content.append({"type": kind, **part})
        if len(content) > LIMITS.files_per_turn:
            raise OneLLMError(
                f"{len(content)} files came with one question; {LIMITS.files_per_turn} are allowed, send the others "
                "with the next question."
            )
        text = text.strip()
        if len(text) > LIMITS.message_characters:
            raise OneLLMError(
                f"The question has {len(text):,} characters; {LIMITS.message_characters:,} are allowed, shorten it."
            )
        if not text and not content:
            raise OneLLMError("Nothing was asked; type a question or add a file.")
        for part in content:
            self._read(part)  # a file that cannot be read is told before anything changes
        content.append({"type": "text", "text": text or DEFAULT_QUESTION})
        return {"role": "user", "content": content}

    def _read(self, part: dict) -> None:
        """Read the file of a content part, unless this conversation has read it."""
        key = _key(part)
        if key not in self._words and key not in self._tensors:
            self._tensors[key] = self.processor.to_tensor(part)

    def _encoded(self, part: dict) -> Any:
        """Return the soft words [M + 2, D_llm] of a file."""
        key = _key(part)
        if key not in self._words:
            self._read(part)
            self._words[key] = self.model.soft_words(part["type"], [self._tensors.pop(key)])[0]
        return self._words[key]

    def _inputs(self) -> tuple[dict[str, Any], list]:
        """Lay out the conversation for `generate`, with a cache that holds what it shares with the last prompt.

        Returns:
            Arguments for `generate`, and the prompt as a list in which a file's key stands for its placeholders.
        """
        from onellm.model.cache import GrowingCache

        ids, files = self.processor.encode(self.messages)
        media: dict[str, list] = {}
        for part in files:
            media.setdefault(part["type"], []).append(self._encoded(part))
        prompt: list = list(ids)
        placeholders = {settings["token_id"] for settings in self.model.config.modalities.values()}
        starts = [place for place, token in enumerate(ids) if token in placeholders][:: self.model.config.media_length]
        for start, part in zip(starts, files, strict=True):
            prompt[start : start + self.model.config.media_length] = [_key(part)] * self.model.config.media_length
        known, cache = self._past
        self._past = ([], None)  # until this answer has come
        most = min(len(known), len(prompt) - 1)  # the last token always runs
        shared = next((place for place in range(most) if known[place] != prompt[place]), most)
        if any(isinstance(token, str) for token in known) != bool(files):  # then the adapter was off, or on
            shared = 0
        if cache is None or not shared:
            cache = GrowingCache()
        else:
            cache.crop(shared - cache.get_seq_length())
        inputs = {name: value.to(self.model.device) for name, value in self.processor.pad([ids]).items()}
        return {**inputs, "media": media, "words": True, "past_key_values": cache}, prompt

    def _answer(self, max_new_tokens: int, temperature: float, top_p: float, seed: int | None) -> Iterator[str]:
        """Generate the answer to the messages so far in a thread of its own, and append it to them."""
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer, set_seed

        class Stopped(StoppingCriteria):
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                return torch.full((input_ids.shape[0],), stop.is_set(), device=input_ids.device)

        stop = self._stop = threading.Event()
        tokenizer = self.processor.tokenizer
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {}
        failure: list[BaseException] = []

        def run() -> None:
            try:
                with self._lock:
                    if seed is not None:
                        set_seed(seed)
                    inputs, prompt = self._inputs()
                    output = self.model.generate(
                        **inputs,
                        max_new_tokens=min(max_new_tokens, LIMITS.new_tokens),
                        eos_token_id=tokenizer.eos_token_id,
                        pad_token_id=tokenizer.pad_token_id,
                        tokenizer=tokenizer,  # for stop strings
                        streamer=streamer,
                        stopping_criteria=StoppingCriteriaList([Stopped()]),
                        **({"do_sample": False} | sampling),
                    )
                    cache = inputs["past_key_values"]
                    answered = prompt + output[0, len(prompt) :].tolist()
                    self._past = (answered[: cache.get_seq_length()], cache)
            except BaseException as error:  # told to the reader of the stream
                failure.append(error)
                streamer.end()

        worker = threading.Thread(target=run, daemon=True)
        worker.start()
        pieces: list[str] = []
        try:
            for piece in _until(streamer, self.model.generation_config.stop_strings or []):
                if piece:
                    pieces.append(piece)
                    yield piece
        finally:
            stop.set()
            worker.join()
            if pieces:
                answer = "".join(pieces).strip()
                self.messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        if failure:
            raise self._in_words(failure[0]) from failure[0]
        if not pieces:
            self.messages.append({"role": "assistant", "content": [{"type": "text", "text": ""}]})

    @staticmethod
    def _in_words(error: BaseException) -> OneLLMError:
        """Say what went wrong inside the model."""
        import torch

        if isinstance(error, OneLLMError):
            return error
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return ModelError("The memory was not enough for this answer; ask with fewer or smaller files.")
        return ModelError(f"The model failed ({type(error).__name__}: {error}); ask again or start a new conversation.")


def _until(pieces: Iterable[str], stops: list[str]) -> Iterator[str]:
    """Pass text on up to the first stop string; what may be the beginning of one is held back."""
    held = ""
    for piece in pieces:
        held += piece
        found = [held.index(stop) for stop in stops if stop in held]
        if found:
            yield held[: min(found)]
            return
        kept = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        yield held[: len(held) - kept]
        held = held[len(held) - kept :]
    yield held


def _key(part: dict) -> str:
    """Name a file part within a conversation."""
    return json.dumps(part, sort_keys=True, default=str)
