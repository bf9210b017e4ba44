"""Train an LLM to draw with VQ tokens: the objective "draw".

The adapter lies in the LLM's upper layers and acts on the tokens of pictures alone. So the lower layers' states of a
request and its picture, and all layers' states of the request, never change: they are computed once, and a step runs
the upper layers on the picture's tokens only, a tenth of the work. The added token that begins a picture reads frozen
states too, and is fitted at the end, against talk in which nothing is drawn.
"""

import logging
import math
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from onellm.utils import atomic
from train.build import build_model, save, start_folder
from train.drawing.data import asked, named, talk
from train.drawing.vq import load_checkpoint, read_picture, save_checkpoint, set_rate
from train.recipe import Recipe
from train.small.items import corpus_folder

logger = logging.getLogger(__name__)
REQUESTS = 3  # ways in which each thing is asked for
TALKS = 240  # conversations without a picture
HELD_OUT = 24  # requests in other words, for an evaluation while training
FIT_STEPS = 400  # of the added token that begins a picture
FIT_DECAY = 1e-4


@dataclass
class Sample:
    """A request and its picture, as far as they do not change.

    Attributes:
        tokens: [T] int64, of the picture.
        states: [T, D] float16, what the first of the upper layers reads of them.
        cache: keys and values [2, layers, heads, L, d] float16 of the request in the upper layers.
        start: [D] float32, what the head reads at the request's end.
    """

    tokens: torch.Tensor
    states: torch.Tensor
    cache: torch.Tensor
    start: torch.Tensor


