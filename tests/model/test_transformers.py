"""What users of transformers expect of a model class, tried on a tiny random one."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    CompileConfig,
    DynamicCache,
    StaticCache,
    TextIteratorStreamer,
    TextStreamer,
    pipeline,
)

from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.model.runtime.kv_cache import GrowingCache

ROOT = Path(__file__).parents[2]
PRETRAINED = ROOT / "onellm/pretrained"
ADAPTER = {"adapter": {"r": 4, "target_modules": ["q_proj", "v_proj"]}}
TOKENS = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


def prompt(model, *modalities, text=(3, 4)):
    """Token ids: the text, every file's placeholders, then 7."""
    ids = list(text)
    for modality in modalities:
        ids += [model.config.modalities[modality]["token_id"]] * model.config.length_of(modality)
    return torch.tensor([ids + [7]])


def media_of(tensors, *modalities):
    """One tensor for every kind."""
    media = {}
    for modality in modalities:
        media.setdefault(modality, []).append(tensors[modality])
    return media


def loud(model):
    """Give the adapter something to say."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def greedy(model, ids, media, count=6):
    """Answer without any cache: the whole sequence runs for every token."""
    for _ in range(count):
        logits = model(ids, media=media, use_adapter=bool(media)).logits[:, -1]
        logits[:, model.config.text_config.eos_token_id] = -torch.inf  # as min_new_tokens does
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return ids


# ---- configuration, processor, folders ------------------------------------------------------------------------------


def test_the_config_survives_a_folder(config, tmp_path):
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is OneLLMConfig
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()


def test_a_sharded_folder_loads_in_any_precision(model, processor, tensors, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert type(AutoProcessor.from_pretrained(tmp_path)) is OneLLMProcessor
    ids, media = prompt(model, "image"), media_of(tensors, "image")
    for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
        loaded = auto.from_pretrained(tmp_path, low_cpu_mem_usage=True)
        assert type(loaded) is OneLLMForConditionalGeneration
        assert torch.equal(loaded(ids, media=media).logits, model(ids, media=media).logits)
    half = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    logits = half(ids, media=media).logits
    assert logits.dtype == torch.bfloat16
    assert torch.allclose(logits.float(), model(ids, media=media).logits, atol=0.05)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_of_the_llm_can_be_chosen(model, tmp_path, attention, tensors):
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation=attention)
    assert loaded.language_model.config._attn_implementation == attention
    ids, media = prompt(model, "fmri"), media_of(tensors, "fmri")
    assert torch.allclose(loaded(ids, media=media).logits, model(ids, media=media).logits, atol=1e-5)


def test_flash_attention_is_allowed_where_it_is_installed(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert model._supports_flash_attn
    with pytest.raises((ImportError, ValueError), match="(?i)flash"):  # not "does not support"
        AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="flash_attention_2")


# ---- generate -------------------------------------------------------------------------------------------------------

CACHES = {
    "dynamic": lambda model: {},
    "static": lambda model: {"cache_implementation": "static"},
    "own dynamic": lambda model: {"past_key_values": DynamicCache(config=model.config.text_config)},
    "growing": lambda model: {"past_key_values": GrowingCache()},
    "own static": lambda model: {"past_key_values": StaticCache(model.config.text_config, max_cache_len=40)},
    "prefill in chunks": lambda model: {"prefill_chunk_size": 5},
    "prompt lookup": lambda model: {"prompt_lookup_num_tokens": 3},
    "no cache asked for": lambda model: {"use_cache": False},
}


@pytest.mark.parametrize("cache", CACHES)
def test_every_cache_gives_the_uncached_answer(make_model, tensors, cache):
    model = loud(make_model(**ADAPTER))
    ids, media = prompt(model, "image", "point", text=(7, 3, 4)), media_of(tensors, "image", "point")  # 7 to look up
    expected = greedy(model, ids, media)
    assert torch.equal(model.generate(ids, media=media, **TOKENS, **CACHES[cache](model)), expected)


def test_a_quantised_cache_asks_for_its_library(model, tensors):
    ids, media = prompt(model, "image"), media_of(tensors, "image")
    with pytest.raises(ImportError, match="quanto"):
        model.generate(ids, media=media, cache_implementation="quantized", **TOKENS)


@pytest.mark.parametrize("kind_of_cache", ["own dynamic", "growing", "own static"])
@pytest.mark.parametrize("first, second", [(["image"], ["audio"]), ([], ["imu"]), (["image"], [])])
def test_a_kept_cache_continues_a_conversation(make_model, tensors, monkeypatch, kind_of_cache, first, second):
    model = loud(make_model(**ADAPTER))
    cache = CACHES[kind_of_cache](model)
    start = model.generate(prompt(model, *first), media=media_of(tensors, *first), **TOKENS, **cache)
    ids = torch.cat([start, prompt(model, *second, text=(8, 9))], dim=1)
    media = media_of(tensors, *first, *second)
    expected = greedy(model, ids, media)
    encoded = []
    plain = model.soft_tokens
    monkeypatch.setattr(
        model, "soft_tokens", lambda modality, *args: encoded.append(modality) or plain(modality, *args)
    )
    assert torch.equal(model.generate(ids, media=media, **TOKENS, **cache), expected)
    assert encoded == second


def test_a_kept_cache_continues_a_padded_batch(make_model, tensors):
    model = loud(make_model(**ADAPTER))
    long, short = prompt(model, "image", "fmri"), prompt(model, "fmri")
    ids = torch.cat([long, torch.nn.functional.pad(short, (long.shape[1] - short.shape[1], 0))])
    media = {"image": [tensors["image"]], "fmri": [tensors["fmri"], tensors["fmri"] * 0.1]}
    mask = (ids != 0).long()
    cache = DynamicCache(config=model.config.text_config)
    start = model.generate(ids, attention_mask=mask, media=media, past_key_values=cache, **TOKENS)
    ids = torch.cat([start, prompt(model, "imu", text=(8, 9)).expand(2, -1)], dim=1)
    mask = torch.cat([mask, torch.ones(2, ids.shape[1] - mask.shape[1], dtype=torch.long)], dim=1)
    media["imu"] = [tensors["imu"], tensors["imu"] * 0.2]
    again = model.generate(ids, attention_mask=mask, media=media, past_key_values=cache, **TOKENS)
    assert torch.equal(again, model.generate(ids, attention_mask=mask, media=media, **TOKENS))
    padding = long.shape[1] - short.shape[1]
    alone = greedy(model, ids[1:, padding:], {"fmri": media["fmri"][1:], "imu": media["imu"][1:]})
    assert torch.equal(again[1:, padding:], alone)


def test_a_cache_may_end_inside_a_file(model, tensors):
    ids, media = prompt(model, "image", "image", text=range(3, 8)), {"image": [tensors["image"], tensors["image"] / 2]}
    expected = model(ids, media=media).logits[:, -1]
    settings = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
    for known in range(1, ids.shape[1]):
        cache = DynamicCache(config=model.config.text_config)
        model(inputs_embeds=model.embed(ids, media)[:, :known], past_key_values=cache)
        output = model.generate(ids, media=media, past_key_values=cache, **settings)
        assert torch.allclose(output.logits[0], expected, atol=1e-6)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_mixed_batch_answers_row_by_row(make_model, tensors, cache):
    """Files of several kinds, one row without any, where the adapter must keep silent."""
    model = loud(make_model(**ADAPTER))
    rows = [
        (prompt(model, "image", "fmri"), media_of(tensors, "image", "fmri")),
        (prompt(model, text=(9, 8)), {}),
        (prompt(model, "audio", text=(5,)), media_of(tensors, "audio")),
        (prompt(model, "image", text=(6, 6, 6)), {"image": [tensors["image"] * 0.1]}),
    ]
    length = max(ids.shape[1] for ids, _ in rows)
    ids = torch.cat([torch.nn.functional.pad(ids, (length - ids.shape[1], 0)) for ids, _ in rows])
    mask = torch.stack([torch.arange(length) >= length - ids.shape[1] for ids, _ in rows]).long()
    media = {"image": [rows[0][1]["image"][0], rows[3][1]["image"][0]], "fmri": rows[0][1]["fmri"], **rows[2][1]}
    together = model.generate(ids, media=media, attention_mask=mask, **TOKENS, **CACHES[cache](model))
    alone = [greedy(model, *row)[0, -6:] for row in rows]
    assert torch.equal(together[:, -6:], torch.stack(alone))
    joined = model.generate(ids, media=[row[1] for row in rows], attention_mask=mask, **TOKENS)
    assert torch.equal(joined, together)
    assert not torch.equal(model.generate(rows[1][0], use_adapter=True, **TOKENS)[0, -6:], alone[1])


def test_positions_count_from_the_first_real_token(model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        model.language_model.model.rotary_emb,
        "forward",
        lambda x, position_ids, plain=model.language_model.model.rotary_emb.forward: (
            seen.append(position_ids.tolist()) or plain(x, position_ids)
        ),
    )
    model.generate(torch.tensor([[0, 0, 3, 4], [5, 6, 7, 8]]), attention_mask=torch.tensor([[0, 0, 1, 1], [1] * 4]),
                   max_new_tokens=2, min_new_tokens=2)  # fmt: skip
    assert seen == [[[0, 0, 0, 1], [0, 1, 2, 3]], [[2], [4]]]


def test_sampling_beams_and_dictionaries(model, tensors):
    ids, media = prompt(model, "image"), media_of(tensors, "image")
    torch.manual_seed(0)
    drawn = model.generate(ids, media=media, do_sample=True, top_p=0.9, num_return_sequences=3, max_new_tokens=4)
    assert torch.equal(drawn[:, : ids.shape[1]], ids.expand(3, -1))  # the placeholders are still there
    assert len({tuple(row.tolist()) for row in drawn}) > 1
    beams = model.generate(
        ids,
        media=media,
        num_beams=3,
        num_return_sequences=2,
        max_new_tokens=4,
        return_dict_in_generate=True,
        output_scores=True,
        repetition_penalty=1.2,  # reads the prompt, whose placeholders are no words
    )
    assert torch.equal(beams.sequences[:, : ids.shape[1]], ids.expand(2, -1))
    assert beams.sequences_scores[0] >= beams.sequences_scores[1]


def test_the_logits_of_the_prompt_are_not_worked_out(model, tensors, monkeypatch):
    lengths = []
    head = model.get_output_embeddings()
    monkeypatch.setattr(head, "forward", lambda x, plain=head.forward: lengths.append(x.shape[1]) or plain(x))
    model.generate(prompt(model, "image"), media=media_of(tensors, "image"), max_new_tokens=2, min_new_tokens=2)
    assert lengths == [1, 1]


def test_streamers_give_the_answer(model, processor, tensors, capsys):
    ids, media = prompt(model, "image"), media_of(tensors, "image")
    answer = processor.decode(model.generate(ids, media=media, **TOKENS)[0, ids.shape[1] :])
    model.generate(ids, media=media, streamer=TextStreamer(processor.tokenizer, skip_prompt=True), **TOKENS)
    assert capsys.readouterr().out.strip() == answer
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True)
    model.generate(ids, media=media, streamer=streamer, **TOKENS)
    assert "".join(streamer).strip() == answer


def test_the_compiled_step_gives_the_same_tokens(make_model, tensors):
    model = make_model(text_config={"num_hidden_layers": 1})
    ids, media = prompt(model, "image"), media_of(tensors, "image")
    compile_config = CompileConfig(mode="default", dynamic=False, backend="aot_eager")
    compile_config._compile_all_devices = True  # transformers compiles on a GPU only, unless told
    answer = model.generate(ids, media=media, cache_implementation="static", compile_config=compile_config, **TOKENS)
    assert torch.equal(answer, greedy(model, ids, media))
    assert model._compiled_call is not None


# ---- pipeline -------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(processor, tmp_path):
    """A processor for the tiny model, and files of some kinds."""
    for modality in ("image", "video", "depth", "normal"):
        processor.modalities[modality]["input"] = {"size": 28}
    processor.modalities["point"]["input"] = {"points": 50}
    processor.modalities["imu"]["input"] = {"length": 40}
    rng = np.random.default_rng(0)
    files = {"image": tmp_path / "dot.png", "point": tmp_path / "cloud.npy", "imu": tmp_path / "walk.npy"}
    Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(files["image"])
    np.save(files["point"], rng.random((60, 6), np.float32))
    np.save(files["imu"], rng.random((60, 6), np.float32))
    return processor, {modality: str(path) for modality, path in files.items()}


@pytest.mark.parametrize("modality", ["image", "point", "imu", "pillow"])
def test_pipeline_answers_messages_with_any_file(model, asked, modality):
    processor, files = asked
    part = {"type": modality, "path": files.get(modality)}
    if modality == "pillow":
        part = {"type": "image", "image": Image.open(files["image"])}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "w9"}]}]
    inputs = processor.apply_chat_template(messages)
    new = model.generate(**inputs, **TOKENS)[:, inputs["input_ids"].shape[1] :]
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    (answer,) = ask(text=messages, generate_kwargs=TOKENS, return_full_text=False)
    assert answer["generated_text"].strip() == processor.decode(new[0], skip_special_tokens=True)
    (answer,) = ask(messages, generate_kwargs=TOKENS)
    assert answer["generated_text"][:-1] == messages
    assert answer["generated_text"][-1]["role"] == "assistant"


def test_pipeline_loads_the_model_that_is_shipped():
    ask = pipeline("image-text-to-text", model=str(PRETRAINED / "onellm-tiny"), dtype=torch.float32)
    content = [
        {"type": "image", "path": str(ROOT / "examples/image/cat.jpg")},
        {"type": "text", "text": "What is this?"},
    ]
    (answer,) = ask(text=[{"role": "user", "content": content}], max_new_tokens=20, return_full_text=False)
    assert "cat" in answer["generated_text"]


def test_pipeline_answers_many_messages_and_plain_text(model, asked):
    processor, files = asked
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    chats = [
        [{"role": "user", "content": [{"type": "image", "path": files["image"]}, {"type": "text", "text": "w9"}]}],
        [{"role": "user", "content": [{"type": "text", "text": "w9 w8 w7"}]}],
    ]
    settings = {"generate_kwargs": TOKENS, "return_full_text": False}
    answers = [ask(text=chat, **settings)[0]["generated_text"] for chat in chats]
    for size in (1, 2):
        assert [answer[0]["generated_text"] for answer in ask(text=chats, batch_size=size, **settings)] == answers
    asked_plainly = ask(images=files["image"], text="w9", **settings)[0]["generated_text"]
    assert asked_plainly == answers[0]


# ---- devices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "device_map",
    [
        "cpu",
        "auto",
        {"": "cpu"},
        {"stems": "cpu", "tokenizers": "cpu", "encoder": "cpu", "projector": "cpu", "language_model": "disk"},
        {"stems": "disk", "tokenizers": "disk", "encoder": "disk", "projector": "disk", "language_model": "cpu"},
    ],
    ids=["cpu", "auto", "whole", "llm on disk", "encoder on disk"],
)
def test_device_maps(make_model, tensors, tmp_path, device_map):
    model = make_model(projector={"anchor": {"size": 10, "scale": 5.0}})
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    modalities = ["image", "video", "point", "fmri"]
    ids, media = prompt(model, *modalities), media_of(tensors, *modalities)
    assert torch.equal(loaded.generate(ids, media=media, **TOKENS), model.generate(ids, media=media, **TOKENS))


def test_blocks_with_a_residual_are_not_split(model):
    assert {"LlamaDecoderLayer", "ResidualAttentionBlock", "ExpertBlock"} <= set(model._no_split_modules)


# ---- training -------------------------------------------------------------------------------------------------------


def test_peft_trains_saves_and_reloads(model, make_model, tensors, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    ids, media = prompt(model, "image"), media_of(tensors, "image")
    before = model(ids, media=media).logits.detach().clone()
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    tuned = get_peft_model(model, settings).train()
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=1.0)
    for _ in range(2):  # after the first step the up-projections are no longer 0
        tuned(input_ids=ids, media=media, labels=ids.clamp(max=63)).loss.backward()
        optimiser.step()
    tuned.eval()
    after = tuned(input_ids=ids, media=media).logits
    assert not torch.allclose(before, after, atol=1e-4)
    tuned.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_model(), tmp_path).eval()
    assert torch.allclose(loaded(input_ids=ids, media=media).logits, after, atol=1e-6)
    answer = loaded.generate(input_ids=ids, media=media, **TOKENS)
    assert torch.equal(answer, greedy(loaded, ids, media))


def test_activation_checkpointing_changes_no_gradient(make_model, tensors):
    modalities = ["image", "audio", "video"]
    gradients, runs = [], []
    for enable in (False, True):
        model = make_model().train()
        if enable:
            model.activation_checkpointing_enable()
        counts = Counter()
        for part in (model.language_model.model.layers[0], model.encoder.transformer.resblocks[0],
                     model.projector.experts[0][0]):  # fmt: skip
            first = next(part.children())
            name = type(part).__name__
            first.register_forward_pre_hook(lambda *_, name=name, counts=counts: counts.update([name]))
        ids = prompt(model, *modalities)
        model(ids, media=media_of(tensors, *modalities), labels=ids.clamp(max=63)).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        runs.append(counts)
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None), name
        assert gradient is None or torch.allclose(gradient, gradients[1][name], atol=1e-6), name
    assert runs[1] == {name: 2 * count for name, count in runs[0].items()}  # each ran again on the way back
