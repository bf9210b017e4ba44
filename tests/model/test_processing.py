"""The processor: placeholders, literal text, batches."""

import numpy as np
import pytest
import torch
from PIL import Image

from onellm.errors import FileError, OneLLMError
from onellm.model.auto import OneLLMProcessor

BOS, EOS = 61, 62


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "dot.png"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)
    return str(path)


def message(*parts):
    return [{"role": "user", "content": list(parts)}]


def text(words):
    return {"type": "text", "text": words}


def test_placeholder_count_is_feature_count(model, processor, picture):
    inputs = processor.apply_chat_template(message({"type": "image", "path": picture}, text("w9 w10")))
    assert inputs["input_ids"].tolist() == [[BOS, 1, 5, *[64] * 5, 6, 9, 10, EOS, 2]]
    words = model.soft_tokens("image", [torch.rand(3, 28, 28)])
    assert words.shape[1] == (inputs["input_ids"] == 64).sum()


def test_files_keep_their_order_over_turns(processor):
    part = lambda value: {"type": "imu", "value": value}  # noqa: E731
    messages = message(part(1), part(2), text("w9"))
    messages += [{"role": "assistant", "content": "w8"}, *message(part(3), text("w7"))]
    inputs = processor.apply_chat_template(messages, to_tensor=lambda p: p["value"])
    assert inputs["media"] == {"imu": [1, 2, 3]}
    assert (inputs["input_ids"] == processor.modalities["imu"]["token_id"]).sum() == 15


def test_typed_text_never_becomes_a_tag(processor):
    inputs = processor.apply_chat_template(message(text("</s> <pad> w3 \ue0000\ue001")))
    ids = inputs["input_ids"][0].tolist()
    assert ids == [BOS, 1, 60, 60, 3, 60, EOS, 2]  # the typed ones are unknown words


def test_batch_is_padded_on_the_left(processor):
    inputs = processor.apply_chat_template([message(text("w3 w4 w5")), message(text("w3"))])
    assert inputs["attention_mask"].tolist() == [[1] * 7, [0, 0] + [1] * 5]


def test_media_at_the_start_as_published(processor, picture):
    processor.media_position = "start"
    inputs = processor.apply_chat_template(message({"type": "image", "path": picture}, text("w9")))
    assert inputs["input_ids"].tolist() == [[BOS, 5, *[64] * 5, 6, 1, 9, EOS, 2]]


def test_a_broken_file_is_told_in_words(processor, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(FileError, match="broken.png"):
        processor.apply_chat_template(message({"type": "image", "path": str(path)}, text("w9")))


def test_save_and_load(processor, tmp_path, config):
    from transformers import AutoProcessor

    processor.save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(processor)
    assert loaded.modalities == processor.modalities
    assert loaded.media_length == processor.media_length
    messages = message(text("w9 </s>"))
    same = loaded.apply_chat_template(messages)["input_ids"], processor.apply_chat_template(messages)["input_ids"]
    assert torch.equal(*same)


def test_the_call_of_other_processors(processor, picture):
    """`apply_chat_template` to text or to tensors, then the processor with that text and the files."""
    parts = {"type": "image", "path": picture}, text("w9"), {"type": "image", "path": picture}, text("w8")
    options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(message(*parts), tokenize=True, **options)
    prompt = processor.apply_chat_template(message(*parts), tokenize=False, add_generation_prompt=True)
    assert prompt == "<s> w1 <image>w9<image>w8</s> w2"
    again = processor(text=prompt, images=[picture, Image.open(picture)], return_tensors="pt")
    assert torch.equal(again["input_ids"], inputs["input_ids"])
    assert all(map(torch.equal, again["media"]["image"], inputs["media"]["image"]))
    ids = processor.apply_chat_template(message(*parts), return_dict=False)
    assert torch.equal(ids, inputs["input_ids"])
    assert processor.batch_decode(ids, skip_special_tokens=True) == ["w1 w5 w6 w9 w5 w6 w8 w2"]
    assert processor.post_process_image_text_to_text(ids) == processor.batch_decode(ids, skip_special_tokens=True)


def test_texts_in_a_batch(processor, picture):
    inputs = processor(text=["w3", "w4 w5"], return_tensors="pt", padding=True)
    assert inputs["input_ids"].tolist() == [[63, 3], [4, 5]] and inputs["media"] == {}
    asked = processor(text=["w3", "w4"], images=[picture, [picture, picture]])
    alone = processor(text="w4", image=[picture, picture])
    assert torch.equal(asked["input_ids"][1:], alone["input_ids"])
    assert len(asked["media"]["image"]) == 3
    marked = processor(text=["<image> w3", "w4 <image> <image>"], images=[picture, picture, picture])
    assert [(row == 64).sum() for row in marked["input_ids"]] == [5, 10]


def test_an_answer_can_be_continued(processor):
    messages = [*message(text("w9")), {"role": "assistant", "content": [text("w8 w7")]}]
    inputs = processor.apply_chat_template(messages, add_generation_prompt=False, continue_final_message=True)
    assert inputs["input_ids"].tolist() == [[BOS, 1, 9, EOS, 2, 8, 7]]


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda p: p(text="<image> w3", images=[]), "more placeholders <image> than files"),
        (lambda p: p(text="<image> w3", images=["a.png", "b.png"]), "fewer placeholders <image> than files"),
        (lambda p: p(text=["w3", "w4"], images=["a.png"]), "2 texts came with another number of image entries"),
        (lambda p: p.apply_chat_template(message({"type": "smell", "path": "x"})), "'smell' is no kind.*image"),
        (lambda p: p.apply_chat_template(message({"type": "image", "url": "http://x"})), "holds url; expected 'path'"),
    ],
)
def test_what_does_not_fit_together_is_told_in_words(processor, call, words):
    with pytest.raises(OneLLMError, match=words):
        call(processor)


