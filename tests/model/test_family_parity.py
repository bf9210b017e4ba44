"""The systems that transformers has: its class with small random weights, converted, gives the same numbers here."""

import json

import numpy as np
import pytest
import torch
from family_models import SYSTEMS, idefics, llava, save, shake
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.models.idefics.processing_idefics import (
    image_attention_mask_for_packed_input_ids_pt,
    incremental_to_binary_attention_mask,
)

import onellm
from onellm.errors import ModelError
from onellm.hub.convert import convert
from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration, OneLLMProcessor, model_class
from onellm.model.runtime import cpu, quantization

LOGITS = 1e-4
ANSWER = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "num_beams": 1, "no_repeat_ngram_size": 1}
ANSWER |= {"repetition_penalty": 1.0}


@pytest.fixture(scope="module", params=SYSTEMS)
def pair(request, tmp_path_factory):
    """Their model, and ours as it is loaded from the folder that the command makes of theirs."""
    folder = tmp_path_factory.mktemp("theirs")
    theirs = shake(SYSTEMS[request.param]())
    save(theirs, folder)
    out = convert(folder, folder / "out", progress=False)
    ours = OneLLMForConditionalGeneration.from_pretrained(out, dtype=torch.float32).eval()
    ours.folder = out
    assert json.loads((out / "config.json").read_text())["description"] == (
        OneLLMConfig.from_preset(request.param).description
    )
    return theirs, ours


@pytest.fixture
def pictures():
    return torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def prompts(model, *texts):
    """Rows of a picture and a text, padded on the left: ids with our placeholders, and the mask."""
    length = model.config.length_of("image")
    rows = [[model.config.modalities["image"]["token_id"]] * length + list(text) for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])


def theirs_of(model, ours, ids):
    """The same prompt with their placeholder."""
    return ids.masked_fill(ids == ours.config.modalities["image"]["token_id"], model.config.image_token_id)


def questions(model, rows):
    """What a model that reads questions needs, in their form and in ours."""
    if not getattr(model.config, "qformer_config", None) or model.config.model_type != "instructblip":
        return {}, {}
    asked = [torch.tensor([7, 8, 9, 4]), torch.tensor([5, 6])][:rows]
    padded = torch.nn.utils.rnn.pad_sequence(asked, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in asked], batch_first=True)
    return {"qformer_input_ids": padded, "qformer_attention_mask": mask}, {"instructions": {"image": asked}}


@torch.no_grad()
def test_same_logits(pair, pictures):
    theirs, ours = pair
    ids, mask = prompts(ours, [1, 5, 6, 7, 8, 9], [1, 11, 12])
    reads, read = questions(theirs, 2)
    answer = {"decoder_input_ids": torch.tensor([[0, 4, 5], [0, 6, 7]])} if ours.config.is_encoder_decoder else {}
    expected = theirs(
        input_ids=theirs_of(theirs, ours, ids), attention_mask=mask, pixel_values=pictures, **reads, **answer
    ).logits
    found = ours(ids, attention_mask=mask, media={"image": list(pictures)}, **read, **answer).logits
    real = torch.ones(2, 3, dtype=torch.bool) if answer else mask.bool()
    assert found.shape == expected.shape and expected.std() > 0.1
    assert (found - expected)[real].abs().max() < LOGITS


@torch.no_grad()
def test_same_words(pair, pictures):
    """Greedy, with a key-value cache: one prompt, and two of different lengths."""
    theirs, ours = pair
    for rows in ([[1, 5, 6, 7]], [[1, 5, 6, 7, 8, 9], [1, 11, 12]]):
        ids, mask = prompts(ours, *rows)
        seen = pictures[: len(rows)]
        reads, read = questions(theirs, len(rows))
        asked = {"input_ids": theirs_of(theirs, ours, ids), "attention_mask": mask, "pixel_values": seen, **reads}
        expected = theirs.generate(**asked, **ANSWER)[:, -8:]
        found = ours.generate(ids, attention_mask=mask, media={"image": list(seen)}, **read, **ANSWER)
        assert torch.equal(found[:, : ids.shape[1]], ids)
        assert found[:, ids.shape[1] :].tolist() == expected.tolist()
        assert len(set(expected.flatten().tolist())) > 3


# ---- folders as they are found ---------------------------------------------------------------------------------------


