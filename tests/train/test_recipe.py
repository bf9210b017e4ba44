"""Recipes: what is shipped is valid; what is wrong is said in words, before anything loads."""

from pathlib import Path

import pytest
import yaml

from onellm.hub.registry import MODELS
from onellm.model.configuration import PRESETS
from train.recipe import Recipe, RecipeError, Source, build, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "train" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    known = [other.stem for other in RECIPES] + list(MODELS) + ["transfer"]  # which the command of this name makes
    assert recipe.preset in PRESETS or recipe.init in known


def write(tmp_path, **changes):
    values = {"name": "a", "preset": "onellm-tiny", "objective": "anchor", "train": ["projector"], "steps": 3}
    values |= {"data": [{"kind": "image", "source": "classes"}], "batch": 4, "learning_rate": 0.001}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (values | changes).items() if value is not None}))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"lerning_rate": 1},
            "the key 'lerning_rate' is not known (did you mean 'learning_rate'?); choose one of name, objective, train",
        ),
        ({"batch": None}, "batch: the key is missing"),
        ({"steps": "many"}, "steps: found 'many'; expected a whole number"),
        ({"train": "projector"}, "train: found 'projector'; expected a list"),
        (
            {"train": ["projektor"]},
            "train.0: the module 'projektor' is not known (did you mean 'projector'?); choose one of tokenizers",
        ),
        ({"objective": "anker"}, "found 'anker'; expected one of 'anchor', 'contrast', 'caption', 'prefix', 'chat'"),
        (
            {"data": [{"kind": "smell", "source": "items"}]},
            "data.0.kind: the kind 'smell' is not known; choose one of image",
        ),
        (
            {"data": [{"kind": "image", "sauce": "items"}]},
            "data.0: the key 'sauce' is not known (did you mean 'source'?); choose one of kind, source",
        ),
        ({"data": [{"kind": "image", "source": "captions"}]}, "has no path"),
        (
            {"data": [{"kind": "image", "source": "items", "weight": 0}]},
            "data.0.weight: found 0; expected a number above 0",
        ),
        (
            {"data": [{"kind": "image", "source": "captions", "path": f"{folder}/a.tsv"} for folder in "xy"]},
            "two sources are called 'image a.tsv'; give each a 'name'",
        ),
        ({"data": []}, "data: found []; expected at least 1 in the list"),
        ({"train": []}, "train: found []; expected at least 1 in the list"),
        ({"steps": 0}, "steps: found 0; expected a number above 0"),
        ({"micro_batch": 3}, "'batch' (4) is no multiple of 'micro_batch' (3)"),
        ({"init": "onellm-7b"}, "give either 'preset' (a new model) or 'init'"),
        ({"quantize": "4bit", "train": ["language_model"]}, "a quantised LLM cannot train"),
        ({"from_image": ["video", "radio"]}, "from_image.1: the kind 'radio' is not known"),
        ({"learning_rate": True}, "learning_rate: found True; expected a number;"),
        ({"learning_rate": float("nan")}, "learning_rate: found nan; expected a finite number;"),
        ({"learning_rate": "0.001"}, "learning_rate: found '0.001'; expected a number;"),
        ({"warmup": -3}, "warmup: found -3; expected at least 0;"),
        ({"clip": -1}, "clip: found -1; expected at least 0.0;"),
        ({"steps": 2.0}, "steps: found 2.0; expected a whole number;"),
        ({"augment": 1}, "augment: found 1; expected true or false;"),
        ({"betas": [0.9]}, "betas: found [0.9]; expected at least 2 in the list;"),
        ({"betas": [0.9, 1.0]}, "betas.1: found 1.0; expected a number below 1.0;"),
        ({"betas": [0.9, float("inf")]}, "betas.1: found inf; expected a finite number;"),
        ({"learning_rates": {"projektor": 1.0}}, "learning_rates.projektor: the module 'projektor' is not known (did"),
        ({"parts": {"language_model": 3}}, "parts.language_model: found 3; expected text;"),
        ({"samples": {"evry": 3}}, "samples: the key 'evry' is not known (did you mean 'every'?)"),
        ({"evaluation": ["a.tsv"]}, "evaluation.0: found 'a.tsv'; expected keys and values;"),
        ({"steps": -1, "batch": "x"}, "steps: found -1; expected a number above 0; correct it. batch: found 'x'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, changes, words):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, **changes))
    assert words in str(caught.value)
    assert "recipe.yaml: " in str(caught.value)


def test_a_number_that_yaml_takes_for_a_text_is_a_number(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("0.001", "1e-3"))
    assert load_recipe(path).learning_rate == 0.001


def test_on_is_a_word_and_true_is_true(tmp_path):
    recipe = load_recipe(write(tmp_path), ["adapter={r: 2, on: always}", "augment=true"])
    assert (recipe.adapter, recipe.augment) == ({"r": 2, "on": "always"}, True)


def test_keys_can_be_changed_for_one_run(tmp_path):
    recipe = load_recipe(write(tmp_path), ["steps=7", "config={projector: {experts: 5}}"])
    assert (recipe.steps, recipe.config) == (7, {"projector": {"experts": 5}})
    with pytest.raises(RecipeError, match="the key 'step' is not known"):
        load_recipe(write(tmp_path), ["step=7"])


def test_homogeneous_batches_have_two_spellings(tmp_path):
    for key in ("lockstep", "homogeneous_batches"):
        assert load_recipe(write(tmp_path, **{key: 3})).homogeneous_batches == 3
    assert load_recipe(write(tmp_path)).homogeneous_batches is None


def test_a_changed_recipe_is_checked_again(tmp_path):
    recipe = load_recipe(write(tmp_path))
    changed = recipe.changed(steps=9, data=[recipe.data[0].changed(weight=2)])
    assert (changed.steps, changed.data[0].weight, recipe.steps, recipe.data[0].weight) == (9, 2, 3, 1)
    with pytest.raises(RecipeError, match="steps: found 0; expected a number above 0"):
        recipe.changed(steps=0)


def test_a_file_that_is_no_recipe_is_refused(tmp_path):
    path = tmp_path / "no.yaml"
    for content in ("a: [", "- a list"):
        path.write_text(content)
        with pytest.raises(RecipeError, match="no.yaml"):
            load_recipe(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "missing.yaml")


def test_sources_know_their_kinds():
    assert build(Source, {"kind": ["video", "audio"], "source": "items"}).modalities == ("video", "audio")
    assert build(Source, {"kind": "text", "source": "instructions", "path": "a/b.json"}).modalities == ()
    assert Source(kind="text", source="instructions", path="a/b.json").label == "text b.json"
    assert Source(kind="image", source="classes").label == "image"


def test_the_published_schedule_counts_optimiser_steps():
    """The published scripts count micro-batches; recipes count optimiser steps of whole batches."""
    stage = load_recipe(RECIPES[0].parent / "stage1-image.yaml")
    assert isinstance(stage, Recipe)
    assert (stage.batch, stage.learning_rate, stage.steps) == (5120, 5e-5, 200_000)
