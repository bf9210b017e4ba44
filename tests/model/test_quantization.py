"""Quantised weights, and memory estimates beside what loaded models really hold."""

import importlib.util

import pytest
import torch

from onellm.errors import ModelError
from onellm.model.auto import OneLLMForConditionalGeneration
from onellm.model.configuration import OneLLMConfig
from onellm.model.runtime import quantization

MODES = [None, "8bit", "4bit"]
TIED = {"text_config": {"tie_word_embeddings": True}, "adapter": {"r": 2, "target_modules": ["q_proj"]}}


@pytest.fixture
def quantised(make_model, tmp_path):
    """Save a random model and load it quantised: returns both. On a CPU 4bit wants widths that 64 divides."""

    def make(mode, **changes):
        text = {"hidden_size": 64, "intermediate_size": 128} | changes.pop("text_config", {})
        model = make_model(text_config=text, encoder={"width": 64}, projector={"hidden": 64}, **changes)
        model.save_pretrained(tmp_path)
        settings = quantization.quantization_config(mode, "cpu")
        return model, type(model).from_pretrained(tmp_path, dtype=torch.float32, quantization_config=settings).eval()

    return make


def weight_bytes(model):
    """Count the bytes of parameters, buffers, and what bitsandbytes keeps beside its weights."""
    total = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            nested = state.state2
            parts = (state.absmax, state.code, state.offset, nested.absmax, nested.code)
            total += sum(tensor.nbytes for tensor in parts)
        if getattr(parameter, "SCB", None) is not None:
            total += parameter.SCB.nbytes
    return total


@pytest.mark.parametrize("changes", [{}, TIED], ids=["untied", "tied-adapter"])
@pytest.mark.parametrize("mode", MODES)
def test_the_estimate_is_what_a_model_holds(quantised, mode, changes):
    _, model = quantised(mode, **changes)
    told = quantization.estimate(model.config, mode or "none", torch.float32, context=100)
    real = weight_bytes(model)
    assert sum(told.weights.values()) == pytest.approx(real, rel=0.02)
    cache = model.generate(
        torch.ones(1, 90, dtype=torch.long), max_new_tokens=11, min_new_tokens=11, return_dict_in_generate=True
    ).past_key_values
    assert told.cache == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@pytest.mark.parametrize("mode", ["8bit", "4bit"])
def test_only_the_linears_of_llm_and_experts_are_quantised(quantised, mode):
    import bitsandbytes

    model, loaded = quantised(mode, adapter={"r": 2, "target_modules": ["q_proj"]})
    modality = {"8bit": bitsandbytes.nn.Linear8bitLt, "4bit": bitsandbytes.nn.Linear4bit}[mode]
    names = {name for name, module in loaded.named_modules() if isinstance(module, modality)}
    assert len(names) == 2 * 7 + 2 * 2 * 4  # layers times their linears, experts times theirs
    assert all(name.startswith(("language_model.model.layers.", "projector.experts.")) for name in names)
    assert not [name for name in names if "lora_" in name]
    ids = torch.tensor([[3, 4, 7, 9, 11]])
    exact, near = model(ids).logits, loaded(ids).logits
    assert 0 < (near - exact).norm() / exact.norm() < {"8bit": 0.05, "4bit": 0.3}[mode]


@pytest.mark.parametrize("name", ["blip2-opt-2.7b", "llava-1.5-7b", "minigpt4-7b", "lavin-7b", "pandagpt-7b"])
def test_the_way_into_the_llm_is_never_quantised(name):
    config = OneLLMConfig.from_preset(name)
    with torch.device("meta"):
        projector = OneLLMForConditionalGeneration(config).projector
    last = [
        f"projector.{name}"
        for name, module in projector.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == config.text_config.hidden_size
    ]
    assert last and not any(quantization._quantised(name, torch.nn.Linear(1, 1), "4bit") for name in last)


@pytest.mark.parametrize("text", [{"model_type": "gpt2"}, {"model_type": "bloom"}])
def test_memory_is_known_for_any_llm(text):
    config = OneLLMConfig.from_preset("llava-1.5-7b", text_config=text)
    assert quantization.estimate(config, "none").total > 0


def test_the_published_size():
    config = OneLLMConfig.from_preset("onellm-7b")
    none, four = (quantization.estimate(config, mode, torch.bfloat16) for mode in ("none", "4bit"))
    assert sum(none.weights.values()) == pytest.approx(15.1e9, rel=0.01)
    assert four.total < 6.5e9
    assert four.weights["encoder"] == none.weights["encoder"]


def test_a_model_that_does_not_fit_is_told_what_would(monkeypatch):
    config = OneLLMConfig.from_preset("onellm-7b")
    monkeypatch.setattr(quantization, "dtype_for", lambda device: torch.bfloat16)
    with pytest.raises(ModelError) as raised:
        quantization.check_fits("onellm-7b", config, "none", "cuda:0", free=8_000_000_000)
    text = str(raised.value)
    assert "needs 16.4 GB, but the GPU has 8.0 GB free" in text
    assert "--quantize 4bit (6." in text and "8bit" not in text and "--offload" in text and "onellm-tiny" in text
    assert quantization.check_fits("onellm-7b", config, "4bit", "cuda:0", free=8_000_000_000).total < 8_000_000_000


def test_free_memory_is_less_than_there_is():
    import psutil

    assert 0 < quantization.free_bytes("cpu") < psutil.virtual_memory().total


def test_modes_of_a_device(monkeypatch):
    assert quantization.mode_for(None, "cpu") == "none"
    assert quantization.mode_for("4bit", "cpu") == "4bit"
    assert quantization.mode_for(None, "cuda:0") == "none"
    with pytest.raises(ModelError, match="'int8' on a GPU; use one of none, 8bit, 4bit"):
        quantization.mode_for("int8", "cuda:0")
    with pytest.raises(ModelError, match="'3bit' on the CPU; use one of none, int8, 8bit, 4bit"):
        quantization.mode_for("3bit", "cpu")


def test_bitsandbytes_that_cannot_be_used_is_told(monkeypatch):
    from bitsandbytes import cextension

    monkeypatch.setattr(cextension, "lib", cextension.ErrorHandlerMockBNBNativeLibrary("no such file"))
    with pytest.raises(ModelError, match="no build for this GPU"):
        quantization.mode_for("4bit", "cuda:0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bitsandbytes"):
        quantization.mode_for("8bit", "cpu")


def test_a_model_that_looks_at_no_files_is_estimated():
    needed = quantization.estimate(OneLLMConfig.from_preset("onellm-tiny-draw"), "none", torch.float32)
    assert 0 < sum(needed.weights.values()) < needed.total
