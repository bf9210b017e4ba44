"""The systems that transformers lacks: small random files in their published layout, converted, and what comes of them.

Names and shapes are written down here from the published files and code, apart from the maps that are tested.
"""

import argparse
import functools
import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from published_checkpoint import train_tokenizer
from safetensors.torch import save_file
from torch import nn
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
)

import onellm
from onellm.auto import OneLLMConfig, OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.errors import ModelError
from onellm.model.checkpoint import convert
from onellm.model.encoder import UniversalEncoder

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


# ---- published layouts -----------------------------------------------------------------------------------------------


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
    for kind, width, heads_out in (("vision", W, 24), ("audio", 24, 24), ("thermal", 16, 24)):
        before, trunk = f"modality_preprocessors.{kind}", f"modality_trunks.{kind}"
        keys[f"{before}.cls_token"] = (1, 1, width)
        keys[f"{before}.pos_embedding_helper.pos_embed"] = (1, 5 if kind == "vision" else 12 * 19 + 1, width)
        for layer in (f"{trunk}.blocks.{index}" for index in range(2)):
            keys[f"{layer}.attn.in_proj_weight"], keys[f"{layer}.attn.in_proj_bias"] = (3 * width, width), (3 * width,)
            keys.linear(f"{layer}.attn.out_proj", width, width)
            keys.norm(f"{layer}.norm_1", width)
            keys.norm(f"{layer}.norm_2", width)
            keys.linear(f"{layer}.mlp.fc1", 4 * width, width)
            keys.linear(f"{layer}.mlp.fc2", width, 4 * width)
            if kind != "vision":
                keys[f"{layer}.attn.bias_k"] = keys[f"{layer}.attn.bias_v"] = (1, 1, width)
        keys.norm(f"modality_heads.{kind}.0", width)
        keys.linear(f"modality_heads.{kind}.2", heads_out, width, bias=False)
        keys[f"modality_postprocessors.{kind}.1.log_logit_scale"] = ()
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


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A folder with a tokenizer of LLaMA's form."""
    folder = tmp_path_factory.mktemp("words")
    train_tokenizer(folder / "tokenizer.model")
    LlamaTokenizer.from_pretrained(folder, pad_token="<unk>").save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.fixture(scope="module")
def made(words, tmp_path_factory):
    """A system's published tensors, and the model that `convert` makes of its files."""

    @functools.cache
    def make(system):
        folder = tmp_path_factory.mktemp("files")
        options, published = write(system, folder)
        out = convert(**options, out=folder / "out", tokenizer=words, progress=False)
        model, told = OneLLMForConditionalGeneration.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
        assert not any(told.values())
        model.folder = out
        return published, model.eval()

    return make


@pytest.fixture
def picture():
    return torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


# ---- tests -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("system", SYSTEMS)
def test_it_answers(made, system, picture):
    _, model = made(system)
    preset = OneLLMConfig.from_preset(system.partition(" ")[0])
    assert model.config.description == preset.description and model.config.chat_template == preset.chat_template
    length = model.config.length_of("image")
    ids = torch.tensor([[1, 5, *[model.config.modalities["image"]["token_id"]] * length, 9]])
    options = {"media": {"image": [picture]}, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    answer = model.generate(ids, **options)
    assert answer.tolist() == model.generate(ids, **options, use_cache=False).tolist()
    other = model(ids, media={"image": [-picture]}).logits
    assert (other - model(ids, media=options["media"]).logits).abs().max() > 1e-5


@torch.no_grad()
@pytest.mark.parametrize("system", SYSTEMS[:-2])
def test_a_person_asks(made, system, tmp_path):
    """A picture, a second question and text alone: what is streamed is what the model makes of the prompt at once."""
    _, model = made(system)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 60, 3), np.uint8)).save(tmp_path / "photo.png")
    chat = onellm.load(model.folder, quantize="none")
    processor = OneLLMProcessor.from_pretrained(model.folder)

    def ask(text, **files):
        said = "".join(chat.stream(text, **files, max_new_tokens=4))
        inputs = processor.apply_chat_template(chat.messages[:-1])
        whole = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert said.strip() == processor.decode(whole, skip_special_tokens=True).strip()

    ask("what is this", image=str(tmp_path / "photo.png"))
    ask("what colour is this")
    chat.clear()
    ask("what is this")


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_published_number_is_used_or_named_as_dropped(made, system):
    """Numbers that appear nowhere in our model are those of keys that the map lists as dropped."""
    published, model = made(system)
    ours = torch.cat([value.flatten() for value in model.state_dict().values()]).unique()
    unused = {key for key, value in published.items() if not torch.isin(value.flatten(), ours).all()}
    allowed = {
        "llava-1-7b": ("encoder.layers.2.", "post_layernorm", "text_", "visual_projection", "logit", "position_ids"),
        "lavin-7b": ("post_layernorm", "text_", "visual_projection", "logit", "position_ids"),
        "pandagpt-7b": ("thermal", "postprocessors"),
        "minigpt4-7b": ("t5_proj", "position_ids"),
        "vl-vicuna-7b": ("t5_proj", "position_ids"),
        "mplug-owl-7b": (),
    }[system.partition(" ")[0]]
    left = {
        key for key in unused if not re.search("inv_freq|rope.freqs", key) and not any(word in key for word in allowed)
    }
    assert not left
    for word in allowed:
        assert any(word in key for key in published), word


