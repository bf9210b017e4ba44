"""Watching a run: losses a source, the routers' weights a modality, speed, memory, bad examples, sample answers."""

import json
import logging
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import TrainerCallback

from onellm.utils import atomic
from train.data.example import Example
from train.recipe import Recipe

logger = logging.getLogger(__name__)
SKIPPED = "skipped.jsonl"
NAMED = 20  # bad examples that are named on the screen; all are in the file


class Watch(TrainerCallback):
    """Collect figures between two log lines; write bad examples and answers into the stage's folder.

    Figures are the main process's own; what they are of is the same on all.

    Args:
        recipe: what is trained.
        processor: of the model.
        out: the stage's folder.
        is_encoder_decoder: labels are the answer's tokens alone, see `data.collate.encode_conversation`.
    """

    def __init__(self, recipe: Recipe, processor, out: Path, is_encoder_decoder: bool = False):
        self.recipe, self.processor, self.out, self.is_encoder_decoder = recipe, processor, out, is_encoder_decoder
        self.losses: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.routers: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.examples, self.since, self.skipped = 0, time.perf_counter(), Counter()
        self.answers: str | None = None

    def saw(self, source: str, loss: torch.Tensor, inputs: dict, examples: int, items: torch.Tensor | None) -> None:
        """Note a batch that was trained on.

        Args:
            source: its name.
            loss: as the Trainer uses it: where `items` is given, divided by that and not by the batch's own tokens.
            inputs: the batch.
            examples: how many it holds.
            items: labelled tokens of the whole step.
        """
        loss = loss.detach()
        if items is not None and "labels" in inputs:
            labels = inputs["labels"] if self.is_encoder_decoder else inputs["labels"][:, 1:]
            loss = loss * items / labels.ne(-100).sum()
        self.losses[source].append(loss)
        self.examples += examples

    def note_skipped(self, source: str, reasons: list[str], step: int) -> None:
        """Name and count bad examples that were replaced.

        Args:
            source: its name.
            reasons: one an example.
            step: the one they were met in.
        """
        for reason in reasons:
            self.skipped[source] += 1
            if sum(self.skipped.values()) <= NAMED:
                logger.warning("skipped: %s", reason)
        if reasons:
            lines = [json.dumps({"step": step, "source": source, "why": reason}) + "\n" for reason in reasons]
            atomic.append(self.out / SKIPPED, "".join(lines))

    def counts(self) -> dict[str, float]:
        """Return how many bad examples each source has had so far."""
        return {f"skipped/{source}": float(count) for source, count in self.skipped.items()}

    def figures(self) -> dict[str, float | str]:
        """Return what was seen since the last call, and forget it."""
        seconds = time.perf_counter() - self.since
        found = {f"loss/{source}": float(torch.stack(losses).mean()) for source, losses in self.losses.items()}
        for modality, weights in self.routers.items():
            for expert, weight in enumerate(torch.stack(weights).mean(dim=0).tolist()):
                found[f"router/{modality}/expert{expert}"] = weight
        found |= self.counts() | {"samples_per_second": self.examples / seconds, "memory_gb": memory_bytes() / 1e9}
        if self.answers:
            found["answers"], self.answers = self.answers, None
        self.losses.clear()
        self.routers.clear()
        self.examples, self.since = 0, time.perf_counter()
        return found

    def on_train_begin(self, args, state, control, model: nn.Module | None = None, **kwargs) -> None:
        """Listen to the routers, and go on counting where an earlier start's log ends."""
        self.since = time.perf_counter()
        for line in state.log_history:
            for key, count in line.items():
                if key.startswith("skipped/"):
                    self.skipped[key.removeprefix("skipped/")] = int(count)
        for modality, router in getattr(model.projector, "routers", {}).items():
            router.register_forward_hook(self._listen(modality))

    def _listen(self, modality: str) -> Callable:
        def hook(router: nn.Module, inputs: tuple, weights: torch.Tensor) -> None:
            if router.training:
                self.routers[modality].append(weights.detach().float().mean(dim=(0, 1)))

        return hook

    def on_step_end(self, args, state, control, model: nn.Module | None = None, **kwargs) -> None:
        """Ask the recipe's questions now and then; end the log's line where a checkpoint is written."""
        control.should_log |= control.should_save
        samples = self.recipe.samples
        if samples is None or not samples.ask or state.global_step % samples.every:
            return
        answers = [
            answer(model, self.processor, asked, samples.tokens, self.is_encoder_decoder) for asked in samples.ask
        ]
        if state.is_world_process_zero:
            self._write_answers(state.global_step, answers)

    def _write_answers(self, step: int, answers: list[str]) -> None:
        """Write a page with the files, the questions and the answers; the next log line has the texts."""
        from train.data.inspect import look
        from train.data.report import render

        talks = [question_of(self.processor, asked) for asked in self.recipe.samples.ask]
        for talk, text in zip(talks, answers, strict=True):
            talk.append({"role": "assistant", "content": [{"type": "text", "text": text or "(no words)"}]})
        shown = [look(Example(f"answer {n}", talk), self.processor, "chat") for n, talk in enumerate(talks, 1)]
        title = f"{self.recipe.name}: answers after {step} steps"
        page = self.out / "answers" / f"step-{step:06d}.html"
        atomic.write(page, render([], shown, title, self.recipe.name, "chat"))
        lines = [f"{talk[0]['content'][-1]['text']} → {text}" for talk, text in zip(talks, answers, strict=True)]
        self.answers = "\n\n".join(lines)


