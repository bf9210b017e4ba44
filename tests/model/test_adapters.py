"""Routed adapters: equal to the form with a modality token inside the prompt, cached or not, row by row."""

import pytest
import torch
from test_modeling import prompt
from torch import nn

from onellm.errors import ModelError
from onellm.model.adapters import RoutedAdapter, RoutedAdapters
from onellm.model.configuration import OneLLMConfig

SETTINGS = {"type": "routed", "rank": 4, "groups": 2, "temperature": 3.0}
GREEDY = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}


@pytest.fixture
def routed(make_model):
    """Build a model whose adapters do something."""
    model = make_model(adapter=SETTINGS)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "adapters." in name:
            nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def naive(model, embeds, active):
    """Run [1, L, D] with its modality token in front, seen by none but itself: logits [1, L, V]."""
    llm = type(model.language_model)(model.config.text_config).eval()
    llm.load_state_dict(model.language_model.state_dict())

    def adapt(adapter):
        def hook(_, __, x):
            weights = (adapter.router(x[:, 0]) / adapter.temperature).softmax(dim=-1)[0]
            low = adapter.down(x).transpose(1, 2)
            changes = [weight * up(low).transpose(1, 2) for weight, up in zip(weights, adapter.up, strict=True)]
            return x + sum(changes)

        return hook

    for layer, adapter in zip(llm.model.layers, model.adapters.layers, strict=True):
        layer.input_layernorm.register_forward_hook(adapt(adapter))
    embeds = torch.cat([model.adapters.modality.weight[int(active)][None, None], embeds], dim=1)
    length = embeds.shape[1]
    mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
    mask[1:, 0] = torch.finfo(torch.float32).min
    return llm(inputs_embeds=embeds, attention_mask=mask[None, None]).logits[:, 1:]


@torch.no_grad()
def test_equal_to_a_token_in_the_prompt(routed, tensors):
    ids, media = prompt(routed, "image"), {"image": [tensors["image"]]}
    text = torch.tensor([[3, 4, 7, 9]])
    with_file, without = routed(ids, media=media).logits, routed(text).logits
    assert (with_file - naive(routed, routed.embed(ids, media), True)).abs().max() < 1e-5
    assert (without - naive(routed, routed.embed(text), False)).abs().max() < 1e-5
    assert (without - naive(routed, routed.embed(text), True)).abs().max() > 1e-4  # the token makes a difference


@torch.no_grad()
def test_rows_of_a_batch_have_weights_of_their_own(routed, tensors):
    row, media = prompt(routed, "image"), {"image": [tensors["image"]]}
    padding = row.shape[1] - 3
    batch = torch.cat([row, torch.tensor([[0] * padding + [3, 4, 7]])])
    mask = torch.ones_like(batch)
    mask[1, :padding] = 0
    logits = routed(batch, attention_mask=mask, media=media).logits
    assert (logits[:1] - routed(row, media=media).logits).abs().max() < 1e-5
    assert (logits[1:, padding:] - routed(torch.tensor([[3, 4, 7]])).logits).abs().max() < 1e-5
    assert not torch.allclose(routed.adapters.weights[0][0], routed.adapters.weights[0][0].flip(-1))


@torch.no_grad()
def test_cached_generation_is_uncached_generation(routed, tensors):
    ids, media = prompt(routed, "image"), {"image": [tensors["image"]]}
    cached = routed.generate(ids, media=media, **GREEDY)
    assert cached.tolist() == routed.generate(ids, media=media, use_cache=False, **GREEDY).tolist()
    beams = routed.generate(ids, media=media, num_beams=3, **GREEDY)
    assert beams.tolist() == routed.generate(ids, media=media, num_beams=3, use_cache=False, **GREEDY).tolist()


@torch.no_grad()
def test_two_conversations_in_turns(routed, tensors):
    """A prompt of another kind in between leaves a continued cache its own weights, and the tokens run once each."""
    from transformers import DynamicCache

    ids, media = prompt(routed, "image"), {"image": [tensors["image"]]}
    cache, expected = DynamicCache(), routed(ids, media=media).logits[:, -1]
    routed(ids[:, :-1], media=media, past_key_values=cache)
    routed(torch.tensor([[3, 4, 7]]))
    runs = []
    routed.language_model.model.register_forward_hook(lambda *_: runs.append(1))
    continued = routed(ids[:, -1:], past_key_values=cache, use_adapter=True).logits[:, -1]
    assert (continued - expected).abs().max() < 1e-5
    assert len(runs) == 1  # nothing was routed anew


