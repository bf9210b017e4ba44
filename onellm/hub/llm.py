"""Another LLM behind a perception that serves any: `--llm NAME|FOLDER|HUB_ID`."""

import copy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onellm.errors import ModelError
from onellm.model import base_parts
from onellm.utils.progress import Report

if TYPE_CHECKING:
    from onellm.model.configuration import OneLLMConfig

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
PLAIN_STOPS = ["\nUser:", "\nSystem:"]


def with_llm(config: "OneLLMConfig", name: str, on_progress: Report | None = None) -> "tuple[OneLLMConfig, Any]":
    """Put an LLM behind a model's perception.

    Args:
        config: of a model whose soft tokens are anchored to words, such as onellm-small.
        name: one of `base_parts.PARTS`, a folder of transformers, or a repository of the model hub.
        on_progress: called while the LLM is fetched.

    Returns:
        The configuration with that LLM, without an adapter, and the LLM's tokenizer.

    Raises:
        ModelError: the perception serves its own LLM alone; or there is no such LLM, it is of an unknown architecture,
            no causal one, or has no tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if "words" not in (config.projector.get("anchor") or {}):
        raise ModelError(
            found="This model's projector was trained for its own LLM and serves no other",
            advice="leave --llm out, use --model onellm-small, or move the model with python -m train transfer",
        )
    folder = base_parts.fetch(name, on_progress)
    try:
        text_config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ModelError(
            found=f"The LLM '{name}' is none that transformers knows ({reason})",
            advice=f"give one of {', '.join(base_parts.LLMS)}, or a folder or repository of a causal LLM",
        ) from error
    if type(text_config) not in MODEL_FOR_CAUSAL_LM_MAPPING or getattr(text_config, "is_encoder_decoder", False):
        raise ModelError(
            found=f"'{name}' is a model of type {text_config.model_type}, not a causal LLM",
            advice="give one that writes text token by token, such as Qwen2.5, LLaMA, Gemma or SmolLM2",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            found=f"The LLM '{name}' has no tokenizer that loads", advice="download its tokenizer files too"
        ) from error
    changed = copy.deepcopy(config)
    changed.text_config, changed.adapter, changed.chat_template = text_config, None, None
    changed.stop_strings = None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        changed.chat_template, changed.stop_strings = PLAIN_TEMPLATE, PLAIN_STOPS
        print(f"{name} has no chat template, so a plain one is used; it may not have learnt to chat.", file=sys.stderr)
    changed.base_parts = {
        **config.base_parts,
        "language_model": str(Path(name).resolve()) if Path(name).is_dir() else name,
    }
    changed.generation = {**config.generation, **_ends(folder)}
    first = max(text_config.vocab_size, len(tokenizer))
    for index, settings in enumerate(changed.modalities.values()):
        settings["token_id"] = first + index
    return changed, tokenizer


def _ends(folder: Path) -> dict[str, Any]:
    """Return the tokens at which an LLM's answers end, as its publisher says."""
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:  # it says nothing
        return {}
    return {} if ends is None else {"eos_token_id": ends}
