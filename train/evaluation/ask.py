"""Asking a model about items of the small corpus, in batches; the files go the app's own way."""

from tqdm import tqdm

import onellm
from onellm.modalities import MODALITIES
from train.data.items import Item, load_sample

BATCH = 16
NEW_TOKENS = 40


def ask_all(chat: onellm.Chat, questions: list[tuple[list[Item | dict], str]]) -> list[str]:
    """Answer questions about files.

    Args:
        chat: a loaded model.
        questions: the files (items, or content parts) and the text of each.

    Returns:
        One answer a question.
    """

    def to_tensor(part: dict):
        if "item" not in part:
            return chat.processor.to_tensor(part)
        settings = chat.processor.modalities[part["type"]].get("input", {})
        return MODALITIES[part["type"]].to_tensor(load_sample(part["item"]), **settings)

    tokenizer, answers = chat.processor.tokenizer, []
    for start in tqdm(range(0, len(questions), BATCH), desc="answers"):
        conversations = [
            [{"role": "user", "content": [*map(as_part, items), {"type": "text", "text": text}]}]
            for items, text in questions[start : start + BATCH]
        ]
        inputs = chat.processor.apply_chat_template(conversations, to_tensor=to_tensor)
        new = chat.model.generate(
            **inputs,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :]
        answers += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return answers


def as_part(item: Item | dict) -> dict:
    """Return an item as a content part; it is loaded when its turn comes."""
    return item if isinstance(item, dict) else {"type": item.kind, "item": item}
