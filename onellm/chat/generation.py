"""The generation worker: prompt and files become text, in this process or, on ZeroGPU, in one that has the GPU."""

import logging
import queue
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from onellm.chat.outputs.diffusion import Generators, Interrupted
from onellm.chat.outputs.media import GeneratedMedia, Media
from onellm.chat.protocol import CacheState, EncodeDone, Here, Request, TextDelta
from onellm.chat.streaming import DelimiterFilter
from onellm.chat.trace import watch
from onellm.errors import ModelError, OneLLMError
from onellm.utils import oom
from onellm.utils.limits import LIMITS
from onellm.utils.zerogpu import is_zero, on_gpu

logger = logging.getLogger(__name__)


class GenerationWorker:
    """Writes answers with a model, one at a time.

    Args:
        model: a `OneLLMForConditionalGeneration`.
        processor: its processor.
        lighter: options of the command line with which it would take less memory; empty if there are none.
        generators: make what the model only describes.

    Attributes:
        lock: held while the model writes.
        closed: it gave its model back and will not write again.
        broken: an answer failed, and so did a token of a prompt that cannot fail: the model has to be loaded again.
        description: what the model is good for.
        stop_strings: texts at which an answer ends.
        here: whether it writes in this process, where a conversation's cache can be kept.
        stream: `write`, or on ZeroGPU the same in a forked process.
    """

    def __init__(self, model: Any, processor: Any, lighter: str = "", generators: Generators | None = None):
        self.model, self.processor, self.lighter = model, processor, lighter
        self.generators = generators or Generators()
        self.lock = threading.Lock()
        self.closed = self.broken = False
        self._recent: list[weakref.ref[CacheState]] = []  # whose caches are kept; the one answered last stands last
        self.description = model.config.description
        self.stop_strings = model.generation_config.stop_strings or model.config.stop_strings or []
        self.here = not is_zero()
        self.stream = on_gpu(self.write)

    def close(self) -> None:
        """Give the model back once a running answer has ended; `write` refuses from then on."""
        with self.lock:
            self.closed = True
            self.model = None
            self.generators = Generators()  # closed conversations still know this writer; pipelines need not stay

    def write(
        self, request: Request, here: Here | None = None
    ) -> Iterator[EncodeDone | TextDelta | GeneratedMedia | OneLLMError]:
        """Write an answer in a thread of its own; closing the stream ends it within one token.

        Args:
            request: the prompt and its files.
            here: None in a forked process, where nothing is shared and closing is the only way to stop.

        Yields:
            `EncodeDone`, then the pieces, then what was made besides text; what goes wrong comes last, in words.
        """
        closed = threading.Event()
        stops = [closed, here.stop] if here else [closed]
        said: queue.SimpleQueue = queue.SimpleQueue()

        def run() -> None:
            asked_s = time.perf_counter()
            try:
                with self.lock if here else nullcontext():
                    try:
                        if self.closed:
                            raise ModelError("The model was exchanged; ask again in a new conversation.")
                        self._run(request, here.past if here else CacheState(), stops, said, asked_s)
                        self.broken = False
                    except BaseException as error:  # told to the reader of the stream
                        said.put(self._as_user_error(error, request))
                    oom.trim()
            finally:
                said.put(None)

        worker = threading.Thread(target=run, name="write-answer", daemon=True)
        worker.start()
        try:
            yield from iter(said.get, None)
        finally:
            closed.set()
            worker.join()

    def _run(
        self, request: Request, past: CacheState, stops: list[threading.Event], said: queue.SimpleQueue, asked_s: float
    ) -> None:
        """Encode the files and generate; the lock is held."""
        import torch
        from transformers import (
            LogitsProcessor,
            LogitsProcessorList,
            StoppingCriteria,
            StoppingCriteriaList,
            TextStreamer,
            set_seed,
        )

        class Numbers(LogitsProcessor):
            def __call__(self, input_ids: Any, scores: Any) -> Any:
                if scores.isnan().any():  # the likeliest of them would be a token like any other
                    raise FloatingPointError("what it computed are no numbers")
                return scores

        class Stopped(StoppingCriteria):
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                stopped = any(stop.is_set() for stop in stops)
                return torch.full((input_ids.shape[0],), stopped, device=input_ids.device)

        model, tokenizer, settings = self.model, self.processor.tokenizer, request.settings
        marks = DelimiterFilter(
            {modality: (s["start"], s["end"]) for modality, s in self.processor.outputs.items() if "start" in s}
        )
        words_end = min((span.first for span in model.config.spans), default=None)

        class Pieces(TextStreamer):
            def put(self, value: Any) -> None:
                if words_end is None or self.next_tokens_are_prompt or bool((value < words_end).all()):
                    super().put(value)
                else:  # a token of something other than text
                    said.put(TextDelta("", time.perf_counter(), 1))

            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                text = marks.feed(text) + (marks.end() if stream_end else "")
                said.put(TextDelta(text, time.perf_counter(), 0 if stream_end else 1))

        begun_s = time.perf_counter()
        if settings.seed is not None:
            set_seed(settings.seed)
        words = self._encode(request)
        prompt = self._prompt(request, words)
        tokens, cache = past.tokens, past.cache
        past.forget()  # until this answer has come
        cache, cached = self._cut(tokens, cache, prompt, bool(request.files))
        encoded_s = time.perf_counter()
        fresh = {key: words[key] if self.here else words[key].cpu() for key in request.tensors}
        said.put(EncodeDone(fresh, request.traces, cached, begun_s - asked_s, encoded_s - begun_s, encoded_s))
        media: dict[str, list] = {}
        for modality, key in request.files:
            media.setdefault(modality, []).append(words[key])
        drawing = {"temperature": settings.temperature, "top_p": settings.top_p} if settings.temperature > 0 else {}
        beams = 1 if drawing else model.generation_config.num_beams or 1
        streamer = Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True) if beams == 1 else None
        output = model.generate(
            **{name: value.to(model.device) for name, value in self.processor.pad([request.ids]).items()},
            media=media,
            media_are_embeds=True,
            past_key_values=cache,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=self._ends(),
            pad_token_id=tokenizer.pad_token_id,
            tokenizer=tokenizer,  # for stop strings
            streamer=streamer,
            num_beams=beams,
            stopping_criteria=StoppingCriteriaList([Stopped()]),
            logits_processor=LogitsProcessorList([Numbers()]),
            do_sample=bool(drawing),
            **drawing,
        )
        new = output[0, len(prompt) :].tolist()
        if beams > 1:  # of which the best is known at the end; the cache holds all of them
            said.put(TextDelta(tokenizer.decode(new, skip_special_tokens=True), time.perf_counter(), len(new)))
            return
        answered = prompt + new
        past.tokens, past.cache = answered[: cache.get_seq_length()], cache
        self._keep_caches(LIMITS.caches, past)
        for made in self._make(output, len(prompt), media, marks, settings.seed, stops):
            said.put(made)

    def _make(
        self,
        output: Any,
        prompt: int,
        media: dict[str, list],
        marks: DelimiterFilter,
        seed: int | None,
        stops: list[threading.Event],
    ) -> Iterator[GeneratedMedia]:
        """Make what an answer holds besides text; what cannot be made says why."""
        from onellm.model.output_heads import unfinished

        def stopped() -> bool:
            return any(stop.is_set() for stop in stops)

        outputs, spans = self.model.config.outputs, self.model.config.spans
        cut = "The answer ended before it was whole; allow more tokens, and ask again."
        wanted = []
        found = self.model.generate_media(output, prompt, media, media_are_embeds=True) if spans else ()
        for modality, tokens, result in found:
            wanted.append((GeneratedMedia(modality, tokens), result))
        for modality, words in marks.found:
            start, end = marks.known[modality]
            tokens = self.processor.tokenizer(f"{start}{words}{end}", add_special_tokens=False)["input_ids"]
            wanted.append((GeneratedMedia(modality, tokens, words.strip()), None))
        begun = unfinished(output[0, prompt:].tolist(), spans) if spans else None
        if begun or marks.open:
            wanted.append((GeneratedMedia(begun[0].modality if begun else marks.open, [], error=cut), None))
        for made, result in wanted:
            if stopped():
                return
            if outputs[made.modality]["type"] == "tokens" and result is not None:
                made.media = Media.of_floats(made.modality, result.float().permute(1, 2, 0).cpu().numpy())
            elif not made.error:
                own = outputs[made.modality].get("generator")
                try:
                    made.media = self.generators.make(made.modality, made.prompt or None, result, own, seed, stopped)
                except Interrupted:
                    return
                except ModelError as error:
                    made.error = str(error)
            yield made

    def _ends(self) -> list[int]:
        """Return the tokens that end an answer: the tokenizer's, and those the model was published with."""
        own = self.model.generation_config.eos_token_id
        ends = {self.processor.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
        return sorted(end for end in ends if end is not None)

    def _keep_caches(self, count: int, latest: CacheState | None = None) -> None:
        """Keep the caches of the conversations that were answered last; the lock is held."""
        alive = [past for past in (known() for known in self._recent) if past is not None and past is not latest]
        alive += [latest] if latest is not None else []
        kept = alive[len(alive) - min(count, len(alive)) :]
        for past in alive[: len(alive) - len(kept)]:
            past.forget()
        self._recent = [weakref.ref(past) for past in kept]

    def _encode(self, request: Request) -> dict[str, Any]:
        """Encode the new files; return the soft tokens of all of them, by key."""
        import torch

        words = dict(request.words)
        for modality, key in request.files:
            if key not in words:
                question = request.instructions.get(key)
                asked = {} if question is None else {"instructions": [question]}
                with torch.no_grad(), watch(self.model, self.processor.tokenizer, request.traces[key]):
                    words[key] = self.model.media_embeds(modality, [request.tensors[key]], **asked)[0]
        return words

    def _prompt(self, request: Request, words: dict[str, Any]) -> list:
        """Return the prompt with the files' keys in place of their placeholders, which all look alike."""
        placeholders = {settings["token_id"] for settings in self.model.config.modalities.values()}
        keys = iter([key for _, key in request.files for _ in range(len(words[key]))])
        return [next(keys) if token in placeholders else token for token in request.ids]

    @staticmethod
    def _cut(known: list, cache: Any, prompt: list, files: bool) -> tuple[Any, int]:
        """Cut a cache down to what it shares with a prompt: the cache, or a new one, and how much that is."""
        from onellm.model.runtime.kv_cache import GrowingCache

        most = min(len(known), len(prompt) - 1)  # the last token always runs
        shared = next((place for place in range(most) if known[place] != prompt[place]), most)
        if any(isinstance(token, str) for token in known) != files:  # then the adapter was off, or on
            shared = 0
        if cache is None or not shared:
            return GrowingCache(), 0
        cache.crop(shared - cache.get_seq_length())
        return cache, shared

    @property
    def too_much(self) -> str:
        """What is said when the memory is not enough."""
        instead = f", or load a model that needs less: {self.lighter}" if self.lighter else ""
        return (
            "The memory was not enough for this answer; ask with fewer or smaller files, or in a new conversation"
            f"{instead}."
        )

    def _as_user_error(self, error: BaseException, request: Request) -> OneLLMError:
        """Say what went wrong, free what was half done, and find out whether the model still works."""
        if isinstance(error, OneLLMError):
            return error
        if oom.ran_out(error):
            oom.let_go(error)
            self._keep_caches(0)
            oom.free()
            return ModelError(self.too_much)
        logger.error("the model failed", exc_info=error)
        reason = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(" .")
        oom.let_go(error)
        self.broken = not self._works(request)
        if self.broken:
            return ModelError(f"The model failed ({reason}) and has to be loaded again; ask again in a moment.")
        return ModelError(f"The model failed ({reason}); ask again or start a new conversation.")

    def _works(self, request: Request) -> bool:
        """Whether the model makes numbers of one token, and of empty files like those of a request."""
        import torch

        from onellm.model.merging import Windows

        try:
            with torch.no_grad():
                start = self.processor.pad([[self.processor.tokenizer.bos_token_id or 0]])["input_ids"]
                made = [self.model(input_ids=start.to(self.model.device)).logits]
                for modality, key in request.files:
                    if key in request.tensors:
                        value = request.tensors[key]
                        zeros = value.map(torch.zeros_like) if isinstance(value, Windows) else torch.zeros_like(value)
                        made += self.model.media_embeds(modality, [zeros])
                return all(bool(torch.isfinite(values).all()) for values in made)
        except Exception as error:  # whatever a broken model leads to; a lack of memory says nothing about it
            return oom.ran_out(error)
