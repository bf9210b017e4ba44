"""Every projector under the one signature: features [B, N, D] -> soft tokens [B, M, D_llm]."""

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
    "qformer": {"queries": 3, "hidden": 16, "layers": 2, "heads": 2, "intermediate": 24},
    "abstractor": {"queries": 3, "layers": 2, "heads": 2, "hidden": 24},
    "resampler": {"queries": 3, "layers": 2, "heads": 2, "head_width": 12},
}
WIDTH, WIDTH_LLM, FEATURES = 16, 32, 6
POINTWISE = ["linear", "mlp", "bottleneck", "merge"]


def build(name, tags=(), **changes):
    torch.manual_seed(0)
    settings = {"type": name, **SETTINGS[name], **changes}
    return build_projector(["image", "audio"], WIDTH, WIDTH_LLM, settings, tags).eval()


@pytest.fixture
def small_model(config):
    """Build a tiny model with a projector behind an encoder that drops the class token (4 patches)."""
    from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration

    def make(name, **image):
        tokenizer = {"type": "image-patches", "size": 28, "patch": 14}
        torch.manual_seed(0)
        small = OneLLMConfig(
            text_config=config.text_config,
            encoder={"width": WIDTH, "layers": 2, "heads": 2, "class_token": "drop"},
            projector={"type": name, **SETTINGS[name], "tags": []},
            modalities={"image": {"token_id": 64, "tokenizer": tokenizer, "length": build(name).count(4)} | image},
        )
        return OneLLMForConditionalGeneration(small).eval()

    return make


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
    inner = projector.soft_tokens(features, "audio")
    assert words.shape[1] == inner.shape[1] + len(tags)
    assert torch.equal(words[:, len(tags) - 1 : -1], inner)
    assert torch.equal(words[0, -1], projector.end_tags["audio"])
    if "start" in tags:
        assert torch.equal(words[1, 0], projector.start_tags["audio"])


@pytest.mark.parametrize("name", PROJECTORS)
def test_inside_a_model(small_model, name, tmp_path):
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


@pytest.mark.parametrize("head_norm", [False, True])
def test_the_resampler_is_that_of_transformers(head_norm):
    from transformers.models.idefics.configuration_idefics import IdeficsConfig
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    config = IdeficsConfig(vision_config={"embed_dim": WIDTH}, perceiver_config={"qk_layer_norms_perceiver": head_norm})
    torch.manual_seed(0)
    theirs = IdeficsPerceiverResampler(config, WIDTH, 2, 2, 12, 3).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = build("resampler", head_norm=head_norm).eval()
    ours.queries.data.copy_(theirs.latents)
    ours.norm.load_state_dict(theirs.layer_norm.state_dict())
    for layer, (attention, ffn) in zip(ours.layers, theirs.blocks, strict=True):
        layer.feature_norm.load_state_dict(attention.context_layer_norm.state_dict())
        layer.query_norm.load_state_dict(attention.latents_layer_norm.state_dict())
        layer.query.load_state_dict(attention.q_proj.state_dict())
        layer.key_value.weight.data.copy_(torch.cat([attention.k_proj.weight, attention.v_proj.weight]))
        layer.out.load_state_dict(attention.output_proj.state_dict())
        if head_norm:
            layer.query_head_norm.load_state_dict(attention.q_layer_norm.state_dict())
            layer.key_head_norm.load_state_dict(attention.k_layer_norm.state_dict())
        for mine, other in zip(layer.ffn, (ffn.ln, ffn.fc, ffn.act, ffn.c_proj), strict=True):
            mine.load_state_dict(other.state_dict())
    features = torch.randn(2, FEATURES, WIDTH)
    with torch.no_grad():
        expected = ours.output_proj(theirs(features))
        assert (ours.soft_tokens(features, "image") - expected).abs().max() < 1e-5
        assert expected.abs().max() > 0.1


@torch.no_grad()
def test_an_abstractor_layer_step_by_step():
    """One head, written out: the queries see themselves and the features, both normalised, and go on normalised."""
    layer = build("abstractor", heads=1).layers[0]
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    queries, features = torch.randn(3, WIDTH), torch.randn(FEATURES, WIDTH)

    normed = layer.query_norm(queries)
    seen = torch.cat([normed, layer.feature_norm(features)])
    keys, values = layer.key_value(seen).chunk(2, dim=-1)
    weights = (layer.query(normed) @ keys.T / WIDTH**0.5).softmax(dim=-1)
    attended = normed + layer.out(weights @ values)
    inner = layer.ffn_norm(attended)
    gated = torch.nn.functional.silu(layer.ffn.gate(inner)) * layer.ffn.up(inner)
    expected = attended + layer.ffn.down(layer.ffn.norm(gated))
    assert (layer(queries[None], features[None])[0] - expected).abs().max() < 1e-5


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


def test_a_length_that_is_not_the_models_is_told(small_model):
    with pytest.raises(ModelError, match="kind image becomes 4 soft tokens.*says 7.*'length' to 4"):
        small_model("linear", length=7)


@pytest.mark.parametrize("name", PROJECTORS)
def test_a_word_converter_goes_into_the_output(name):
    """The merged layer is the composition, the configuration builds what it needs, and so on to a third LLM."""
    projector, features = build(name, ("start", "end")).eval(), torch.randn(2, FEATURES, WIDTH)
    size = sum(parameter.numel() for parameter in projector.parameters())
    with torch.no_grad():
        for key, parameter in projector.named_parameters():
            if parameter.dim() == 1 and not key.startswith(("start", "end")):  # scales and shifts are to matter
                parameter.add_(0.3 * torch.randn_like(parameter))
    first, second = torch.nn.Linear(WIDTH_LLM, 40), torch.nn.Linear(40, 24)
    expected = first(projector(features, "audio"))
    projector.convert(first)
    assert torch.allclose(projector(features, "audio"), expected, atol=1e-5)
    settings = {"type": name, **SETTINGS[name], "converted": WIDTH_LLM}
    built = build_projector(["image", "audio"], WIDTH, 40, settings, ("start", "end")).eval()
    built.load_state_dict(projector.state_dict())
    assert torch.equal(built(features, "audio"), projector(features, "audio"))
    assert name != "linear" or sum(p.numel() for p in built.parameters()) == size // WIDTH_LLM * 40  # one matrix
    projector.convert(second)
    assert torch.allclose(projector(features, "audio"), second(expected), atol=1e-5)
