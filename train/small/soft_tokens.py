"""Soft tokens, and the text nearest to them in the anchor's vocabulary, without the LLM: for tuning and ablations."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

import onellm
from onellm.model.auto import OneLLMForConditionalGeneration, OneLLMProcessor
from train.small.items import Item, extract_features, read_items
from train.small.naming import is_right, map_alone, pick


@torch.no_grad()
def read_words(model, processor, modality: str, features: list[torch.Tensor]) -> list[str]:
    """Return the likeliest texts of files.

    Args:
        model: a OneLLM with an anchor.
        processor: its processor.
        modality: of the files.
        features: what the modality's tokenizer extracted of each.
    """
    anchor, embedding = model.projector.anchor, model.get_input_embeddings()
    shapes: dict[tuple, list[int]] = {}
    for index, value in enumerate(features):
        shapes.setdefault(tuple(value.shape), []).append(index)
    texts = [""] * len(features)
    for indices in shapes.values():
        batch = torch.stack([features[index] for index in indices])
        embeds = model.projector.soft_tokens(model.encode(modality, batch), modality)
        best = anchor.logits(embeds, embedding).argmax(dim=-1)
        for index, positions in zip(indices, best, strict=True):
            texts[index] = anchor.text(positions, processor.tokenizer)
    return texts


def word_accuracy(model, processor, modality: str, split: str = "dev", limit: int | None = None) -> float:
    """Return the share of a split's files whose soft tokens name them; of a map without the picture beside it.

    Args:
        model: a OneLLM with an anchor.
        processor: its processor.
        modality: of the files.
        split: "dev", or "test".
        limit: take at most so many files, evenly spread.
    """
    items = read_items(modality, split)
    items = pick(items, limit or len(items))
    features = map_alone(model, modality, extract_features(model, processor, items, split))
    texts = read_words(model, processor, modality, features)
    return float(np.mean([is_right(text, item) for text, item in zip(texts, items, strict=True)]))


def accuracy(folder: Path, modalities: Iterable[str], split: str = "dev") -> dict[str, float]:
    """Measure the soft tokens of a model folder: modality -> accuracy, see `word_accuracy`."""
    model = OneLLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = OneLLMProcessor.from_pretrained(folder)
    return {modality: word_accuracy(model, processor, modality, split) for modality in modalities}


@torch.no_grad()
def soft_tokens(chat: onellm.Chat, items: list[Item], split: str) -> dict[tuple[str, str], torch.Tensor]:
    """Turn items of one modality into soft tokens, maps without the picture beside them; extracted features are kept.

    Args:
        chat: a loaded model.
        items: of a split.
        split: names what is kept, see `extract_features`.

    Returns:
        Modality and id -> [length, D_llm].
    """
    modality = items[0].kind
    features = map_alone(chat.model, modality, extract_features(chat.model, chat.processor, items, split))
    found = chat.model.soft_tokens(modality, features, extracted=True)
    return {(modality, item.id): value for item, value in zip(items, found, strict=True)}
