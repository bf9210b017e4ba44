"""Forgetting: what each variant trains on, that the frozen one forgets nothing, and the table."""

import pytest
import torch
from safetensors.torch import load_file

from train.experiments import forgetting, results
from train.experiments.forgetting import BEFORE, FROZEN, NEW, OLD, VARIANTS, addition, stages, table
from train.recipe import Recipe, build
from train.trainer import run


@pytest.mark.parametrize("modality", NEW)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_sees_the_new_kind_equally_often(modality, variant):
    recipe = addition(modality, variant, seed=3, scale=0.5)
    shares = {name: sum(s.weight for s in recipe.data if s.kind == name) for name in (modality, *OLD)}
    assert sum(shares.values()) == pytest.approx(1)
    assert recipe.steps * shares[modality] == pytest.approx(forgetting.STEPS / 2, abs=1) and recipe.seed == 3
    replayed = forgetting.REPLAY.get(variant, 0)
    assert 1 - shares[modality] == pytest.approx(replayed) and all((shares[old] > 0) == (replayed > 0) for old in OLD)
    assert recipe.train == ([modality] if variant == FROZEN else ["tokenizers", "encoder", "projector"])
    assert (recipe.init, recipe.from_image) == (stages(3, 0.5)[-1].name, [modality])


def test_the_old_kinds_are_those_of_the_first_stages():
    assert {source.kind for recipe in stages(0, 1) for source in recipe.data} == set(OLD)


def test_what_belongs_to_one_kind_trains_and_all_others_stay_bit_identical(settings, tmp_path):
    recipe = build(Recipe, settings | {"train": ["fmri"], "steps": 4})
    folder = run(recipe, tmp_path / "runs")
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path / "runs/toy/start", folder))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(".fmri" in name for name in moved)
    assert {"tokenizers.fmri.linear.weight", "projector.queries.fmri"} <= moved


def test_results_are_kept_and_finished_stages_used_again(tmp_path, monkeypatch):
    ran, measured = [], []

    def train(recipe, runs):
        ran.append(recipe.name)
        (runs / recipe.name).mkdir(parents=True)
        (runs / recipe.name / "config.json").write_text("{}")
        return runs / recipe.name

    def measure(folder, modalities, split):
        measured.append((folder.name, split))
        lost = 0.5 if "alone" in folder.name else 0
        return {modality: 0.9 if modality == "fmri" else 0.8 - lost for modality in modalities}

    monkeypatch.setattr(results, "run", train)
    monkeypatch.setattr(forgetting, "accuracy", measure)
    out, runs = tmp_path / "out.json", tmp_path / "runs"
    first = forgetting.forget(out, ["fmri"], [0, 1], runs)
    assert len(ran) == 2 * (2 + len(VARIANTS)) and len(measured) == 2 * (1 + len(VARIANTS))
    assert forgetting.forget(out, ["fmri"], [0, 1], runs) == first and len(measured) == 2 * (1 + len(VARIANTS))
    assert "| all parts, the new kind alone | 0.30 ± 0.00" in first and "| -0.50 ± 0.00 | 0.90 ± 0.00 |" in first
    forgetting.forget(out, ["fmri"], [0], runs, split="test")
    assert len(ran) == 2 * (2 + len(VARIANTS)) and {split for _, split in measured} == {"dev", "test"}


def test_the_table_tells_the_change_of_the_old_kinds():
    old = dict.fromkeys(OLD, 0.6)
    found = {BEFORE: {"0": old}, FROZEN: {"0": old | {"image": 0.2, "imu": 0.9}}}
    rows = table("imu", found).splitlines()
    assert rows[2] == "| before | 0.60 | 0.60 | 0.60 | 0.60 | 0.60 | – | – |"
    assert rows[3] == "| shared parts frozen | 0.20 | 0.60 | 0.60 | 0.60 | 0.50 | -0.10 | 0.90 |"
