"""The systems that transformers lacks compute what their published code does, written down a second time."""

import pytest
import torch
import torch.nn.functional as F
from published_family import HIDDEN, PATCH, SIDE, WIDE, Keys, W, blip2_models, lavis, write_llm
from torch import nn

from onellm.hub.convert import convert
from onellm.model.auto import OneLLMForConditionalGeneration


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
    assert (model.soft_tokens("image", [picture]) - words).abs().max() < 1e-5 and words.std() > 0.1


@torch.no_grad()
def test_mplug_owl_computes_its_published_form(converted, picture):
    """The tower and the abstractor, written out with the published names."""
    p, model = converted("mplug-owl-7b")

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
    assert (model.soft_tokens("image", [picture])[0] - words).abs().max() < 1e-5 and words.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_pandagpt_computes_its_published_form(converted, picture, modality):
    """ImageBind's tower with torch's own layers, and the mean over pieces of features of length 1."""
    p, model = converted("pandagpt-7b")
    theirs, width, heads = ("audio", 24, 3) if modality == "audio" else ("vision", W, 2)

    def layer(module, prefix):
        module.load_state_dict({name: p[f"{prefix}.{name}"] for name in module.state_dict()})
        return module.eval()

    def embed(piece):
        at = f"modality_preprocessors.{theirs}"
        if modality == "audio":
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
    if modality == "image":
        value, pieces = picture, [picture[:, None].expand(-1, 2, -1, -1)]
    elif modality == "video":
        value = torch.randn(4, 3, SIDE, SIDE, generator=generator)
        pieces = [value[:2].transpose(0, 1), value[2:].transpose(0, 1)]
    else:
        value = torch.randn(3, 1, 128, 204, generator=generator)
        pieces = list(value)
    words = (
        torch.stack([embed(piece) for piece in pieces]).mean(dim=0) @ p["llama_proj.weight"].T + p["llama_proj.bias"]
    )
    assert (model.soft_tokens(modality, [value])[0, 0] - words).abs().max() < 1e-5 and words.std() > 0.05


@torch.no_grad()
@pytest.mark.parametrize("system", ["lavin-7b", "lavin-7b with --llm"])
def test_lavin_computes_its_published_form(converted, picture, system):
    """CLIP's tower as transformers runs it, with the published adapters on what its attentions read."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    p, model = converted(system)
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
    assert (model.soft_tokens("image", [picture])[0] - words).abs().max() < 1e-4 and words.std() > 0.05
    assert torch.equal(model.adapters.modality.weight, p["adapter_modality_embedding.weight"])
    assert torch.equal(model.adapters.layers[1].up[0].weight, p["layers.1.adapter_attn.conv_B.weight"])
    assert torch.equal(model.adapters.layers[1].up[1].bias, p["layers.1.adapter_attn.conv_D.bias"])
    assert model.config.adapter["temperature"] == 10.0 and model.config.text_config.rms_norm_eps == 1e-6
