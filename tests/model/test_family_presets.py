"""The presets of systems that transformers lacks: their prompts, and how many parameters are trained."""

import re

import pytest
import torch
from transformers import LlamaTokenizer

from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.model.encoder import UniversalEncoder

OWL = (
    "The following is a conversation between a curious human and AI assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
MINI = (
    "Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. "
    "Please answer my questions."
)
LLAVA = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions."
)
# one question about a picture; then its answer and a second question
PROMPTS = {
    "llava-1-7b": (f"{LLAVA} USER: []\nwhat is this ASSISTANT:", " a dog</s> USER: why ASSISTANT:"),
    "minigpt4-7b": (f"{MINI}###Human: <Img>[] </Img> what is this###Assistant:", " a dog###Human: why###Assistant:"),
    "vl-vicuna-7b": ("###Human: <Img>[] </Img> what is this ###Assistant:", " a dog ###Human: why ###Assistant:"),
    "mplug-owl-7b": (f"{OWL}\nHuman: [] \nHuman: what is this\nAI: ", "a dog\nHuman: why\nAI: "),
    "lavin-7b": ("Image: [] Instruction: what is this\nResponse:", " a dog\n Instruction: why\nResponse:"),
    "pandagpt-7b": ("### Human: <Img>[] </Img> what is this\n### Assistant:", " a dog\n### Human: why\n### Assistant:"),
}


@pytest.fixture(scope="module")
def tokenizer(vocabulary):
    return LlamaTokenizer.from_pretrained(vocabulary, add_prefix_space=False)


@pytest.mark.parametrize("system", PROMPTS)
def test_prompts(tokenizer, system, picture):
    config = OneLLMConfig.from_preset(system)
    processor = OneLLMProcessor.from_config(tokenizer, config)
    image = config.modalities["image"]["token_id"]
    first, second = PROMPTS[system]
    said = [{"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "what is this"}]}]
    ids, files = processor.encode(said)
    assert len(files) == 1 and ids.count(image) == config.length_of("image") and ids[0] == tokenizer.bos_token_id
    assert said_as(tokenizer, ids[1:], image) == first
    said += [{"role": "assistant", "content": "a dog"}, {"role": "user", "content": "why"}]
    assert said_as(tokenizer, processor.encode(said)[0][1:], image) == first + second
    if system == "lavin-7b":
        ids, _ = processor.encode([{"role": "user", "content": "what is this"}])
        assert said_as(tokenizer, ids[1:], image) == "Image: N/A Instruction: what is this\nResponse:"


def said_as(tokenizer, ids, image):
    """Decode a prompt, a mark for the file."""
    start = ids.index(image) if image in ids else len(ids)
    rest = [token for token in ids[start:] if token != image]
    mark = "[]" if image in ids else ""
    return decode_inside(tokenizer, ids[:start]).removeprefix(" ") + mark + decode_inside(tokenizer, rest)


def decode_inside(tokenizer, ids):
    """Decode what stands inside a text: a space at its beginning counts."""
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return re.sub("<0x(..)>", lambda byte: chr(int(byte[1], 16)), "".join(pieces).replace("▁", " "))


def test_published_numbers_of_parameters():
    counts = {}
    for system in ("llava-1-7b", "minigpt4-7b", "mplug-owl-7b", "pandagpt-7b"):
        with torch.device("meta"):
            model = OneLLMForConditionalGeneration(OneLLMConfig.from_preset(system))
        counts[system] = {
            "projector": sum(value.numel() for value in model.projector.parameters()),
            "lora": sum(value.numel() for name, value in model.named_parameters() if "lora_" in name),
        }
        if system == "minigpt4-7b":
            counts[system]["linear"] = sum(value.numel() for value in model.projector.projection.parameters())
    assert counts["llava-1-7b"]["projector"] == 4_198_400
    assert counts["minigpt4-7b"]["linear"] == 3_149_824
    assert counts["mplug-owl-7b"]["lora"] == 4_194_304
    assert counts["pandagpt-7b"] == {"projector": 4_198_400, "lora": 33_554_432}


def test_imagebinds_towers_have_their_published_sizes():
    """ViT-H/14 without its patch layer, and 85.9 million parameters for sound."""
    config = OneLLMConfig.from_preset("pandagpt-7b")
    with torch.device("meta"):
        sizes = [UniversalEncoder(**config.encoder)]
        sizes.append(UniversalEncoder(**{**config.encoder, **config.modalities["audio"]["encoder"]}))
    block = lambda width: 12 * width * width + 13 * width  # noqa: E731
    heads = [1280 + 2 * 2 * 1280 + 1280 * 1024, 768 + 2 * 768 + 768 * 1024 + 12 * 2 * 768]
    for encoder, expected in zip(sizes, (32 * block(1280) + heads[0], 12 * block(768) + heads[1]), strict=True):
        assert sum(value.numel() for value in encoder.parameters()) == expected
