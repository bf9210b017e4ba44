"""The growing cache does what transformers' dynamic cache does, in place."""

import pytest
import torch
from transformers import DynamicCache

from onellm.model.runtime import kv_cache as cache_module
from onellm.model.runtime.kv_cache import GrowingCache


@pytest.fixture(autouse=True)
def little_room(monkeypatch):
    monkeypatch.setattr(cache_module, "STEP", 2)  # so that it is outgrown


def fill(cache, lengths, rows=2):
    torch.manual_seed(0)
    for length in lengths:
        for layer in range(2):
            keys, values = torch.randn(2, rows, 3, length, 4)
            kept = cache.update(keys, values, layer)
    return kept


def test_grows_as_the_dynamic_cache():
    growing, dynamic = GrowingCache(), DynamicCache()
    for kept, expected in zip(fill(growing, [5, 1, 1, 1, 9, 1]), fill(dynamic, [5, 1, 1, 1, 9, 1]), strict=True):
        assert torch.equal(kept, expected)
    assert growing.get_seq_length() == 18


def test_a_token_is_written_in_place():
    cache = GrowingCache()
    before = fill(cache, [9])[0].data_ptr()
    assert fill(cache, [1])[0].data_ptr() == before


@pytest.mark.parametrize("change", ["crop", "reorder", "repeat", "select", "reset"])
def test_goes_on_after_a_change(change):
    ends = []
    for cache in (GrowingCache(), DynamicCache()):
        fill(cache, [6, 1])
        if change == "crop":
            cache.crop(-3)
        elif change == "reorder":
            cache.reorder_cache(torch.tensor([1, 1]))
        elif change == "repeat":
            cache.batch_repeat_interleave(2)
        elif change == "select":
            cache.batch_select_indices(torch.tensor([1]))
        else:
            cache.reset()
        ends.append(fill(cache, [1, 1], rows={"repeat": 4, "select": 1}.get(change, 2)))
    for kept, expected in zip(*ends, strict=True):
        assert torch.equal(kept, expected)


def test_beams_are_the_same(model, tensors):
    ids = torch.tensor([[3, 4, 5]])
    settings = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    expected = model.generate(ids, **settings)
    assert torch.equal(model.generate(ids, past_key_values=GrowingCache(), **settings), expected)
