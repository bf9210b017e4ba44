"""OneLLM: chat about images, videos, sounds, point clouds, brain scans, motion data, depth and normal maps."""

from typing import Any

__version__ = "0.5.0"
__all__ = [
    "MODALITIES",
    "Chat",
    "OneLLMConfig",
    "OneLLMForConditionalGeneration",
    "OneLLMProcessor",
    "load",
]

_HOMES = {
    "MODALITIES": "onellm.modalities",
    "Chat": "onellm.chat.chat",
    "load": "onellm.chat.load",
    "OneLLMConfig": "onellm.model.auto",
    "OneLLMForConditionalGeneration": "onellm.model.auto",
    "OneLLMProcessor": "onellm.model.auto",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch and transformers take seconds to import."""
    if name not in _HOMES:
        raise AttributeError(f"module 'onellm' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
