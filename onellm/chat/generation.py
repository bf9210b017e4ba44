"""The generation worker: prompt and files become text, in this process or, on ZeroGPU, in one that has the GPU."""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import Any

from onellm.chat.jobs import Fail, Job, JobThread, Pulse
from onellm.chat.outputs.diffusion import Generators, Interrupted
from onellm.chat.outputs.media import GeneratedMedia, Media
from onellm.chat.protocol import CacheState, EncodeDone, Request, TextDelta
from onellm.chat.streaming import TextFilter, TokenDecoder
from onellm.chat.trace import watch
from onellm.errors import ModelError, OneLLMError
from onellm.utils import oom
from onellm.utils.limits import LIMITS
from onellm.utils.zerogpu import is_zero, on_gpu

Event = EncodeDone | TextDelta | GeneratedMedia

logger = logging.getLogger(__name__)


class GenerationWorker:
    """Generates answers with a model, one after the other, in a thread of its own.

    Args:
        model: a `OneLLMForConditionalGeneration`.
        processor: its processor.
        lighter: options of the command line with which it would take less memory; empty if there are none.
        generators: make what the model only describes.

    Attributes:
        lock: held while the model generates.
        closed: it gave its model back and will not generate again.
        pulse: called whenever it gets on.
        broken: an answer failed, and so did a token of a prompt that cannot fail: the model has to be loaded again.
        description: what the model is good for.
        stop_strings: texts at which an answer ends.
        local: whether it generates in this process, where a conversation's cache can be kept.
    """

    def __init__(self, model: Any, processor: Any, lighter: str = "", generators: Generators | None = None):
        self.model, self.processor, self.lighter = model, processor, lighter
        self.generators = generators or Generators()
        self.lock = threading.Lock()
        self.closed = self.broken = False
        self._recent: list[weakref.ref[CacheState]] = []  # whose caches are kept; the one answered last stands last
        self.description = model.config.description
        self.stop_strings = model.generation_config.stop_strings or model.config.stop_strings or []
        self.local = not is_zero()
        self._forked = on_gpu(self._events)
        self.pulse = Pulse()
        for layer in _layers(model):
            layer.register_forward_hook(self.pulse)
        self._begin()

    def _begin(self) -> None:
        self._thread = JobThread(self.pulse)
        self._end = weakref.finalize(self, self._thread.end)

    def submit(self, job: Job, fail: Fail) -> None:
        """Run something in the worker's thread, once what was submitted before has ended.

        Args:
            job: must not raise.
            fail: says to whoever waits for the job that it will not end.
        """
        self._thread.submit(job, fail)

    @property
    def stalled_s(self) -> float:
        """Seconds without progress; 0 where nothing is to be done, or another process does it."""
        return self._thread.stalled_s if self.local else 0.0

    def give_up(self, error: ModelError) -> None:
        """Leave an answer that gets on no more to itself: the model has to be loaded again.

        Args:
            error: what those are told who wait for it.
        """
        self.closed = self.broken = True
        self.model, self.lock, hung = None, threading.Lock(), self._thread
        self.generators = Generators()
        self._begin()  # it refuses what comes from now on
        hung.give_up(error)

    def close(self) -> None:
        """Give the model back once a running answer has ended; `generate` refuses from then on."""
        with self.lock:
            self.closed = True
            self.model = None
            self.generators = Generators()  # closed conversations still know this worker; pipelines need not stay

    def generate(
        self, request: Request, state: CacheState, stop: threading.Event, say: Callable[[Event], None]
    ) -> None:
        """Generate an answer; to be called in the worker's thread.

        Args:
            request: the prompt and its files.
            state: the conversation's cache; brought up to date when the answer ends.
            stop: set to end the answer within one token.
            say: takes `EncodeDone`, then every `TextDelta`, then the media that were generated.

        Raises:
            OneLLMError: there is no answer, or no more of it, and why.
        """
        if self.local:
            with self.lock:
                self._guarded(request, state, stop, say)
            return
        with self.lock, closing(self._forked(request)) as events:
            for event in events:
                if isinstance(event, OneLLMError):
                    raise event
                say(event)
                if stop.is_set():
                    return

    def _events(self, request: Request) -> Iterator[Event | OneLLMError]:
        """Generate in a forked process, where nothing is shared; closing this ends the answer within one token."""
        stop = threading.Event()
        events: SimpleQueue[Event | OneLLMError | None] = SimpleQueue()

        def run() -> None:
            try:
                self._guarded(request, CacheState(), stop, events.put)
            except OneLLMError as error:
                events.put(error)
            finally:
                events.put(None)

        thread = threading.Thread(target=run, name="generation", daemon=True)
        thread.start()
        try:
            yield from iter(events.get, None)
        finally:
            stop.set()
            thread.join()

    def _guarded(
        self, request: Request, state: CacheState, stop: threading.Event, say: Callable[[Event], None]
    ) -> None:
        """Generate; whatever goes wrong becomes an error for the user."""
        failure = None
        try:
            if self.closed:
                raise ModelError("The model was exchanged; ask again in a new conversation.")
            self._run(request, state, stop, say)
            self.broken = self.closed and self.broken
        except BaseException as error:
            failure = self._as_user_error(error, request)
        oom.trim()
        if failure is not None:
            raise failure

    def _run(self, request: Request, state: CacheState, stop: threading.Event, say: Callable[[Event], None]) -> None:
        """Encode the files and generate."""
        import torch
        from transformers import (
            LogitsProcessor,
            LogitsProcessorList,
            StoppingCriteria,
            StoppingCriteriaList,
        )

        model, tokenizer, settings = self.model, self.processor.tokenizer, request.settings
        stop_strings = [*self.stop_strings, *request.stop_strings]
        outputs = self.processor.outputs.items()
        delimiters = {modality: (output["start"], output["end"]) for modality, output in outputs if "start" in output}
        decoder, text = TokenDecoder(tokenizer), TextFilter(delimiters, stop_strings)
        text_end = min((span.first for span in model.config.spans), default=None)
        ends = self._ends()
        drawing = {"temperature": settings.temperature, "top_p": settings.top_p} if settings.temperature > 0 else {}
        beams = 1 if drawing else model.generation_config.num_beams or 1

        class CheckNumbers(LogitsProcessor):
            def __call__(self, input_ids: Any, scores: Any) -> Any:
                if scores.amax().isnan():  # the likeliest of them would be a token like any other
                    raise FloatingPointError("what it computed are no numbers")
                return scores

        class Deltas(StoppingCriteria):
            """Says every token's text as soon as it is chosen, and ends the answer where it is to end."""

            count, over = 0, False

            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                pulse()
                if beams == 1 and not self.over:  # on a GPU transformers may run a step more and take it back
                    token = int(input_ids[0, -1])
                    self.count += 1
                    piece = text.feed(decoder.feed(token)) if text_end is None or token < text_end else ""
                    say(TextDelta(piece, time.perf_counter(), 1))
                    self.over = text.stopped or token in ends or self.count == settings.max_new_tokens
                ended = text.stopped or stop.is_set()
                self.over = self.over or ended
                return torch.full((input_ids.shape[0],), ended, device=input_ids.device)

        begun_s, pulse = time.perf_counter(), self.pulse
        if settings.seed is not None:
            torch.manual_seed(settings.seed)
        embeds = self._encode(request)
        prompt = self._prompt(request, embeds)
        tokens, cache = state.tokens, state.cache
        state.forget()  # until this answer has come
        cache, cached = self._cut(tokens, cache, prompt, bool(request.files))
        encoded_s = time.perf_counter()
        fresh = {key: embeds[key] if self.local else embeds[key].cpu() for key in request.tensors}
        say(EncodeDone(fresh, request.traces, cached, encoded_s - begun_s, encoded_s))
        if stop.is_set():
            state.tokens, state.cache = prompt[:cached], cache
            return
        media: dict[str, list] = {}
        for modality, key in request.files:
            media.setdefault(modality, []).append(embeds[key])
        searched = {"tokenizer": tokenizer, "stop_strings": stop_strings} if beams > 1 and stop_strings else {}
        output = model.generate(
            **{name: value.to(model.device) for name, value in self.processor.pad([request.ids]).items()},
            media=media,
            media_are_embeds=True,
            past_key_values=cache,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
            num_beams=beams,
            stopping_criteria=StoppingCriteriaList([Deltas()]),
            logits_processor=LogitsProcessorList([CheckNumbers()]),
            do_sample=bool(drawing),
            **drawing,
            **searched,
        )
        new = output[0, len(prompt) :].tolist()
        whole = beams > 1  # of which the best is known at the end
        rest = tokenizer.decode(new, skip_special_tokens=True) if whole else decoder.end()
        piece = text.feed(rest) + text.end()
        say(TextDelta(piece, time.perf_counter(), len(new) if whole else 0, text.stopped))
        if whole:  # the cache holds all beams
            return
        answered = prompt + new
        state.tokens, state.cache = answered[: cache.get_seq_length()], cache
        self._keep_caches(LIMITS.caches, state)
        for generated in self._generated(output, len(prompt), media, text, settings.seed, stop):
            say(generated)

    def _generated(
        self,
        output: Any,
        prompt: int,
        media: dict[str, list],
        text: TextFilter,
        seed: int | None,
        stop: threading.Event,
    ) -> Iterator[GeneratedMedia]:
        """Generate what an answer holds besides text; what cannot be generated says why."""
        from onellm.model.output_heads import unfinished

        outputs, spans = self.model.config.outputs, self.model.config.spans
        cut = "The answer ended before it was whole; allow more tokens, and ask again."
        wanted = []
        found = self.model.generate_media(output, prompt, media, media_are_embeds=True) if spans else ()
        for modality, tokens, result in found:
            wanted.append((GeneratedMedia(modality, tokens), result))
        for modality, asked in text.prompts:
            start, end = text.delimiters[modality]
            tokens = self.processor.tokenizer(f"{start}{asked}{end}", add_special_tokens=False)["input_ids"]
            wanted.append((GeneratedMedia(modality, tokens, asked.strip()), None))
        begun = unfinished(output[0, prompt:].tolist(), spans) if spans else None
        if begun or text.open:
            wanted.append((GeneratedMedia(begun[0].modality if begun else text.open, [], error=cut), None))

        def stopped() -> bool:
            self.pulse()
            return stop.is_set()

        for generated, result in wanted:
            if stopped():
                return
            modality = generated.modality
            if outputs[modality]["type"] == "tokens" and result is not None:
                generated.media = Media.of_floats(modality, result.float().permute(1, 2, 0).cpu().numpy())
            elif not generated.error:
                trained = outputs[modality].get("generator")
                try:
                    generated.media = self.generators.make(
                        modality, generated.prompt or None, result, trained, seed, stopped
                    )
                except Interrupted:
                    return
                except ModelError as error:
                    generated.error = str(error)
            yield generated

    def _ends(self) -> list[int]:
        """Return the tokens that end an answer: the tokenizer's, and those the model was published with."""
        published = self.model.generation_config.eos_token_id
        ends = {self.processor.tokenizer.eos_token_id, *(published if isinstance(published, list) else [published])}
        return sorted(end for end in ends if end is not None)

    def _keep_caches(self, count: int, latest: CacheState | None = None) -> None:
        """Keep the caches of the conversations that were answered last."""
        alive = [state for state in (known() for known in self._recent) if state is not None and state is not latest]
        alive += [latest] if latest is not None else []
        kept = alive[len(alive) - min(count, len(alive)) :]
        for state in alive[: len(alive) - len(kept)]:
            state.forget()
        self._recent = [weakref.ref(state) for state in kept]

    def _encode(self, request: Request) -> dict[str, Any]:
        """Encode the new files; return the soft tokens of all of them, by key."""
        import torch

        embeds = dict(request.media_embeds)
        for modality, key in request.files:
            if key not in embeds:
                question = request.instructions.get(key)
                asked = {} if question is None else {"instructions": [question]}
                with torch.no_grad(), watch(self.model, self.processor.tokenizer, request.traces[key]):
                    embeds[key] = self.model.media_embeds(modality, [request.tensors[key]], **asked)[0]
        return embeds

    def _prompt(self, request: Request, embeds: dict[str, Any]) -> list:
        """Return the prompt with the files' keys in place of their placeholders, which are the same for every file."""
        placeholders = {settings["token_id"] for settings in self.model.config.modalities.values()}
        keys = iter([key for _, key in request.files for _ in range(len(embeds[key]))])
        return [next(keys) if token in placeholders else token for token in request.ids]

    @staticmethod
    def _cut(known: list, cache: Any, prompt: list, files: bool) -> tuple[Any, int]:
        """Cut a cache down to what it shares with a prompt: the cache, or a new one, and how much that is."""
        from onellm.model.runtime.kv_cache import GrowingCache

        most = min(len(known), len(prompt) - 1)  # the last token always runs
        shared = next((index for index in range(most) if known[index] != prompt[index]), most)
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
        """Whether the model computes numbers from one token, and from empty files like those of a request."""
        import torch

        from onellm.model.merging import Windows

        try:
            with torch.no_grad():
                start = self.processor.pad([[self.processor.tokenizer.bos_token_id or 0]])["input_ids"]
                computed = [self.model(input_ids=start.to(self.model.device)).logits]
                for modality, key in request.files:
                    if key in request.tensors:
                        value = request.tensors[key]
                        zeros = value.map(torch.zeros_like) if isinstance(value, Windows) else torch.zeros_like(value)
                        computed += self.model.media_embeds(modality, [zeros])
                return all(bool(torch.isfinite(values).all()) for values in computed)
        except Exception as error:  # whatever a broken model leads to; a lack of memory says nothing about it
            return oom.ran_out(error)


def _layers(model: Any) -> list[Any]:
    """Return the parts of a model that run one after the other."""
    from torch import nn

    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return list({id(layer): layer for layers in lists for layer in layers}.values())
