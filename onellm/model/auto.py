"""Register OneLLM with transformers' Auto classes; importing this module is enough."""

from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from onellm.model.configuration import OneLLMConfig
from onellm.model.modeling import OneLLMForConditionalGeneration
from onellm.model.processing import OneLLMProcessor

__all__ = ["OneLLMConfig", "OneLLMForConditionalGeneration", "OneLLMProcessor", "model_class"]


def model_class(config: Any) -> type:
    """Return the class of the model that a configuration describes."""
    if isinstance(config, OneLLMConfig):
        return OneLLMForConditionalGeneration
    from onellm.model.idefics import GatedForConditionalGeneration

    return GatedForConditionalGeneration


AutoConfig.register("onellm", OneLLMConfig)
AutoModelForCausalLM.register(OneLLMConfig, OneLLMForConditionalGeneration)
AutoModelForImageTextToText.register(OneLLMConfig, OneLLMForConditionalGeneration)
AutoProcessor.register(OneLLMConfig, OneLLMProcessor)