@torch.no_grad()
@pytest.mark.parametrize("adapter", [SETTINGS, {"r": 2, "target_modules": ["q_proj"], "on": "always"}])
@pytest.mark.parametrize("later", [False, True])
def test_nothing_changes_at_first(make_model, tensors, adapter, later):
    plain, adapted = make_model(), make_model(adapter=None if later else adapter)
    if later:
        adapted.insert_adapter(adapter)
    adapted.load_state_dict(
        {
            (name if name in adapted.state_dict() else name.replace(".weight", ".base_layer.weight")): value
            for name, value in plain.state_dict().items()
        },
        strict=False,
    )
    ids, media = prompt(plain, "audio"), {"audio": [tensors["audio"]]}
    assert torch.equal(plain(ids, media=media).logits, adapted.eval()(ids, media=media).logits)
    assert torch.equal(plain(ids[:, :2]).logits, adapted(ids[:, :2]).logits)


def test_training_reaches_everything(routed, tensors):
    routed.train()
    for adapter in routed.adapters.layers:
        adapter.dropout.p = 0.0
    ids, media = prompt(routed, "image"), {"image": [tensors["image"]]}
    batch = torch.cat([ids, torch.arange(8, 8 + ids.shape[1])[None]])

    def gradients():
        routed.zero_grad()
        routed(batch, media=media, labels=batch.masked_fill(batch >= 64, -100)).loss.backward()
        return {name: value.grad for name, value in routed.adapters.named_parameters()}

    whole = gradients()
    assert not [name for name, gradient in whole.items() if gradient is None or not gradient.any()]
    routed.activation_checkpointing_enable({"use_reentrant": False})
    for name, gradient in gradients().items():
        assert torch.allclose(gradient, whole[name], atol=1e-6), name


@torch.no_grad()
def test_saved_and_optimised_for_the_cpu(routed, tensors, tmp_path):
    from onellm.model.runtime.cpu import optimise

    ids, media = prompt(routed, "image"), {"image": [tensors["image"]]}
    expected = routed(ids, media=media).logits
    routed.save_pretrained(tmp_path)
    loaded = type(routed).from_pretrained(tmp_path).eval()
    assert torch.allclose(loaded(ids, media=media).logits, expected, atol=1e-6)
    assert (optimise(loaded)(ids, media=media).logits - expected).abs().max() < 1e-5


@torch.no_grad()
def test_half_precision_keeps_a_finer_adapter(routed, tensors):
    ids, media = prompt(routed, "image"), {"image": [tensors["image"]]}
    expected = routed(ids, media=media).logits
    routed.bfloat16()
    routed.adapters.float()
    assert (routed(ids, media=media).logits - expected).abs().max() < 0.1


def test_an_llm_without_a_known_norm_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    llm = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64))
    with pytest.raises(ModelError, match="type 'gpt2'.*use LoRA"):
        RoutedAdapters(llm, {})


def test_settings_that_are_unknown_are_told(make_model):
    with pytest.raises(ModelError, match="'bottleneck'.*settings"):
        make_model(adapter={"type": "routed", "bottleneck": 3})
    with pytest.raises(ModelError, match="'patch'.*class, token"):
        make_model(encoder={"adapter": {"looks": "patch"}})


@torch.no_grad()
@pytest.mark.parametrize("looks", ["class", "token"])
def test_in_the_encoder(make_model, tensors, looks):
    model = make_model(encoder={"adapter": {"rank": 4, "looks": looks}})
    pictures = torch.stack([tensors["image"], tensors["image"].flip(-1)])
    plain = make_model()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if ".adapters." not in key})
    assert torch.equal(model.encode("image", pictures), plain.encode("image", pictures))  # as yet
    for parameter in model.encoder.adapters.parameters():
        nn.init.normal_(parameter, std=0.3)
    seen = []
    forward = RoutedAdapter.forward

    def spy(adapter, x, weights):
        seen.append((x, weights))
        return forward(adapter, x, weights)

    RoutedAdapter.forward = spy
    try:
        together = model.encode("image", pictures)
    finally:
        RoutedAdapter.forward = forward
    assert (together[1:] - model.encode("image", pictures[1:])).abs().max() < 1e-5  # pictures do not mix
    for adapter, (x, weights) in zip(model.encoder.adapters, seen, strict=True):
        token = x[0, 2] if looks == "token" else x[0, 0]
        expected = (adapter.router(token) / 10.0).softmax(dim=-1)
        assert torch.allclose(weights[0, 2 if looks == "token" else 0], expected, atol=1e-6)


def test_the_published_number_of_trained_parameters():
    from onellm.model.auto import OneLLMForConditionalGeneration
    from train.modules import freeze

    with torch.device("meta"):
        model = OneLLMForConditionalGeneration(OneLLMConfig.from_preset("lavin-7b"))
        assert freeze(model, ["adapter", "encoder_adapters", "projector"]) == 3_781_296  # published: 3.8 million
