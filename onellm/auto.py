"""Register OneLLM with transformers' Auto classes; importing this module is enough."""

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from onellm.model.config import OneLLMConfig
from onellm.model.onellm import OneLLMForConditionalGeneration
from onellm.processor import OneLLMProcessor

__all__ = ["OneLLMConfig", "OneLLMForConditionalGeneration", "OneLLMProcessor"]

AutoConfig.register("onellm", OneLLMConfig)
AutoModelForCausalLM.register(OneLLMConfig, OneLLMForConditionalGeneration)
AutoModelForImageTextToText.register(OneLLMConfig, OneLLMForConditionalGeneration)
AutoProcessor.register(OneLLMConfig, OneLLMProcessor)