@pytest.mark.parametrize("system", SYSTEMS)
def test_files_that_do_not_fit_are_refused(system, tmp_path):
    options, _ = write(system, tmp_path)
    paths = options["checkpoint"] if isinstance(options["checkpoint"], list) else [options["checkpoint"]]
    last = paths[-1] if paths[-1].is_file() else paths[-1] / "pytorch_model.bin"
    content = torch.load(last, weights_only=False)
    table = content.get("model", content)
    name = next(key for key in table if key.endswith("weight") and "proj" in key and table[key].dim() == 2)
    value = table.pop(name)
    torch.save(content, last)
    with pytest.raises(ModelError, match="(missing|another model)"):
        convert(**options, out=tmp_path / "out", progress=False)
    table |= {name: value, "surprise.weight": value}
    torch.save(content, last)
    with pytest.raises(ModelError, match=r"surprise\.weight is not known"):
        convert(**options, out=tmp_path / "out", progress=False)
    del table["surprise.weight"]
    table[name] = value[:-1]
    torch.save(content, last)
    with pytest.raises(ModelError, match=r"is \[\d+, \d+.*instead of"):
        convert(**options, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@torch.no_grad()
def test_minigpt_4_sees_what_blip_2_of_transformers_sees(tmp_path, picture):
    torch.manual_seed(3)
    vision, qformer = blip2_models()
    base = lavis(vision, qformer)
    keys = Keys()
    keys.linear("llama_proj", WIDE, 24)
    own = keys.tensors()
    torch.save({"model": base}, tmp_path / "blip2.pth")
    torch.save({"model": own}, tmp_path / "own.pth")
    write_llm(tmp_path / "llm")
    paths = [tmp_path / "blip2.pth", tmp_path / "own.pth"]
    out = convert(paths, tmp_path / "out", progress=False, llm=tmp_path / "llm")
    model = OneLLMForConditionalGeneration.from_pretrained(out, dtype=torch.float32).eval()
    features = vision(picture[None]).last_hidden_state
    assert (model.encode("image", picture[None]) - features).abs().max() < 1e-5
    read = qformer(query_embeds=base["query_tokens"], encoder_hidden_states=features).last_hidden_state
    words = F.linear(read, own["llama_proj.weight"], own["llama_proj.bias"])
    assert (model.soft_words("image", [picture]) - words).abs().max() < 1e-5 and words.std() > 0.1


def test_lora_of_mplug_owl_comes_or_not(made):
    published, merged = made("mplug-owl-7b with LoRA")[0], made("mplug-owl-7b")[1]
    assert merged.config.adapter is None
    model = made("mplug-owl-7b with LoRA")[1]
    assert model.config.adapter["r"] == 8 and model.config.adapter_on == "always"
    name = "language_model.model.layers.1.self_attn.v_proj.lora_B"
    assert torch.equal(model.get_submodule(name)["default"].weight, published[f"base_model.model.{name}.weight"])


@torch.no_grad()
def test_mplug_owl_computes_its_published_form(made, picture):
    """The tower and the abstractor, written out with the published names."""
    p, model = made("mplug-owl-7b")

    def linear(name, x):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(name, x, eps):
        return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], eps)

    def attend(query, key, value):  # [heads, N, head_dim]
        return ((query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1) @ value).transpose(0, 1).flatten(1)

    at = "vision_model.embeddings"
    patches = F.conv2d(picture[None], p[f"{at}.patch_embed.weight"], stride=PATCH).flatten(2)[0].T
    x = norm(
        f"{at}.pre_layernorm", torch.cat([p[f"{at}.cls_token"][0], patches]) + p[f"{at}.position_embedding"][0], 1e-6
    )
    for index in range(2):
        at = f"vision_model.encoder.layers.{index}"
        mixed = linear(f"{at}.self_attn.query_key_value", norm(f"{at}.input_layernorm", x, 1e-6))
        query, key, value = mixed.view(5, 4, 3, W // 4).permute(2, 1, 0, 3)
        x = x + linear(f"{at}.self_attn.dense", attend(query, key, value))
        inner = linear(f"{at}.mlp.fc1", norm(f"{at}.post_attention_layernorm", x, 1e-6))
        x = x + linear(f"{at}.mlp.fc2", inner * torch.sigmoid(1.702 * inner))
    x = norm("vision_model.post_layernorm", x, 1e-6)
    assert (model.encode("image", picture[None])[0] - x).abs().max() < 1e-5

    q = p["query_tokens"][0]
    for index in range(2):
        at = f"abstractor.encoder.layers.{index}.crossattention"
        q = norm(f"{at}.norm1", q, 1e-5)
        seen = torch.cat([q, norm(f"{at}.normk", x, 1e-5)])
        parts = [linear(f"{at}.attention.{name}", y) for name, y in (("query", q), ("key", seen), ("value", seen))]
        q = q + linear(f"{at}.output.out_proj", attend(*(y.view(len(y), 4, -1).transpose(0, 1) for y in parts)))
        inner = norm(f"{at}.output.norm2", q, 1e-5)
        gated = F.silu(linear(f"{at}.output.mlp.w1", inner)) * linear(f"{at}.output.mlp.w3", inner)
        q = q + linear(f"{at}.output.mlp.w2", norm(f"{at}.output.mlp.ffn_ln", gated, 1e-6))
    words = torch.cat([linear("abstractor.visual_fc", q), p["abstractor.vit_eos"][0]])
    assert (model.soft_words("image", [picture])[0] - words).abs().max() < 1e-5 and words.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_pandagpt_computes_its_published_form(made, picture, kind):
    """ImageBind's tower with torch's own layers, and the mean over pieces of features of length 1."""
    p, model = made("pandagpt-7b")
    theirs, width, heads = ("audio", 24, 3) if kind == "audio" else ("vision", W, 2)

    def layer(module, prefix):
        module.load_state_dict({name: p[f"{prefix}.{name}"] for name in module.state_dict()})
        return module.eval()

    def embed(piece):
        at = f"modality_preprocessors.{theirs}"
        if kind == "audio":
            tokens = F.conv2d(piece[None], p[f"{at}.rgbt_stem.proj.weight"], stride=10).flatten(2).transpose(1, 2)
            tokens = layer(nn.LayerNorm(24), f"{at}.rgbt_stem.norm_layer")(tokens)
        else:
            tokens = F.conv3d(piece[None], p[f"{at}.rgbt_stem.proj.1.weight"], stride=(2, PATCH, PATCH))
            tokens = tokens.flatten(2).transpose(1, 2)
        x = torch.cat([p[f"{at}.cls_token"], tokens], dim=1) + p[f"{at}.pos_embedding_helper.pos_embed"]
        at = f"modality_trunks.{theirs}"
        if theirs == "vision":
            x = layer(nn.LayerNorm(width, 1e-6), f"{at}.pre_transformer_layer.0")(x)
        for block in (f"{at}.blocks.{index}" for index in range(2)):
            attention = nn.MultiheadAttention(width, heads, batch_first=True, add_bias_kv=theirs == "audio")
            y = layer(nn.LayerNorm(width, 1e-6), f"{block}.norm_1")(x)
            x = x + layer(attention, f"{block}.attn")(y, y, y, need_weights=False)[0]
            y = layer(nn.LayerNorm(width, 1e-6), f"{block}.norm_2")(x)
            x = x + layer(nn.Linear(4 * width, width), f"{block}.mlp.fc2")(
                F.gelu(layer(nn.Linear(width, 4 * width), f"{block}.mlp.fc1")(y))
            )
        x = layer(nn.LayerNorm(width, 1e-6), f"modality_heads.{theirs}.0")(x)[:, 0]
        return F.normalize(x @ p[f"modality_heads.{theirs}.2.weight"].T, dim=-1)[0]

    generator = torch.Generator().manual_seed(2)
    if kind == "image":
        value, pieces = picture, [picture[:, None].expand(-1, 2, -1, -1)]
    elif kind == "video":
        value = torch.randn(4, 3, SIDE, SIDE, generator=generator)
        pieces = [value[:2].transpose(0, 1), value[2:].transpose(0, 1)]
    else:
        value = torch.randn(3, 1, 128, 204, generator=generator)
        pieces = list(value)
    words = (
        torch.stack([embed(piece) for piece in pieces]).mean(dim=0) @ p["llama_proj.weight"].T + p["llama_proj.bias"]
    )
    assert (model.soft_words(kind, [value])[0, 0] - words).abs().max() < 1e-5 and words.std() > 0.05


@torch.no_grad()
@pytest.mark.parametrize("system", ["lavin-7b", "lavin-7b with --llm"])
def test_lavin_computes_its_published_form(made, picture, system):
    """CLIP's tower as transformers runs it, with the published adapters on what its attentions read."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    p, model = made(system)
    sizes = {"hidden_size": W, "intermediate_size": HIDDEN, "num_hidden_layers": 8, "num_attention_heads": 1}
    clip = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=SIDE, patch_size=PATCH)).eval()
    clip.load_state_dict(
        {key: p[f"vision_model.{key}"] for key in clip.state_dict() if "position_ids" not in key}, False
    )

    def adapt(at):
        def hook(_, __, x):
            weights = F.linear(x, p[f"{at}.expert_weights.weight"], p[f"{at}.expert_weights.bias"]).div(10).softmax(-1)
            low = F.conv1d(x.transpose(1, 2), p[f"{at}.conv_A.weight"], p[f"{at}.conv_A.bias"])
            ups = [F.conv1d(low, p[f"{at}.conv_{n}.weight"], p[f"{at}.conv_{n}.bias"], groups=2) for n in "BD"]
            return x + sum(weights[..., n, None] * up.transpose(1, 2) for n, up in enumerate(ups))

        return hook

    for index, layer in enumerate(clip.encoder.layers):
        layer.layer_norm1.register_forward_hook(adapt(f"backbone.visual.transformer.resblocks.{index}.adapter_attn"))
    states = clip(picture[None], output_hidden_states=True).hidden_states
    read = torch.stack([states[4][0, 0], states[8][0, 0]])
    low = F.silu(F.linear(read, p["adapter_proj.conv_A.weight"], p["adapter_proj.conv_A.bias"]))
    words = F.linear(low, p["adapter_proj.conv_B.weight"], p["adapter_proj.conv_B.bias"])
    assert (model.soft_words("image", [picture])[0] - words).abs().max() < 1e-4 and words.std() > 0.05
    assert torch.equal(model.adapters.modality.weight, p["adapter_modality_embedding.weight"])
    assert torch.equal(model.adapters.layers[1].up[0].weight, p["layers.1.adapter_attn.conv_B.weight"])
    assert torch.equal(model.adapters.layers[1].up[1].bias, p["layers.1.adapter_attn.conv_D.bias"])
    assert model.config.adapter["temperature"] == 10.0 and model.config.text_config.rms_norm_eps == 1e-6


# ---- prompts ---------------------------------------------------------------------------------------------------------

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
def tokenizer(words):
    return LlamaTokenizer.from_pretrained(words, add_prefix_space=False)


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


# ---- sizes -----------------------------------------------------------------------------------------------------------


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
