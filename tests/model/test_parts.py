"""The parts alone: presets, tokenizers, routers, anchor."""

import pytest
import torch

from onellm.errors import ModelError
from onellm.model.configuration import PRESETS, ROUTERS, OneLLMConfig, merge


def test_7b_builds_with_the_published_parameter_count():
    """7,597,224,217 parameters, less the 39,382,273 of CLIP's unused text tower and output projection."""
    from onellm.model.auto import OneLLMForConditionalGeneration

    with torch.device("meta"):
        model = OneLLMForConditionalGeneration(OneLLMConfig.from_preset("onellm-7b"))
    assert sum(p.numel() for p in model.parameters()) == 7_597_224_217 - 39_382_273


def test_7b_token_counts_are_the_published_ones():
    """Tokens with the class token, as the published positional embeddings have them."""
    from onellm.model.auto import OneLLMForConditionalGeneration

    with torch.device("meta"):
        model = OneLLMForConditionalGeneration(OneLLMConfig.from_preset("onellm-7b"))
    counts = {modality: model.tokenizer_for(modality).count + 1 for modality in model.config.modalities}
    assert counts == {
        "image": 257,
        "video": 257,
        "audio": 1213,
        "point": 1025,
        "fmri": 9,
        "imu": 392,
        "depth": 257,
        "normal": 257,
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_built_alone(preset):
    from onellm.model.auto import model_class

    config = OneLLMConfig.from_preset(preset)
    with torch.device("meta"):
        assert model_class(config)(config).state_dict()


def test_unknown_preset_lists_the_valid_ones():
    with pytest.raises(ModelError, match=", ".join(PRESETS)):
        OneLLMConfig.from_preset("onellm-8b")


def test_changes_keep_what_is_of_the_same_type_alone():
    known = {"projector": {"experts": 3}, "adapter": {"r": 8}, "text_config": {"model_type": "llama", "head_dim": 64}}
    same = {"projector": {"type": "upm", "router": "softmax"}, "adapter": {"type": "lora", "r": 16}}
    merged = merge(known, same | {"text_config": {"hidden_size": 32}})
    assert merged["projector"] == {"experts": 3, "type": "upm", "router": "softmax"} and merged["adapter"]["r"] == 16
    assert merged["text_config"] == {"model_type": "llama", "head_dim": 64, "hidden_size": 32}
    other = merge(known, {"projector": {"type": "mlp"}, "text_config": {"model_type": "opt"}})
    assert other["projector"] == {"type": "mlp"} and other["text_config"] == {"model_type": "opt"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter": {"r": 2, "on": "outputs"}}, "needs outputs of tokens or signals"),
        (
            {"outputs": {"audio": {"type": "representation", "tokens": 2, "queries": 1, "width": 8}},
             "text_config": {"model_type": "t5", "d_model": 32}},
            "encoder-decoder LLM has no room",
        ),
    ],
)  # fmt: skip
def test_outputs_and_adapters_that_do_not_fit(make_model, changes, words):
    with pytest.raises(ModelError, match=words):
        make_model(**changes)


def test_unknown_router_and_tokenizer_list_the_valid_ones(make_model):
    with pytest.raises(ModelError, match="sigmoid, softmax"):
        make_model(projector={"router": "best"})
    with pytest.raises(ModelError, match="image-patches, video-patches, spectrogram-patches"):
        make_model(modalities={"image": {"token_id": 64, "tokenizer": {"type": "magic"}}})


@pytest.mark.parametrize("router", ROUTERS)
def test_router_weights_sum_to_one(router):
    from onellm.model.projectors.upm import Router

    torch.manual_seed(0)
    layer = Router(router, width=8, hidden=4, experts=3)
    queries, features = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    weights = layer(queries, features)
    assert weights.shape == (2, 5, 3)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 5))
    changed = layer(queries, features + 3)
    assert torch.equal(weights, changed) == (router != "input_aware")


def test_farthest_points_start_at_the_first_and_spread():
    from onellm.model.tokenizers import farthest_points

    line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [10, 0, 0]]])
    assert farthest_points(line, 3).tolist() == [[0, 3, 2]]


def test_point_groups_do_not_depend_on_the_order_of_points():
    from onellm.model.tokenizers import PointGroups

    torch.manual_seed(0)
    layer = PointGroups(16, groups=8, neighbours=4, hidden=(8,))
    points = torch.rand(1, 40, 6)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(39)])  # the first point starts
    assert torch.allclose(layer(points), layer(points[:, order]), atol=1e-6)


def test_voxel_channels_follow_the_published_layout():
    """Channel c gets outputs 8c..8c+7 of the linear layer."""
    from onellm.model.tokenizers import Voxels

    layer = Voxels(width=4, voxels=6, count=8)
    x = torch.rand(1, 6)
    assert torch.equal(layer(x)[0, :, 2], layer.linear(x)[0, 16:24])


def test_anchored_words_are_mixtures_of_the_vocabulary():
    from onellm.model.projectors import Anchor

    anchor, vocabulary = Anchor(3, 30.0), torch.randn(3, 8)
    anchor.token_ids.copy_(torch.arange(3))
    near = anchor(vocabulary[1].expand(1, 1, -1), lambda ids: vocabulary[ids])
    assert torch.allclose(near[0, 0], vocabulary[1], atol=0.05)


def test_stem_tokens_take_a_picture_beside_a_map():
    from onellm.model.backbones import YamNet
    from onellm.model.tokenizers import BackboneTokens

    torch.manual_seed(0)
    tokens = BackboneTokens(16, YamNet().eval(), ["mixture", "pooled"], picture=True)
    single, pair = (tokens.extract(torch.rand(1, frames, 1, 96, 64)) for frames in (1, 2))
    assert single.shape == (1, 1, 521 + 1024)
    assert tokens(single).shape == (1, 2, 16)
    assert tokens(pair).shape == (1, 3, 16)
    assert torch.equal(tokens(pair)[:, :2], tokens(pair[:, 1:]))
