"""Chat: a conversation with a model about files. The web app, the shell and Python all speak through it."""

import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from onellm.chat.generation import Event, GenerationWorker
from onellm.chat.outputs.diffusion import Generators
from onellm.chat.outputs.media import GeneratedMedia, name_for
from onellm.chat.outputs.media import write as write_media
from onellm.chat.protocol import CacheState, EncodeDone, Request
from onellm.chat.sampling import Settings, check_stop
from onellm.chat.streaming import AnswerJob, AnswerStream, FinishReason
from onellm.chat.trace import FileTrace, Timings, Trace, segments
from onellm.errors import ModelError, OneLLMError
from onellm.modalities import MODALITIES
from onellm.model.messages import DEFAULT_QUESTION, check_count, is_file, key_of, name_of, with_parts
from onellm.model.timeline import spans
from onellm.utils import oom
from onellm.utils.limits import LIMITS


class Chat:
    """One conversation.

    Attributes:
        messages: transformers' chat messages; a file is `{"type": modality, "path": ...}` with its options.
        name: the model's name.
        origin: what it was loaded from: a name of `registry.MODELS` or a folder.
        quantize: how its weights are kept.
        trace: what the model did for the last answer; None before the first.
        output_path: name and bytes -> where a file goes that an answer generates; by default a new temporary folder.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        *,
        origin: str = "",
        quantize: str = "none",
        lighter: str = "",
        worker: GenerationWorker | None = None,
        generators: Generators | None = None,
    ):
        self.model, self.processor, self.name = model, processor, name
        self.origin, self.quantize = origin or name, quantize
        self.messages: list[dict] = []
        self.trace: Trace | None = None
        self._worker = worker or GenerationWorker(model, processor, lighter, generators)  # one a model
        self.output_path: Callable[[str, int], Path] = _temporary
        self._jobs: weakref.WeakSet[AnswerJob] = weakref.WeakSet()  # that were asked for
        self._forget()

    def _forget(self) -> None:
        self._tensors: dict[str, Any] = {}  # of files read for the question that is being asked, until they are encoded
        self._media_embeds: dict[str, Any] = {}  # soft tokens of a file: encoded once a conversation
        self._file_traces: dict[str, FileTrace] = {}
        self._state = CacheState()

    @property
    def description(self) -> str:
        """Which model answers and what it is good for."""
        return f"{self.name}: {self._worker.description}"

    @property
    def converses(self) -> bool:
        """Whether the LLM is told what files show and left to itself, or was trained to name what they show."""
        return bool(self.processor.media_instruction)

    @property
    def inputs(self) -> dict[str, dict]:
        """What the model takes of a file: modality -> settings of its `to_tensor`, and `windows` of long files."""
        modalities = self.processor.modalities.items()
        return {
            modality: settings.get("input", {}) | {key: settings[key] for key in ("windows",) if key in settings}
            for modality, settings in modalities
        }

    @property
    def busy(self) -> bool:
        """Whether the model answers somebody."""
        return self._worker.lock.locked()

    @property
    def broken(self) -> bool:
        """Whether the model failed in a way that it does not recover from."""
        return self._worker.broken

    @property
    def stalled_s(self) -> float:
        """Seconds since the answer that is being written last got on; 0 where none is."""
        return self._worker.stalled_s

    def give_up(self) -> None:
        """Leave an answer that gets on no more to itself; the model is broken then, for all conversations with it."""
        told = f"The model got on no more for {self.stalled_s:.0f} s and is loaded again; ask again in a moment."
        self._worker.give_up(ModelError(told))

    @property
    def closed(self) -> bool:
        """Whether this conversation gave its model back, and cannot go on."""
        return self.model is None

    def new(self, messages: list[dict] | None = None) -> "Chat":
        """Open another conversation with the same model.

        Args:
            messages: what was said in it so far; files are read when the next question comes.

        Raises:
            ModelError: this conversation is closed.
        """
        self._check_open()
        kept = {"origin": self.origin, "quantize": self.quantize, "worker": self._worker}
        chat = Chat(self.model, self.processor, self.name, **kept)
        chat.messages = [with_parts(message) for message in messages or []]
        chat.output_path = self.output_path
        return chat

    def close(self) -> None:
        """Give the model back, as soon as a running answer has ended; the messages stay."""
        self._worker.close()
        self.model = None
        self._forget()

    def _check_open(self) -> None:
        if self.closed or self._worker.closed:
            raise ModelError(
                f"{self.name} was unloaded; go on in a new conversation with the model that is loaded now."
            )

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
        system: str = "",
        stop: Sequence[str] = (),
        **files: Any,
    ) -> AnswerStream:
        """Ask, and return the answer's text as a stream, an iterator of pieces.

        The answer begins when its first piece is wanted; white space around it is left out. What it holds besides
        text stands in the last of `messages`, as content parts with their `path`, see `Chat.generated`.

        Args:
            text: the question; with files and no text it is "What is this?".
            max_new_tokens: longest answer, in tokens.
            temperature: 0 answers with the likeliest words; higher is freer.
            top_p: only the likeliest words that make up this share are drawn.
            seed: makes drawn answers repeatable.
            system: a message before the conversation that tells the model how to answer.
            stop: texts at which the answer ends, before them.
            **files: modality -> a path, a dict of `path` and the modality's load options, or a list of these.

        Raises:
            OneLLMError: a setting is out of its range; while the answer is read: the message or a file is not
                acceptable, and the conversation is as it was before.
        """
        settings = Settings(max_new_tokens, temperature, top_p, seed, system)
        return self._open(self._ask, text, files, settings, check_stop(stop))

    def retry(self, *, stop: Sequence[str] = (), **options: Any) -> AnswerStream:
        """Answer the last question again; options as for `stream`."""
        return self._open(self._ask_again, Settings(**options), check_stop(stop))

    def _open(self, ask: Callable[..., FinishReason], *arguments: Any) -> AnswerStream:
        job = AnswerJob(partial(ask, *arguments), self._worker.submit)
        self._jobs.add(job)
        return AnswerStream(job)

    def _ask(self, text: str, files: dict[str, Any], settings: Settings, *answer: Any) -> FinishReason:
        """Add a question to the conversation and answer it; in the worker's thread, as what follows."""
        with self._begin():
            message = self._message(text, files)
            self.messages.append(message)
            try:
                return self._answer(settings, *answer)
            finally:
                if self.messages and self.messages[-1] is message:  # no answer came
                    self.messages.pop()

    def _ask_again(self, settings: Settings, *answer: Any) -> FinishReason:
        with self._begin():
            if not self.messages:
                raise OneLLMError("There is no question to answer again; ask one first.")
            dropped = self.messages.pop()
            try:
                return self._answer(settings, *answer)
            finally:
                if self.messages[-1]["role"] == "user":
                    self.messages.append(dropped)

    def undo(self) -> None:
        """Take the last question and its answer back."""
        del self.messages[-2:]

    def clear(self) -> None:
        """Forget the conversation and its files."""
        self.messages.clear()
        self.trace = None
        self._forget()

    def stop(self) -> None:
        """End the answers that were asked for: a running one within one token, with what was said, others at once."""
        for job in list(self._jobs):
            job.stop()

    @contextmanager
    def _begin(self) -> Iterator[None]:
        """Get ready for an answer; at its end nothing half done stays in memory."""
        self._check_open()
        try:
            with oom.as_user_error(lambda: self._worker.too_much):
                yield
        finally:
            self._tensors.clear()

    def _message(self, text: str, files: dict[str, Any]) -> dict:
        """Check a question and its files and make a chat message of them."""
        content: list[dict] = []
        for modality, given in files.items():
            if modality not in MODALITIES:
                raise OneLLMError(f"'{modality}' is no kind of file; use one of {', '.join(MODALITIES)}.")
            if given:
                self.processor.settings_of(modality)  # refused before any file is read
            for item in given if isinstance(given, list | tuple) else [given]:
                if item is not None:
                    part = item if isinstance(item, dict) else {"path": os.fspath(item)}
                    content.append({"type": modality, **part})
        check_count(content)
        text = text.strip()
        if len(text) > LIMITS.message_characters:
            raise OneLLMError(
                f"The question has {len(text):,} characters; {LIMITS.message_characters:,} are allowed, shorten it."
            )
        if not text and not content:
            raise OneLLMError("Nothing was asked; type a question or add a file.")
        content = [self.processor.resolve(part) for part in content]
        content = self.processor.instruct([*content, {"type": "text", "text": text or DEFAULT_QUESTION}])
        for piece in (cut for part in filter(is_file, content) for cut in spans(part)):
            self._read(piece)  # a file that cannot be read is refused before anything changes
        return {"role": "user", "content": content}

    def _read(self, part: dict) -> str:
        """Read the file of a content part, unless this conversation has read it; return its key."""
        key = key_of(part, self._media_embeds)
        if key not in self._media_embeds and key not in self._tensors:
            self._worker.pulse()
            begun_s = time.perf_counter()
            tensor = self.processor.to_tensor(part)
            took_s = time.perf_counter() - begun_s
            self._tensors[key] = tensor
            windows = [(cut["start_s"], cut["stop_s"]) for cut in self.processor.windows(part)]
            shape = list(tensor.shape)
            self._file_traces[key] = FileTrace(
                part["type"], name_of(part), shape, findings=part.get("findings", []), read_s=took_s, windows=windows
            )
        return key

    def _runs(self, messages: list[dict]) -> list[tuple[str | dict, list[int]]]:
        """Lay messages out: pieces of the prompt with their token ids."""
        from jinja2 import TemplateError

        try:
            return self.processor.runs(self.processor.render(messages))
        except TemplateError as error:
            raise OneLLMError(
                f"The prompt of {self.name} cannot hold this conversation ({error}); leave the system message out, or "
                "start a new conversation."
            ) from error

    def _answer(
        self,
        settings: Settings,
        stop_strings: Sequence[str],
        say: Callable[[str], None],
        stop: threading.Event,
        wait_s: float,
    ) -> FinishReason:
        """Generate the answer to the messages so far, append it to them, and leave a trace.

        Args:
            settings: how to answer.
            stop_strings: texts at which it ends.
            say: takes its text.
            stop: set to end it.
            wait_s: seconds it waited for the model.
        """
        for message in self.messages:  # those that came from elsewhere
            message["content"] = [self.processor.resolve(part) for part in message["content"]]
        text = "\n".join(filter(None, [settings.system.strip(), *self.processor.instructions]))
        messages = [{"role": "system", "content": [{"type": "text", "text": text}]}] * bool(text) + self.messages
        runs = self._runs(messages)
        trace = Trace(self.name, settings=asdict(settings), stopped=True)
        request = self._request(runs, settings, stop_strings)
        pieces: list[str] = []
        generated: list[dict] = []
        at_s, at_stop_string, done = 0.0, False, False

        def note(event: Event) -> None:
            nonlocal at_s, at_stop_string
            if isinstance(event, EncodeDone):
                self._encoded(event, request, trace, runs, messages)
                trace.timings.wait_s, at_s = wait_s, event.at_s
            elif isinstance(event, GeneratedMedia):
                generated.append(self._write(event))
            else:
                if not trace.new_tokens:
                    trace.timings.prefill_s, at_s = event.at_s - at_s, event.at_s
                trace.timings.generate_s = event.at_s - at_s
                trace.new_tokens += event.tokens
                at_stop_string = event.at_stop_string
                if event.text:
                    pieces.append(event.text)
                    say(event.text)

        try:
            self._worker.generate(request, self._state, stop, note)
            trace.stopped, done = stop.is_set(), True
        finally:
            if pieces or generated or done:
                answer = [{"type": "text", "text": "".join(pieces)}, *generated]
                self.messages.append({"role": "assistant", "content": answer})
                self.trace = trace
        return "length" if trace.new_tokens >= request.settings.max_new_tokens and not at_stop_string else "stop"

    def _encoded(self, event: EncodeDone, request: Request, trace: Trace, runs: list, messages: list[dict]) -> None:
        """Keep what became of the files, and describe the prompt."""
        self._media_embeds = request.media_embeds | event.media_embeds  # those of questions that were taken back go
        self._file_traces = {key: self._file_traces[key] for key in self._media_embeds} | event.traces
        self._tensors.clear()
        trace.files = [self._file_traces[key] for _, key in request.files]
        roles = {id(part): message["role"] for message in messages for part in message["content"]}
        trace.segments = segments(runs, roles, event.cached)
        read_s = sum(self._file_traces[key].read_s for key in event.media_embeds)
        trace.timings = Timings(read_s=read_s, encode_s=event.encode_s)

    def _request(self, runs: list, settings: Settings, stop_strings: Sequence[str]) -> Request:
        """Gather what the worker needs; files of a conversation that goes on from messages are read here."""
        settings = replace(settings, max_new_tokens=min(settings.max_new_tokens, self._room(runs)))
        parts = [piece for piece, _ in runs if is_file(piece)]
        files = [(part["type"], self._read(part)) for part in parts]
        known = {key: self._media_embeds[key] for _, key in files if key in self._media_embeds}
        tensors = {key: self._tensors[key] for _, key in files if key not in known}
        traces = {key: self._file_traces[key] for key in tensors}
        asked = {key: self.processor.instruction(part) for (_, key), part in zip(files, parts, strict=True)}
        ids = [token for _, ids in runs for token in ids]
        return Request(ids, files, tensors, traces, known, settings, asked, list(stop_strings))

    @property
    def generated(self) -> list[dict]:
        """The content parts of the last answer that are not text: `type`, and `path`, or an `error` for the user."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return []
        return [part for part in self.messages[-1]["content"] if part["type"] != "text"]

    def _write(self, generated: GeneratedMedia) -> dict:
        """Write what an answer generated to a file; return its content part."""
        if generated.media is None:
            return generated.part(None)
        try:
            path = self.output_path(name_for(generated.modality), generated.media.array.nbytes)
            write_media(generated.media, path)
        except (OneLLMError, OSError, ValueError) as error:  # no room for it, or no way to write it; the text stays
            known = isinstance(error, OneLLMError)
            generated.error = str(error) if known else f"It could not be written ({error}); choose another folder."
            return generated.part(None)
        return generated.part(path)

    def _room(self, runs: list) -> int:
        """Return how many tokens an answer may have; files that leave too little of the context to text are refused.

        Raises:
            OneLLMError: files take more than their share, or nothing is left.
        """
        model = self.model  # another thread may give it back
        self._check_open()
        known = getattr(model.config.text_config, "max_position_embeddings", None)
        if not known:
            return LIMITS.new_tokens
        files = sum(len(ids) for piece, ids in runs if is_file(piece))
        if files > LIMITS.context_share * known:
            raise OneLLMError(
                f"The files of this conversation take {files:,} of the {known:,} positions that {self.name} knows; "
                f"{int(LIMITS.context_share * known):,} are for files; ask about fewer, or in a new conversation."
            )
        taken = sum(len(ids) for _, ids in runs)
        if taken >= known:
            raise OneLLMError(
                f"This conversation takes {taken:,} positions, and {self.name} knows {known:,}; begin a new one, or "
                "ask with fewer words."
            )
        return known - taken


def _temporary(name: str, _: int) -> Path:
    """Return a path in a new temporary folder."""
    return Path(tempfile.mkdtemp(prefix="onellm-generated-")) / name
