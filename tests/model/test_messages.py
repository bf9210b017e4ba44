"""How files are told from each other in a conversation: by content, and a path by its file's time and size."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from onellm.chat.chat import Chat
from onellm.errors import OneLLMError
from onellm.model.messages import key_of

RNG = np.random.default_rng(0)


@pytest.fixture
def chat(model, processor):
    for settings in processor.modalities.values():
        settings["input"] = {"size": 28}
    processor.modalities["imu"]["input"] = {"length": 40}
    return Chat(model, processor, "toy")


@pytest.fixture
def encoded(chat, monkeypatch):
    """Tensors that the model encoded."""
    found = []

    def encode(modality, values, *rest, of=chat.model.soft_tokens):
        found.extend(values)
        return of(modality, values, *rest)

    monkeypatch.setattr(chat.model, "soft_tokens", encode)
    return found


def test_arrays_that_differ_only_in_the_middle_are_two_files(chat, encoded):
    first = RNG.random((2000, 6), np.float32)
    second = first.copy()
    second[10:30] += 5
    assert str(first) == str(second)
    chat.ask("w3", imu={"imu": first}, max_new_tokens=2)
    chat.ask("w3", imu={"imu": second}, max_new_tokens=2)
    chat.ask("w3", imu={"imu": first.copy()}, max_new_tokens=2)
    assert len(encoded) == 2 and not torch.equal(*encoded)


def test_a_path_with_new_content_is_another_file(chat, encoded, tmp_path):
    path = tmp_path / "a.png"
    for colour in (0, 200):
        Image.new("RGB", (40, 30), (colour, 0, 0)).save(path)
        os.utime(path, ns=(colour, colour))
        chat.ask("w3", image=path, max_new_tokens=2)
    assert len(encoded) == 2 and not torch.equal(*encoded)


def test_a_conversation_goes_on_when_its_file_is_gone(chat, encoded, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(path)
    chat.ask("w3", image=path, max_new_tokens=2)
    path.unlink()
    chat.ask("w4", max_new_tokens=2)
    assert len(encoded) == 1 and len(chat.messages) == 4 and chat.trace.files[0].name == "a.png"


PICTURE = Image.fromarray(RNG.integers(0, 255, (30, 40, 3), np.uint8))


@pytest.mark.parametrize(
    "one, other",
    [
        (PICTURE, PICTURE.rotate(180)),
        (torch.zeros(3, 400, 400), torch.zeros(3, 400, 400).index_fill(1, torch.tensor([200]), 1.0)),
        (np.zeros(4, np.float32), np.zeros(4, np.int32)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        ([PICTURE, PICTURE], [PICTURE, PICTURE.rotate(180)]),
    ],
    ids=["pillow", "tensor", "dtype", "shape", "list"],
)
def test_data_in_memory_is_named_by_its_content(one, other):
    key = key_of({"type": "image", "image": one})
    assert key != key_of({"type": "image", "image": other})
    again = [picture.copy() for picture in one] if isinstance(one, list) else one
    assert key == key_of({"type": "image", "image": again})
    assert key_of({"type": "depth", "path": "a.png", "picture": one}) != key_of(
        {"type": "depth", "path": "a.png", "picture": other}
    )


@pytest.mark.parametrize("option", ["picture", "sound"])
def test_a_file_beside_another_counts_too(tmp_path, option):
    beside = tmp_path / "b.bin"
    beside.write_bytes(b"one")
    (tmp_path / "a.mp4").touch()
    part = {"type": "video", "path": str(tmp_path / "a.mp4"), option: str(beside)}
    nested = part | {option: {"path": str(beside)}}
    keys = key_of(part), key_of(nested)
    beside.write_bytes(b"longer")
    assert key_of(part) != keys[0] and key_of(nested) != keys[1]


def test_a_file_of_another_modality_is_refused_before_any_is_read(chat, tmp_path, monkeypatch):
    del chat.processor.modalities["point"]
    monkeypatch.setattr(chat.processor, "to_tensor", lambda part: pytest.fail("a file was read"))
    monkeypatch.setattr(type(chat.processor), "load", lambda part: pytest.fail("a file was read"))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    with pytest.raises(OneLLMError, match="'point' is no kind of file this model knows; use one of image"):
        chat.ask("w3", image=tmp_path / "a.png", point=tmp_path / "a.ply")
    assert chat.messages == []
