"""Register OneLLM with transformers' Auto classes; importing this module is enough."""

from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from onellm.model.config import OneLLMConfig
from onellm.model.onellm import OneLLMForConditionalGeneration
from onellm.processor import OneLLMProcessor

__all__ = ["OneLLMConfig", "OneLLMForConditionalGeneration", "OneLLMProcessor", "model_class"]


def model_class(config: Any) -> type:
    """Return the class of the model that a configuration describes."""
    if isinstance(config, OneLLMConfig):
        return OneLLMForConditionalGeneration
    from onellm.model.gated import GatedForConditionalGeneration

    return GatedForConditionalGeneration


AutoConfig.register("onellm", OneLLMConfig)
AutoModelForCausalLM.register(OneLLMConfig, OneLLMForConditionalGeneration)
AutoModelForImageTextToText.register(OneLLMConfig, OneLLMForConditionalGeneration)
AutoProcessor.register(OneLLMConfig, OneLLMProcessor)
