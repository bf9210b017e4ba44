"""Which model is chosen, and how one is loaded: names, folders, quantised, offloaded, random weights."""

import gc

import pytest
import torch
from transformers.utils.logging import set_tqdm_hook

import onellm
from onellm.chat.load import load
from onellm.errors import ModelError
from onellm.hub import registry
from onellm.hub.registry import Choice, choose
from onellm.model.runtime import quantization
from onellm.utils.progress import Cancelled

WIDE = {  # on a CPU 4bit wants widths that 64 divides
    "text_config": {"hidden_size": 64, "intermediate_size": 128},
    "encoder": {"width": 64},
    "projector": {"hidden": 64},
}
QUESTION = torch.tensor([[1, 3, 4, 7]])
SETTINGS = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


@pytest.fixture
def model(make_model):
    return make_model(**WIDE)


@pytest.fixture
def folder(model, processor, tmp_path):
    """A model folder as `save_pretrained` leaves it."""
    folder = tmp_path / "toy"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def gpu(monkeypatch):
    """Let the choice see a GPU with 24 GB and weights at hand; nothing is loaded on it."""
    seen = {"free": 24_000_000_000, "available": True}
    monkeypatch.setattr(registry, "device_here", lambda: "cuda:0")
    monkeypatch.setattr(registry, "weights_available", lambda name: seen["available"])
    monkeypatch.setattr(quantization, "dtype_for", lambda device: torch.bfloat16)
    monkeypatch.setattr(quantization, "free_bytes", lambda device: seen["free"])
    monkeypatch.setattr(quantization, "_require_bitsandbytes", lambda mode, device: None)
    return seen


@pytest.mark.parametrize("mode", [None, *quantization.CPU_MODES])
def test_a_folder_loads_in_every_mode(folder, model, mode, capsys):
    chat = load(str(folder), quantize=mode)
    kept = mode or "none"
    assert chat.name == ("toy" if kept == "none" else f"toy ({kept})")
    assert isinstance(chat.ask("w3 w4", max_new_tokens=3), str)
    assert ("very slow" in capsys.readouterr().err) == (mode in ("8bit", "4bit"))
    if kept == "none":
        assert torch.equal(chat.model.generate(QUESTION, **SETTINGS), model.generate(QUESTION, **SETTINGS))


@pytest.mark.parametrize("where", ["disk", "auto"])
def test_offloaded_parts_answer_alike(folder, model, tensors, where):
    """Some of the model is on the disk while it generates."""
    device_map, max_memory = "auto", {"cpu": 400_000}
    if where == "disk":
        parts = ["stems", "tokenizers", "encoder", "projector", "language_model.lm_head"]
        inner = ["embed_tokens", "layers.0", "norm", "rotary_emb"]
        device_map = dict.fromkeys([*parts, *(f"language_model.model.{part}" for part in inner)], "cpu")
        device_map |= {"language_model.model.layers.1": "disk", "encoder": "disk"}
        max_memory = None
    loaded = load(str(folder), device_map=device_map, max_memory=max_memory).model
    assert any(parameter.is_meta for parameter in loaded.parameters())
    assert not all(parameter.is_meta for parameter in loaded.parameters())
    token, length = model.config.modalities["image"]["token_id"], model.config.length_of("image")
    ids = torch.tensor([[1, 3, *[token] * length, 7]])
    media = {"image": [tensors["image"]]}
    assert torch.equal(loaded.generate(ids, media=media, **SETTINGS), model.generate(ids, media=media, **SETTINGS))


