"""Picture codes, and an LLM that learns to draw with them, on a toy corpus."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from onellm.model.output_heads import find
from train.build import build_model
from train.drawing import train
from train.drawing.trained_vq import load_codes
from train.drawing.vq import measure, read_pictures
from train.recipe import Recipe, RecipeError, build, load_recipe
from train.trainer import run

CODES = {"size": 16, "codes": 16, "dim": 4, "encoder": [16, 16], "decoder": [16, 16], "blocks": 1}
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "layers_to_transform": [1], "on": "outputs"}


@pytest.fixture
def drawings(tmp_path, monkeypatch):
    """Write a corpus of coloured squares: four with names, one of them held out, and others without."""
    folder = tmp_path / "corpus"
    (folder / "drawing").mkdir(parents=True)
    monkeypatch.setenv("ONELLM_CORPUS", str(folder))
    chance, lines = np.random.default_rng(0), []
    for index in range(24):
        picture = np.full((16, 16, 3), 255, np.uint8)
        picture[4:12, 4:12] = chance.integers(0, 255, 3)
        Image.fromarray(picture).save(folder / f"drawing/{index}.png")
        split = "test" if index == 3 else "dev" if index > 19 else "train"
        name = f"w{20 + index}" if index < 4 else None
        lines.append({"id": str(index), "file": f"drawing/{index}.png", "name": name, "label": "x", "split": split})
    (folder / "drawings.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture
def recipe_of(drawings, toy, tmp_path):
    """Make recipes that start from a toy preset with codes."""
    outputs = {"outputs": {"image": {"type": "tokens", "codes": CODES}}, "adapter": LORA}
    preset = tmp_path / "draw.json"
    preset.write_text(json.dumps(json.loads(Path(toy["preset"]).read_text()) | outputs))

    def make(**changes):
        values = {"name": "codes", "preset": str(preset), "objective": "codes", "train": ["outputs"], "steps": 60}
        values |= {"data": [{"kind": "text", "source": "drawings"}], "batch": 8, "warmup": 5, "save_every": 40}
        return build(Recipe, values | {"learning_rate": 1e-3} | changes)

    return make


def test_codes_give_pictures_back(recipe_of, tmp_path):
    before = measure(draw_codes(0), read_pictures("dev"))
    folder = run(recipe_of(learning_rate=1e-2), tmp_path / "runs")
    after = measure(load_codes(folder), read_pictures("dev"))
    assert after["psnr_db"] > before["psnr_db"] + 3 and after["codes"] > 1
    assert not (folder / "checkpoint.pt").exists()


def draw_codes(seed):
    from onellm.model.vq import VQModel

    torch.manual_seed(seed)
    return VQModel(**CODES)


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(recipe_of, tmp_path, monkeypatch):
    whole = load_file(run(recipe_of(), tmp_path / "whole") / "codes.safetensors")
    from train.drawing import vq

    def cut(*_):
        if (tmp_path / "cut/codes/checkpoint.pt").exists():
            raise KeyboardInterrupt
        return {}

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(vq, "measure", cut)
        run(recipe_of(log_every=1), tmp_path / "cut")
    assert (tmp_path / "cut/codes/checkpoint.pt").exists()
    again = load_file(run(recipe_of(), tmp_path / "cut") / "codes.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


@pytest.fixture
def recipe(recipe_of, toy, tmp_path):
    run(recipe_of(steps=20), tmp_path / "runs")
    rates = {"learning_rate": 2e-2, "warmup": 2, "save_every": 20, "log_every": 5, "save_precision": "float32"}
    parts = {**toy["parts"], "codes": "codes"}
    return recipe_of(name="draw", objective="draw", train=["adapter", "rows"], parts=parts, steps=40, batch=4, **rates)


def test_the_upper_layers_alone_say_what_the_whole_model_does(recipe, tmp_path):
    model, processor = build_model(recipe, tmp_path / "runs")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    upper = train.Upper(model.eval())
    pictures = train.encode_pictures(model, train.named("train"))
    asked = [train.request_ids(processor, text) for text in ("w3", "w4 w5 w6")]
    samples = [upper.prepare(ids, picture) for ids, picture in zip(asked, pictures.values(), strict=False)]
    with torch.no_grad():
        together = upper.hidden(samples)
        for row, ids, picture in zip(together, asked, pictures.values(), strict=False):
            whole = model(input_ids=torch.tensor([ids + picture]), output_hidden_states=True).hidden_states[-1][0]
            assert torch.allclose(row, whole[len(ids) :], atol=0.02)


def test_drawing_is_learnt_and_nothing_else_moves(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "TALKS", 12)
    folder = run(recipe, tmp_path / "runs")
    log = json.loads((folder / "losses.json").read_text())
    assert log[-2]["loss"] < 0.6 * log[0]["loss"] and "held_out" in log[3]
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path / "runs/draw/start", folder))
    moved = {name for name, tensor in after.items() if not torch.equal(before[name], tensor)}
    assert {name.partition(".")[0] for name in moved} == {"rows", "language_model"}
    assert all("lora_" in name for name in moved if name.startswith("language"))

    from onellm.model.auto import OneLLMForConditionalGeneration, OneLLMProcessor

    model = OneLLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = OneLLMProcessor.from_pretrained(folder)
    span = model.config.spans[0]
    ids = torch.tensor([train.request_ids(processor, train.asked("w20", random.Random(0)))])
    written = model.generate(ids, max_new_tokens=30, do_sample=False)[0, ids.shape[1] :].tolist()
    pictures = train.encode_pictures(model, train.named("train"))
    assert find(written, [span])[0] == (span, 0)  # the toy tokenizer tells no request from another, but a picture comes
    assert max(sum(map(int.__eq__, written, tokens)) for tokens in pictures.values()) > span.length // 2


def test_the_shipped_recipes_belong_together(tmp_path):
    vq, rows = (load_recipe(f"train/recipes/draw-{name}.yaml") for name in ("1-codes", "2-rows"))
    assert rows.parts["codes"] == vq.name and rows.preset == vq.preset
    with pytest.raises(RecipeError, match="no picture codes"):
        load_codes(tmp_path)
