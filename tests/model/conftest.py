"""Models of the systems that transformers lacks, converted from small files as they are published."""

import functools

import pytest
import torch
from published_checkpoint import train_tokenizer
from published_family import SIDE, write
from transformers import LlamaTokenizer

from onellm.hub.convert import convert
from onellm.model.auto import OneLLMForConditionalGeneration


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    """A folder with a tokenizer of LLaMA's form."""
    folder = tmp_path_factory.mktemp("words")
    train_tokenizer(folder / "tokenizer.model")
    LlamaTokenizer.from_pretrained(folder, pad_token="<unk>").save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.fixture(scope="session")
def converted(vocabulary, tmp_path_factory):
    """A system's published tensors, and the model that `convert` makes of its files."""

    @functools.cache
    def make(system):
        folder = tmp_path_factory.mktemp("files")
        options, published = write(system, folder)
        out = convert(**options, out=folder / "out", tokenizer=vocabulary, progress=False)
        model, told = OneLLMForConditionalGeneration.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
        assert not any(told.values())
        model.folder = out
        return published, model.eval()

    return make


@pytest.fixture
def picture():
    return torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