class KVCache:
    """Keys and values of a batch of requests, padded on the left; a decoder layer takes it for its cache."""

    def __init__(self, samples: list[Sample], first: int):
        self.first = first
        self.length = max(sample.cache.shape[3] for sample in samples)
        padded = [F.pad(sample.cache, (0, 0, self.length - sample.cache.shape[3], 0)) for sample in samples]
        self.keys, self.values = torch.stack(padded, dim=2).float()  # [layers, B, heads, L, d] each

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return all keys and values of a layer, those of the pictures' tokens behind the requests'."""
        layer -= self.first
        return torch.cat([self.keys[layer], keys], dim=2), torch.cat([self.values[layer], values], dim=2)


class Upper:
    """The upper layers of a model's LLM, on samples."""

    def __init__(self, model: Any):
        self.model, self.llm = model, model.language_model.model
        self.first = min(model.config.adapter["layers_to_transform"])
        (self.span,) = model.config.spans
        positions = range(self.span.length)
        self.free = [position for position in positions[:-1] if len(self.span.allowed(position + 1)) > 1]

    @torch.no_grad()
    def prepare(self, request: list[int], picture: list[int]) -> Sample:
        """Run the frozen layers on a request and a picture's tokens."""
        ids, start = torch.tensor([request + picture]), len(request)
        self.model._switch_adapter(False, 1, True)
        embeds = self.model.embed_tokens(ids)
        output = self.llm(inputs_embeds=embeds, use_cache=True, output_hidden_states=True)
        layers = output.past_key_values.layers[self.first :]
        cache = [[getattr(layer, name)[0, :, :start] for layer in layers] for name in ("keys", "values")]
        return Sample(
            tokens=ids[0, start:],
            states=output.hidden_states[self.first][0, start:].half(),
            cache=torch.stack([torch.stack(values) for values in cache]).half(),
            start=output.last_hidden_state[0, start - 1],
        )

    def hidden(self, samples: list[Sample]) -> torch.Tensor:
        """Run the upper layers on a batch: [B, T, D], what the head reads."""
        cache = KVCache(samples, self.first)
        x = torch.stack([sample.states for sample in samples]).float()
        lengths = torch.tensor([sample.cache.shape[3] for sample in samples])
        count = x.shape[1]
        positions = lengths[:, None] + torch.arange(count)
        attended = torch.arange(cache.length) >= (cache.length - lengths)[:, None]
        causal = torch.ones(count, count, dtype=torch.bool).tril()
        mask = torch.cat([attended[:, None].expand(-1, count, -1), causal.expand(len(x), -1, -1)], dim=2)[:, None]
        rotary = self.llm.rotary_emb(x, positions)
        self.model._switch_adapter(True, len(x), True)
        for layer in self.llm.layers[self.first :]:
            x = layer(x, attention_mask=mask, position_ids=positions, past_key_values=cache, position_embeddings=rotary)
        return self.llm.norm(x)

    def loss(self, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean cross-entropy of VQ tokens among VQ tokens, and of the answer's end among all tokens."""
        hidden = self.hidden(samples)
        rows, span = self.model.rows, self.span
        codes = F.linear(hidden[:, self.free], rows.head[span.delimiters :])
        wanted = torch.stack([sample.tokens for sample in samples])[:, [position + 1 for position in self.free]]
        last = self.model.get_output_embeddings()(hidden[:, -1])
        end = torch.full((len(samples),), self.model.config.text_config.eos_token_id)
        return (
            F.cross_entropy(codes.flatten(0, 1), (wanted - span.first - span.delimiters).flatten()),
            F.cross_entropy(last, end),
        )


def encode_pictures(model: Any, files: dict[str, str]) -> dict[str, list[int]]:
    """Return the tokens of drawings: name -> tokens."""
    (span,) = model.config.spans
    with torch.no_grad():
        pictures = torch.stack([read_picture(corpus_folder() / file) for file in files.values()])
        codes = model.outputs["image"].encode(pictures).tolist()
    return {name: span.tokens_of(row) for name, row in zip(files, codes, strict=True)}


def request_ids(processor: Any, text: str) -> list[int]:
    """Return the prompt's tokens of a request."""
    return processor.encode([{"role": "user", "content": text}])[0]


def prepare(upper: Upper, processor: Any, pictures: dict[str, list[int]], held_out: bool, seed: int) -> list[Sample]:
    """Ask for every picture in some ways, or for a few of them in ways that training does not know."""
    choose = random.Random(seed)
    names = choose.sample(list(pictures), min(HELD_OUT, len(pictures))) if held_out else [*pictures] * REQUESTS
    return [upper.prepare(request_ids(processor, asked(name, choose, held_out)), pictures[name]) for name in names]


def run(recipe: Recipe, runs: Path, resume: bool = True) -> Path:
    """Train one stage; it goes on from its newest checkpoint.

    Args:
        recipe: what to do.
        runs: folder of all stages.
        resume: False begins anew.

    Returns:
        The model folder.
    """
    out = runs / recipe.name
    checkpoint = out / "checkpoint.pt"
    if not resume:
        atomic.discard(out)
    model, processor = build_model(recipe, runs)
    torch.manual_seed(recipe.seed)  # building draws numbers, or not if it was done before
    model.rows.start(model.get_input_embeddings().weight, model.get_output_embeddings().weight, noise=1.0)
    model.rows.input.requires_grad_(False)  # read by frozen layers
    upper = Upper(model)
    pictures = encode_pictures(model, named("train"))
    begun_s = time.perf_counter()
    samples = prepare(upper, processor, pictures, False, recipe.seed)
    held_out = prepare(upper, processor, pictures, True, recipe.seed + 1)
    logger.info("%d requests prepared in %.0f s", len(samples), time.perf_counter() - begun_s)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(
        trained.values(), recipe.learning_rate, betas=tuple(recipe.betas), weight_decay=recipe.weight_decay
    )
    done, losses, state = load_checkpoint(checkpoint, optimizer)
    with torch.no_grad():
        for name, value in state.get("trained", {}).items():
            trained[name].copy_(value)
    begun_s, recent = time.perf_counter(), []
    for step in range(done, recipe.steps):
        batch = [samples[index] for index in _indices(len(samples), recipe, step)]
        set_rate(optimizer, recipe.learning_rate, step, recipe.warmup, recipe.steps)
        codes, end = upper.loss(batch)
        optimizer.zero_grad()
        (codes + end / upper.span.length).backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), recipe.clip or math.inf)
        optimizer.step()
        recent.append(float(codes.detach()))
        saves = (step + 1) % recipe.save_every == 0
        if saves or (step + 1) % recipe.log_every == 0 or step + 1 == recipe.steps:
            rate = (step + 1 - done) * recipe.batch / (time.perf_counter() - begun_s)
            losses.append({"step": step + 1, "loss": sum(recent) / len(recent), "end": float(end.detach())})
            logger.info("%s, %.1f samples/s", losses[-1], rate)
            recent = []
        if saves:
            losses[-1]["held_out"] = measure(upper, held_out, recipe.batch)
            logger.info("in other words: %.3f", losses[-1]["held_out"])
            weights = {name: value.detach() for name, value in trained.items()}
            save_checkpoint(checkpoint, optimizer, step + 1, losses, trained=weights)
    figures = fit_start(upper, processor, list(pictures), [sample.start for sample in samples], recipe.seed)
    atomic.write_json(out / "losses.json", [*losses, figures])
    trained["rows.input"] = model.rows.input
    save(out, recipe, start_folder(recipe, runs), {name: value.detach() for name, value in trained.items()})
    return out


