"""Both models answer to what a conversation asks of one."""

import inspect
import typing

import pytest
import torch
from transformers import IdeficsConfig

from onellm.model.configuration import OneLLMConfig
from onellm.model.idefics import GatedConfig, GatedForConditionalGeneration
from onellm.model.interface import MediaConfig, MediaLanguageModel
from onellm.model.modeling import OneLLMForConditionalGeneration

CALLS = ("tokenizer_for", "soft_tokens", "media_embeds", "generate", "generate_media")


def idefics():
    vision = {"embed_dim": 32, "image_size": 28, "patch_size": 14, "num_attention_heads": 2, "num_hidden_layers": 1}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = IdeficsConfig(**sizes, vocab_size=64, use_resampler=True, vision_config=vision).to_dict()
    return GatedForConditionalGeneration(GatedConfig.from_dict(config))


@pytest.fixture(params=["onellm", "idefics"])
def either(request, config):
    with torch.device("meta"):
        return OneLLMForConditionalGeneration(config) if request.param == "onellm" else idefics()


def test_a_model_has_what_a_conversation_asks_for(either):
    assert isinstance(either, MediaLanguageModel)
    for name in CALLS:
        taken = inspect.signature(getattr(type(either), name)).parameters
        free = {parameter.kind for parameter in taken.values()}
        asked = inspect.signature(getattr(MediaLanguageModel, name)).parameters
        assert set(asked) <= set(taken) or {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= free


def test_its_configuration_has_the_fields(either):
    missing = [name for name in typing.get_type_hints(MediaConfig) if not hasattr(either.config, name)]
    assert not missing and either.config.length_of("image") > 0
    assert either.tokenizer_for("image").count > 0 and either.config.modalities["image"]["token_id"] >= 0


def test_every_call_stands_in_the_protocol():
    assert set(CALLS) == {name for name, call in vars(MediaLanguageModel).items() if inspect.isfunction(call)} - {
        "__init__",
        "__subclasshook__",
    }
    assert OneLLMConfig().modalities == {}
