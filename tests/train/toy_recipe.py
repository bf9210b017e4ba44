"""A toy LLM, labelled scans and a recipe of them: a whole run takes a second."""

import numpy as np
import pytest


@pytest.fixture
def toy(tmp_path, config, tokenizer):
    """Write a preset and a random LLM with a tokenizer: the keys of a recipe that start from them."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    folder = tmp_path / "llm"
    LlamaForCausalLM(config.text_config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preset = tmp_path / "toy.json"
    preset.write_text(config.to_json_string(use_diff=False))
    return {"preset": str(preset), "parts": {"language_model": str(folder)}}


@pytest.fixture
def scans(tmp_path):
    """Write labelled brain scans as files: a table of captions beside them."""
    folder = tmp_path / "scans"
    folder.mkdir()
    chance = np.random.default_rng(2)
    base = {name: chance.normal(size=20) for name in ("w3", "w4")}
    lines = ["caption\turl"]
    for index in range(48):
        name = ["w3", "w4"][index % 2]
        np.save(folder / f"{index}.npy", (base[name] + 0.1 * chance.normal(size=20)).astype(np.float32)[None])
        lines.append(f"{name} w{5 + index % 7}\t{index}.npy")
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def settings(toy, scans):
    """Return the values of a whole recipe: captions of brain scans, through the LLM."""
    source = {"kind": "fmri", "source": "captions", "path": str(scans / "captions.tsv")}
    return {
        **toy,
        "name": "toy",
        "objective": "caption",
        "train": ["tokenizers", "projector"],
        "data": [source],
        "steps": 6,
        "batch": 4,
        "learning_rate": 5e-3,
        "warmup": 0,
        "save_every": 2,
        "log_every": 1,
        "save_precision": "float32",
    }
