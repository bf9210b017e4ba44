"""Asking a model about items of the small corpus, in batches; the files go the app's own way."""

from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

import onellm
from onellm.modalities import MODALITIES
from train.small.items import Item, load_sample

BATCH = 16
NEW_TOKENS = 40


def ask_all(
    chat: onellm.Chat,
    questions: list[tuple[list[Item | dict], str]],
    new_tokens: int = NEW_TOKENS,
    media_embeds: dict[tuple[str, str], torch.Tensor] | None = None,
    batch: int = BATCH,
) -> list[str]:
    """Answer questions about files.

    Args:
        chat: a loaded model.
        questions: the files (items, or content parts) and the text of each.
        new_tokens: longest answer.
        media_embeds: modality and an item's id -> its soft tokens; without them the files are loaded.
        batch: questions that are answered together.

    Returns:
        One answer a question.
    """

    def to_tensor(part: dict):
        if "item" not in part:
            return chat.processor.to_tensor(part)
        if media_embeds is not None:
            return media_embeds[part["type"], part["item"].id]
        settings = chat.processor.modalities[part["type"]].get("input", {})
        return MODALITIES[part["type"]].to_tensor(load_sample(part["item"]), **settings)

    options = {"media_are_embeds": media_embeds is not None, "max_new_tokens": new_tokens, "do_sample": False}
    answers: list[str] = []
    for start in tqdm(range(0, len(questions), batch), desc="answers"):
        conversations = [
            [{"role": "user", "content": [*map(as_part, items), {"type": "text", "text": text}]}]
            for items, text in questions[start : start + batch]
        ]
        answers += answer_batch(chat, conversations, to_tensor, **options)
    return answers


def answer_batch(chat: Any, conversations: list[list[dict]], to_tensor: Callable, **options: Any) -> list[str]:
    """Generate an answer to each conversation, up to a stop string.

    Args:
        chat: with `model` and `processor`.
        conversations: chat messages.
        to_tensor: content part -> tensor.
        **options: of `generate`.
    """
    inputs, tokenizer = chat.processor.apply_chat_template(conversations, to_tensor=to_tensor), chat.processor.tokenizer
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    tokens = chat.model.generate(**inputs, **options, **ends, tokenizer=tokenizer)  # which finds the stop strings
    texts = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [_until_stop(chat.model, text) for text in texts]


def _until_stop(model: Any, text: str) -> str:
    """Cut an answer at the first of the texts at which the model's answers end."""
    stops = model.generation_config.stop_strings or []
    stops = [stops] if isinstance(stops, str) else stops
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))].strip()


def as_part(item: Item | dict) -> dict:
    """Return an item as a content part; it is loaded when its turn comes."""
    return item if isinstance(item, dict) else {"type": item.kind, "item": item}
