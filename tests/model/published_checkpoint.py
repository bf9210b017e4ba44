"""A small random checkpoint in the published layout, and a tokenizer that goes with it."""

import math

import torch

KINDS = ["image", "video", "audio", "point", "rgbd", "rgbn", "fmri", "imu"]


def published_shapes(
    width_llm=32,
    layers=2,
    hidden_llm=48,
    vocabulary=300,
    width=32,
    encoder_layers=2,
    picture=28,
    experts=2,
    expert_layers=2,
    hidden=24,
    queries=3,
    router_hidden=16,
    points=8,
    voxels=20,
    voxel_tokens=3,
    motion=40,
    text_width=16,
    text_words=32,
    text_length=8,
    embedding=16,
):
    """List every key of the published layout with its shape; the defaults are tiny, the 7B's are in `SIZES_7B`."""

    def block(name, width, hidden):
        found[f"{name}.attention_norm.weight"] = found[f"{name}.ffn_norm.weight"] = (width,)
        found.update({f"{name}.attention.w{x}.weight": (width, width) for x in "qkvo"})
        found.update({f"{name}.feed_forward.w{x}.weight": (hidden, width) for x in "13"})
        found[f"{name}.feed_forward.w2.weight"] = (width, hidden)

    def affine(name, *shape):
        found[f"{name}.weight"], found[f"{name}.bias"] = shape, shape[:1]

    found = {"tok_embeddings.weight": (vocabulary, width_llm), "output.weight": (vocabulary, width_llm)}
    for layer in range(layers):
        block(f"layers.{layer}", width_llm, hidden_llm)
    found["norm.weight"] = (width_llm,)

    found["clip.positional_embedding"] = (text_length, text_width)
    found["clip.text_projection"] = (text_width, embedding)
    found["clip.logit_scale"] = ()
    found["clip.token_embedding.weight"] = (text_words, text_width)
    affine("clip.ln_final", text_width)
    found["clip.visual.class_embedding"] = (width,)
    found["clip.visual.positional_embedding"] = ((picture // 14) ** 2 + 1, width)
    found["clip.visual.proj"] = (width, embedding)
    found["clip.visual.conv1.weight"] = (width, 3, 14, 14)
    affine("clip.visual.ln_pre", width)
    affine("clip.visual.ln_post", width)
    for layer in range(encoder_layers):
        name = f"clip.visual.transformer.resblocks.{layer}"
        affine(f"{name}.ln_1", width)
        affine(f"{name}.ln_2", width)
        found[f"{name}.attn.in_proj_weight"], found[f"{name}.attn.in_proj_bias"] = (3 * width, width), (3 * width,)
        affine(f"{name}.attn.out_proj", width, width)
        affine(f"{name}.mlp.c_fc", 4 * width, width)
        affine(f"{name}.mlp.c_proj", width, 4 * width)

    for expert in range(experts):
        for layer in range(expert_layers):
            block(f"resample_layers.{expert}.{layer}", width, hidden)
    affine("conv1.audio", width, 1, 16, 16)
    affine("conv1.point.conv1", width, 6, 1, 1)
    affine("conv1.fmri", width * voxel_tokens, voxels)
    found["conv1.imu.weight"] = (width, 6, 10)
    counts = {"audio": 12 * 101, "point": points, "fmri": voxel_tokens, "imu": motion - 9}
    found.update({f"positional_embedding.{modality}": (count + 1, width) for modality, count in counts.items()})
    for modality in KINDS:
        found[f"resample_tokens.{modality}"] = (1, queries, width)
        for name, outputs in (("clip_proj1", width), ("clip_proj2", width_llm)):
            affine(f"{name}.{modality}.0", outputs, width)
            affine(f"{name}.{modality}.1", outputs)
        affine(f"routers.{modality}.fc1", router_hidden, width)
        affine(f"routers.{modality}.fc2", experts, router_hidden)
        found[f"start_tag.{modality}"] = found[f"end_tag.{modality}"] = (1, 1, width_llm)
    return {f"llma.{key}": shape for key, shape in found.items()}


SIZES_7B = {
    "width_llm": 4096,
    "layers": 32,
    "hidden_llm": 11008,
    "vocabulary": 32000,
    "width": 1024,
    "encoder_layers": 24,
    "picture": 224,
    "experts": 3,
    "expert_layers": 8,
    "hidden": 2816,
    "queries": 30,
    "router_hidden": 4096,
    "points": 1024,
    "voxels": 15724,
    "voxel_tokens": 8,
    "motion": 400,
    "text_width": 768,
    "text_words": 49408,
    "text_length": 77,
    "embedding": 768,
}
PARAMS = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "vocab_size": -1,
    "norm_eps": 1e-5,
    "encoder_heads": 4,
    "expert_heads": 2,
}


def published_state(dtype=torch.bfloat16, **sizes):
    """Fill the layout with small random values, the same every time; `PARAMS` fits the default sizes."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: (torch.randn(shape, generator=generator) / math.sqrt(max(shape[-1:], default=1))).to(dtype)
        for key, shape in published_shapes(**sizes).items()
    }


def train_tokenizer(path):
    """Write a sentencepiece file of LLaMA's form (pairs, bytes for what is unknown) with 300 pieces."""
    from sentencepiece import SentencePieceTrainer

    words = "A chat between a curious human and an artificial intelligence assistant answers questions what is this"
    with path.open("wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=iter([words] * 20),
            model_writer=file,
            model_type="bpe",
            vocab_size=300,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            minloglevel=2,
        )
