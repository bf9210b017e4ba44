"""The published model's tokenizer and prompt, from LLaMA's sentencepiece file."""

import tempfile
from pathlib import Path
from typing import Any

from onellm.errors import ModelError

STOP = "###"  # begins the next turn, so an answer ends here

# Exactly the published prompt. The space behind a colon is part of the word that follows it.
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    '{% else %}{% set system = "' + SYSTEM + '" %}{% set turns = messages %}{% endif %}'
    "{{ bos_token + ' ' + system + '\n\n' }}"
    "{% for turn in turns %}"
    "{{ '###Human: ' if turn['role'] == 'user' else '###Assistant: ' }}{{ turn['content'] + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '###Assistant:' }}{% endif %}"
)


def load_tokenizer(path: str | Path, vocabulary: int) -> Any:
    """Read a sentencepiece file as a fast tokenizer with the published prompt as its chat template.

    Unlike LLaMA's own it sets no space before a text (the template has it), so that a prompt may be encoded in parts.

    Args:
        path: LLaMA's `tokenizer.model`.
        vocabulary: how many words the model has.

    Raises:
        ModelError: the file is no sentencepiece file, or one of another vocabulary.
    """
    from sentencepiece import SentencePieceProcessor
    from transformers import LlamaTokenizer

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no file {path}; give the path of LLaMA's tokenizer.model.")
    try:
        pieces = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise ModelError(f"{path} is no sentencepiece file; give LLaMA's tokenizer.model.") from error
    found = (pieces.vocab_size(), pieces.unk_id(), pieces.bos_id(), pieces.eos_id())
    if found != (vocabulary, 0, 1, 2):
        raise ModelError(
            f"{path} has {found[0]} words with <unk>, <s>, </s> at {found[1:]}, and the checkpoint has {vocabulary} "
            "with them at (0, 1, 2); give the tokenizer.model that came with the checkpoint."
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(path.read_bytes())
        return LlamaTokenizer.from_pretrained(
            folder, add_prefix_space=False, pad_token="<unk>", chat_template=TEMPLATE, padding_side="left"
        )