def test_an_llm_whose_head_is_its_own(tmp_path):
    """transformers ties it to the embedding unless a checkpoint has both and they differ, as FlanT5's does."""
    theirs = shake(SYSTEMS["blip2-flan-t5-xl"]())
    save(theirs, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["language_model.lm_head.weight"] = 2 * tensors["language_model.shared.weight"]
    tensors["language_model.encoder.embed_tokens.weight"] = tensors["language_model.shared.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours = OneLLMForConditionalGeneration.from_pretrained(convert(tmp_path, tmp_path / "out", progress=False))
    llm = ours.language_model
    assert torch.equal(llm.lm_head.weight, 2 * llm.shared.weight) and not llm.config.scale_decoder_outputs
    assert "language_model.encoder.embed_tokens.weight" not in load_file(tmp_path / "out" / "model.safetensors")


def test_a_folder_of_older_keys_and_pickles(tmp_path, pictures):
    """Keys with the tower's old name, weights in .bin shards, positions saved along, and the LLM in another folder."""
    theirs = shake(llava("llama"))
    save(theirs, tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    older = {key.replace("vision_tower.", "vision_tower.vision_model."): value for key, value in tensors.items()}
    older["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    old, llm = tmp_path / "old", tmp_path / "llm"
    llm.mkdir()
    (tmp_path / "new").rename(old)
    apart = {key.removeprefix("language_model."): older.pop(key) for key in list(older) if "language_model." in key}
    save_file(apart, llm / "model.safetensors")
    (llm / "config.json").write_text(json.dumps(theirs.config.text_config.to_dict()))
    (old / "model.safetensors").unlink()
    names = {key: f"pytorch_model-0000{number % 2 + 1}-of-00002.bin" for number, key in enumerate(older)}
    for file in set(names.values()):
        torch.save({key: older[key] for key in older if names[key] == file}, old / file)
    (old / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    out = convert(old, tmp_path / "out", tokenizer=old, llm=llm, progress=False)
    ours = OneLLMForConditionalGeneration.from_pretrained(out).eval()
    ids, mask = prompts(ours, [1, 5, 6, 7])
    with torch.no_grad():
        expected = theirs(theirs_of(theirs, ours, ids), pixel_values=pictures[:1], attention_mask=mask).logits
        assert (ours(ids, media={"image": [pictures[0]]}).logits - expected).abs().max() < LOGITS


def test_folders_that_cannot_be(tmp_path):
    save(llava("llama"), tmp_path / "llava")
    said = {
        "choose one of onellm-7b, blip2": {"preset": "vicuna"},
        "expected are keys of BLIP-2": {"preset": "blip2-opt-2.7b"},
    }
    for words, options in said.items():
        with pytest.raises(ModelError, match=words):
            convert(tmp_path / "llava", tmp_path / "out", progress=False, **options)
    config = json.loads((tmp_path / "llava" / "config.json").read_text())
    config["vision_config"]["hidden_size"] = 64
    with pytest.raises(ModelError, match=r"class_embedding is \[32\] instead of \[64\]"):
        convert(tmp_path / "llava", tmp_path / "out", params=config, progress=False)
    (tmp_path / "llava" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        convert(tmp_path / "llava", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


# ---- at their published sizes ----------------------------------------------------------------------------------------


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", SYSTEMS)
def test_as_many_parameters_as_theirs(name):
    """On the meta device. Of LLaVA's tower the last block and the norm behind it are not built: nothing reads them."""
    config = OneLLMConfig.from_preset(name)
    with torch.device("meta"):
        ours = OneLLMForConditionalGeneration(config)
        theirs = theirs_at_full_size(name, config)
    left = 12_596_224 + 2_048 if name.startswith("llava") else 0
    assert parameters(ours) == parameters(theirs) - left
    trained = {
        "blip2-opt-2.7b": 107_130_880,
        "blip2-flan-t5-xl": 106_737_152,
        "instructblip-vicuna-7b": 188_834_560,
        "llava-1.5-7b": 20_979_712,
    }
    assert parameters(ours.projector) == trained[name]


def theirs_at_full_size(name, config):
    """Their class at its own defaults, which are the published sizes, before the preset's LLM."""
    text = config.text_config.to_dict()
    if name.startswith("llava"):
        return LlavaForConditionalGeneration(LlavaConfig(text_config=text))
    reads = name.startswith("instructblip")
    modality, build = (
        (InstructBlipConfig, InstructBlipForConditionalGeneration)
        if reads
        else (Blip2Config, Blip2ForConditionalGeneration)
    )
    qformer = {"vocab_size": 30_523} if reads else {}
    return build(modality(text_config=text, qformer_config=qformer, vision_config={}))


# ---- as a person uses it --------------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path):
    """A picture twice as wide as high."""
    colours = np.random.default_rng(0).integers(0, 255, (30, 60, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_two_questions_about_a_picture(pair, photo):
    """Loaded by its folder, asked twice: what is streamed is what the model makes of the same prompt at once."""
    _, ours = pair
    chat = onellm.load(ours.folder, quantize="none")
    first = "".join(chat.stream("what is this", image=photo, max_new_tokens=5))
    second = "".join(chat.stream("what colour is this", max_new_tokens=5))
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
    if not ours.config.is_encoder_decoder and ours.config.generation.get("num_beams", 1) == 1:
        assert chat.trace.cached_tokens > ours.config.length_of("image")
    processor = OneLLMProcessor.from_pretrained(ours.folder)
    for said, answer in ((chat.messages[:1], first), (chat.messages[:3], second)):
        inputs = processor.apply_chat_template(said)
        whole = ours.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert processor.decode(whole, skip_special_tokens=True).strip() == answer.strip()


def test_the_question_is_read_with_the_picture(pair, photo):
    """Only where the projector reads it another question makes other soft tokens."""
    _, ours = pair
    chat = onellm.load(ours.folder, quantize="none")
    for text in ("what is this", "what colour is this", "what is this"):
        chat.ask(text, image=photo, max_new_tokens=1)
    assert len(chat._media_embeds) == (2 if ours.config.instructed else 1)
    if ours.config.instructed:
        one, other = chat._media_embeds.values()
        assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("int8", [False, True])
def test_fast_layers_of_the_cpu_say_the_same(pair, pictures, monkeypatch, int8):
    """Every linear layer is packed, however small."""
    _, ours = pair
    monkeypatch.setattr(cpu, "SMALL", 0)
    fast = OneLLMForConditionalGeneration.from_pretrained(ours.folder, dtype=torch.float32).eval()
    fast = cpu.optimise(fast, int8)
    modality = cpu.Int8Linear if int8 else cpu.PackedLinear
    assert sum(isinstance(module, modality) for module in fast.language_model.modules()) > 6
    ids, mask = prompts(ours, [1, 5, 6, 7, 8, 9])
    exact, near = (model(ids, attention_mask=mask, media={"image": [pictures[0]]}).logits for model in (ours, fast))
    assert (near - exact).norm() / exact.norm() < (0.05 if int8 else 1e-4)


def test_the_estimate_is_what_the_model_holds(pair):
    _, ours = pair
    told = quantization.estimate(ours.config, "none", torch.float32, context=60)
    assert sum(told.weights.values()) == sum(tensor.nbytes for tensor in [*ours.parameters(), *ours.buffers()])


# ---- gated layers ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """Their model of gated layers, and ours as it is loaded from the same folder."""
    theirs = shake(idefics())
    return theirs, onellm.load(save(theirs, tmp_path_factory.mktemp("gated")), quantize="none")


@torch.no_grad()
def test_gated_layers_say_the_same(gated):
    """Rows with two pictures, one and none; their own processor's function makes the mask of what looks at what."""
    theirs, chat = gated
    ours, image = chat.model, chat.model.config.modalities["image"]["token_id"]
    rows = [[1, 5, image, 6, 7, image, 8], [0, 0, 1, 9, image, 10, 11], [0, 1, 12, 13, 14, 2, 15]]
    ids = torch.tensor(rows)
    mask = (ids != 0).long()
    pixels = torch.randn(3, 2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    last, _ = image_attention_mask_for_packed_input_ids_pt(ids, chat.processor.tokenizer)
    looks = incremental_to_binary_attention_mask(last, "pt", num_classes=2)
    asked = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels, "image_attention_mask": looks}
    media = {"image": [pixels[0, 0], pixels[0, 1], pixels[1, 0]]}
    expected, found = theirs(**asked).logits, ours(ids, media=media, attention_mask=mask).logits
    assert (expected - found)[mask.bool()].abs().max() < LOGITS
    other = ours(ids, media={"image": [picture + 1 for picture in media["image"]]}, attention_mask=mask).logits
    assert (other - found)[0].abs().max() > 0.01 and torch.equal(other[2], found[2])
    stay = {**ANSWER, "bad_words_ids": [[image], [image - 1]], "eos_token_id": [2, image + 1]}
    expected = theirs.generate(**asked, **stay)
    assert torch.equal(expected, ours.generate(ids, media=media, attention_mask=mask, **stay))


def test_gated_layers_chat(gated, photo):
    """Two questions, the second with another picture; what was read before stays in the cache."""
    _, chat = gated
    chat = chat.new()
    first = chat.ask("what is this", image=[photo, photo], max_new_tokens=5)
    assert [segment.kind for segment in chat.trace.segments].count("image") == 2
    chat.ask("and this", image=photo, max_new_tokens=5)
    assert chat.trace.cached_tokens > 20 and chat.trace.files[0].tokens == 5
    processor = chat.processor
    inputs = processor.apply_chat_template(chat.messages[:1])
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    around = "<fake_token_around_image>"
    assert text.replace(" ", "").startswith(f"<s>User:{around}<image>{around}<image>{around}whatisthis<end_of_utter")
    whole = chat.model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(whole, skip_special_tokens=True).strip() == first.strip()
    assert chat.quantize == "none" and chat.new().ask("what is this", max_new_tokens=3) is not None


def test_gated_layers_at_their_published_size():
    """The estimate, from the configuration alone, knows the weights to the byte."""
    config = OneLLMConfig.from_preset("idefics-9b")
    with torch.device("meta"):
        model = model_class(config)(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 8_929_687_824
    told = quantization.estimate(config, "none", torch.bfloat16)
    assert sum(told.weights.values()) == 2 * count + sum(
        buffer.numel() * (2 if buffer.is_floating_point() else buffer.itemsize) for buffer in model.buffers()
    )