def _indices(count: int, recipe: Recipe, step: int) -> Iterable[int]:
    """Return which samples a step takes: all of them once, in another order each epoch."""
    for index in range(step * recipe.batch, (step + 1) * recipe.batch):
        epoch, index = divmod(index, count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch))
        yield int(order[index])


@torch.no_grad()
def measure(upper: Upper, samples: list[Sample], batch: int) -> float:
    """Return the VQ tokens' mean cross-entropy."""
    groups = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    return sum(float(upper.loss(group)[0]) * len(group) for group in groups) / len(samples)


def fit_start(
    upper: Upper, processor: Any, names: list[str], wanted: list[torch.Tensor], seed: int
) -> dict[str, float]:
    """Fit the added token that begins a picture: logistic regression on its logit against those of all text tokens.

    Args:
        upper: the model.
        processor: its processor.
        names: of drawings.
        wanted: what the head reads where a picture is to begin, [D] each.
        seed: of the talks.

    Returns:
        The shares of positions where a picture is to begin, and is not, that it classifies correctly.
    """
    model, choose = upper.model, random.Random(seed)
    model._switch_adapter(False, 1, True)
    others = []
    with torch.no_grad():
        for _ in range(TALKS):
            text, reply = talk(choose.choice(names), choose)
            request = request_ids(processor, text)
            reply = processor.tokenizer(reply, add_special_tokens=False)["input_ids"]
            embeds = model.embed_tokens(torch.tensor([request + reply]))
            others.append(upper.llm(inputs_embeds=embeds).last_hidden_state[0, len(request) - 1 :])
        states = torch.cat([torch.stack(wanted), *others])
        text_logits = model.get_output_embeddings()(states)[:, : model.config.text_config.vocab_size].logsumexp(dim=-1)
    labels = (torch.arange(len(states)) < len(wanted)).float()
    weights = torch.where(labels > 0, 0.5 / labels.sum(), 0.5 / (1 - labels).sum())
    row = model.rows.head[0].detach().clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([row], 3e-3, weight_decay=FIT_DECAY)
    for _ in range(FIT_STEPS):
        errors = F.binary_cross_entropy_with_logits(states @ row - text_logits, labels, reduction="none")
        optimizer.zero_grad()
        (errors * weights).sum().backward()
        optimizer.step()
    with torch.no_grad():
        model.rows.head[0] = row
        right = ((states @ row > text_logits) == labels.bool()).float()
    figures = {"begins": float(right[: len(wanted)].mean()), "talks_on": float(right[len(wanted) :].mean())}
    logger.info("a picture begins where it should: %s", figures)
    return figures
