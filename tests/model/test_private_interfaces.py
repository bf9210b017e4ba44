"""Private interfaces of torch and transformers: they are there, and where they are not, it is said or made up for."""

import pytest
import torch
import transformers

from onellm.errors import ModelError
from onellm.model.modeling import OneLLMForConditionalGeneration, PreTrainedModel
from onellm.model.runtime import kernels

CHECKS = ("has_onednn_linear", "has_int8_linear", "has_int8_product")


@pytest.mark.parametrize("check", CHECKS)
def test_this_torch_has_the_kernel(check):
    needs_onednn = check == "has_onednn_linear" and not torch.backends.mkldnn.is_available()
    assert needs_onednn or getattr(kernels, check)(), f"torch {torch.__version__} broke {check} of runtime/kernels.py"


def test_a_kernel_that_is_gone_or_wrong_is_noticed(caplog):
    assert not kernels._works("gone", lambda: torch.ops.mkldnn._no_such_kernel())
    assert not kernels._works("wrong", lambda: torch.zeros(2, 2))
    assert (
        "lacks the kernel gone" in caplog.text and "lacks the kernel wrong (it computes something else)" in caplog.text
    )


def test_public_operations_give_the_same_numbers(monkeypatch):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(4, 64), torch.randn(48, 64), torch.randn(48)
    whole = torch.randint(-9, 9, (32, 64), dtype=torch.int8), torch.randint(-9, 9, (48, 64), dtype=torch.int8)
    ones = torch.ones(48, dtype=torch.bfloat16)

    def all_three():
        found = kernels.linear(x, kernels.pack(weight), bias), kernels.int8_linear(whole[0].bfloat16(), whole[1], ones)
        return *found, kernels.int8_product(whole[0], whole[1].T.contiguous())

    fast = all_three()
    for check in CHECKS:
        monkeypatch.setattr(kernels, check, lambda: False)
    for one, other in zip(fast, all_three(), strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=1e-2, atol=1e-4)


def test_transformers_loads_as_expected(make_model, tmp_path, monkeypatch):
    make_model().save_pretrained(tmp_path)
    broken = f"transformers {transformers.__version__} broke PreTrainedModel._load_pretrained_model"
    assert OneLLMForConditionalGeneration.from_pretrained(tmp_path) is not None, broken
    monkeypatch.setattr(PreTrainedModel, "_load_pretrained_model", staticmethod(lambda model, plan: None))
    with pytest.raises(ModelError, match="install the version that requirements.txt names"):
        OneLLMForConditionalGeneration.from_pretrained(tmp_path)