def forget_skipped(out: Path, done: int) -> None:
    """Drop the bad examples that an earlier start met behind its last checkpoint: they will be met again.

    Args:
        out: the stage's folder.
        done: the checkpoint's step.
    """
    path = out / SKIPPED
    if not path.exists():
        return
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    kept = [line for line in whole if json.loads(line)["step"] <= done]
    if kept:
        atomic.write(path, "".join(kept))
    else:
        atomic.discard(path)


def question_of(processor, asked: dict) -> list[dict]:
    """Make chat messages of {modality: file, ..., "question": text}."""
    parts = [{"type": modality, "path": file} for modality, file in asked.items() if modality in processor.modalities]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": asked.get("question", "What is this?")}]}]


@torch.no_grad()
def answer(model: nn.Module, processor, asked: dict, tokens: int, is_encoder_decoder: bool = False) -> str:
    """Answer greedily by whole forward passes, which run as in training however the model is spread.

    Args:
        model: as it is trained, with all its wrapping.
        processor: its processor.
        asked: {modality: file, ..., "question": text}.
        tokens: longest answer.
        is_encoder_decoder: as for `Watch`.
    """
    inputs = processor.apply_chat_template(question_of(processor, asked))
    device = next(model.parameters()).device
    ids = inputs["input_ids"].to(device)
    media = {modality: [value.to(device) for value in values] for modality, values in inputs["media"].items()}
    written, training = ids, model.training
    if is_encoder_decoder:
        first = getattr(model, "module", model).config.text_config.decoder_start_token_id
        written = ids.new_tensor([[first]])
    start = written.shape[1]
    model.eval()
    for _ in range(tokens):  # every process takes as many steps
        given = {"input_ids": ids, "decoder_input_ids": written} if is_encoder_decoder else {"input_ids": written}
        mask = torch.ones_like(given["input_ids"])
        options = {"instructions": inputs.get("instructions"), "logits_to_keep": 1, "use_cache": False}
        logits = model(**given, attention_mask=mask, media=media, **options).logits
        written = torch.cat([written, logits[:, -1:].argmax(dim=-1)], dim=1)
    model.train(training)
    text = processor.tokenizer.decode(written[0, start:])
    return text.partition(processor.tokenizer.eos_token or "\0")[0].strip()


def memory_bytes() -> int:
    """Return the most memory this process has held: the GPU's where there is one, else main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
