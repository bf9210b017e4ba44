"""Moving a projector to another LLM: the converter, the merged layer, the command."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from onellm.errors import ModelError
from onellm.model.auto import OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.model.projectors.convert import merge
from train.__main__ import main
from train.experiments.transfer import fit, read_words, shared_words, transfer
from train.recipe import load_recipe
from train.trainer import run

OLD, NEXT = 32, 40


def word_level(words, decoder=None):
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    if decoder is not None:
        backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=words[0], bos_token="<s>", eos_token="</s>")


@pytest.fixture
def next_llm(tmp_path):
    """Write another LLM: wider, its vocabulary larger and in another order, without a chat template."""
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=NEXT, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=90,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    words = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in reversed(range(80)))]
    folder = tmp_path / "next"
    LlamaForCausalLM(config).save_pretrained(folder)
    word_level(words).save_pretrained(folder)
    return folder


@pytest.fixture
def old_model(make_model, tokenizer, tmp_path):
    """Write a model to be moved; returns a function of its changes."""

    def write(**changes):
        model = make_model(**changes)
        if model.projector.anchor is not None:
            model.projector.anchor.token_ids.copy_(torch.arange(3, 13))
        folder = tmp_path / "old"
        model.save_pretrained(folder)
        OneLLMProcessor.from_config(tokenizer, model.config).save_pretrained(folder)
        return folder

    return write


def test_a_converter_learns_a_linear_map_and_is_measured_on_unseen_words():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(600, 12, generator=generator)
    target = source @ torch.randn(12, 20, generator=generator) + torch.randn(20, generator=generator)
    words = [f" word{number}" for number in range(600)]
    converter, found = fit(source, target, words)
    assert found.cosine > 0.99 > 0.5 > abs(found.constant)
    assert found.nearest > 0.95 and found.chance == 1 / 600 and 10 < found.held_out < 60
    assert converter(source).norm(dim=-1).mean() == pytest.approx(float(target.norm(dim=-1).mean()), rel=0.02)
    again, _ = fit(source, target, words)
    assert torch.equal(again.weight, converter.weight)
    unrelated = fit(source, torch.randn(600, 20, generator=generator), words)[1]
    assert unrelated.nearest < 0.1 and unrelated.cosine < 0.3


def test_words_that_two_vocabularies_write_in_their_own_ways_are_found():
    bytewise = word_level(["?", "Ġdog", "dog", "<s>", "</s>", "Ġcat", "ĊĊ"], decoders.ByteLevel())
    pieces = word_level(["?", "cat", "▁dog", "▁cat", "<s>", "</s>", "dog"], decoders.Metaspace())
    assert read_words(pieces) == {"cat": 1, " dog": 2, " cat": 3, "dog": 6}
    pairs = shared_words(bytewise, pieces)
    assert {word: pairs[word] for word in (" dog", " cat", "dog")} == {" dog": (1, 2), " cat": (5, 3), "dog": (2, 6)}
    assert not {"\n\n", "cat", "<s>"} & set(pairs)


def test_a_projector_that_ends_in_something_else_is_refused():
    with pytest.raises(ModelError, match="ends in GELU, with which no converter can be merged; expected a linear"):
        merge(nn.Sequential(nn.Linear(4, 8), nn.GELU()), nn.Linear(8, 6))


def test_the_command_moves_a_model_and_its_recipes_go_on(corpus, old_model, next_llm, tmp_path, capsys):
    adapter = {"r": 2, "target_modules": ["q_proj"]}
    old = old_model(projector={"anchor": {"size": 10, "scale": 30.0}}, adapter=adapter)
    moved = tmp_path / "runs" / "transfer"
    assert main(["transfer", "--from", str(old), "--to", str(next_llm), "--out", str(moved)]) == 0
    told = capsys.readouterr().out
    assert "60 shared words" in told and "the mean word" in told and "chance" in told
    model, report = OneLLMForConditionalGeneration.from_pretrained(moved, output_loading_info=True, dtype=torch.float32)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.adapter is None and model.config.projector["converted"] == OLD
    assert [modality["token_id"] for modality in model.config.modalities.values()] == list(range(90, 98))
    llm = LlamaForCausalLM.from_pretrained(next_llm)
    for name, tensor in llm.state_dict().items():
        assert torch.equal(model.language_model.state_dict()[name], tensor)
    processor = OneLLMProcessor.from_pretrained(moved)
    spoken = processor.tokenizer.convert_ids_to_tokens(model.projector.anchor.token_ids)
    assert {f"w{number}" for number in range(3, 13)} <= set(spoken)  # what the old anchor knew, and captions' words
    prompt = processor.apply_chat_template([{"role": "user", "content": "w3"}], tokenize=False)
    assert prompt.startswith("<s>Question: w3") and prompt.endswith("Answer:")
    assert model.generation_config.stop_strings == ["\n"]
    recipe = load_recipe("train/recipes/transfer-tiny-1-warmup.yaml", ["steps=2", "batch=4", "save_precision=float32"])
    recipe.data = [source for source in recipe.data if source.kind == "fmri"]
    warm = OneLLMForConditionalGeneration.from_pretrained(run(recipe, tmp_path / "runs"), dtype=torch.float32)
    before = model.state_dict()
    changed = {name for name, tensor in warm.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("projector.output_proj.fmri.") for name in changed)


def test_a_model_without_an_anchor_says_converted_words(old_model, next_llm, tensors, tmp_path):
    old = old_model()
    transfer(str(old), str(next_llm), tmp_path / "moved")
    before, after = (
        OneLLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        for folder in (old, tmp_path / "moved")
    )
    with torch.no_grad():
        words = [model.soft_tokens("image", [tensors["image"]])[0] for model in (before, after)]
    # one linear map takes all words, tags included, to the new ones: it explains tensors of other kinds too
    assert words[1].shape == (5, NEXT)
    names = list(before.projector.queries)
    pairs = [
        [model.projector.start_tags[modality] for modality in names]
        + [model.projector.end_tags[modality] for modality in names]
        for model in (before, after)
    ]
    basis = torch.cat([torch.stack(pairs[0]), words[0]])
    mapped = torch.cat([torch.stack(pairs[1]), words[1]])
    weight = torch.linalg.lstsq(torch.cat([basis, torch.ones(len(basis), 1)], 1), mapped).solution
    assert torch.allclose(torch.cat([basis, torch.ones(len(basis), 1)], 1) @ weight, mapped, atol=1e-3)


def test_a_new_start_keeps_the_encoder_and_nothing_of_the_projector(old_model, next_llm, tmp_path):
    old = old_model()
    assert transfer(str(old), str(next_llm), tmp_path / "moved", start="new") is None
    before, after = (OneLLMForConditionalGeneration.from_pretrained(f) for f in (old, tmp_path / "moved"))
    assert torch.equal(before.encoder.class_embedding, after.encoder.class_embedding)
    assert not torch.equal(before.projector.queries["image"], after.projector.queries["image"])
    assert after.projector.output_proj["image"][0].out_features == NEXT


def test_what_cannot_be_moved_is_told(old_model, next_llm, tmp_path, capsys):
    old = str(old_model())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="is no LLM that can be loaded.*choose one of smollm2-135m.*gemma-3"):
        transfer(old, str(tmp_path / "empty"), tmp_path / "moved")
    vocabulary = json.loads((next_llm / "tokenizer.json").read_text())
    words = {word.replace("w", "v"): index for word, index in vocabulary["model"]["vocab"].items()}
    vocabulary["model"]["vocab"] = words
    (next_llm / "tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ModelError, match="share 0 words, but a converter between them needs more than 32"):
        transfer(old, str(next_llm), tmp_path / "moved")
    assert not (tmp_path / "moved").exists()
    (tmp_path / "moved").mkdir()
    assert main(["transfer", "--from", old, "--to", str(next_llm), "--out", str(tmp_path / "moved")]) == 1
    assert "moved exists already; remove it, or name another folder with --out." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["transfer-tiny", "vl-vicuna"])
def test_the_warm_up_is_five_times_as_fast_and_of_the_output_alone(name):
    first, second = (load_recipe(f"train/recipes/{name}-{stage}.yaml") for stage in ("1-warmup", "2-tune"))
    assert first.learning_rate == pytest.approx(5 * second.learning_rate)
    assert (first.schedule, first.warmup, first.train) == ("constant", 0, ["output"])
    assert (first.init, second.init) == ("transfer", first.name)
    assert load_recipe(f"train/recipes/{name}-3-instruct.yaml").init == second.name
