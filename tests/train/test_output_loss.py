"""Training what comes out besides text: signals with a generator's text encoder and its noise, codes, prompts."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_pipelines import picture_pipeline, video_pipeline

from onellm.chat.outputs.diffusion import Generators, caption_condition
from onellm.model.output_heads import OutputProjector, alignment_loss
from train.output_loss import denoising_loss, encode_latents
from train.recipe import Recipe, RecipeError, build
from train.trainer import run

CODES = {"size": 16, "codes": 8, "dim": 4, "encoder": [8, 8], "decoder": [8, 8], "blocks": 1}
OUTPUTS = {
    "text": {"type": "text", "start": "w7", "end": "w8"},
    "tokens": {"type": "tokens", "codes": CODES},
    "representation": {
        "type": "representation",
        "tokens": 2,
        "queries": 77,
        "width": 32,
        "hidden": 32,
        "layers": 1,
        "ffn": 32,
    },
}
LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"], "on": "outputs"}


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines")
    return {"image": str(picture_pipeline(folder)), "video": str(video_pipeline(folder))}


@pytest.fixture
def pictures(tmp_path):
    """Write four captioned pictures, each of another colour."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (20, 16), colour).save(folder / f"{colour}.png")
        (folder / f"{colour}.txt").write_text(f"w{20 + index}")
    return folder


def train(toy, tmp_path, pictures, modality, start=None, **changes):
    preset = tmp_path / "outputs.json"
    preset.write_text(
        json.dumps(json.loads(Path(toy["preset"]).read_text()) | {"outputs": {"image": OUTPUTS[modality]}})
    )
    source = {"kind": "image", "source": "folder", "path": str(pictures), "request": "w9 {}"}
    settings = {"parts": toy["parts"], "preset": str(preset), "name": modality, "objective": "chat", "data": [source]}
    settings |= {"steps": 30, "batch": 4, "learning_rate": 2e-2, "warmup": 2, "save_every": 100, "log_every": 1}
    recipe = build(Recipe, settings | {"save_precision": "float32"} | changes)
    folder = run(recipe, tmp_path / "runs")
    log = [line["loss"] for line in json.loads((folder / "losses.json").read_text()) if "loss" in line]
    before, after = (
        load_file(path / "model.safetensors") for path in (tmp_path / "runs" / (start or f"{modality}/start"), folder)
    )
    moved = {name for name, tensor in after.items() if name not in before or not torch.equal(before[name], tensor)}
    return log, moved, after


def parts(names):
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("denoise", [False, True])
def test_signals_are_drawn_to_the_caption_s_embedding(toy, tmp_path, pictures, pipelines, denoise):
    log, moved, _ = train(
        toy, tmp_path, pictures, "representation", train=["rows", "outputs"], generators=pipelines, denoise=denoise
    )
    assert min(log[-5:]) < 0.8 * log[0]
    assert parts(moved) == {"rows", "outputs"}


def test_codes_and_the_adapter_are_learnt_and_nothing_else_moves(toy, tmp_path, pictures):
    log, moved, after = train(toy, tmp_path, pictures, "tokens", train=["rows", "adapter"], adapter=LORA)
    assert min(log[-5:]) < 0.7 * log[0]
    assert parts(moved) == {"rows", "language_model"}
    assert all("lora_" in name for name in moved if name.startswith("language_model"))
    assert any(name.startswith("outputs.image.codebook") for name in after)


def test_outputs_are_added_to_a_model_that_is_there(toy, tmp_path, pictures, pipelines):
    train(toy, tmp_path, pictures, "text", train=["language_model"], steps=1)
    from onellm.model.auto import OneLLMProcessor

    log, moved, after = train(
        toy, tmp_path, pictures, "representation", train=["rows", "outputs"], preset=None, init="text", parts={},
        config={"outputs": {"image": OUTPUTS["representation"]}}, generators=pipelines, start="text",
    )  # fmt: skip
    assert min(log[-5:]) < 0.8 * log[0] and parts(moved) == {"rows", "outputs"}
    processor = OneLLMProcessor.from_pretrained(tmp_path / "runs/representation")
    assert processor.outputs["image"]["length"] == 2


def test_prompts_between_marks_are_learnt_by_the_llm_alone(toy, tmp_path, pictures):
    log, moved, after = train(toy, tmp_path, pictures, "text", train=["language_model"], learning_rate=5e-3)
    assert min(log[-5:]) < 0.7 * log[0]
    assert parts(moved) == {"language_model"} and not any(name.startswith(("rows", "outputs")) for name in after)


def test_gradients_reach_the_projector_and_not_the_generator(pipelines, pictures):
    torch.manual_seed(0)
    pipeline = Generators(pipelines, "cpu").pipeline("image")
    pipeline.unet.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    projector = OutputProjector(24, 2, 77, 32, hidden=16, layers=1, ffn=16)
    condition = projector(torch.randn(2, 2, 24), torch.randn(2, 24))
    latents = torch.stack([encode_latents(pipeline, "image", str(path)) for path in sorted(pictures.glob("*e.png"))])
    assert latents.shape == (2, 4, 8, 8)
    denoising_loss(pipeline, latents, condition).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in projector.parameters() if p.dim() > 1)
    assert all(p.grad is None for p in pipeline.unet.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in pipeline.unet.state_dict().items())


def test_a_video_s_latents_go_through_its_generator(pipelines, example_files):
    pipeline = Generators(pipelines, "cpu").pipeline("video")
    latents = encode_latents(pipeline, "video", str(example_files["video"]))[:, :3][None]
    condition = caption_condition(pipeline, "a tree")[None].clone().requires_grad_(True)
    denoising_loss(pipeline, latents, condition).backward()
    assert float(condition.grad.abs().sum()) > 0


def test_the_alignment_loss_is_the_mean_distance():
    made, wanted = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    wanted[0, 0] = torch.tensor([3.0, 4.0, 0.0, 0.0])
    assert float(alignment_loss(made, wanted)) == pytest.approx(5 / 6)


def test_what_cannot_be_followed_is_told(toy, tmp_path, pictures, pipelines):
    with pytest.raises(RecipeError, match="has no {} for the caption"):
        train(toy, tmp_path, pictures, "text", train=["language_model"], data=[
            {"kind": "image", "source": "folder", "path": str(pictures), "request": "w9"}])  # fmt: skip
    with pytest.raises(RecipeError, match="set 'workers: 0'"):
        train(toy, tmp_path, pictures, "representation", train=["rows"], generators=pipelines, workers=1)
