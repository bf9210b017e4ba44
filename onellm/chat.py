"""Chat: a conversation with a model about files. The web app, the shell and Python all speak through it."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onellm.errors import ModelError, OneLLMError
from onellm.limits import LIMITS
from onellm.modalities import MODALITIES

PRETRAINED = Path(__file__).parent / "pretrained"
MODELS = {
    "onellm-tiny": "runs on any machine; trained and shipped with this package",
    "onellm-7b": "the published OneLLM; its structure builds, its weights cannot be loaded by this version",
}
DEFAULT_QUESTION = "What is this?"


def load(name: str = "onellm-tiny") -> "Chat":
    """Load a model and open a conversation with it.

    Args:
        name: a model of `MODELS`, or the path of a model folder.

    Returns:
        A fresh conversation; `Chat.new` opens further ones on the same model.

    Raises:
        ModelError: there is no such model, or a part of it cannot be fetched.
    """
    folder = PRETRAINED / name if name in MODELS else Path(name)
    if not (folder / "config.json").exists():
        if name == "onellm-7b":
            raise ModelError("The weights of onellm-7b cannot be loaded by this version; use --model onellm-tiny.")
        raise ModelError(f"There is no model '{name}'; give one of {', '.join(MODELS)} or the path of a model folder.")
    import torch

    from onellm.auto import OneLLMForConditionalGeneration, OneLLMProcessor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = OneLLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    return Chat(model, OneLLMProcessor.from_pretrained(folder), folder.name)


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
        self._tensors: dict[str, Any] = {}

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
            self._tensor(part)  # a file that cannot be read is told before anything changes
        content.append({"type": "text", "text": text or DEFAULT_QUESTION})
        return {"role": "user", "content": content}

    def _tensor(self, part: dict) -> Any:
        """Return the tensor of a file part; a file is read once a conversation."""
        key = json.dumps(part, sort_keys=True, default=str)
        if key not in self._tensors:
            self._tensors[key] = self.processor.to_tensor(part)
        return self._tensors[key]

    def _answer(self, max_new_tokens: int, temperature: float, top_p: float, seed: int | None) -> Iterator[str]:
        """Generate the answer to the messages so far in a thread of its own, and append it to them."""
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer, set_seed

        class Stopped(StoppingCriteria):
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                return torch.full((input_ids.shape[0],), stop.is_set(), device=input_ids.device)

        stop = self._stop = threading.Event()
        tokenizer = self.processor.tokenizer
        inputs = self.processor.apply_chat_template(self.messages, to_tensor=self._tensor)
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {}
        failure: list[BaseException] = []

        def run() -> None:
            try:
                with self._lock:
                    if seed is not None:
                        set_seed(seed)
                    self.model.generate(
                        **inputs.to(self.model.device),
                        max_new_tokens=min(max_new_tokens, LIMITS.new_tokens),
                        eos_token_id=tokenizer.eos_token_id,
                        pad_token_id=tokenizer.pad_token_id,
                        streamer=streamer,
                        stopping_criteria=StoppingCriteriaList([Stopped()]),
                        **({"do_sample": False} | sampling),
                    )
            except BaseException as error:  # told to the reader of the stream
                failure.append(error)
                streamer.end()

        worker = threading.Thread(target=run, daemon=True)
        worker.start()
        pieces: list[str] = []
        try:
            for piece in streamer:
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