@pytest.mark.parametrize("mode", ["none", "4bit"])
def test_base_parts_are_placed_and_quantised_like_the_rest(make_model, tmp_path, monkeypatch, mode):
    from safetensors.torch import save_file

    from onellm.model import base_parts

    model = make_model(**WIDE, adapter={"r": 2, "target_modules": ["q_proj"]})
    (tmp_path / "base").mkdir()
    values = model.language_model.state_dict().items()
    base = {key.replace(".base_layer", ""): value.clone() for key, value in values if "lora_" not in key}
    save_file(base, tmp_path / "base" / "model.safetensors")
    monkeypatch.setattr(base_parts, "fetch", lambda name: tmp_path / name)
    model.config.base_parts = {"language_model": "base"}
    model.save_pretrained(tmp_path / "toy")
    settings = {"quantization_config": quantization.quantization_config(mode, "cpu")}
    if mode == "none":
        inside = {name: "cpu" for name, _ in model.named_children()}
        settings |= {"device_map": inside | {"language_model": "disk"}, "offload_folder": tmp_path / "offload"}
    loaded = type(model).from_pretrained(tmp_path / "toy", dtype=torch.float32, **settings).eval()
    exact, near = model(QUESTION).logits, loaded(QUESTION).logits
    error = (near - exact).norm() / exact.norm()
    assert error < 1e-6 if mode == "none" else 0 < error < 0.3


@pytest.mark.parametrize("mode", ["none", "int8", "4bit"])
def test_random_weights_need_no_files(config, tmp_path, mode):
    config.text_config.hidden_size, config.text_config.head_dim, config.text_config.intermediate_size = 64, 32, 128
    config.encoder["width"] = config.projector["hidden"] = 64
    config.save_pretrained(tmp_path)
    for name in (tmp_path, tmp_path / "config.json"):
        chat = load(str(name), quantize=mode, random_weights=True)
        assert chat.processor is None and "random weights" in chat.name
        assert torch.isfinite(chat.model(QUESTION).logits).all()
    with pytest.raises(ModelError, match="cannot be read"):
        load(str(tmp_path))


def test_the_presets_with_random_weights():
    """A preset needs a folder for its processor alone."""
    chat = load("onellm-tiny", random_weights=True)
    assert chat.processor is not None
    assert chat.model.config.text_config.hidden_size == 576
    assert chat.model(QUESTION).logits.std() > 0


def test_a_model_that_does_not_fit_is_told_before_it_is_fetched(monkeypatch):
    monkeypatch.setattr(quantization, "free_bytes", lambda device: 20_000_000_000)
    with pytest.raises(ModelError, match="needs 32.8 GB, but this machine has 20.0 GB free; use .*4bit.*onellm-tiny"):
        load("csuhan/OneLLM-7B", quantize="none")


def test_bad_names_and_folders_are_told(folder, tmp_path):
    with pytest.raises(
        ModelError, match="no model 'onellm-huge'; give one of onellm-small, onellm-tiny, .*onellm-7b, .* or"
    ):
        load("onellm-huge")
    (tmp_path / "weights").mkdir()
    with pytest.raises(ModelError, match="has no config.json"):
        load(str(tmp_path / "weights"))
    (tmp_path / "weights" / "consolidated.00-of-01.pth").touch()
    with pytest.raises(ModelError, match="python -m onellm convert"):
        load(str(tmp_path / "weights"))
    with pytest.raises(ModelError, match="is a file.*python -m onellm convert"):
        load(str(tmp_path / "weights" / "consolidated.00-of-01.pth"))
    (tmp_path / "weights" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="type 'llama', not a OneLLM; give one of onellm-small, onellm-tiny"):
        load(str(tmp_path / "weights"))
    (tmp_path / "weights" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="no readable configuration"):
        load(str(tmp_path / "weights"))
    with pytest.raises(ModelError, match="'3bit' on the CPU"):
        load(str(folder), quantize="3bit")


def test_spoilt_folders_are_told(folder):
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({key: value for key, value in tensors.items() if "norm" not in key}, weights)
    with pytest.raises(ModelError, match=r"lack \d+ tensors .*norm"):
        load(str(folder))
    save_file(tensors | {"encoder.class_embedding": torch.zeros(3)}, weights)
    with pytest.raises(ModelError, match="cannot be read"):
        load(str(folder))
    weights.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be read"):
        load(str(folder))
    save_file(tensors, weights)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="no readable tokenizer"):
        load(str(folder))


