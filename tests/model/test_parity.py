"""Numbers of the published code, through `convert` and `from_pretrained`.

`parity/` holds a small random checkpoint in the published layout, inputs, and what the published code returned;
`ONELLM_PARITY_DIR` names another such folder. All sizes come from its config.json.
"""

import json
import lzma
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

FOLDER = Path(os.environ.get("ONELLM_PARITY_DIR", Path(__file__).parent / "parity"))

PUBLISHED = {"depth": "rgbd", "normal": "rgbn"}  # our modality -> its name in the fixture, where they differ
KINDS = ["image", "video", "audio", "point", "depth", "normal", "fmri", "imu"]
FEATURES, TOKENS, LOGITS = 2e-5, 2e-5, 5e-4  # the published code's own noise in float32 is 8e-6 and 2e-5


def content(name):
    """The bytes of a file of the fixture, which may be packed with xz."""
    packed = FOLDER / f"{name}.xz"
    return lzma.decompress(packed.read_bytes()) if packed.exists() else (FOLDER / name).read_bytes()


settings = json.loads((FOLDER / "config.json").read_text())
outputs = load(content("outputs.safetensors"))


@pytest.fixture(scope="module")
def inputs():
    """The fixture's inputs under our modalities; bytes turned back into the float32 values that ran."""
    values = load(content("inputs.safetensors"))
    for name, scale in settings["int8_scale"].items():
        values[name] = values[name].float() / scale
    return values


@pytest.fixture(scope="module", params=["as loaded", "for the CPU"])
def model(request, tmp_path_factory):
    from onellm.hub.convert import convert
    from onellm.model.auto import OneLLMForConditionalGeneration
    from onellm.model.runtime.cpu import optimise

    params = {
        "n_heads": settings["llm"]["n_heads"],
        "norm_eps": settings["llm"]["norm_eps"],
        "encoder_heads": settings["clip_vision"]["width"] // settings["clip_vision"]["head_width"],
        "expert_heads": settings["resampler"]["n_heads"],
    }
    folder = tmp_path_factory.mktemp("parity")
    checkpoint, out = folder / "weights.pth", folder / "model"
    checkpoint.write_bytes(content("weights.pth"))
    convert(checkpoint, out, params=params, progress=False)
    model = OneLLMForConditionalGeneration.from_pretrained(out, dtype=torch.float32).eval()
    return model if request.param == "as loaded" else optimise(model)


def media(modality, inputs):
    """The tensor our model takes for the fixture's input: [...] of one file."""
    value = inputs[PUBLISHED.get(modality, modality)][0]
    return value.flatten() if modality == "fmri" else value


def prompt(model, modality, ids):
    """Bos, the file's placeholders, the rest of the prompt."""
    placeholders = (
        [model.config.modalities[modality]["token_id"]] * model.config.length_of(modality) if modality != "text" else []
    )
    return torch.tensor([[*ids[:1].tolist(), *placeholders, *ids[1:].tolist()]])


def largest_error(ours, published):
    assert ours.shape == published.shape
    return (ours - published).abs().max().item()


@pytest.mark.parametrize("modality", KINDS)
@torch.no_grad()
def test_features_and_soft_tokens(model, inputs, modality):
    name = PUBLISHED.get(modality, modality)
    features = model.encode(modality, media(modality, inputs)[None])
    assert largest_error(features, outputs[f"{name}.clip_feats"]) < FEATURES
    # from the published features, so that an error here is the projection's
    soft_tokens = model.projector.soft_tokens(outputs[f"{name}.clip_feats"], modality)
    assert largest_error(soft_tokens, outputs[f"{name}.tokens"]) < TOKENS
    assert largest_error(model.projector.soft_tokens(features, modality), outputs[f"{name}.tokens"]) < TOKENS
    assert (
        largest_error(model.projector.output_proj[modality](outputs[f"{name}.mixed"]), outputs[f"{name}.tokens"])
        < TOKENS
    )