@pytest.fixture
def picture_only(tokenizer, config):
    config.modalities = {"image": config.modalities["image"]}
    return OneLLMProcessor.from_config(tokenizer, config)


@pytest.mark.parametrize(
    "part", [{"type": "audio", "path": "a.wav"}, {"type": "video", "path": "a.mp4", "sound": True}]
)
@pytest.mark.parametrize("method", ["resolve", "windows", "to_tensor", "input_of", "positions", "kept_windows"])
def test_a_modality_that_the_model_does_not_read_is_one_sentence(picture_only, method, part):
    with pytest.raises(OneLLMError, match=f"'{part['type']}' is no kind of file this model knows; use one of image"):
        getattr(picture_only, method)(part)
    with pytest.raises(OneLLMError, match="'audio' is no kind"):
        picture_only.length_of("audio")
    with pytest.raises(OneLLMError, match="'point' is no kind"):
        picture_only(text="w3", point="a.ply")


def test_the_sound_of_a_video_needs_a_model_that_hears(tokenizer, config):
    del config.modalities["audio"]
    with pytest.raises(OneLLMError, match="'audio' is no kind of file this model knows"):
        OneLLMProcessor.from_config(tokenizer, config).resolve({"type": "video", "path": "a.mp4", "sound": True})


def test_angle_brackets_are_text_where_no_files_are_read(tokenizer):
    processor = OneLLMProcessor(tokenizer)
    assert processor(text="w3 <> w4")["input_ids"].tolist() == [[3, 60, 4]]


RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 255, (30, 40, 3), np.uint8)


@pytest.mark.parametrize(
    "value",
    [
        Image.fromarray(RGB),
        RGB,
        RGB.transpose(2, 0, 1),
        torch.from_numpy(RGB).permute(2, 0, 1),
        (RGB / 255).astype(np.float32),
        torch.from_numpy(RGB).permute(2, 0, 1) / 255,
    ],
    ids=["pillow", "array", "channels first", "tensor", "floats", "tensor of floats"],
)
def test_pictures_in_memory_are_the_picture_of_the_file(processor, tmp_path, value):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    expected = processor.to_tensor({"type": "image", "path": str(tmp_path / "a.png")})
    assert torch.equal(processor.to_tensor({"type": "image", "image": value}), expected)


@pytest.mark.parametrize(
    "modality, name, value, options",
    [
        ("audio", "a.wav", RNG.uniform(-0.5, 0.5, 8000).astype(np.float32), {"rate_hz": 8000}),
        ("point", "a.npy", RNG.random((9000, 6), np.float32), {}),
        ("fmri", "a.npy", RNG.random((3, 20), np.float32), {}),
        ("depth", "a.npy", RNG.random((30, 40), np.float32) + 1, {}),
        ("video", None, [RGB, Image.fromarray(RGB)], {}),
        ("normal", None, np.dstack([np.zeros((30, 40, 2)), np.ones((30, 40))]), {"picture": Image.fromarray(RGB)}),
        ("imu", None, RNG.random((60, 6)), {"rate_hz": 50}),
    ],
)
def test_other_data_in_memory(processor, tmp_path, modality, name, value, options):
    tensor = processor.to_tensor({"type": modality, modality: value, **options})
    assert tensor.dtype == torch.float32 and tensor.isfinite().all()
    if name == "a.wav":
        import soundfile

        soundfile.write(tmp_path / name, value, 8000, subtype="FLOAT")
    elif name:
        np.save(tmp_path / name, value)
    if name:
        assert torch.allclose(tensor, processor.to_tensor({"type": modality, "path": str(tmp_path / name)}), atol=1e-4)


@pytest.mark.parametrize("modality, shape", [("image", (3,)), ("point", (5, 4)), ("audio", (2, 9)), ("depth", (0,))])
def test_arrays_of_another_shape_are_told_in_words(processor, modality, shape):
    with pytest.raises(FileError, match=r"shape \[.*expected \["):
        processor.to_tensor({"type": modality, modality: np.zeros(shape, np.float32)})
