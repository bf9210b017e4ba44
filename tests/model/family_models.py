"""The systems of the family that transformers has, small and random, and folders of them as they are published."""

import torch
from published_checkpoint import train_tokenizer
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from onellm.model.idefics import ADDED
from onellm.model.processing import READER

WORDS, IMAGE = 320, 310  # of the LLM; theirs for a picture

VISION = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QFORMER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 20,
}
LLMS = {
    "opt": {
        "vocab_size": WORDS,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "ffn_dim": 48,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "word_embed_proj_dim": 32,
    },
    "t5": {
        "vocab_size": WORDS,
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "eos_token_id": 2,
    },
    "llama": {
        "vocab_size": WORDS,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
    },
}


def llm(name):
    return {"model_type": name, **LLMS[name]}


def blip2(name):
    config = Blip2Config(
        vision_config=VISION, qformer_config=QFORMER, text_config=llm(name), num_query_tokens=3, image_token_index=IMAGE
    )
    return Blip2ForConditionalGeneration(config)


def instructblip(name):
    config = InstructBlipConfig(
        vision_config=VISION, qformer_config=QFORMER, text_config=llm(name), num_query_tokens=3, image_token_index=IMAGE
    )
    return InstructBlipForConditionalGeneration(config)


def llava(name, **changes):
    vision = {"model_type": "clip_vision_model", "projection_dim": 16, **VISION}
    vision["num_hidden_layers"] = 3
    config = LlavaConfig(
        vision_config=vision, text_config=llm(name), image_token_index=IMAGE, image_seq_length=4, **changes
    )
    return LlavaForConditionalGeneration(config)


def idefics():
    sizes = {key: value for key, value in LLMS["llama"].items() if key != "vocab_size"}
    vision = {"embed_dim": 32, **{key: value for key, value in VISION.items() if key != "hidden_size"}}
    perceiver = {"resampler_n_latents": 3, "resampler_depth": 2, "resampler_n_heads": 2, "resampler_head_dim": 16}
    config = IdeficsConfig(
        vocab_size=300,
        additional_vocab_size=3,
        use_resampler=True,
        qk_layer_norms=True,
        vision_config=vision,
        perceiver_config={"use_resampler": True, "qk_layer_norms_perceiver": True, **perceiver},
        **sizes,
    )
    return IdeficsForVisionText2Text(config)


SYSTEMS = {
    "blip2-opt-2.7b": lambda: blip2("opt"),
    "blip2-flan-t5-xl": lambda: blip2("t5"),
    "instructblip-vicuna-7b": lambda: instructblip("llama"),
    "llava-1.5-7b": lambda: llava("llama"),
}


def shake(model):
    """Give every parameter something to say; some classes begin with zeros."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.copy_(scale + 0.2 * torch.randn_like(parameter))
    return model.eval()


def save(model, folder, **options):
    """Write a folder as transformers publishes them, with tokenizers."""
    model.save_pretrained(folder, **options)
    train_tokenizer(folder / "tokenizer.model")
    tokenizer = LlamaTokenizer.from_pretrained(folder, pad_token="<unk>")
    if model.config.model_type == "idefics":
        tokenizer.add_tokens(list(ADDED), special_tokens=True)
    (folder / "tokenizer.model").unlink()
    tokenizer.save_pretrained(folder)
    if model.config.model_type == "instructblip":
        known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "this", "colour"]
        BertTokenizer(vocab={word: place for place, word in enumerate(known)}).save_pretrained(folder / READER)
    return folder
