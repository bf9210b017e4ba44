"""Recipes, batches, questions, a whole little training run, and the measure."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from onellm.errors import OneLLMError
from train.data.items import Item, describe
from train.data.questions import encode_conversations, exchange, full_answer, with_article
from train.evaluation.naming import is_right, pick
from train.recipe import Recipe, RecipeError, Source, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "train" / "recipes").glob("*.yaml"))


def item(**values):
    defaults = {"id": "a", "kind": "fmri", "file": None, "name": "cat", "noun": "cat", "accept": ["cat"]}
    return Item(**defaults | {"group": "g", "split": "train"} | values)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    names = [other.stem for other in RECIPES]
    assert recipe.start is None or recipe.start in names[: names.index(path.stem)]


def test_a_typo_names_the_valid_keys(tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text("name: a\nsteps: 3\nlerning_rate: 1\n")
    with pytest.raises(RecipeError, match="'lerning_rate' is not known; valid keys are name, model"):
        load_recipe(path)
    path.write_text("name: a\n")
    with pytest.raises(RecipeError, match="'model' is missing"):
        load_recipe(path)


def test_basic_noun_comes_first():
    assert describe("German shepherd", "dog") == "dog, German shepherd"
    assert describe("office chair", "chair") == "chair, office chair"
    assert describe("chair", "chair") == "chair"
    assert full_answer("dog, German shepherd", "image") == "The picture shows a dog, a German shepherd."
    assert full_answer("walking upstairs", "imu") == "The person is walking upstairs."


@pytest.mark.parametrize(
    ("name", "expected"), [("owl", "an owl"), ("cat", "a cat"), ("rain", "rain"), ("scissors", "scissors")]
)
def test_articles(name, expected):
    assert with_article(name, "image") == expected


def test_yes_and_no_are_balanced():
    choose = random.Random(0)
    answers = [exchange("image", "cat", "car", choose) for _ in range(2000)]
    verdicts = [answer.startswith("Yes") for _, answer in answers if answer.startswith(("Yes", "No"))]
    assert len(verdicts) > 200
    assert 0.4 < sum(verdicts) / len(verdicts) < 0.6


def test_labels_are_on_the_answers_alone(processor):
    part = {"type": "imu", "features": torch.zeros(3)}
    messages = [
        {"role": "user", "content": [part, {"type": "text", "text": "w3"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "w4 w5"}]},
        {"role": "user", "content": [{"type": "text", "text": "w6"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "w7"}]},
    ]
    batch = encode_conversations(processor, [messages, messages[:2]], lambda part: part["features"])
    labelled = [row[row != -100].tolist() for row in batch["labels"]]
    end = processor.tokenizer.eos_token_id
    assert labelled == [[4, 5, end, 7, end], [4, 5, end]]
    assert batch["input_ids"].shape == batch["labels"].shape
    assert len(batch["media"]["imu"]) == 2


def test_a_right_answer_is_a_whole_word_and_not_a_rejected_one():
    cat = item(accept=["cat"], reject=["wild cat"])
    assert is_right("Two cats.", cat)
    assert not is_right("A catalogue.", cat)
    assert not is_right("A wild cat.", cat)


def test_pick_spreads_evenly():
    assert pick(list(range(10)), 3) == [0, 4, 9]
    assert pick([1, 2], 3) == [1, 2]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Build a corpus of two kinds of brain scan, and of class names."""
    monkeypatch.setenv("ONELLM_CORPUS", str(tmp_path))
    rng = np.random.default_rng(0)
    base = {"w3": rng.normal(size=20), "w4": rng.normal(size=20)}
    lines, rows = [], []
    for index in range(40):
        name = ["w3", "w4"][index % 2]
        rows.append(base[name] + 0.1 * rng.normal(size=20))
        split = "train" if index < 30 else "test"
        lines.append(
            {"id": f"{index}", "kind": "fmri", "file": "rows.npz", "index": index, "name": name, "noun": name}
            | {"accept": [name], "group": str(index), "split": split}
        )
    np.savez(tmp_path / "rows.npz", rows=np.array(rows, np.float32))
    (tmp_path / "fmri.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def make_recipe(**values):
    settings = {"name": "toy", "model": "toy", "objective": "anchor", "train": ["tokenizers", "encoder", "projector"]}
    settings |= {"data": [Source("fmri", "items")], "steps": 60, "batch": 8, "learning_rate": 5e-3, "warmup": 5}
    return Recipe(**settings | values)


@pytest.fixture
def parts(make_model, processor, monkeypatch):
    """A toy model in the place of the preset's."""
    import train.stages as stages

    model = make_model(projector={"anchor": {"size": 3, "scale": 10.0}}, adapter={"r": 2, "target_modules": ["q_proj"]})
    model.projector.anchor.token_ids.copy_(torch.tensor([60, 3, 4]))  # "." is an unknown word, number 60
    monkeypatch.setattr(stages, "build_model", lambda recipe, runs: (model, processor))
    return model, processor


def test_anchor_training_names_held_out_scans(corpus, parts, tmp_path):
    from train.data.items import extract_features, read_items
    from train.stages import run_stage

    model, processor = parts
    folder = run_stage(make_recipe(), tmp_path / "runs")
    trained = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    items = read_items("fmri", "test")
    features = torch.stack(extract_features(trained, processor, items, "test"))
    words = trained.projector.words(trained.encode("fmri", features), "fmri")
    best = trained.projector.anchor.logits(words, trained.get_input_embeddings().weight)[:, 0].argmax(dim=-1)
    assert trained.projector.anchor.token_ids[best].tolist() == [int(item.name[1:]) for item in items]


def test_language_training_changes_only_what_the_recipe_names(corpus, parts, tmp_path):
    from train.stages import freeze, run_stage

    model, _ = parts
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = make_recipe(objective="language", train=["language_model", "projector.start_tags"], steps=2)
    freeze(model, recipe)
    run_stage(recipe, tmp_path / "runs")
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value.float())}
    rounded = {name for name in changed if torch.allclose(before[name], model.state_dict()[name].float(), atol=2e-3)}
    assert any("lora_B" in name for name in changed)
    assert "projector.start_tags.fmri" in changed
    assert all("lora_" in name or "start_tags" in name for name in changed - rounded)


def test_a_killed_run_resumes_as_if_it_had_never_stopped(corpus, parts, tmp_path, monkeypatch):
    from train.data.batches import AnchorBatches
    from train.stages import run_stage

    model, _ = parts
    start = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = make_recipe(steps=8, save_every=3)
    run_stage(recipe, tmp_path / "whole")
    whole = {name: value.float().clone() for name, value in model.state_dict().items()}

    draw, drawn = AnchorBatches.__getitem__, []

    def killed(self, index):
        drawn.append(index)
        if index == 5 and drawn.count(5) == 1:
            raise KeyboardInterrupt
        return draw(self, index)

    monkeypatch.setattr(AnchorBatches, "__getitem__", killed)
    model.float().load_state_dict(start)
    with pytest.raises(KeyboardInterrupt):
        run_stage(recipe, tmp_path / "broken")
    model.float().load_state_dict(start)
    run_stage(recipe, tmp_path / "broken")
    again = {name: value.float() for name, value in model.state_dict().items()}
    assert all(torch.allclose(whole[name], again[name], atol=1e-3) for name in whole)


def test_a_folder_of_another_model_is_refused(parts, tmp_path):
    from safetensors.torch import save_file

    from train.stages import load_trained

    save_file({"nonsense": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(OneLLMError, match="'nonsense'"):
        load_trained(parts[0], tmp_path)
