"""Every system's recipes: they train the published parts, and nothing else moves, not by one bit."""

import copy
import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration
from train.build import start_folder
from train.modules import PARTS, freeze, matches
from train.recipe import Recipe, RecipeError, Source, load_recipe
from train.trainer import run

FOLDER = Path(__file__).parents[2] / "train" / "recipes"
TOYS = sorted(path.stem for path in FOLDER.glob("toy-*.yaml"))
# stage -> trained parameters, where the paper or the shapes of the published files say
TRAINED = {
    "llava-1-align": 4_198_400,  # 1024 x 4096 + 4096
    "llava-1.5-align": 20_979_712,  # and 4096 x 4096 + 4096
    "minigpt4-align": 3_149_824,  # 768 x 4096 + 4096
    "minigpt4-instruct": 3_149_824,
    "mplug-owl-instruct": 4_194_304,  # LoRA of rank 8 on queries and values
    "pandagpt-instruct": 33_554_432 + 4_198_400,  # LoRA of rank 32 on four projections, and 1024 x 4096 + 4096
    "lavin-scienceqa": 3_781_296,  # reported as 3.8M
    "lavin-chatbot": 3_781_296,
}
OTHERS = (
    "blip2-represent",
    "blip2-opt-align",
    "blip2-flan-t5-align",
    "instructblip-instruct",
    "llava-1-instruct",
    "llava-1.5-instruct",
    "llava-1.5-lora",
    "mplug-owl-align",
)
FAMILY = (*TRAINED, *OTHERS)


