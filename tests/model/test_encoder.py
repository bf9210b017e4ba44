"""The encoder: equal to transformers' vision towers, and each of its options by itself."""

import pytest
import torch
from torch import nn

from onellm.errors import ModelError
from onellm.model.encoder import Attention, UniversalEncoder
from onellm.model.tokenizers import ImagePatches, SpectrogramPatches, VideoPatches

WIDTH, LAYERS, HEADS, HIDDEN, SIDE = 32, 3, 2, 56, 28  # 4 patches
TOWER = {
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": 14,
}


def build(**options):
    torch.manual_seed(0)
    encoder = UniversalEncoder(WIDTH, LAYERS, HEADS, hidden=HIDDEN, **options)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


def inputs(count=4, batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, count, WIDTH), torch.randn(count + 1, WIDTH)


def copy_blocks(encoder, layers, names):
    """Copy transformers' layers; `names` are of: norm, projections in, projection out, norm, layers of the MLP."""
    first, into, out, second, (up, down) = names
    for block, layer in zip(encoder.transformer.resblocks, layers, strict=False):
        block.ln_1.load_state_dict(getattr(layer, first).state_dict())
        block.ln_2.load_state_dict(getattr(layer, second).state_dict())
        block.attn.in_proj_weight.data = torch.cat([getattr(layer.self_attn, name).weight for name in into])
        block.attn.in_proj_bias.data = torch.cat([getattr(layer.self_attn, name).bias for name in into])
        block.attn.out_proj.load_state_dict(getattr(layer.self_attn, out).state_dict())
        block.mlp.c_fc.load_state_dict(getattr(layer.mlp, up).state_dict())
        block.mlp.c_proj.load_state_dict(getattr(layer.mlp, down).state_dict())


