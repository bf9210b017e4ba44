"""The model on random weights: every kind, the adapter, saving, the loss."""

import pytest
import torch

KINDS = ["image", "video", "audio", "point", "fmri", "imu", "depth", "normal"]


def prompt(model, *modalities):
    """Token ids 3, 4, then every file's placeholders, then 7."""
    ids = [3, 4]
    for modality in modalities:
        ids += [model.config.modalities[modality]["token_id"]] * model.config.length_of(modality)
    return torch.tensor([ids + [7]])


@pytest.mark.parametrize("modality", KINDS)
def test_every_kind_changes_the_answer(model, tensors, modality):
    ids = prompt(model, modality)
    first = model(ids, media={modality: [tensors[modality]]}).logits
    second = model(ids, media={modality: [tensors[modality].flip(0) * 0.5]}).logits
    assert first.shape == (1, ids.shape[1], 64)
    assert (first[0, -1] - second[0, -1]).abs().max() > 1e-6


def test_several_kinds_and_files_in_one_prompt(model, tensors):
    ids = prompt(model, "audio", "image", "image")
    media = {"audio": [tensors["audio"]], "image": [tensors["image"], tensors["image"] * 0.5]}
    swapped = {"audio": [tensors["audio"]], "image": media["image"][::-1]}
    assert not torch.allclose(model(ids, media=media).logits[0, -1], model(ids, media=swapped).logits[0, -1])


def test_placeholders_and_files_must_match(model, tensors):
    with pytest.raises(ValueError, match="0 placeholders of kind image.*1 file.* need 5"):
        model(torch.tensor([[3, 4, 7]]), media={"image": [tensors["image"]]})
    with pytest.raises(ValueError, match="5 placeholders of kind audio.*0 file"):
        model(prompt(model, "audio"))


@pytest.mark.parametrize("adapter", [None, {"r": 2, "target_modules": ["q_proj"]}])
def test_save_and_load(make_model, tensors, tmp_path, adapter):
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    model = make_model(adapter=adapter, projector={"anchor": {"size": 10, "scale": 5.0}})
    model.projector.anchor.token_ids.copy_(torch.arange(10, 20))
    model.save_pretrained(tmp_path)
    ids, media = prompt(model, "depth"), {"depth": [tensors["depth"]]}
    for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
        loaded = auto.from_pretrained(tmp_path).eval()
        assert torch.allclose(loaded(ids, media=media).logits, model(ids, media=media).logits, atol=1e-6)


def test_adapter_speaks_only_where_there_are_files(make_model, tensors):
    model = make_model(adapter={"r": 2, "target_modules": ["q_proj", "v_proj"]})
    text, ids, media = torch.tensor([[3, 4, 7]]), prompt(model, "image"), {"image": [tensors["image"]]}
    before = model(text).logits, model(ids, media=media).logits
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    after = model(text).logits, model(ids, media=media).logits
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_base_parts_are_referred_to_not_copied(make_model, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    from onellm.model import base_parts

    model = make_model(adapter={"r": 2, "target_modules": ["q_proj"]})
    base = {
        key.replace(".base_layer", ""): value.clone()
        for key, value in model.language_model.state_dict().items()
        if "lora_" not in key
    }
    (tmp_path / "base").mkdir()
    save_file(base, tmp_path / "base" / "model.safetensors")
    monkeypatch.setattr(base_parts, "fetch", lambda name: tmp_path / name)
    model.config.base_parts = {"language_model": "base"}
    model.save_pretrained(tmp_path / "model")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert not [key for key in saved if key.startswith("language_model.") and "lora_" not in key]
    loaded = type(model).from_pretrained(tmp_path / "model").eval()
    ids = torch.tensor([[3, 4, 7]])
    assert torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-6)


def test_labels_give_the_loss_of_the_answer(model, tensors):
    ids = prompt(model, "normal")
    labels = ids.clone()
    labels[:, :-1] = -100
    out = model(ids, media={"normal": [tensors["normal"]]}, labels=labels)
    expected = torch.nn.functional.cross_entropy(out.logits[0, -2:-1], ids[0, -1:])
    assert torch.allclose(out.loss, expected)
    out.loss.backward()
    assert model.projector.queries["normal"].grad.abs().sum() > 0