@pytest.mark.parametrize("modality", KINDS)
@torch.no_grad()
def test_router(model, modality):
    published = outputs[f"{PUBLISHED.get(modality, modality)}.router_logits"].sigmoid()
    queries = model.projector.queries[modality][None]
    weights = model.projector.routers[modality](queries, torch.zeros_like(queries))
    assert largest_error(weights, published / published.sum(dim=-1, keepdim=True)) < TOKENS


@pytest.mark.parametrize("modality", [*KINDS, "text"])
@torch.no_grad()
def test_logits_and_greedy_answer(model, inputs, modality):
    name = PUBLISHED.get(modality, modality)
    files = {} if modality == "text" else {modality: [media(modality, inputs)]}
    start, caption = inputs[f"{name}.prompt"], inputs[f"{name}.caption"]

    ids = prompt(model, modality, caption)
    logits = model(ids, media=files).logits[:, -len(caption) :]  # the end tag predicts the first text token
    assert largest_error(logits, outputs[f"{name}.logits"]) < LOGITS

    ids, count = prompt(model, modality, start), settings["n_gen"]
    options = {"max_new_tokens": count, "min_new_tokens": 0, "do_sample": False, "eos_token_id": -1}
    out = model.generate(ids, media=files, output_logits=True, return_dict_in_generate=True, **options)
    assert out.sequences[0, ids.shape[1] :].tolist() == outputs[f"{name}.greedy_full"].tolist()
    assert largest_error(torch.cat(out.logits), outputs[f"{name}.greedy_full_logits"]) < LOGITS


@torch.no_grad()
def test_batch_of_two(model, inputs):
    picture = media("image", inputs)
    files = {"image": [picture, picture.flip(-1)]}
    long, short = inputs["image.caption"], inputs["audio.caption"][:-3]
    published = outputs["batch.logits"]
    ids, mask = left_padded(prompt(model, "image", long), prompt(model, "image", short))
    logits = model(ids, attention_mask=mask, media=files).logits
    assert largest_error(logits[0, -len(long) :], published[0]) < LOGITS
    assert largest_error(logits[1, -len(short) :], published[1, : len(short)]) < LOGITS


@torch.no_grad()
def test_batch_answers_as_its_rows_do(model, inputs):
    """Prompts of lengths 10 and 7. (The published answers to this batch have its cache's error in them.)"""
    picture, count = media("image", inputs), settings["n_gen"]
    options = {"max_new_tokens": count, "do_sample": False, "eos_token_id": -1}
    rows = [prompt(model, "image", inputs["image.prompt"]), prompt(model, "image", inputs["audio.prompt"][:7])]
    ids, mask = left_padded(*rows)
    together = model.generate(ids, attention_mask=mask, media={"image": [picture, picture.flip(-1)]}, **options)
    alone = model.generate(rows[1], media={"image": [picture.flip(-1)]}, **options)
    assert together[0, -count:].tolist() == outputs["image.greedy_full"].tolist()
    assert together[1, -count:].tolist() == alone[0, -count:].tolist()


def left_padded(long, short):
    """One batch of two prompts, and its attention mask."""
    gap = long.shape[1] - short.shape[1]
    ids = torch.cat([long, torch.nn.functional.pad(short, (gap, 0))])
    return ids, torch.cat([torch.ones_like(long), torch.nn.functional.pad(torch.ones_like(short), (gap, 0))])


@torch.no_grad()
def test_points(model, inputs):
    """Centres are chosen by colour, and of equally far points the published one."""
    from onellm.model.tokenizers import farthest_points

    points = media("point", inputs)[None]
    published = outputs["point.fps_idx"]
    assert torch.equal(farthest_points(points[..., 3:], published.shape[1]).int(), published)
    published = outputs["fps_ties.idx"]
    assert torch.equal(farthest_points(inputs["fps_ties.points"], published.shape[1]).int(), published)
    tokens = model.tokenizer_for("point")(points)
    assert largest_error(tokens.transpose(1, 2), outputs["point.embed"].squeeze(-1)) < FEATURES
