"""The layers for the CPU give the numbers of the layers they replace."""

import copy

import pytest
import torch

from onellm.model.runtime import cpu
from onellm.model.runtime.attention import LONG, attend
from onellm.model.runtime.kv_cache import GrowingCache

GROUPED = {"text_config": {"num_attention_heads": 4, "num_key_value_heads": 2}}
QWEN = {"text_config": {"model_type": "qwen2", "num_key_value_heads": 1}}
ADAPTER = {"adapter": {"r": 2, "target_modules": ["q_proj", "v_proj", "o_proj"]}}
EVERYWHERE = {"adapter": {"r": 2, "target_modules": ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]}}


@pytest.fixture(autouse=True)
def replace_even_small_layers(monkeypatch):
    monkeypatch.setattr(cpu, "SMALL", 0)
    monkeypatch.setattr(cpu, "WIDE", 0)


def prompt(model, *modalities):
    ids = [3, 4]
    for modality in modalities:
        ids += [model.config.modalities[modality]["token_id"]] * model.config.length_of(modality)
    return torch.tensor([ids + [7]])


def awake(model):
    """Give every matrix, the adapter's too, and the biases of the LLM values that matter."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or name.startswith("language_model.") and name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(
    "changes",
    [{}, GROUPED, QWEN, ADAPTER, EVERYWHERE],
    ids=["plain", "grouped", "qwen2", "adapter", "adapter everywhere"],
)
def test_float32_gives_the_same_logits(make_model, tensors, changes):
    plain = awake(make_model(**changes))
    fast = cpu.optimise(copy.deepcopy(plain))
    assert not [m for m in fast.language_model.modules() if type(m) is torch.nn.Linear and m.in_features > 2]
    with torch.inference_mode():
        for modality, tensor in tensors.items():
            ids = prompt(plain, modality)
            expected = plain(ids, media={modality: [tensor]}).logits
            assert torch.allclose(fast(ids, media={modality: [tensor]}).logits, expected, atol=2e-5), modality
        text = torch.tensor([[3, 9, 7]])
        assert torch.allclose(fast(text).logits, plain(text).logits, atol=2e-5)


@pytest.mark.parametrize("changes", [GROUPED, QWEN, ADAPTER], ids=["grouped", "qwen2", "adapter"])
@pytest.mark.parametrize("cache", ["dynamic", "static", "growing"])
def test_generation_of_a_padded_batch_is_the_same(make_model, tensors, changes, cache):
    """One row with files and one without: the adapter speaks in the first alone."""
    plain = awake(make_model(**changes))
    fast = cpu.optimise(copy.deepcopy(plain))
    long = prompt(plain, "image", "imu")
    ids = torch.cat([long, torch.nn.functional.pad(torch.tensor([[3, 9, 7]]), (long.shape[1] - 3, 0))])
    mask = torch.ones_like(ids)
    mask[1, :-3] = 0
    media = {modality: [tensors[modality]] for modality in ("image", "imu")}
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "attention_mask": mask, "media": media}
    expected = plain.generate(ids, **settings)
    settings |= {"past_key_values": GrowingCache()} if cache == "growing" else {"cache_implementation": cache}
    assert torch.equal(fast.generate(ids, **settings), expected)


def test_8_bits_stay_close(make_model, tensors):
    plain = awake(make_model(**ADAPTER))
    fast = cpu.optimise(copy.deepcopy(plain), int8=True)
    with torch.inference_mode():
        for modality, tensor in tensors.items():
            ids = prompt(plain, modality)
            expected = plain(ids, media={modality: [tensor]}).logits
            error = (fast(ids, media={modality: [tensor]}).logits - expected).norm() / expected.norm()
            assert 1e-6 < error < 0.1, modality


@pytest.mark.parametrize("linear", [cpu.PackedLinear, cpu.Int8Linear, cpu.Int8ProductLinear])
@pytest.mark.parametrize("bias", [True, False])
def test_linears_map_any_leading_shape(linear, bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 48, bias=bias)
    before = layer.weight.clone()
    fast = linear(layer.weight, layer.bias)
    assert torch.equal(layer.weight, before)
    x = torch.randn(2, 3, 64) * torch.tensor([1e-3, 1.0, 1e3])[None, :, None]  # each token has a size of its own
    with torch.inference_mode():
        expected = layer(x)
        error = (fast(x) - expected).norm(dim=-1) / expected.norm(dim=-1)
        assert error.max() < (1e-6 if linear is cpu.PackedLinear else 0.03)
        assert torch.allclose(fast(x[0, 0]), fast(x)[0, 0], rtol=1e-2, atol=1e-6)


def test_half_precision_weights_are_taken_as_they_are(make_model):
    """A checkpoint in 16 bits need not exist in 32 bits before it becomes small."""
    plain = awake(make_model()).bfloat16()
    text = torch.tensor([[3, 9, 7]])
    expected = copy.deepcopy(plain).float()(text).logits
    fast = cpu.optimise(plain)
    assert {parameter.dtype for parameter in fast.parameters()} == {torch.float32}
    assert torch.allclose(fast(text).logits, expected, atol=2e-5)


def test_long_attention_is_exact():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, LONG + 70, 16)
    with torch.inference_mode():
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        assert torch.allclose(attend(query, key, value), expected, atol=1e-6)


def test_experts_compute_only_what_is_kept(make_model):
    model = awake(make_model())
    x = torch.randn(2, 9, 16)
    expert = model.projector.experts[0]
    whole = x
    for block in expert:
        whole = block(whole)
    assert torch.allclose(expert(x, 3), whole[:, :3], atol=1e-6)


def test_routers_fold_unless_they_see_the_input(make_model, tensors):
    for router, folds in (("sigmoid", True), ("sparse", True), ("input_aware", False)):
        model = awake(make_model(projector={"router": router}))
        with torch.inference_mode():
            before = model.soft_tokens("audio", [tensors["audio"]] * 2)
            model.projector.fold()
            assert torch.allclose(model.soft_tokens("audio", [tensors["audio"]] * 2), before, atol=1e-6)
        assert (sum(p.numel() for p in model.projector.routers.parameters()) == 0) == folds


def test_an_adapter_beside_packed_layers_speaks(make_model, tensors):
    """Of an LLM whose layers stay transformers' own: PEFT asks LoRA's matrices for the type of their weights."""
    text = {"model_type": "opt", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 48}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 64, "word_embed_proj_dim": 32}
    model = awake(make_model(text_config=text, adapter={"r": 2, "target_modules": ["q_proj", "fc2"], "on": "always"}))
    ids = torch.tensor([[3, 4, 5, 9]])
    expected = model(input_ids=ids).logits
    packed = cpu.optimise(model, False)
    assert (packed(input_ids=ids).logits - expected).abs().max() < 1e-4