@torch.no_grad()
@pytest.mark.parametrize("layer", [-1, -2])
def test_equal_to_clip(layer):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(2)
    theirs = CLIPVisionModel(CLIPVisionConfig(**TOWER)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = build(layer=layer, class_token="keep" if layer == -1 else "drop", post_norm=layer == -1)
    tokenizer = ImagePatches(WIDTH, SIDE)
    names = ("layer_norm1", ("q_proj", "k_proj", "v_proj"), "out_proj", "layer_norm2", ("fc1", "fc2"))
    copy_blocks(ours, theirs.encoder.layers, names)
    tokenizer.conv.weight.data = theirs.embeddings.patch_embedding.weight
    tokenizer.positions.data = theirs.embeddings.position_embedding.weight
    ours.class_embedding.data = theirs.embeddings.class_embedding
    ours.ln_pre.load_state_dict(theirs.pre_layrnorm.state_dict())
    pictures = torch.randn(2, 3, SIDE, SIDE)
    states = theirs(pictures, output_hidden_states=True).hidden_states
    if layer == -1:
        ours.ln_post.load_state_dict(theirs.post_layernorm.state_dict())
        expected = theirs.post_layernorm(states[-1])
    else:
        expected = states[-2][:, 1:]
    features = ours(tokenizer(pictures), tokenizer.positions)
    assert features.shape == expected.shape and (features - expected).abs().max() < 1e-5


@torch.no_grad()
def test_equal_to_blip_2():
    from transformers import Blip2VisionConfig, Blip2VisionModel

    torch.manual_seed(2)
    theirs = Blip2VisionModel(Blip2VisionConfig(**TOWER)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = build(activation="gelu", norm_eps=1e-6, pre_norm=False)
    tokenizer = ImagePatches(WIDTH, SIDE, bias=True)
    copy_blocks(ours, theirs.encoder.layers, ("layer_norm1", ("qkv",), "projection", "layer_norm2", ("fc1", "fc2")))
    tokenizer.conv.load_state_dict(theirs.embeddings.patch_embedding.state_dict())
    tokenizer.positions.data = theirs.embeddings.position_embedding[0]
    ours.class_embedding.data = theirs.embeddings.class_embedding[0, 0]
    ours.ln_post.load_state_dict(theirs.post_layernorm.state_dict())
    pictures = torch.randn(2, 3, SIDE, SIDE)
    features = ours(tokenizer(pictures), tokenizer.positions)
    assert (features - theirs(pictures).last_hidden_state).abs().max() < 1e-5


@torch.no_grad()
def test_class_tokens_of_several_layers():
    """What LaVIN reads: the class token behind some layers, side by side."""
    tokens, positions = inputs()
    several = build(layer=[1, 3], class_token="alone", post_norm=False)
    features = several(tokens, positions)
    assert features.shape == (2, 2, WIDTH) and several.count(4) == 2
    for place, layer in enumerate([1, 3]):
        one = build(layer=layer, post_norm=False)
        one.load_state_dict({key: value for key, value in several.state_dict().items() if key in one.state_dict()})
        assert torch.allclose(features[:, place], one(tokens, positions)[:, 0], atol=1e-6)


@torch.no_grad()
def test_class_token():
    tokens, positions = inputs()
    kept, dropped, alone = (build(class_token=way) for way in ("keep", "drop", "alone"))
    whole = kept(tokens, positions)
    assert torch.equal(dropped(tokens, positions), whole[:, 1:])
    assert torch.allclose(alone(tokens, positions), whole[:, :1], atol=1e-6)
    assert [encoder.count(4) for encoder in (kept, dropped, alone)] == [5, 4, 1]


def test_layers_behind_the_last_one_read_are_not_built():
    assert len(build(layer=-2).transformer.resblocks) == 2
    assert len(build(layer=[1, 2]).transformer.resblocks) == 2
    assert len(build().transformer.resblocks) == 3
    for layer in (4, -4, 0, []):
        with pytest.raises(ModelError, match="has 3 layers"):
            build(layer=layer)


@torch.no_grad()
def test_output_of_another_width_and_length_one():
    tokens, positions = inputs()
    plain, unit = build(output=12), build(output=12, unit=True)
    features = plain(tokens, positions)
    assert features.shape == (2, 5, 12) and plain.features == 12
    assert torch.allclose(unit(tokens, positions), features / features.norm(dim=-1, keepdim=True), atol=1e-6)


@torch.no_grad()
def test_a_learnt_key_and_value():
    """As torch's own attention has them."""
    ours = Attention(WIDTH, HEADS, batch_first=True, add_bias_kv=True).eval()
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_bias_kv=True).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours.load_state_dict(theirs.state_dict())
    tokens, _ = inputs()
    assert (ours(tokens)[0] - theirs(tokens, tokens, tokens, need_weights=False)[0]).abs().max() < 1e-5
    encoder = build(extra_key=True)
    tokens, positions = inputs()
    before = encoder(tokens, positions)
    encoder.transformer.resblocks[0].attn.bias_v.data += 5
    assert (encoder(tokens, positions) - before).abs().max() > 1e-3


@torch.no_grad()
def test_frames():
    features = torch.randn(2, 3, 5, WIDTH)
    assert torch.equal(build().join(features), features.mean(dim=1))
    apart = build(frames="concat", places=4)
    joined = apart.join(features)
    assert joined.shape == (2, 15, WIDTH) and apart.count(4, frames=3) == 15 and build().count(4, frames=3) == 5
    assert torch.allclose(joined[:, 5:10], features[:, 1] + apart.places[1], atol=1e-6)
    with pytest.raises(ModelError, match="5 frames came, and the model knows 4"):
        apart.join(torch.randn(1, 5, 5, WIDTH))


def test_unknown_choices_list_the_known_ones():
    with pytest.raises(ModelError, match="class token 'last'.*keep, drop, alone"):
        build(class_token="last")
    with pytest.raises(ModelError, match="activation 'relu'.*quick_gelu, gelu"):
        build(activation="relu")
    with pytest.raises(ModelError, match="frames 'sum'.*mean, concat"):
        build(frames="sum")


@torch.no_grad()
def test_patches_in_time():
    tokenizer = VideoPatches(WIDTH, SIDE)
    video = torch.randn(2, 4, 3, SIDE, SIDE)
    tokens = tokenizer(video)
    assert tokens.shape == (2, 2, 4, WIDTH)
    first, second = tokenizer.conv.weight.unbind(2)
    corner = video[1, 2:, :, :14, :14]
    expected = (first * corner[0]).sum(dim=(1, 2, 3)) + (second * corner[1]).sum(dim=(1, 2, 3))
    assert torch.allclose(tokens[1, 1, 0], expected, atol=1e-4)
    still = video[:, :1].expand(-1, 2, -1, -1, -1)
    assert torch.allclose(tokenizer(video[:, 0]), tokenizer(still)[:, 0], atol=1e-5)
    with pytest.raises(ModelError, match="3 frames cannot be taken 2 by 2"):
        tokenizer(video[:, :3])


@torch.no_grad()
def test_pieces_of_a_spectrogram():
    tokenizer = SpectrogramPatches(WIDTH, mels=32, frames=64, bias=False, norm=True)
    pieces = torch.randn(2, 3, 1, 32, 64)
    tokens = tokenizer(pieces)
    assert tokens.shape == (2, 3, tokenizer.count, WIDTH)
    assert torch.allclose(tokens[:, 1], tokenizer(pieces[:, 1]), atol=1e-6)
    assert tokens.mean(dim=-1).abs().max() < 1e-5  # normalised
