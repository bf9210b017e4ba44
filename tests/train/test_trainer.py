"""Whole little training runs on one process."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from onellm.errors import ModelError
from train.recipe import Recipe, RecipeError, build
from train.trainer import StageTrainer, run


def make(values, **changes):
    return build(Recipe, {**values, **changes})


def losses(folder):
    log = json.loads((folder / "losses.json").read_text())
    return [line["loss"] for line in log if "loss" in line]


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_anchor_training_names_held_out_scans(corpus, toy, tmp_path):
    from onellm.model.auto import OneLLMForConditionalGeneration, OneLLMProcessor
    from train.small.items import extract_features, read_items

    recipe = make(
        {**toy, "name": "toy", "objective": "anchor", "train": ["tokenizers", "encoder", "projector"]},
        data=[{"kind": "fmri", "source": "items"}],
        steps=60,
        batch=8,
        learning_rate=5e-3,
        warmup=5,
    )
    folder = run(recipe, tmp_path / "runs")
    trained = OneLLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    items = read_items("fmri", "test")
    features = torch.stack(extract_features(trained, OneLLMProcessor.from_pretrained(folder), items, "test"))
    words = trained.projector.soft_tokens(trained.encode("fmri", features), "fmri")
    best = trained.projector.anchor.logits(words, trained.get_input_embeddings())[:, 0].argmax(dim=-1)
    assert trained.projector.anchor.token_ids[best].tolist() == [int(item.name[1:]) for item in items]


def test_captions_of_files_are_learnt_and_nothing_else_moves(settings, tmp_path):
    recipe = make(settings, train=["tokenizers", "projector", "language_model"], steps=20)
    folder = run(recipe, tmp_path / "runs")
    found = losses(folder)
    assert found[-1] < 0.7 * found[0]
    before, after = weights(tmp_path / "runs/toy/start"), weights(folder)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert any(name.startswith("tokenizers.fmri.") for name in moved)
    assert not any(name.startswith("encoder.") for name in moved)
    moved = {name for name in moved if not name.startswith(("language_model.", "projector.experts."))}
    assert all(".fmri." in f".{name}." for name in moved)  # other kinds were not in the data


def test_stages_go_on_from_each_other_and_from_the_image(settings, tmp_path):
    runs = tmp_path / "runs"
    run(make(settings, name="one", steps=2), runs)
    later = {key: value for key, value in settings.items() if key not in ("preset", "parts")}
    recipe = make(later, name="two", init="one", from_image=["imu"], train=["routers"], steps=1)
    before, after = weights(runs / "one"), weights(run(recipe, runs))
    for ours, image in (("input_proj.imu.0.weight", "input_proj.image.0.weight"), ("queries.imu", "queries.image")):
        assert torch.equal(after[f"projector.{ours}"], before[f"projector.{image}"])
        assert not torch.equal(before[f"projector.{ours}"], before[f"projector.{image}"])
    assert not torch.equal(before["projector.routers.fmri.fc2.bias"], after["projector.routers.fmri.fc2.bias"])
    with pytest.raises(RecipeError, match="goes on from 'zero', which is no finished stage"):
        run(make(later, name="three", init="zero"), runs)


def test_an_adapter_trains_alone(settings, tmp_path):
    adapter = {"r": 2, "target_modules": ["q_proj"]}
    folder = run(make(settings, train=["adapter"], adapter=adapter, objective="chat", steps=2), tmp_path / "runs")
    before, after = weights(tmp_path / "runs/toy/start"), weights(folder)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    with pytest.raises(ModelError, match="'adapter' has no parameters in this model; give the recipe an 'adapter'"):
        run(make(settings, name="other", train=["adapter"]), tmp_path / "runs")


def test_a_fresh_adapter_changes_nothing_at_first(settings, tmp_path):
    """An adapter put on a finished model starts as zero, however transformers fills what a folder lacks."""
    from train.build import load

    run(make(settings, steps=1), tmp_path / "runs")
    later = {key: value for key, value in settings.items() if key not in ("preset", "parts")}
    adapter = {"r": 2, "target_modules": ["q_proj"]}
    model = load(make(later, init="toy", adapter=adapter), tmp_path / "runs/toy", torch.float32)
    ups = [value for name, value in model.named_parameters() if "lora_B" in name]
    assert ups
    assert all(not value.any() for value in ups)


def test_the_llm_trains_and_is_saved(settings, tmp_path):
    folder = run(make(settings, train=["language_model"], objective="chat", steps=2), tmp_path / "runs")
    before, after = weights(tmp_path / "runs/toy/start"), weights(folder)
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("language_model"))
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("language_model"))


def test_small_batches_add_up_to_a_large_one(settings, tmp_path):
    """Accumulation weighs tokens, not batches: two halves give the step of the whole."""
    whole = run(make(settings, name="whole", steps=1, homogeneous_batches=1), tmp_path / "runs")
    halves = run(make(settings, name="halves", steps=1, micro_batch=2), tmp_path / "runs")
    assert len(losses(halves)) == len(losses(whole)) == 1
    # the batches differ in their examples, so only the bookkeeping is compared: one step, the same rate, all figures
    log = json.loads((halves / "losses.json").read_text())[0]
    assert {"loss/fmri captions.tsv", "router/fmri/expert0", "samples_per_second", "memory_gb"} <= set(log)
    assert sum(log[f"router/fmri/expert{k}"] for k in range(2)) == pytest.approx(1, abs=1e-3)


class Killed(BaseException):
    """As sudden as a power cut: nothing catches it."""


def killed_at(step, monkeypatch):
    training_step = StageTrainer.training_step

    def train(self, *arguments, **options):
        if self.state.global_step == step:
            raise Killed
        return training_step(self, *arguments, **options)

    monkeypatch.setattr(StageTrainer, "training_step", train)


def test_a_stopped_run_with_workers_goes_on_as_if_it_had_never_stopped(settings, tmp_path, monkeypatch):
    """One process that is killed at any moment is another test's, in tests/safety."""
    seen = []
    compute_loss = StageTrainer.compute_loss

    def watch(self, model, inputs, *arguments, **options):
        seen.append(inputs["keys"])
        return compute_loss(self, model, inputs, *arguments, **options)

    monkeypatch.setattr(StageTrainer, "compute_loss", watch)
    recipe = make(settings, save_every=2, micro_batch=2, workers=2, augment=True)
    whole = run(recipe, tmp_path / "whole")
    order, seen[:] = list(seen), []
    killed_at(5, monkeypatch)
    with pytest.raises(Killed):
        run(recipe, tmp_path / "broken")
    monkeypatch.undo()
    monkeypatch.setattr(StageTrainer, "compute_loss", watch)
    a_step = len(order) // recipe.steps
    del seen[4 * a_step :]  # what ran behind the last checkpoint is lost
    again = run(recipe, tmp_path / "broken")
    assert seen == order
    assert losses(again) == losses(whole)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


