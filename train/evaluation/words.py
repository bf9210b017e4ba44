"""Soft words, and what they alone say: read off the anchor's vocabulary without the LLM, for tuning and ablations."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

import onellm
from onellm.auto import OneLLMForConditionalGeneration, OneLLMProcessor
from train.data.items import Item, extract_features, read_items
from train.evaluation.naming import is_right, map_alone, pick


@torch.no_grad()
def read_words(model, processor, kind: str, features: list[torch.Tensor]) -> list[str]:
    """Return the likeliest words of files.

    Args:
        model: a OneLLM with an anchor.
        processor: its processor.
        kind: of the files.
        features: what the kind's tokenizer extracted of each.
    """
    vocabulary, token_ids = model.anchor_words(), model.projector.anchor.token_ids
    shapes: dict[tuple, list[int]] = {}
    for index, value in enumerate(features):
        shapes.setdefault(tuple(value.shape), []).append(index)
    texts = [""] * len(features)
    for indices in shapes.values():
        batch = torch.stack([features[index] for index in indices])
        words = model.projector.words(model.encode(kind, batch), kind)
        best = model.projector.anchor.logits(words, vocabulary).argmax(dim=-1)
        for index, places in zip(indices, best, strict=True):
            texts[index] = processor.tokenizer.decode(token_ids[places]).replace(".", "").strip()
    return texts


def word_accuracy(model, processor, kind: str, split: str = "dev", limit: int | None = None) -> float:
    """Return the share of a split's files whose words name them; of a map without the picture beside it.

    Args:
        model: a OneLLM with an anchor.
        processor: its processor.
        kind: of the files.
        split: "dev", or "test".
        limit: take at most so many files, evenly spread.
    """
    items = read_items(kind, split)
    items = pick(items, limit or len(items))
    features = map_alone(model, kind, extract_features(model, processor, items, split))
    texts = read_words(model, processor, kind, features)
    return float(np.mean([is_right(text, item) for text, item in zip(texts, items, strict=True)]))


def accuracy(folder: Path, kinds: Iterable[str], split: str = "dev") -> dict[str, float]:
    """Measure the soft words of a model folder: kind -> accuracy, see `word_accuracy`."""
    model = OneLLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = OneLLMProcessor.from_pretrained(folder)
    return {kind: word_accuracy(model, processor, kind, split) for kind in kinds}


@torch.no_grad()
def soft_words(chat: onellm.Chat, items: list[Item], split: str) -> dict[tuple[str, str], torch.Tensor]:
    """Turn items of one kind into soft words, maps without the picture beside them; what their stems see is kept.

    Args:
        chat: a loaded model.
        items: of a split.
        split: names what is kept, see `extract_features`.

    Returns:
        Kind and id -> [length, D_llm].
    """
    kind = items[0].kind
    features = map_alone(chat.model, kind, extract_features(chat.model, chat.processor, items, split))
    found = chat.model.soft_words(kind, features, extracted=True)
    return {(kind, item.id): value for item, value in zip(items, found, strict=True)}
