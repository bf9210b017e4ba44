"""The processor: placeholders, literal text, batches."""

import numpy as np
import pytest
import torch
from PIL import Image

from onellm.errors import FileError

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
    words = model.soft_words("image", [torch.rand(3, 28, 28)])
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
    assert inputs["input_ids"].tolist() == [[BOS, *[64] * 5, 1, 9, EOS, 2]]


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
