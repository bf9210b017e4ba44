"""The systems that transformers lacks, as they are published: small random files with their names and shapes.

Names and shapes are written down here from the published files and code, apart from the maps that are tested.
"""

import argparse
import json

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

W, H, SIDE, PATCH, HIDDEN = 32, 16, 28, 14, 48  # width, heads of the presets' towers, picture, patch, feed-forward
WORDS, WIDE, LAYERS, INNER = 320, 32, 2, 40  # the LLM
SYSTEMS = (
    "llava-1-7b",
    "minigpt4-7b",
    "vl-vicuna-7b",
    "mplug-owl-7b",
    "lavin-7b",
    "pandagpt-7b",
    "mplug-owl-7b with LoRA",
    "lavin-7b with --llm",
)


class Keys(dict):
    """Name -> shape."""

    def linear(self, name, outputs, inputs, *more, bias=True):
        self[f"{name}.weight"] = (outputs, inputs, *more)
        if bias:
            self[f"{name}.bias"] = (outputs,)

    def norm(self, name, width):
        self[f"{name}.weight"] = self[f"{name}.bias"] = (width,)

    def tensors(self):
        return {key: 0.2 * torch.randn(shape) + (len(shape) == 1 and "norm" in key) for key, shape in self.items()}


def transformers_clip(layers):
    keys = Keys({"logit_scale": (), "text_model.embeddings.token_embedding.weight": (9, 8)})
    keys["vision_model.embeddings.class_embedding"] = (W,)
    keys["vision_model.embeddings.position_embedding.weight"] = (5, W)
    keys["vision_model.embeddings.position_ids"] = (1, 5)
    keys.linear("vision_model.embeddings.patch_embedding", W, 3, PATCH, PATCH, bias=False)
    keys.linear("visual_projection", 8, W, bias=False)
    keys.linear("text_projection", 8, 8, bias=False)
    for name in ("vision_model.pre_layrnorm", "vision_model.post_layernorm", "text_model.final_layer_norm"):
        keys.norm(name, W)
    for layer in (f"vision_model.encoder.layers.{index}" for index in range(layers)):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            keys.linear(f"{layer}.self_attn.{part}", W, W)
        keys.norm(f"{layer}.layer_norm1", W)
        keys.norm(f"{layer}.layer_norm2", W)
        keys.linear(f"{layer}.mlp.fc1", HIDDEN, W)
        keys.linear(f"{layer}.mlp.fc2", W, HIDDEN)
    return keys.tensors()


