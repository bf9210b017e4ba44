"""The list of models: what is here, what could be, with sizes and memory; the published ones from a hub of our own."""

import re
import types

import pytest
import torch

from onellm.__main__ import parser_for
from onellm.cli import tables
from onellm.errors import ModelError
from onellm.hub import catalogue, published, registry
from onellm.model import base_parts
from onellm.model.runtime import quantization

GB = 1_000_000_000


@pytest.fixture
def folder(make_model, processor, tmp_path):
    folder = tmp_path / "toy"
    make_model().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("ONELLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    return tmp_path / "cache"


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with 24 GB; nothing is loaded on it."""
    seen = types.SimpleNamespace(free=24 * GB)
    monkeypatch.setattr(registry, "device_here", lambda: "cuda:0")
    monkeypatch.setattr(quantization, "dtype_for", lambda device: torch.bfloat16)
    monkeypatch.setattr(quantization, "free_bytes", lambda device: seen.free)
    monkeypatch.setattr(quantization, "_require_bitsandbytes", lambda mode, device: None)
    return seen


def listed(*folders, **options):
    return {entry.name: entry for entry in catalogue.entries(folders, **options)}


def test_a_folder_is_installed(folder):
    toy = listed(str(folder))[str(folder)]
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert toy.installed and (toy.folder, toy.size_bytes, toy.why) == (folder, size, "")
    assert toy.best.quantize == "none" and 0 < toy.best.memory_bytes < GB


def test_a_folder_that_is_gone_says_so(tmp_path):
    gone = listed(str(tmp_path / "gone"))[str(tmp_path / "gone")]
    assert not gone.installed and gone.best is None and "There is no model" in gone.options[0].reason


def test_what_is_not_here_has_its_size_from_the_configuration(cache):
    seven = listed()["onellm-7b"]
    assert not seven.installed and seven.source == "csuhan/OneLLM-7B" and (seven.told, seven.why) == (None, "")
    assert seven.size_bytes == pytest.approx(2 * 7_597_224_217, rel=0.01)  # 16 bits a published parameter


def test_a_part_that_is_missing_is_a_download(cache):
    tiny = listed()["onellm-tiny"]
    assert not tiny.installed and tiny.why == "" and tiny.source == "PyPI"
    assert tiny.size_bytes == sum(
        base_parts.PARTS[part].download_bytes for part in registry.find("onellm-tiny")[0].base_parts.values()
    )


def test_what_was_converted_into_the_cache_is_installed(cache, folder):
    cache.joinpath("models").mkdir(parents=True)
    folder.rename(published.model_folder("onellm-7b"))
    seven = listed()["onellm-7b"]
    assert seven.installed and seven.folder == published.model_folder("onellm-7b")


@pytest.mark.parametrize("name", published.BY_HAND)
def test_a_model_that_nobody_offers_is_made_by_hand(cache, folder, name):
    entry = listed()[name]
    assert (entry.installed, entry.why, entry.size_bytes > 12 * GB) == (False, "hand", True)
    program, module, shell, *arguments = entry.command.split()
    assert (program, module, shell) == ("python", "-m", "onellm")
    options = parser_for("convert").parse_args(arguments)
    assert options.command == "convert" and options.out == published.model_folder(name)
    with pytest.raises(ModelError, match=f"{name} is not here, .* by hand; then run `{re.escape(entry.command)}`"):
        registry.folder_of(name)
    published.model_folder(name).parent.mkdir(parents=True)
    folder.rename(published.model_folder(name))
    assert listed()[name].folder == published.model_folder(name)


def test_every_model_comes_from_somewhere():
    shipped = {folder.name for folder in registry.PRETRAINED.iterdir() if (folder / "config.json").exists()}
    assert shipped | set(published.PUBLISHED) | set(published.BY_HAND) == set(registry.MODELS)


@pytest.mark.parametrize(("size", "why"), [(15_500_000_000, ""), (None, "hub")])
def test_the_hub_is_asked_for_what_is_not_here(cache, monkeypatch, size, why):
    names = []
    monkeypatch.setattr(published, "download_bytes", lambda name: (names.append(name), size)[1])
    before = {entry.name: entry for entry in catalogue.entries()}
    after = {entry.name: entry for entry in catalogue.asked(before.values())}
    assert sorted(names) == sorted(published.PUBLISHED) and after["onellm-tiny"] is before["onellm-tiny"]
    seven = after["onellm-7b"]
    assert (seven.told, seven.why) == (size is not None, why)
    assert seven.size_bytes == (size or before["onellm-7b"].size_bytes)


def test_what_fits_a_gpu(cache, gpu):
    seven = listed()["onellm-7b"]
    assert seven.best.quantize == "none" and seven.option("4bit").memory_bytes == pytest.approx(6.4e9, rel=0.01)
    int8 = seven.option("int8")
    assert int8.why == "device" and "cannot be quantised as 'int8' on a GPU" in int8.reason
    gpu.free = 8 * GB
    seven = listed()["onellm-7b"]
    assert seven.best.quantize == "4bit" and seven.option("none").why == "memory"
    assert seven.option("none").reason == "with --quantize none needs 16.4 GB, but the GPU has 8.0 GB free"
    assert listed(free_bytes=17 * GB)["onellm-7b"].best.quantize == "none"
    gpu.free = 4 * GB
    assert listed()["onellm-7b"].best is None


def test_on_a_cpu_bitsandbytes_is_slow(monkeypatch):
    monkeypatch.setattr(registry, "device_here", lambda: "cpu")
    tiny = listed()["onellm-tiny"]
    assert {option.quantize: option.slow for option in tiny.options} == {
        "none": False,
        "int8": False,
        "8bit": True,
        "4bit": True,
    }
    assert tiny.best.quantize == registry.default_mode("onellm-tiny", "cpu")


def test_the_shell_marks_what_does_not_fit(cache, monkeypatch):
    monkeypatch.setattr(quantization, "free_bytes", lambda device: 20 * GB)
    monkeypatch.setattr(published, "download_bytes", lambda name: None)
    table, _, marks = tables.catalogue(catalogue.asked(catalogue.entries())).partition("\n\n")
    seven = next(line for line in table.splitlines() if line.startswith("onellm-7b"))
    assert "about 15.1 GB" in seven and "32.8 GB!" in seven and seven.endswith("csuhan/OneLLM-7B (no answer)")
    assert "! more memory than the 20.0 GB that are free" in marks