def test_bad_files_are_skipped_named_and_counted(settings, scans, tmp_path):
    (scans / "3.npy").write_bytes(b"no array")
    (scans / "7.npy").unlink()
    folder = run(make(settings, steps=30), tmp_path / "runs")
    named = [json.loads(line)["why"] for line in (folder / "skipped.jsonl").read_text().splitlines()]
    assert any("3.npy" in why for why in named)
    assert any("7.npy" in why for why in named)
    last = json.loads((folder / "losses.json").read_text())[-2]
    assert last["skipped/fmri captions.tsv"] == len(named)


def test_a_batch_that_does_not_fit_is_named(settings, tmp_path, monkeypatch):
    from transformers import Trainer

    def full(self, *arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "compute_loss", full)
    with pytest.raises(RecipeError, match=r"batch of 4 examples .* fmri \[20\]; .* the longest of 4 .* 'micro_batch'"):
        run(make(settings), tmp_path / "runs")


def test_a_model_that_lacks_a_kind_says_so(settings, tmp_path, config):
    config.modalities.pop("fmri")
    (tmp_path / "toy.json").write_text(config.to_json_string(use_diff=False))
    with pytest.raises(RecipeError, match="is of kind fmri, which this model lacks; it knows audio, depth"):
        run(make(settings), tmp_path / "runs")


def test_held_out_losses_and_answers_are_written(settings, scans, tmp_path):
    samples = {"every": 3, "ask": [{"fmri": str(scans / "0.npy"), "question": "w9"}], "tokens": 3}
    held_out = [{**settings["data"][0], "name": "held out"}]
    recipe = make(settings, evaluation=held_out, evaluate_every=3, samples=samples, report=["tensorboard"])
    folder = run(recipe, tmp_path / "runs")
    log = json.loads((folder / "losses.json").read_text())
    assert [line["step"] for line in log if "eval_held out_loss" in line] == [3, 6]
    assert any("w9 →" in line.get("answers", "") for line in log)
    assert "w9" in (folder / "answers/step-000003.html").read_text()
    assert list((folder / "logs").iterdir())