def test_without_a_name_one_line_says_which_and_why(folder, monkeypatch, capsys):
    monkeypatch.setattr(registry, "choose", lambda mode: Choice(str(folder), mode, "Using toy: it is small."))
    assert load(quantize="none").name == "toy"
    said = capsys.readouterr()
    assert said.out == "" and "Using toy: it is small.\n" in said.err


def test_the_choice_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(quantization, "free_bytes", lambda device: 8_000_000_000)
    assert choose() == Choice("onellm-small", None, "Using onellm-small: there is no CUDA GPU here; it needs 3.1 GB.")
    monkeypatch.setattr(quantization, "free_bytes", lambda device: 2_000_000_000)
    chosen = choose()
    assert chosen.name == "onellm-tiny" and "needs 3.1 GB, but this machine has 2.0 GB free." in chosen.reason


def test_the_choice_with_a_gpu(gpu):
    chosen = choose()
    assert (chosen.name, chosen.quantize) == ("onellm-7b", "4bit") and "6.4 GB" in chosen.reason
    assert choose("8bit").quantize == "8bit"
    gpu["available"] = False
    assert choose().name == "onellm-small" and "hub does not answer" in choose().reason
    gpu["free"] = 5_000_000_000
    assert choose().name == "onellm-small" and "the GPU has 5.0 GB free;" in choose().reason
    gpu["free"] = 2_000_000_000
    assert choose().name == "onellm-tiny" and "the GPU has 2.0 GB free." in choose().reason


def test_loading_is_told_step_by_step(folder, capfd):
    told = []
    chat = load(str(folder), quantize="int8", on_progress=told.append)
    reading = [step for step in told if step.what == "read"]
    assert (reading[0].done, reading[-1].done) == (0, reading[-1].total) and reading[-1].unit == "tensors"
    assert [(step.done, step.total) for step in told if step.what == "optimise"] == [(0, 2), (1, 2)]
    assert "it/s" not in capfd.readouterr().err
    assert chat.origin == str(folder) and chat.quantize == "int8"


def test_what_is_read_names_its_shard(model, processor, tmp_path):
    model.save_pretrained(tmp_path / "toy", max_shard_size="20KB")
    processor.save_pretrained(tmp_path / "toy")
    shards = {path.name for path in (tmp_path / "toy").glob("model-*.safetensors")}
    told = []
    load(str(tmp_path / "toy"), on_progress=told.append)
    assert len(shards) > 2 and [step.detail for step in told if step.what == "read"][-1] in shards


@pytest.mark.parametrize("what", ["read", "optimise"])
def test_a_cancelled_load_leaves_nothing(folder, what):
    from onellm.model.auto import OneLLMForConditionalGeneration

    def cancel(progress):
        if progress.what == what:
            raise Cancelled("Loading was cancelled.")

    def there():
        gc.collect()
        return {id(thing) for thing in gc.get_objects() if type(thing) is OneLLMForConditionalGeneration}

    before = there()  # of fixtures
    with pytest.raises(Cancelled) as told:
        load(str(folder), quantize="int8", on_progress=cancel)
    assert set_tqdm_hook(None) is None
    del told
    assert there() <= before
    assert load(str(folder), quantize="int8").name == "toy (int8)"


def test_the_app_loads_what_it_was_asked_for(folder):
    from onellm.serving.engine import Engine

    engine = Engine(str(folder), quantize="4bit")
    assert engine.new_chat().name == engine.name == "toy (4bit)"
    assert engine.description.startswith("toy (4bit):")
    engine = Engine(str(folder), quantize="3bit")
    with pytest.raises(ModelError, match="'3bit' on the CPU"):
        engine.new_chat()


def test_load_is_public():
    assert onellm.load is load
