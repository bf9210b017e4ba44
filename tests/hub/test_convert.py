"""The published checkpoint becomes a model folder, or one sentence says why not."""

import json
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch
from published_checkpoint import PARAMS, SIZES_7B, published_shapes, published_state, train_tokenizer

from onellm.errors import ModelError
from onellm.hub.convert import convert
from onellm.hub.layouts import plan_with, recognise
from onellm.hub.layouts.onellm import DROPPED
from onellm.model.configuration import OneLLMConfig


def on_meta(shapes):
    return {key: torch.empty(shape, dtype=torch.bfloat16, device="meta") for key, shape in shapes.items()}


def plan(published, params):
    layout = recognise(published, None)
    return plan_with(layout, {layout.rename(key): value for key, value in published.items()}, params)


@pytest.fixture
def state():
    return published_state()


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint with its params.json."""

    def write(state, name="consolidated.00-of-01.pth", **options):
        (tmp_path / "params.json").write_text(json.dumps(PARAMS))
        torch.save(state, tmp_path / name, **options)
        return tmp_path / name

    return write


# ---- names and shapes ---------------------------------------------------------------------------------------------


def test_every_key_of_the_7b_is_used_or_dropped_on_purpose():
    shapes = published_shapes(**SIZES_7B)
    config, tensors = plan(on_meta(shapes), {"dim": 4096, "n_heads": 32, "vocab_size": -1, "norm_eps": 1e-5})
    used = [key for tensor in tensors.values() for key in tensor.sources]
    left = {key.removeprefix("llma.") for key in set(shapes) - set(used)}
    assert len(shapes) == 940 and len(used) == len(set(used)) == 933
    assert left == {key.replace("*", end) for key in DROPPED for end in ("weight", "bias")} & left
    assert "clip.visual.proj" in left and not [key for key in left if not key.startswith("clip.")]
    preset = OneLLMConfig.from_preset("onellm-7b")
    preset.dtype = torch.bfloat16
    assert config.to_dict() == preset.to_dict()


def test_sizes_come_from_the_shapes():
    config, tensors = plan(on_meta(published_shapes()), PARAMS)
    text, modalities = config.text_config, config.modalities
    assert (text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.vocab_size) == (32, 48, 2, 300)
    assert (text.num_attention_heads, text.num_key_value_heads, text.rms_norm_eps) == (4, 4, 1e-5)
    assert config.encoder == {"width": 32, "layers": 2, "heads": 4, "mlp_ratio": 4.0}
    assert config.projector["queries"] == 3 and config.projector["heads"] == 2 and config.projector["experts"] == 2
    assert modalities["image"]["tokenizer"]["size"] == modalities["depth"]["input"]["size"] == 28
    assert modalities["imu"]["tokenizer"]["length"] == modalities["imu"]["input"]["length"] == 40
    assert modalities["fmri"]["tokenizer"]["voxels"] == 20 and modalities["point"]["tokenizer"]["groups"] == 8
    assert [settings["token_id"] for settings in modalities.values()] == list(range(300, 308))


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("llma.norm.weight", [33]),
        ("llma.output.weight", [300, 31]),
        ("llma.layers.1.attention.wk.weight", [32, 16]),
        ("llma.start_tag.rgbd", [1, 32]),
        ("llma.conv1.point.conv1.weight", [32, 6]),
        ("llma.clip.visual.transformer.resblocks.0.ln_1.bias", []),
    ],
)
def test_a_misshapen_key_is_named(key, shape):
    shapes = published_shapes()
    with pytest.raises(ModelError) as error:
        plan(on_meta(shapes | {key: shape}), PARAMS)
    assert f"({key} is {shape} instead of {list(shapes[key])});" in str(error.value)


@pytest.mark.parametrize("key", sorted(set(published_shapes()) & {f"llma.{key}" for key in DROPPED}))
def test_what_is_dropped_may_be_missing(key):
    shapes = published_shapes()
    del shapes[key]
    plan(on_meta(shapes | {"llma.rope.freqs": (64,)}), PARAMS)


@pytest.mark.parametrize("gone", ["norm.weight", "conv1.imu.weight", "layers.0.ffn_norm.weight", "end_tag.rgbn"])
def test_a_missing_key_is_named(gone):
    shapes = published_shapes()
    del shapes[f"llma.{gone}"]
    with pytest.raises(ModelError, match=rf"\(llma\.{gone} is missing\)"):
        plan(on_meta(shapes), PARAMS)


def test_many_faults_are_counted():
    shapes = {key: shape for key, shape in published_shapes().items() if ".routers.imu" not in key}
    with pytest.raises(ModelError) as error:
        plan(on_meta(shapes | {"llma.lora.a": (1,), "llma.lora.b": (1,), "other": (2,)}), PARAMS)
    assert str(error.value).count("llma.routers.imu") == 4
    assert "llma.lora.a is not known; and 2 more)" in str(error.value)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"n_heads": 5}, "n_heads is 5, which does not divide the width 32"),
        ({"expert_heads": "2"}, "expert_heads is '2', which"),
        ({"norm_eps": "small"}, "norm_eps is 'small'"),
    ],
)
def test_params_that_cannot_be(params, words):
    with pytest.raises(ModelError, match=words):
        plan(on_meta(published_shapes()), PARAMS | params)


# ---- files --------------------------------------------------------------------------------------------------------


def test_round_trip(state, save, tmp_path, tensors):
    """Values, dtype and kinds arrive; the rotary pairs move from neighbours to halves; the folder loads and answers."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    train_tokenizer(tmp_path / "tokenizer.model")
    folder = convert(save(state), tmp_path / "out", progress=False)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    ours = model.state_dict()
    assert ours["language_model.lm_head.weight"].dtype == torch.bfloat16
    heads, width = PARAMS["n_heads"], 32
    for name, letter in (("q_proj", "q"), ("k_proj", "k")):
        published = state[f"llma.layers.1.attention.w{letter}.weight"].view(heads, -1, width)
        rows = ours[f"language_model.model.layers.1.self_attn.{name}.weight"].view(heads, -1, width)
        assert torch.equal(rows, torch.cat([published[:, 0::2], published[:, 1::2]], dim=1))
    block = [state[f"llma.resample_layers.1.0.attention.w{x}.weight"] for x in "qkv"]
    assert torch.equal(ours["projector.experts.1.0.qkv.weight"], torch.cat(block))
    block = [state[f"llma.resample_layers.0.1.feed_forward.w{x}.weight"] for x in "13"]
    assert torch.equal(ours["projector.experts.0.1.gate_up.weight"], torch.cat(block))
    assert torch.equal(ours["projector.queries.normal"], state["llma.resample_tokens.rgbn"][0])
    assert torch.equal(ours["projector.start_tags.depth"], state["llma.start_tag.rgbd"][0, 0])
    assert torch.equal(ours["tokenizers.point.layers.0.weight"], state["llma.conv1.point.conv1.weight"][..., 0, 0])

    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "what is this"}]}])
    out = model.float().generate(**inputs, tokenizer=processor.tokenizer, max_new_tokens=3)
    assert out.shape[1] == inputs["input_ids"].shape[1] + 3


