"""Tokenizers of published LLMs, and the published OneLLM's prompt."""

import tempfile
from pathlib import Path
from typing import Any

from onellm.errors import ModelError

# Exactly the published prompt. The space behind a colon is part of the token that follows it.
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


def load_tokenizer(path: str | Path, config: Any) -> Any:
    """Read the tokenizer of an LLM so that a prompt may be encoded in parts.

    LLaMA's own sets a space before every text; here the template has it.

    Args:
        path: LLaMA's `tokenizer.model`, or a folder with a tokenizer of transformers.
        config: a `OneLLMConfig`: its LLM says how many tokens there are, its chat template replaces the tokenizer's.

    Raises:
        ModelError: there is no tokenizer, or it is one of another vocabulary.
    """
    path = Path(path)
    template = config.chat_template
    if path.is_dir():
        return _from_folder(path, config.text_config, template)
    with tempfile.TemporaryDirectory() as folder:
        _check(path, config.text_config.vocab_size)
        (Path(folder) / "tokenizer.model").write_bytes(path.read_bytes())
        return _from_folder(Path(folder), config.text_config, template or TEMPLATE)


def _from_folder(folder: Path, text_config: Any, template: str | None) -> Any:
    """Read a folder with a tokenizer; padding, which it may lack, becomes the unknown token or the end."""
    from transformers import AutoTokenizer, LlamaTokenizer

    llama = text_config.model_type == "llama"
    try:
        tokenizer = (
            LlamaTokenizer.from_pretrained(folder, add_prefix_space=False)
            if llama
            else AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"The folder {folder} has no readable tokenizer; give one with --tokenizer.") from error
    if len(tokenizer) > text_config.vocab_size:
        raise ModelError(
            f"The tokenizer in {folder} has {len(tokenizer)} words and the checkpoint {text_config.vocab_size}; give "
            "the one that came with the checkpoint."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "left"
    tokenizer.chat_template = template or tokenizer.chat_template
    return tokenizer


def _check(path: Path, vocabulary: int) -> None:
    """Make sure that a file is a sentencepiece file of LLaMA's form and of so many tokens."""
    from sentencepiece import SentencePieceProcessor

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