@functools.cache
def recipe_of(name: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.yaml")


def config_of(name: str) -> OneLLMConfig:
    """Return what a stage trains: its first stage's preset with all changes on the way."""
    recipe = recipe_of(name)
    if recipe.init is None:
        config = OneLLMConfig.from_preset(recipe.preset, **recipe.config)
    else:
        config = config_of(recipe.init)
    config.adapter = recipe.adapter or config.adapter
    for settings in config.modalities.values():
        if settings["tokenizer"].get("nouns") == []:  # those of the corpus
            settings["tokenizer"]["nouns"] = ["face", "cat"]
    return config


@pytest.mark.parametrize("name", [*FAMILY, *TOYS])
def test_the_published_number_of_parameters_trains(name):
    with torch.device("meta"):
        model = OneLLMForConditionalGeneration(config_of(name))
    trained = freeze(model, recipe_of(name).train)
    assert 0 < trained <= model.num_parameters()
    assert trained == TRAINED.get(name, trained)


SMALL = {  # of any LLM, encoder or projector: what its configuration calls its sizes
    "text_config": {
        "hidden_size": 32, "d_model": 32, "word_embed_proj_dim": 32, "intermediate_size": 48, "ffn_dim": 48, "d_ff": 48,
        "num_hidden_layers": 2, "num_layers": 2, "num_decoder_layers": 2, "num_attention_heads": 2, "num_heads": 2,
        "num_key_value_heads": 2, "d_kv": 16, "head_dim": 16, "vocab_size": 64, "pad_token_id": 61, "bos_token_id": 62,
        "eos_token_id": 63, "decoder_start_token_id": 61, "dropout": 0.0, "dropout_rate": 0.0,
    },
    "encoder": {"width": 16, "layers": 2, "heads": 2, "hidden": 24, "output": 16},
    "projector": {
        "queries": 3, "hidden": 16, "layers": 2, "heads": 2, "intermediate": 24, "vocabulary": 65,
        "dropout": 0.0, "cross_every": 1,
    },
    "adapter": {"r": 2, "rank": 2, "dropout": 0.0, "lora_dropout": 0.0},
}  # fmt: skip


def shrink(config: OneLLMConfig, adapter: dict | None) -> OneLLMConfig:
    """Return the same parts, small, for brain scans of 20 voxels."""
    whole = copy.deepcopy(config.to_dict()) | {"adapter": adapter}
    for part, sizes in SMALL.items():
        whole[part] = whole[part] and whole[part] | {key: sizes[key] for key in sizes if key in whole[part]}
    encoder, projector = whole["encoder"], whole["projector"]
    encoder.pop("mlp_ratio", None)
    if isinstance(encoder.get("layer"), list):
        encoder["layer"] = [1, 2]
    if encoder.get("adapter"):
        encoder["adapter"] |= {"rank": 2, "dropout": 0.0}
    tokens = {"keep": 4, "drop": 3, "alone": 1}[encoder.get("class_token", "keep")]
    features = tokens * (2 if isinstance(encoder.get("layer"), list) else 1)
    length = None if "queries" in projector else features
    modality = {"token_id": 64, "tokenizer": {"type": "voxels", "voxels": 20, "count": 3}, "length": length}
    return OneLLMConfig(**whole | {"modalities": {"fmri": modality}, "base_parts": {}})


@pytest.fixture
def bert(tmp_path, tokenizer):
    """Write a small BERT that reads as many words as the tokenizer has."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(3)
    BertModel(BertConfig(vocab_size=64, **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def small(tmp_path, tokenizer, scans, bert):
    """Make a small form of a recipe: the same parts train, on captions or questions about scans, in three steps."""

    def make(name: str) -> Recipe:
        recipe = recipe_of(name)
        config = shrink(config_of(name), recipe.adapter or config_of(name).adapter)
        preset, folder = tmp_path / "small.json", tmp_path / "llm"
        preset.write_text(json.dumps(config.to_dict()))
        torch.manual_seed(0)
        model = OneLLMForConditionalGeneration(config_without_adapter(config))
        model.language_model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        parts = {"language_model": str(folder)} | ({"qformer": str(bert)} if config.instructed else {})
        asked = "w9" if recipe.objective == "chat" else None
        source = Source(kind="fmri", source="captions", path=str(scans / "captions.tsv"), prompt=asked)
        return recipe.changed(
            **{"preset": str(preset), "init": None, "parts": parts, "config": {}},
            **{"adapter": None, "data": [source], "steps": 3, "batch": 4, "micro_batch": 2, "warmup": 0, "workers": 0},
            **{"learning_rate": 1e-2, "min_learning_rate": 0.0, "precision": "float32", "save_precision": "float32"},
            **{"augment": False, "temperature": None, "report": [], "save_every": 3, "log_every": 1},
        )

    return make


def config_without_adapter(config: OneLLMConfig) -> OneLLMConfig:
    plain = copy.deepcopy(config)
    plain.adapter = None
    return plain


# a question is read by the queries, and what its own words become behind the last attention reaches nothing
UNREACHED = {
    "instructblip-instruct": [
        "projector.qformer.encoder.layer.1.intermediate.*",
        "projector.qformer.encoder.layer.1.output.*",
    ]
}


@pytest.mark.parametrize("name", FAMILY)
def test_what_trains_moves_and_all_else_stays_bit_by_bit(name, small, tmp_path):
    recipe = small(name)
    folder = run(recipe, tmp_path / "runs")
    before = load_file(tmp_path / "runs" / name / "start" / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    wanted = [pattern for part in recipe.train for pattern in PARTS[part]]
    moved = {key for key in after if not torch.equal(before[key], after[key])}
    assert not [key for key in moved if not matches(key, wanted)]
    still = {key for key in after if matches(key, wanted)} - moved
    assert not [key for key in still if not matches(key, UNREACHED.get(name, []))]


@pytest.mark.parametrize("name", [name for name in FAMILY if recipe_of(name).objective == "chat"])
def test_an_answer_learns_to_end(name, tokenizer):
    config = config_of(name)
    told = [{"role": "user", "content": "w3"}, {"role": "assistant", "content": "w4"}]
    text = tokenizer.apply_chat_template(told, chat_template=config.chat_template, tokenize=False, files=1)
    assert text.endswith((tokenizer.eos_token, *(config.stop_strings or [])))


def test_a_later_model_takes_encoder_and_queries_from_an_earlier_stage(small, tmp_path):
    runs = tmp_path / "runs"
    earlier = load_file(run(small("blip2-represent"), runs) / "model.safetensors")
    recipe = small("blip2-opt-align")
    recipe.parts |= {"encoder": "blip2-represent", "qformer": "blip2-represent"}
    taken = load_file(start_folder(recipe, runs) / "model.safetensors")
    names = {name: name.replace("qformer.layernorm", "qformer.embeddings.layernorm") for name in taken}
    parts = ("tokenizers.", "encoder.", "projector.qformer.", "projector.queries.")
    assert all(torch.equal(taken[name], earlier[names[name]]) for name in taken if name.startswith(parts))
    assert not torch.equal(taken["projector.projection.weight"], earlier["projector.projection.weight"])
    recipe = recipe.changed(name="wrong", parts=recipe.parts | {"qformer": "no-such-stage"})
    with pytest.raises(RecipeError, match="goes on from 'no-such-stage', which is no finished stage"):
        start_folder(recipe, runs)


def test_a_querying_transformer_starts_as_a_bert(small, bert, tmp_path):
    started = load_file(start_folder(small("blip2-represent"), tmp_path / "runs") / "model.safetensors")
    found = load_file(bert / "model.safetensors")
    layer = "projector.qformer.encoder.layer.1."
    for ours, theirs in (
        ("attention.attention.query.weight", "attention.self.query.weight"),
        ("intermediate_query.dense.bias", "intermediate.dense.bias"),
        ("output.LayerNorm.weight", "output.LayerNorm.weight"),
        ("output_query.dense.weight", "output.dense.weight"),
    ):
        assert torch.equal(started[layer + ours], found[f"encoder.layer.1.{theirs}"])
    words = started["projector.qformer.embeddings.word_embeddings.weight"]
    assert torch.equal(words[:64], found["embeddings.word_embeddings.weight"])
    assert len(words) == 65  # and the one that begins a text to be written


def test_a_part_may_learn_at_a_rate_of_its_own(small, tmp_path):
    recipe = small("llava-1.5-lora")
    recipe.learning_rates = {"projector": 1e-7}
    folder = run(recipe, tmp_path / "runs")
    before = load_file(tmp_path / "runs" / recipe.name / "start" / "model.safetensors")
    moved = {
        name: (value - before[name]).abs().max().item()
        for name, value in load_file(folder / "model.safetensors").items()
    }
    assert 0 < max(size for name, size in moved.items() if name.startswith("projector.")) < 1e-6
    assert max(size for name, size in moved.items() if "lora_B" in name) > 1e-3


def test_the_loss_of_an_encoder_decoder_weighs_tokens_not_batches():
    config = shrink(config_of("blip2-flan-t5-align"), None)
    torch.manual_seed(0)
    model = OneLLMForConditionalGeneration(config).eval()
    given = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[8, 9, 63, -100]])}
    mean = model(**given).loss
    assert torch.allclose(model(**given, num_items_in_batch=torch.tensor(12)).loss, mean * 3 / 12)