def test_prompt_and_stop(state, save, tmp_path):
    """The prompt is the published one, piece for piece as sentencepiece cuts it, and answers end at ###."""
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer, GenerationConfig

    train_tokenizer(tmp_path / "llama.model")
    folder = convert(save(state), tmp_path / "out", tokenizer=tmp_path / "llama.model", progress=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "user", "content": "What is this?"},
        {"role": "assistant", "content": "A naïve  cat."},
        {"role": "user", "content": "why"},
    ]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == (
        "<s> A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions.\n\n"
        "###Human: What is this?\n###Assistant: A naïve  cat.\n###Human: why\n###Assistant:"
    )
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "llama.model"))
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert ids == [1, *pieces.encode(prompt.removeprefix("<s> "))]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    assert GenerationConfig.from_pretrained(folder).stop_strings == ["###"]


def test_prompts_are_the_published_ones_word_for_word(state, save, tmp_path):
    """Typed text is encoded apart from the template, and still gives the tokens of the whole prompt."""
    from onellm.model.auto import AutoProcessor

    train_tokenizer(tmp_path / "llama.model")
    processor = AutoProcessor.from_pretrained(
        convert(save(state), tmp_path / "out", tokenizer=tmp_path / "llama.model", progress=False)
    )
    messages = [
        {"role": "user", "content": "what is this ?"},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "and this ?"},
    ]
    prompt = processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert processor.encode(messages)[0] == processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_of_another_model(state, save, tmp_path):
    for name in ("none.model", "text.model", "small.model"):
        if name == "text.model":
            (tmp_path / name).write_text("no pieces")
        if name == "small.model":
            state = published_state(vocabulary=299)
            train_tokenizer(tmp_path / name)
        words = {"none": "There is no file", "text": "is no sentencepiece file", "small": "has 300 words.*has 299"}
        with pytest.raises(ModelError, match=words[name[:-6]]):
            convert(save(state), tmp_path / "out", tokenizer=tmp_path / name, progress=False)
        assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".out*"))


