"""The systems that transformers lacks, converted from their published layout: nothing is lost, and they answer."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from published_family import SYSTEMS, write

import onellm
from onellm.errors import ModelError
from onellm.hub.convert import convert
from onellm.model.auto import OneLLMConfig, OneLLMProcessor


@torch.no_grad()
@pytest.mark.parametrize("system", SYSTEMS)
def test_it_answers(converted, system, picture):
    _, model = converted(system)
    preset = OneLLMConfig.from_preset(system.partition(" ")[0])
    assert model.config.description == preset.description and model.config.chat_template == preset.chat_template
    length = model.config.length_of("image")
    ids = torch.tensor([[1, 5, *[model.config.modalities["image"]["token_id"]] * length, 9]])
    options = {"media": {"image": [picture]}, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    answer = model.generate(ids, **options)
    assert answer.tolist() == model.generate(ids, **options, use_cache=False).tolist()
    other = model(ids, media={"image": [-picture]}).logits
    assert (other - model(ids, media=options["media"]).logits).abs().max() > 1e-5


@torch.no_grad()
@pytest.mark.parametrize("system", SYSTEMS[:-2])
def test_a_person_asks(converted, system, tmp_path):
    """A picture, a second question and text alone: what is streamed is what the model makes of the prompt at once."""
    _, model = converted(system)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 60, 3), np.uint8)).save(tmp_path / "photo.png")
    chat = onellm.load(model.folder, quantize="none")
    processor = OneLLMProcessor.from_pretrained(model.folder)

    def ask(text, **files):
        said = "".join(chat.stream(text, **files, max_new_tokens=4))
        inputs = processor.apply_chat_template(chat.messages[:-1])
        whole = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert said.strip() == processor.decode(whole, skip_special_tokens=True).strip()

    ask("what is this", image=str(tmp_path / "photo.png"))
    ask("what colour is this")
    chat.clear()
    ask("what is this")


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_published_number_is_used_or_named_as_dropped(converted, system):
    """Numbers that appear nowhere in our model are those of keys that the map lists as dropped."""
    published, model = converted(system)
    ours = torch.cat([value.flatten() for value in model.state_dict().values()]).unique()
    unused = {key for key, value in published.items() if not torch.isin(value.flatten(), ours).all()}
    allowed = {
        "llava-1-7b": ("encoder.layers.2.", "post_layernorm", "text_", "visual_projection", "logit", "position_ids"),
        "lavin-7b": ("post_layernorm", "text_", "visual_projection", "logit", "position_ids"),
        "pandagpt-7b": ("thermal", "postprocessors"),
        "minigpt4-7b": ("t5_proj", "position_ids"),
        "vl-vicuna-7b": ("t5_proj", "position_ids"),
        "mplug-owl-7b": (),
    }[system.partition(" ")[0]]
    left = {
        key for key in unused if not re.search("inv_freq|rope.freqs", key) and not any(word in key for word in allowed)
    }
    assert not left
    for word in allowed:
        assert any(word in key for key in published), word


@pytest.mark.parametrize("system", SYSTEMS)
def test_files_that_do_not_fit_are_refused(system, tmp_path):
    options, _ = write(system, tmp_path)
    paths = options["checkpoint"] if isinstance(options["checkpoint"], list) else [options["checkpoint"]]
    last = paths[-1] if paths[-1].is_file() else paths[-1] / "pytorch_model.bin"
    content = torch.load(last, weights_only=False)
    table = content.get("model", content)
    name = next(key for key in table if key.endswith("weight") and "proj" in key and table[key].dim() == 2)
    value = table.pop(name)
    torch.save(content, last)
    with pytest.raises(ModelError, match="(missing|another model)"):
        convert(**options, out=tmp_path / "out", progress=False)
    table |= {name: value, "surprise.weight": value}
    torch.save(content, last)
    with pytest.raises(ModelError, match=r"surprise\.weight is not known"):
        convert(**options, out=tmp_path / "out", progress=False)
    del table["surprise.weight"]
    table[name] = value[:-1]
    torch.save(content, last)
    with pytest.raises(ModelError, match=r"is \[\d+, \d+.*instead of"):
        convert(**options, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_lora_of_mplug_owl_comes_or_not(converted):
    published, merged = converted("mplug-owl-7b with LoRA")[0], converted("mplug-owl-7b")[1]
    assert merged.config.adapter is None
    model = converted("mplug-owl-7b with LoRA")[1]
    assert model.config.adapter["r"] == 8 and model.config.adapter_on == "always"
    name = "language_model.model.layers.1.self_attn.v_proj.lora_B"
    assert torch.equal(model.get_submodule(name)["default"].weight, published[f"base_model.model.{name}.weight"])
