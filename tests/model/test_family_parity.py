"""The systems that transformers has: its class with small random weights, converted, gives the same numbers here."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from published_checkpoint import train_tokenizer
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.models.idefics.processing_idefics import (
    image_attention_mask_for_packed_input_ids_pt,
    incremental_to_binary_attention_mask,
)

import onellm
from onellm.auto import OneLLMConfig, OneLLMForConditionalGeneration, OneLLMProcessor, model_class
from onellm.model import cpu, quantize
from onellm.model.checkpoint import convert
from onellm.model.gated import ADDED
from onellm.processor import READER

WORDS, IMAGE = 320, 310  # of the LLM; theirs for a picture
LOGITS = 1e-4
ANSWER = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "num_beams": 1, "no_repeat_ngram_size": 1}
ANSWER |= {"repetition_penalty": 1.0}

VISION = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QFORMER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 20,
}
LLMS = {
    "opt": {
        "vocab_size": WORDS,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "ffn_dim": 48,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "word_embed_proj_dim": 32,
    },
    "t5": {
        "vocab_size": WORDS,
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "eos_token_id": 2,
    },
    "llama": {
        "vocab_size": WORDS,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
    },
}


def llm(name):
    return {"model_type": name, **LLMS[name]}


def blip2(name):
    config = Blip2Config(
        vision_config=VISION, qformer_config=QFORMER, text_config=llm(name), num_query_tokens=3, image_token_index=IMAGE
    )
    return Blip2ForConditionalGeneration(config)


def instructblip(name):
    config = InstructBlipConfig(
        vision_config=VISION, qformer_config=QFORMER, text_config=llm(name), num_query_tokens=3, image_token_index=IMAGE
    )
    return InstructBlipForConditionalGeneration(config)


def llava(name, **changes):
    vision = {"model_type": "clip_vision_model", "projection_dim": 16, **VISION}
    vision["num_hidden_layers"] = 3
    config = LlavaConfig(
        vision_config=vision, text_config=llm(name), image_token_index=IMAGE, image_seq_length=4, **changes
    )
    return LlavaForConditionalGeneration(config)


SYSTEMS = {
    "blip2-opt-2.7b": lambda: blip2("opt"),
    "blip2-flan-t5-xl": lambda: blip2("t5"),
    "instructblip-vicuna-7b": lambda: instructblip("llama"),
    "llava-1.5-7b": lambda: llava("llama"),
}


def shake(model):
    """Give every parameter something to say; some classes begin with zeros."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.copy_(scale + 0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A folder with a tokenizer of LLaMA's form."""
    folder = tmp_path_factory.mktemp("words")
    train_tokenizer(folder / "tokenizer.model")
    LlamaTokenizer.from_pretrained(folder, pad_token="<unk>").save_pretrained(folder / "saved")
    return folder / "saved"


def save(model, folder, words):
    """Write a folder as transformers publishes them."""
    model.save_pretrained(folder)
    for path in words.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if model.config.model_type == "instructblip":
        known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "this", "colour"]
        BertTokenizer(vocab={word: place for place, word in enumerate(known)}).save_pretrained(folder / READER)
    return folder


@pytest.fixture(scope="module", params=SYSTEMS)
def pair(request, words, tmp_path_factory):
    """Their model, and ours as it is loaded from the folder that the command makes of theirs."""
    folder = tmp_path_factory.mktemp("theirs")
    theirs = shake(SYSTEMS[request.param]())
    save(theirs, folder, words)
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
    """Only where the projector reads it another question makes other soft words."""
    _, ours = pair
    chat = onellm.load(ours.folder, quantize="none")
    for text in ("what is this", "what colour is this", "what is this"):
        chat.ask(text, image=photo, max_new_tokens=1)
    assert len(chat._words) == (2 if ours.config.instructed else 1)
    if ours.config.instructed:
        one, other = chat._words.values()
        assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("int8", [False, True])
def test_fast_layers_of_the_cpu_say_the_same(pair, pictures, monkeypatch, int8):
    """Every linear layer is packed, however small."""
    _, ours = pair
    monkeypatch.setattr(cpu, "SMALL", 0)
    fast = OneLLMForConditionalGeneration.from_pretrained(ours.folder, dtype=torch.float32).eval()
    fast = cpu.optimise(fast, int8)
    kind = cpu.Int8Linear if int8 else cpu.PackedLinear
    assert sum(isinstance(module, kind) for module in fast.language_model.modules()) > 6
    ids, mask = prompts(ours, [1, 5, 6, 7, 8, 9])
    exact, near = (model(ids, attention_mask=mask, media={"image": [pictures[0]]}).logits for model in (ours, fast))
    assert (near - exact).norm() / exact.norm() < (0.05 if int8 else 1e-4)


def test_the_estimate_is_what_the_model_holds(pair):
    _, ours = pair
    told = quantize.estimate(ours.config, "none", torch.float32, context=60)
    assert sum(told.weights.values()) == sum(tensor.nbytes for tensor in [*ours.parameters(), *ours.buffers()])


# ---- gated layers ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gated(words, tmp_path_factory):
    """Their model of gated layers with three more words, and ours as it is loaded from the same folder."""
    sizes = {key: value for key, value in LLMS["llama"].items() if key != "vocab_size"}
    vision = {"embed_dim": 32, **{key: value for key, value in VISION.items() if key != "hidden_size"}}
    perceiver = {"resampler_n_latents": 3, "resampler_depth": 2, "resampler_n_heads": 2, "resampler_head_dim": 16}
    config = IdeficsConfig(
        vocab_size=300,
        additional_vocab_size=3,
        use_resampler=True,
        qk_layer_norms=True,
        alphas_initializer_range=0.5,
        vision_config=vision,
        perceiver_config={"use_resampler": True, "qk_layer_norms_perceiver": True, **perceiver},
        **sizes,
    )
    folder = tmp_path_factory.mktemp("gated")
    theirs = shake(IdeficsForVisionText2Text(config))
    theirs.save_pretrained(folder)
    tokenizer = LlamaTokenizer.from_pretrained(words)
    tokenizer.add_tokens(list(ADDED), special_tokens=True)
    tokenizer.save_pretrained(folder)
    return theirs, onellm.load(folder, quantize="none")


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
    told = quantize.estimate(config, "none", torch.bfloat16)
    assert sum(told.weights.values()) == 2 * count + sum(
        buffer.numel() * (2 if buffer.is_floating_point() else buffer.itemsize) for buffer in model.buffers()
    )
