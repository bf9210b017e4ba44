"""Ablations: every variant is as much work as the default, and the table has means and spreads."""

import pytest

from train.experiments.ablations import KINDS, VARIANTS, recipes_of, table


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_take_the_same_number_of_steps(variant):
    chains = recipes_of(variant, scale=0.1, seed=3)
    recipes = [recipe for chain in chains for recipe in chain]
    steps = sum(recipe.steps for recipe in recipes)
    assert steps == pytest.approx(240, rel=0.03)
    assert {recipe.seed for recipe in recipes} == {3}
    assert {modality for recipe in recipes for source in recipe.data for modality in source.modalities} == set(KINDS)
    assert all(chain[0].preset and not any(later.preset for later in chain[1:]) for chain in chains)


def test_the_table_has_means_and_spreads():
    found = {modality: 0.5 for modality in KINDS}
    accuracy = {"a": {"0": found, "1": found | {"image": 0.7}}, "b": {"0": found}}
    rows = table(accuracy).splitlines()
    assert rows[2].startswith("| a | 0.60 ± 0.14 | 0.50 ± 0.00 |")
    assert rows[3] == "| b | " + " | ".join(["0.50"] * 9) + " |"
