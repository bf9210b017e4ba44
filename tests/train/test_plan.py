"""What a recipe will take: the published sizes, and a real run beside the estimate."""

from pathlib import Path

import pytest

from onellm.model.auto import OneLLMConfig
from train.plan import plan
from train.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "train" / "recipes"


@pytest.fixture(scope="module")
def plans():
    config = OneLLMConfig.from_preset("onellm-7b")
    found = {}
    for name in ("stage1-image", "instruct", "instruct-qlora"):
        recipe = load_recipe(RECIPES / f"{name}.yaml")
        config.adapter = recipe.adapter
        found[name] = plan(recipe, config, recipe.micro_batch)
    return found


def test_trained_parameters_are_the_published_models(plans):
    assert plans["instruct"].trained == 6_738_415_616  # LLaMA 2 7B
    assert plans["stage1-image"].trained == pytest.approx(384e6, rel=0.01)  # experts 3 x 102.8M, and the small parts
    assert plans["instruct-qlora"].trained == 159_907_840  # rank 64 on seven layers of each of 32 blocks


def test_memory_falls_with_shards_and_quantisation(plans):
    whole, spread = plans["instruct"].memory_bytes(), plans["instruct"].memory_bytes(8)
    assert whole > 16 * 6.7e9
    assert 14e9 < spread < whole / 3
    assert plans["instruct-qlora"].memory_bytes() < 12e9
    assert 40e9 < plans["stage1-image"].memory_bytes() < 52e9  # the paper's Table 8 gives 46 GB for this setting


def test_work_is_a_multiple_of_steps(plans):
    """6 operations a parameter and token, and 2 more for activations computed again."""
    tokens = 3918 * 512 * 2048
    assert plans["instruct"].work_flop == pytest.approx(8 * 6.74e9 * tokens, rel=0.1)
    assert plans["instruct"].days(8, 1e14) == pytest.approx(plans["instruct"].days(16, 1e14) * 2)
