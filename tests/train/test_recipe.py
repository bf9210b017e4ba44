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
        ({"lerning_rate": 1}, "The key 'lerning_rate' is not known; choose one of name, objective, train"),
        ({"batch": None}, "The key 'batch' is missing"),
        ({"steps": "many"}, "'steps' is 'many'; expected int"),
        ({"train": "projector"}, "'train' is 'projector'; expected list"),
        ({"train": ["projektor"]}, "The train 'projektor' is not known; choose one of tokenizers, encoder, projector"),
        ({"objective": "anker"}, "'anker' is not known; choose one of anchor, contrast, caption, prefix, chat"),
        ({"data": [{"kind": "smell", "source": "items"}]}, "The kind 'smell' is not known; choose one of image"),
        ({"data": [{"kind": "image", "sauce": "items"}]}, "The key 'sauce' is not known; choose one of kind, source"),
        ({"data": [{"kind": "image", "source": "captions"}]}, "has no path"),
        ({"data": [{"kind": "image", "source": "items", "weight": 0}]}, "weight 0.0; give a positive one"),
        (
            {"data": [{"kind": "image", "source": "captions", "path": f"{place}/a.tsv"} for place in "xy"]},
            "Two sources are called 'image a.tsv'; give each a 'name'",
        ),
        ({"data": []}, "There is no data"),
        ({"train": []}, "Nothing trains"),
        ({"steps": 0}, "'steps' is 0; give a positive number"),
        ({"micro_batch": 3}, "'batch' (4) is no multiple of 'micro_batch' (3)"),
        ({"init": "onellm-7b"}, "Give either 'preset' (a new model) or 'init'"),
        ({"quantize": "4bit", "train": ["language_model"]}, "A quantised LLM cannot train"),
        ({"from_image": ["video", "radio"]}, "The from_image 'radio' is not known"),
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
    with pytest.raises(RecipeError, match="The key 'step' is not known"):
        load_recipe(write(tmp_path), ["step=7"])


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
    assert Source("text", "instructions", "a/b.json").label == "text b.json"
    assert Source("image", "classes").label == "image"


def test_the_published_schedule_counts_optimiser_steps():
    """The published scripts count micro-batches; recipes count optimiser steps of whole batches."""
    stage = load_recipe(RECIPES[0].parent / "stage1-image.yaml")
    assert isinstance(stage, Recipe)
    assert (stage.batch, stage.learning_rate, stage.steps) == (5120, 5e-5, 200_000)
