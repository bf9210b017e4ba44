"""`import onellm.auto` registers OneLLM with transformers' Auto classes."""

from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration, OneLLMProcessor

__all__ = ["OneLLMConfig", "OneLLMForConditionalGeneration", "OneLLMProcessor"]