def meta_llama():
    keys = Keys({"rope.freqs": (WIDE // 4,), "norm.weight": (WIDE,)})
    keys.linear("tok_embeddings", WORDS, WIDE, bias=False)
    keys.linear("output", WORDS, WIDE, bias=False)
    for layer in (f"layers.{index}" for index in range(LAYERS)):
        for part in ("wq", "wk", "wv", "wo"):
            keys.linear(f"{layer}.attention.{part}", WIDE, WIDE, bias=False)
        for part, shape in (("w1", (INNER, WIDE)), ("w2", (WIDE, INNER)), ("w3", (INNER, WIDE))):
            keys.linear(f"{layer}.feed_forward.{part}", *shape, bias=False)
        keys[f"{layer}.attention_norm.weight"] = keys[f"{layer}.ffn_norm.weight"] = (WIDE,)
    return keys.tensors()


def lavin(layers):
    keys = Keys({"adapter_modality_embedding.weight": (2, WIDE)})
    places = [(f"layers.{index}", WIDE) for index in range(LAYERS)]
    places += [(f"backbone.visual.transformer.resblocks.{index}", W) for index in range(layers)]
    for place, width in places:
        keys.linear(f"{place}.adapter_attn.conv_A", 8, width, 1)
        keys.linear(f"{place}.adapter_attn.conv_B", width, 4, 1)
        keys.linear(f"{place}.adapter_attn.conv_D", width, 4, 1)
        keys.linear(f"{place}.adapter_attn.expert_weights", 2, width)
    keys.linear("adapter_proj.conv_A", 12, W)
    keys.linear("adapter_proj.conv_B", WIDE, 12)
    return keys.tensors()


def mplug_owl():
    keys = Keys({"query_tokens": (1, 3, W), "abstractor.vit_eos": (1, 1, WIDE)})
    keys["vision_model.embeddings.cls_token"] = (1, 1, W)
    keys["vision_model.embeddings.position_embedding"] = (1, 5, W)
    keys.linear("vision_model.embeddings.patch_embed", W, 3, PATCH, PATCH, bias=False)
    keys.norm("vision_model.embeddings.pre_layernorm", W)
    keys.norm("vision_model.post_layernorm", W)
    for layer in (f"vision_model.encoder.layers.{index}" for index in range(2)):
        keys.linear(f"{layer}.self_attn.query_key_value", 3 * W, W)
        keys.linear(f"{layer}.self_attn.dense", W, W)
        keys.norm(f"{layer}.input_layernorm", W)
        keys.norm(f"{layer}.post_attention_layernorm", W)
        keys.linear(f"{layer}.mlp.fc1", HIDDEN, W)
        keys.linear(f"{layer}.mlp.fc2", W, HIDDEN)
    for layer in (f"abstractor.encoder.layers.{index}.crossattention" for index in range(2)):
        for part in ("query", "key", "value"):
            keys.linear(f"{layer}.attention.{part}", W, W)
        keys.linear(f"{layer}.output.out_proj", W, W)
        for part in ("norm1", "normk", "output.norm2"):
            keys.norm(f"{layer}.{part}", W)
        for part, shape in (("w1", (INNER, W)), ("w2", (W, INNER)), ("w3", (INNER, W))):
            keys.linear(f"{layer}.output.mlp.{part}", *shape)
        keys.norm(f"{layer}.output.mlp.ffn_ln", INNER)
    keys.linear("abstractor.visual_fc", WIDE, W)
    return keys.tensors()


def mplug_owl_lora():
    """List what PEFT wrote in 2023."""
    keys = Keys()
    for layer in range(LAYERS):
        for part in ("q_proj", "v_proj"):
            name = f"base_model.model.language_model.model.layers.{layer}.self_attn.{part}"
            keys[f"{name}.lora_A.weight"], keys[f"{name}.lora_B.weight"] = (8, WIDE), (WIDE, 8)
    return keys.tensors()


def imagebind():
    keys = Keys()
    for modality, width, heads_out in (("vision", W, 24), ("audio", 24, 24), ("thermal", 16, 24)):
        before, trunk = f"modality_preprocessors.{modality}", f"modality_trunks.{modality}"
        keys[f"{before}.cls_token"] = (1, 1, width)
        keys[f"{before}.pos_embedding_helper.pos_embed"] = (1, 5 if modality == "vision" else 12 * 19 + 1, width)
        for layer in (f"{trunk}.blocks.{index}" for index in range(2)):
            keys[f"{layer}.attn.in_proj_weight"], keys[f"{layer}.attn.in_proj_bias"] = (3 * width, width), (3 * width,)
            keys.linear(f"{layer}.attn.out_proj", width, width)
            keys.norm(f"{layer}.norm_1", width)
            keys.norm(f"{layer}.norm_2", width)
            keys.linear(f"{layer}.mlp.fc1", 4 * width, width)
            keys.linear(f"{layer}.mlp.fc2", width, 4 * width)
            if modality != "vision":
                keys[f"{layer}.attn.bias_k"] = keys[f"{layer}.attn.bias_v"] = (1, 1, width)
        keys.norm(f"modality_heads.{modality}.0", width)
        keys.linear(f"modality_heads.{modality}.2", heads_out, width, bias=False)
        keys[f"modality_postprocessors.{modality}.1.log_logit_scale"] = ()
    keys.norm("modality_trunks.vision.pre_transformer_layer.0", W)
    keys["modality_preprocessors.vision.rgbt_stem.proj.1.weight"] = (W, 3, 2, PATCH, PATCH)
    keys["modality_preprocessors.audio.rgbt_stem.proj.weight"] = (24, 1, 16, 16)
    keys.norm("modality_preprocessors.audio.rgbt_stem.norm_layer", 24)
    return keys.tensors()


def pandagpt():
    keys = Keys()
    keys.linear("llama_proj", WIDE, 24)
    for layer in range(LAYERS):
        for part in "qkvo":
            name = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{part}_proj"
            keys[f"{name}.lora_A.default.weight"], keys[f"{name}.lora_B.default.weight"] = (4, WIDE), (WIDE, 4)
    return {key: nn.Parameter(value) for key, value in keys.tensors().items()}  # as its trainer wrote them


def blip2_models():
    vision = Blip2VisionModel(
        Blip2VisionConfig(
            hidden_size=W,
            intermediate_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=H,
            image_size=SIDE,
            patch_size=PATCH,
        )
    )
    qformer = Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=4,
            num_attention_heads=12,
            encoder_hidden_size=W,
            cross_attention_frequency=2,
        )
    )
    for parameter in [*vision.parameters(), *qformer.parameters()]:
        nn.init.normal_(parameter, std=0.2)
    return vision.eval(), qformer.eval()


def lavis(vision, qformer):
    """Give transformers' tensors the names of LAVIS, and add what its files hold besides."""
    found = {}
    for key, value in vision.state_dict().items():
        key = key.replace("embeddings.class_embedding", "visual_encoder.cls_token")
        key = key.replace("embeddings.position_embedding", "visual_encoder.pos_embed")
        key = key.replace("embeddings.patch_embedding", "visual_encoder.patch_embed.proj")
        key = key.replace("encoder.layers.", "visual_encoder.blocks.").replace("layer_norm", "norm")
        key = key.replace("self_attn.projection", "attn.proj").replace("self_attn.qkv", "attn.qkv")
        key = key.replace("post_layernorm", "ln_vision")
        if key.endswith("qkv.bias"):
            value[W : 2 * W] = 0  # keys have none; also in the model that is compared
            found[key.replace("qkv.bias", "q_bias")], found[key.replace("qkv.bias", "v_bias")] = (
                value[:W],
                value[2 * W :],
            )
        else:
            found[key] = value
    for key, value in qformer.state_dict().items():
        key = f"embeddings.LayerNorm.{key.partition('.')[2]}" if key.startswith("layernorm") else key
        found[f"Qformer.bert.{key.replace('attention.attention.', 'attention.self.')}"] = value
    found["query_tokens"] = 0.2 * torch.randn(1, 3, 24)
    found["Qformer.bert.embeddings.position_ids"] = torch.arange(5)[None]
    found["t5_proj.weight"], found["t5_proj.bias"] = torch.randn(8, 24), torch.randn(8)
    return {key: value.clone() for key, value in found.items()}


# ---- files -----------------------------------------------------------------------------------------------------------


def write_clip(folder, layers):
    folder.mkdir()
    tensors = transformers_clip(layers)
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "clip", "text_config": {"hidden_size": 8}, "projection_dim": 8}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def write_llm(folder, prefix="", more=None, **changes):
    """Write a LLaMA as transformers did in 2023, `more` tensors beside its own."""
    settings = {"vocab_size": WORDS, "hidden_size": WIDE, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
    llm = LlamaForCausalLM(LlamaConfig(**settings, num_attention_heads=2, max_position_embeddings=256))
    for parameter in llm.parameters():
        nn.init.normal_(parameter, std=0.2)
    llm.save_pretrained(folder)
    tensors = {f"{prefix}{key}": value for key, value in llm.state_dict().items()}
    tensors |= {f"{prefix}model.layers.{at}.self_attn.rotary_emb.inv_freq": torch.rand(8) for at in range(LAYERS)}
    (folder / "model.safetensors").unlink()
    torch.save(tensors | (more or {}), folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def write(system, folder):
    """Write the files of a system: what `convert` is given, and all their tensors."""
    torch.manual_seed(0)
    if system == "llava-1-7b":
        clip = write_clip(folder / "clip", 3)
        keys = Keys()
        keys.linear("model.mm_projector", WIDE, W)
        projector = keys.tensors()
        llm = write_llm(folder / "llava", more=projector, model_type="llava", mm_vision_select_layer=-2)
        return {"checkpoint": [folder / "clip", folder / "llava"]}, clip | llm | projector
    if system.startswith("mplug-owl"):
        own = mplug_owl()
        sizes = {"hidden_size": W, "num_hidden_layers": 2, "num_attention_heads": 4}
        llm = write_llm(folder / "owl", "language_model.", more=own)
        config = {
            "model_type": "mplug-owl",
            "text_config": json.loads((folder / "owl/config.json").read_text()),
            "vision_config": {**sizes, "intermediate_size": HIDDEN, "image_size": SIDE, "patch_size": PATCH},
            "visual_abstractor_config": {**sizes, "intermediate_size": INNER},
        }
        (folder / "owl/config.json").write_text(json.dumps(config))
        if not system.endswith("LoRA"):
            return {"checkpoint": folder / "owl"}, own | llm
        lora = mplug_owl_lora()
        torch.save(lora, folder / "adapter_model.bin")
        return {"checkpoint": [folder / "owl", folder / "adapter_model.bin"]}, own | llm | lora
    if system.startswith("lavin"):
        clip, own = write_clip(folder / "clip", 8), lavin(8)
        trained = {"model": {f"module.{key}": value for key, value in own.items()}, "epoch": 19, "optimizer": {}}
        torch.save(trained | {"args": argparse.Namespace(lr=9e-3)}, folder / "adapters.pth")
        if system.endswith("--llm"):
            llm = write_llm(folder / "llm")
            return {"checkpoint": [folder / "clip", folder / "adapters.pth"], "llm": folder / "llm"}, clip | own | llm
        llm = meta_llama()
        (folder / "llama").mkdir()
        torch.save(llm, folder / "llama/consolidated.00.pth")
        params = {"dim": WIDE, "n_heads": 2, "n_layers": LAYERS, "norm_eps": 1e-6, "vocab_size": -1, "multiple_of": 8}
        (folder / "llama/params.json").write_text(json.dumps(params))
        paths = [folder / "clip", folder / "llama/consolidated.00.pth", folder / "adapters.pth"]
        return {"checkpoint": paths}, clip | own | llm
    llm = write_llm(folder / "llm")
    if system == "pandagpt-7b":
        bind, own = imagebind(), pandagpt()
        torch.save(bind, folder / "imagebind_huge.pth")
        torch.save(own, folder / "pytorch_model.pt")
        paths = [folder / "imagebind_huge.pth", folder / "pytorch_model.pt"]
        heads = {"encoder_heads": 2, "audio_heads": 3}
        return {"checkpoint": paths, "llm": folder / "llm", "params": heads}, bind | own | llm
    base = lavis(*blip2_models())
    keys = Keys()
    keys.linear("llama_proj", WIDE, 24)
    own = keys.tensors()
    if system == "vl-vicuna-7b":  # it has trained the querying transformer anew
        own |= {key: value + 1 for key, value in base.items() if key.startswith(("Qformer.bert.encoder", "query_"))}
    torch.save({"model": base}, folder / "blip2.pth")
    torch.save({"model": own, "epoch": 3}, folder / "own.pth")
    options = {"checkpoint": [folder / "blip2.pth", folder / "own.pth"], "llm": folder / "llm", "preset": system}
    return options, base | own | llm
