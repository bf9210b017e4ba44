"""Nothing, LoRA and routed adapters compared, at toy size; what each does to answers without a file."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import onellm
from onellm.errors import OneLLMError
from train.experiments import adapters
from train.experiments.adapters import (
    NOTHING,
    SHIPPED,
    UNTRAINED,
    VARIANTS,
    adapter_parameters,
    compare,
    recipe_of,
    text_table,
    write_own_answers,
)
from train.experiments.plots import routing
from train.experiments.results import slug
from train.recipe import Recipe, build
from train.small.ask import ask_all
from train.small.drift import Original
from train.small.plain_questions import HELD_OUT, training_questions

LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
ROUTED, LORA_TEXT = "routed adapters, text in the mix", "LoRA, text in the mix"
QUESTIONS = [f"w{number} w{number + 1} w{number + 2}" for number in range(5, 30, 5)]


@pytest.fixture
def recipe(corpus, make_model, processor, tmp_path):
    """Return a recipe that starts from a random model with LoRA; scans and text are in its mix."""
    start = tmp_path / "start"
    model = make_model(adapter=LORA)
    for weight in model.language_model.parameters():  # a random LLM of the usual scale hardly looks at its prompt
        torch.nn.init.normal_(weight, std=0.4) if weight.dim() > 1 else None
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(weight)
    model.save_pretrained(start)
    processor.save_pretrained(start)
    talk = [{"from": "human", "value": "w5 w6"}, {"from": "gpt", "value": "w7 w8"}]
    (tmp_path / "text.json").write_text(json.dumps([{"conversations": talk}] * 8))
    values = {
        "name": "toy",
        "init": str(start),
        "config": {"adapter": None},
        "adapter": {"type": "routed", "rank": 4, "groups": 2, "temperature": 1, "dropout": 0.0},
        "objective": "chat",
        "train": ["adapter"],
        "data": [
            {"kind": "fmri", "source": "items"},
            {"kind": "text", "source": "instructions", "path": str(tmp_path / "text.json")},
        ],
        "steps": 4,
        "batch": 4,
        "learning_rate": 0.03,
        "warmup": 0,
        "save_precision": "float32",
    }
    return build(Recipe, values)


def test_the_table_from_one_command(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "HELD_OUT", QUESTIONS)
    out, runs = tmp_path / "found.json", tmp_path / "runs"
    names = [NOTHING, LORA_TEXT, ROUTED]
    said = compare(recipe, out, runs, [0], "test", 4, names)
    results = json.loads(out.read_text())["found"]
    nothing, lora, routed = (results[name]["0"] for name in names)
    assert nothing["parameters"] == 0 and nothing["n"] == {"fmri": 4}
    same = pytest.approx({"identical": 1, "divergence": 0}, abs=1e-6)
    for found in (nothing, lora):  # LoRA is off without a file
        assert {key: found["text"]["as it is"][key] for key in ("identical", "divergence")} == same
    for found in (lora["text"]["always on"], routed["text"]["as it is"]):
        assert found["divergence"] > 1e-4
    assert np.allclose(np.sum(routed["weights"], axis=-1), 1, atol=1e-5)
    assert np.shape(routed["weights"]) == (2, 2, 2)
    assert f"| {ROUTED} | {routed['parameters']:,} |" in said
    assert f"| {LORA_TEXT}, always on |" in said
    assert out.with_suffix(".svg").read_text().count("<polyline") == 4

    before, after = (load_file(runs / name / "model.safetensors") for name in (NOTHING, f"{slug(ROUTED)}-0"))
    # all else is as it was, but for the noun classifiers, which opening the data solves; a toy scan has none
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {name.split(".")[0] for name in set(after) - set(before)} == {"adapters"}
    assert all(after[f"adapters.layers.0.up.{route}.weight"].any() for route in range(2))

    began = out.stat().st_mtime_ns
    assert compare(recipe, out, runs, [0], "test", 4, names) == said
    assert out.stat().st_mtime_ns == began  # nothing was measured twice
    with pytest.raises(OneLLMError, match="holds results of other settings; give another file with --out"):
        compare(recipe, out, runs, [0], "dev", 4, names)
    with pytest.raises(OneLLMError, match="holds models of other settings; give another folder with --runs"):
        compare(recipe.changed(steps=recipe.steps + 1), tmp_path / "other.json", runs, [0], "test", 4, names)


def test_without_an_adapter_the_llm_answers_alone(recipe, tmp_path):
    folder = adapters.train(NOTHING, recipe, 0, tmp_path / "runs")
    chat = onellm.load(str(folder), quantize="none", plain=True)
    assert chat.model.config.adapter is None
    ids = chat.processor.apply_chat_template([{"role": "user", "content": QUESTIONS[0]}])["input_ids"]
    alone = chat.model.language_model.generate(ids, max_new_tokens=12, do_sample=False)
    assert torch.equal(chat.model.generate(input_ids=ids, max_new_tokens=12, do_sample=False), alone)


def test_what_is_not_trained_is_measured_once(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "HELD_OUT", QUESTIONS)
    out = tmp_path / "found.json"
    compare(recipe, out, tmp_path / "runs", [0, 1], "test", 4, [NOTHING, SHIPPED])
    results = json.loads(out.read_text())["found"]
    assert {name: list(seeds) for name, seeds in results.items()} == {NOTHING: ["0"], SHIPPED: ["0"]}
    assert results[SHIPPED]["0"]["parameters"] > 0
    assert results[SHIPPED]["0"]["text"]["as it is"]["identical"] == 1
    assert not out.with_suffix(".svg").exists()  # there is no router to draw


def test_perplexity_is_that_of_the_llms_own_loss(recipe, tmp_path):
    chat = onellm.load(str(adapters.train(NOTHING, recipe, 0, tmp_path / "runs")), quantize="none", plain=True)
    original = Original(chat, QUESTIONS[:1])
    prompt, _ = chat.processor.encode([{"role": "user", "content": QUESTIONS[0]}])
    answer = chat.processor.tokenizer(original.answers[0], add_special_tokens=False)["input_ids"]
    ids = torch.tensor([prompt + answer])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    loss = chat.model.language_model(ids, labels=labels).loss
    assert original.compare(chat).perplexity == pytest.approx(float(loss.detach().exp()), rel=1e-4)


def test_files_move_one_route_and_text_the_other(recipe, tmp_path):
    """With a router that has decided, a change learns from its own rows alone."""
    from train.build import load

    model = load(recipe, tmp_path / "start", torch.float32).train()
    with torch.no_grad():
        model.adapters.modality.weight.copy_(torch.stack([torch.ones(32), -torch.ones(32)]))
        for layer in model.adapters.layers:
            layer.router.weight.copy_(torch.stack([torch.full((32,), 9.0), torch.full((32,), -9.0)]))
    first = model.adapters.layers[0]
    ids = torch.tensor([[5, 6, 7, 8]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert first.up[0].weight.grad.abs().max() > 1e-6 and not first.up[1].weight.grad.abs().max() > 1e-12
    model.zero_grad()
    modality = model.config.modalities["fmri"]["token_id"]
    ids = torch.tensor([[5, *[modality] * model.config.length_of("fmri"), 6, 7]])
    labels = ids.masked_fill(ids == modality, -100)
    model(input_ids=ids, media={"fmri": [torch.rand(20)]}, labels=labels).loss.backward()
    assert first.up[1].weight.grad.abs().max() > 1e-6 and not first.up[0].weight.grad.abs().max() > 1e-12


def test_variants_differ_in_what_they_are_named_after(recipe, tmp_path):
    found = {name: recipe_of(name, recipe, 3, tmp_path) for name in VARIANTS if name not in UNTRAINED}
    assert len({variant.name for variant in found.values()}) == len(found)
    for name, variant in found.items():
        assert variant.seed == 3 and variant.steps == recipe.steps
        assert ("text in the mix" in name) == any(not source.modalities for source in variant.data)
        assert (variant.adapter == LORA) == ("LoRA" in name)
    with pytest.raises(OneLLMError, match="has no LoRA to compare with"):
        adapters.train(NOTHING, recipe, 0, tmp_path)
        recipe_of("LoRA", recipe.changed(init=str(tmp_path / NOTHING)), 0, tmp_path)


def test_parameters_are_counted(recipe, tmp_path):
    from onellm.model.auto import OneLLMConfig

    config = OneLLMConfig.from_pretrained(tmp_path / "start")
    assert adapter_parameters(config) == 2 * 2 * 2 * (32 + 32)  # layers, linears, rank, in and out
    config.adapter = {"type": "routed", "rank": 4}
    way_up = 32 * 4 // 2 + 32
    assert adapter_parameters(config) == 2 * (4 * 32 + 4 + 2 * way_up + 2 * 32 + 2) + 2 * 32


def test_text_to_learn_is_what_the_llm_says_to_the_end(recipe, tmp_path):
    chat = onellm.load(str(adapters.train(NOTHING, recipe, 0, tmp_path / "runs")), quantize="none", plain=True)
    out = tmp_path / "own.json"
    count = write_own_answers(chat, QUESTIONS, out)
    said = dict(zip(QUESTIONS, ask_all(chat, [([], question) for question in QUESTIONS], 64), strict=True))
    talks = [[turn["value"] for turn in talk["conversations"]] for talk in json.loads(out.read_text())]
    assert 0 < count == len(talks) and all(said[question] == answer for question, answer in talks)
    out.unlink()
    with torch.no_grad():
        chat.model.get_output_embeddings().weight[60:] = 0  # the special tokens: no answer ends any more
    with pytest.raises(OneLLMError, match=f"None of {len(QUESTIONS)} answers of nothing"):
        write_own_answers(chat, QUESTIONS, out)
    assert not out.exists()


def test_held_out_questions_are_not_trained_on():
    asked = training_questions(1000)
    assert len(HELD_OUT) == len(set(HELD_OUT)) == 50
    assert len(set(asked)) == len(asked) == 320
    assert not set(asked) & set(HELD_OUT)
    assert training_questions(20) == training_questions(20)


def test_the_table_and_the_drawing_have_every_run():
    figures = {"identical": 0.5, "divergence": 0.25, "perplexity": 3.0}
    runs = {"0": {"text": {"as it is": figures}}, "1": {"text": {"as it is": figures | {"identical": 0.7}}}}
    assert text_table({"routed adapters": runs}).endswith(
        "| routed adapters | 0.60 ± 0.14 | 0.25 ± 0.00 | 3.00 ± 0.00 |"
    )
    drawn = routing({"a<b": [[[[0.5, 0.5], [0.3, 0.7]]] * 3] * 2})
    assert drawn.count("<polyline") == 8 and "a&lt;b" in drawn and "0.30" in drawn and "0.70" in drawn