def test_several_shards(state, save, tmp_path, monkeypatch):
    from onellm.model.auto import OneLLMForConditionalGeneration

    whole = convert(save(state), tmp_path / "whole", progress=False)
    monkeypatch.setattr("onellm.hub.convert.SHARD_BYTES", 100_000)
    parts = convert(tmp_path / "consolidated.00-of-01.pth", tmp_path / "parts", progress=False)
    assert len(list(parts.glob("model-*-of-*.safetensors"))) > 3
    first, second = (OneLLMForConditionalGeneration.from_pretrained(folder).state_dict() for folder in (whole, parts))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class Malice:
    def __reduce__(self):
        return os.system, ("touch malice",)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "There is no file"),
        (lambda path: path.write_text("<html>"), "is no PyTorch checkpoint"),
        (truncated, "is cut off.*download it again"),
        (lambda path: torch.save({"llma.x": Malice()}, path), "holds more than tensors.*not read"),
        (lambda path: path.write_bytes(pickle.dumps(Malice())), "pickle of an old PyTorch"),
        (lambda path: torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False), "save it again"),
        (lambda path: torch.save({"model.embed_tokens.weight": torch.ones(1)}, path), "checkpoint of another model"),
        (lambda path: torch.save([torch.ones(1)], path), "no plain table of tensors"),
        (lambda path: path.with_name("params.json").write_text("{"), "cannot be read as JSON"),
    ],
)
def test_a_file_that_is_something_else(state, save, tmp_path, monkeypatch, spoil, words):
    monkeypatch.chdir(tmp_path)
    path = save(state)
    spoil(path)
    with pytest.raises(ModelError, match=words):
        convert(path, tmp_path / "out", progress=False)
    assert {item.name for item in tmp_path.iterdir()} <= {path.name, "params.json"}


def test_an_existing_folder_and_a_full_disk(state, save, tmp_path, monkeypatch):
    from collections import namedtuple

    path, out = save(state), tmp_path / "out"
    usage = namedtuple("usage", "total used free")(10, 0, 10_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match="needs 0.0 GB.*0.0 GB are free; make room"):
        convert(path, out, progress=False)
    monkeypatch.undo()
    out.mkdir()
    with pytest.raises(ModelError, match="exists already"):
        convert(path, out, progress=False)
    assert not list(out.iterdir()) and not list(tmp_path.glob(".out*"))


def test_a_killed_conversion_leaves_nothing_for_long(state, save, tmp_path, warm):
    """Kill a process while it writes: there is no `out`, and the next run removes what it left."""
    path, out, hidden = save(state), tmp_path / "out", tmp_path / ".part.out"
    code = (
        "import onellm.hub.convert as c, time\n"
        "save = c.save_file\n"
        "c.save_file = lambda *a, **k: (save(*a, **k), time.sleep(600))\n"
        f"c.convert({str(path)!r}, {str(out)!r}, progress=False)"
    )
    with open(os.devnull, "w") as nowhere:
        process = warm.popen(code=code, stderr=nowhere.fileno())
    until = time.monotonic() + 300
    while not (hidden / "model.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.05)
    with pytest.raises(ModelError, match="Another process"):
        convert(path, out, progress=False)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert hidden.exists() and not out.exists()
    (hidden / "stale").touch()
    convert(path, out, progress=False)
    assert not hidden.exists() and not (out / "stale").exists() and (out / "model.safetensors").exists()
    assert not list(tmp_path.glob(".*out*"))


def test_the_shell(state, save, tmp_path, warm):
    """The command prints the folder and nothing else on standard output."""
    done = warm.run(["convert", "--quiet", "--checkpoint", save(state), "--out", tmp_path / "out"])
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}\n"), done.stderr
    assert done.stderr.startswith("No tokenizer.model was given") and len(done.stderr.splitlines()) == 1


def test_memory_does_not_grow_with_the_file(save, tmp_path, monkeypatch):
    """Convert 210 MB in shards of 20 MB: what the process holds at most grows by a few shards."""

    def held(name):  # VmRSS now, VmHWM at most; bytes
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return 1024 * int(line.split()[1])

    sizes = {"width_llm": 1024, "hidden_llm": 2816, "layers": 8}
    path = save({key: torch.zeros(shape, dtype=torch.bfloat16) for key, shape in published_shapes(**sizes).items()})
    assert path.stat().st_size > 200_000_000
    monkeypatch.setattr("onellm.hub.convert.SHARD_BYTES", 20_000_000)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    before = held("VmRSS")
    convert(path, tmp_path / "out", progress=False)
    assert held("VmHWM") - before < 80_000_000