def test_pretrained_parts_are_taken_and_others_refused(settings, toy, tmp_path):
    import open_clip

    from train.build import start_folder

    visual = open_clip.model.CLIPVisionCfg(layers=2, width=16, head_width=8, patch_size=14, image_size=28)
    text = open_clip.model.CLIPTextCfg(context_length=4, vocab_size=8, width=8, heads=1, layers=1)
    clip = open_clip.CLIP(8, visual, text, quick_gelu=True)
    name = tmp_path / "toy-clip.json"
    vision = {"layers": 2, "width": 16, "head_width": 8, "patch_size": 14, "image_size": 28}
    words = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    name.write_text(json.dumps({"embed_dim": 8, "quick_gelu": True, "vision_cfg": vision, "text_cfg": words}))
    open_clip.add_model_config(name)
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    encoder = f"toy-clip/{tmp_path / 'clip.pt'}"
    recipe = make(settings, parts={**toy["parts"], "encoder": encoder})
    found = weights(start_folder(recipe, tmp_path / "runs"))
    assert torch.equal(found["encoder.class_embedding"], clip.visual.class_embedding)
    assert torch.equal(found["tokenizers.image.conv.weight"], clip.visual.conv1.weight)
    llm = load_file(tmp_path / "llm" / "model.safetensors")
    assert torch.equal(found["language_model.model.embed_tokens.weight"], llm["model.embed_tokens.weight"])
    with pytest.raises(ModelError, match="has no tokenizer that loads"):
        start_folder(make(settings, name="b", parts={"language_model": str(tmp_path)}), tmp_path / "runs")
    shutil.copytree(toy["parts"]["language_model"], tmp_path / "wide")
    preset = json.loads((tmp_path / "toy.json").read_text())
    preset["text_config"]["intermediate_size"] = 64
    (tmp_path / "toy.json").write_text(json.dumps(preset))
    with pytest.raises(ModelError, match=r"has \[48, 32\] for .* where \[64, 32\] is expected"):
        start_folder(make(settings, name="c"), tmp_path / "runs")


def test_the_command_line_checks_all_recipes_first(settings, tmp_path, capsys):
    from train.__main__ import main

    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(settings))
    bad.write_text(yaml.safe_dump(settings | {"steps": -1}))
    assert main([str(good), str(bad), "--runs", str(tmp_path / "runs")]) == 1
    assert "steps: found -1" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main([str(good), "--check"]) == 0
    said = capsys.readouterr().out
    assert "toy: 6 steps of 4 samples; 0.0 of 0.1 million parameters train (tokenizers, projector); about" in said
    gone = settings | {"data": [{"kind": "fmri", "source": "captions", "path": str(tmp_path / "gone.tsv")}]}
    good.write_text(yaml.safe_dump(gone))
    assert main([str(good), "--check"]) == 1
    assert "gone.tsv" in capsys.readouterr().err


def test_checkpointing_activations_changes_memory_and_not_losses(settings, tmp_path):
    plain = run(make(settings, name="plain", steps=3), tmp_path / "runs")
    recomputed = run(make(settings, name="recomputed", steps=3, gradient_checkpointing=True), tmp_path / "runs")
    assert losses(recomputed) == pytest.approx(losses(plain), rel=1e-5)


def test_bfloat16_keeps_what_trains_in_float32(settings, tmp_path):
    plain = run(make(settings, name="plain", steps=3), tmp_path / "runs")
    short = run(make(settings, name="short", steps=3, precision="bfloat16"), tmp_path / "runs")
    assert losses(short) == pytest.approx(losses(plain), rel=0.02)
    checkpoint = weights(tmp_path / "runs/short/checkpoints/checkpoint-2")
    assert {value.dtype for value in checkpoint.values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["4bit", "8bit"])
def test_an_adapter_trains_on_a_quantised_llm(settings, tmp_path, mode):
    run(make(settings, name="whole", steps=1), tmp_path / "runs")
    later = {key: value for key, value in settings.items() if key not in ("preset", "parts")}
    adapter = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
    later |= {"init": "whole", "train": ["adapter"], "adapter": adapter, "objective": "chat", "steps": 3}
    before, after = weights(tmp_path / "runs/whole"), weights(run(make(later, quantize=mode), tmp_path / "runs"))
    assert any(value.any() for name, value in after.items() if "lora_B" in name)
    plain = {name.replace(".base_layer", ""): value for name, value in after.items()}
    assert all(torch.equal(value, plain[name]) for name, value in before.items())  # whole, not the quantised
