"""Every projector under the one signature: features [B, N, D] -> soft words [B, M, D_llm]."""

import pytest
import torch

from onellm.errors import ModelError
from onellm.model.projectors import PROJECTORS, build_projector

UPM = {"experts": 2, "layers": 2, "heads": 2, "hidden": 24, "queries": 3, "router_hidden": 8}
SETTINGS = {
    "upm": UPM,
    "linear": {},
    "mlp": {},
    "bottleneck": {"hidden": 4},
    "merge": {"neighbours": 2},
}
WIDTH, WIDTH_LLM, FEATURES = 16, 32, 6
POINTWISE = ["linear", "mlp", "bottleneck", "merge"]


def build(name, tags=(), **changes):
    torch.manual_seed(0)
    settings = {"type": name, **SETTINGS[name], **changes}
    return build_projector(["image", "audio"], WIDTH, WIDTH_LLM, settings, tags)


def small_model(name, **image):
    """Build a tiny model with this projector behind an encoder that drops the class token (4 patches)."""
    from conftest import tiny_config

    from onellm.auto import OneLLMConfig, OneLLMForConditionalGeneration

    tokenizer = {"type": "image-patches", "size": 28, "patch": 14}
    torch.manual_seed(0)
    config = OneLLMConfig(
        text_config=tiny_config().text_config,
        encoder={"width": WIDTH, "layers": 2, "heads": 2, "class_token": "drop"},
        projector={"type": name, **SETTINGS[name], "tags": []},
        modalities={"image": {"token_id": 64, "tokenizer": tokenizer, "length": build(name).count(4)} | image},
    )
    return OneLLMForConditionalGeneration(config).eval()


def test_every_projector_is_tested():
    assert set(SETTINGS) == set(PROJECTORS)


@pytest.mark.parametrize("name", PROJECTORS)
def test_signature(name):
    projector, features = build(name), torch.randn(2, FEATURES, WIDTH)
    words = projector(features, "image")
    assert words.shape == (2, projector.count(FEATURES), WIDTH_LLM)
    assert torch.allclose(projector(features[1:], "image"), words[1:], atol=1e-6)  # rows do not mix
    assert not torch.allclose(projector(-features, "image"), words, atol=1e-4)
    words.sum().backward()
    trained = [p for n, p in projector.named_parameters() if "audio" not in n and p.grad is None]
    assert not trained


@pytest.mark.parametrize("name", PROJECTORS)
@pytest.mark.parametrize("tags", [("start", "end"), ("end",)])
def test_tags_stand_around_the_words(name, tags):
    projector, features = build(name, tags), torch.randn(2, FEATURES, WIDTH)
    words = projector(features, "audio")
    inner = projector.words(features, "audio")
    assert words.shape[1] == inner.shape[1] + len(tags)
    assert torch.equal(words[:, len(tags) - 1 : -1], inner)
    assert torch.equal(words[0, -1], projector.end_tags["audio"])
    if "start" in tags:
        assert torch.equal(words[1, 0], projector.start_tags["audio"])


@pytest.mark.parametrize("name", PROJECTORS)
def test_inside_a_model(name, tmp_path):
    model = small_model(name)
    ids = torch.tensor([[3, *[64] * model.config.length_of("image"), 7]])
    media = {"image": [torch.randn(3, 28, 28)]}
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.allclose(loaded(ids, media=media).logits, model(ids, media=media).logits, atol=1e-6)
    options = {"media": media, "max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    answer = model.generate(ids, **options)
    assert answer.shape[1] == ids.shape[1] + 4
    assert answer.tolist() == model.generate(ids, **options, use_cache=False).tolist()


@pytest.mark.parametrize("name", POINTWISE)
def test_one_network_for_all_kinds(name):
    projector = build(name, shared=True)
    features = torch.randn(1, FEATURES, WIDTH)
    assert torch.equal(projector(features, "image"), projector(features, "audio"))
    assert not torch.equal(build(name)(features, "image"), build(name)(features, "audio"))


def test_neighbours_that_do_not_divide_the_features_are_refused():
    with pytest.raises(ModelError, match="5 features cannot be joined 2 by 2"):
        build("merge")(torch.randn(1, 5, WIDTH), "image")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ModelError, match=", ".join(PROJECTORS)):
        build_projector(["image"], 8, 8, {"type": "cubic"}, ())
    with pytest.raises(ModelError, match="'middle'.*start, end"):
        build("linear", ("middle",))
    with pytest.raises(ModelError, match="'linear'.*'experts'"):
        build("linear", experts=3)


def test_a_length_that_is_not_the_models_is_told():
    with pytest.raises(ModelError, match="kind image becomes 4 soft words.*says 7.*'length' to 4"):
        small_model("linear", length=7)
