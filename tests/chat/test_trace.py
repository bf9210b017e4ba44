"""What a trace says must be what the model did."""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from onellm.chat.chat import Chat
from onellm.chat.load import load
from onellm.chat.trace import SHORT, FileTrace, Trace, watch
from onellm.errors import OneLLMError


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "dot.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def open_chat(make_model, processor):
    for settings in processor.modalities.values():
        settings["input"] = {"size": 28}

    def make(**changes):
        return Chat(make_model(**changes), processor, "toy")

    return make


@pytest.fixture
def chat(open_chat):
    return open_chat()


def test_the_segments_are_the_prompt(chat, picture):
    chat.ask("w3 w4", image=picture, max_new_tokens=3)
    ids, _ = chat.processor.encode(chat.messages[:1])
    assert chat.trace.prompt_tokens == len(ids)
    length = chat.model.config.length_of("image")
    found = [(segment.kind, segment.text, segment.tokens, segment.file) for segment in chat.trace.segments]
    assert ("image", "dot.png", length, 0) in found and ("question", "w3 w4", 2, None) in found
    assert [modality for modality, *_ in found] == ["template", "image", "template", "question", "template"]


def test_files_at_the_start_stand_behind_the_first_token(chat, picture):
    chat.processor.media_position = "start"
    chat.ask("w3 w4", image=[picture, picture], max_new_tokens=3)
    modalities = [(segment.kind, segment.file) for segment in chat.trace.segments]
    assert modalities[:4] == [("template", None), ("image", 0), ("template", None), ("image", 1)]
    assert chat.trace.segments[0].tokens == 2  # the first token, and what stands before a file
    assert chat.trace.prompt_tokens == len(chat.processor.encode(chat.messages[:1])[0])


@pytest.mark.parametrize("router", ["sigmoid", "input_aware"])
def test_the_router_weights_are_the_projector_s(open_chat, picture, router):
    chat = open_chat(projector={"router": router, "experts": 3})
    chat.ask("w3", image=picture, max_new_tokens=2)
    seen = torch.tensor(chat.trace.files[0].router)
    assert torch.allclose(seen.sum(dim=-1), torch.ones(3), atol=1e-6)
    tensor = chat.processor.to_tensor({"type": "image", "path": str(picture)})
    with torch.no_grad():
        projector = chat.model.projector
        features = projector.input_proj["image"](chat.model.encode("image", tensor[None]))
        expected = projector.routers["image"](projector.queries["image"][None], features)[0]
    assert torch.allclose(seen, expected, atol=1e-6)
    assert chat.trace.files[0].experts == pytest.approx(expected.mean(dim=0).tolist(), abs=1e-6)
    assert (chat.trace.files[0].tokens, chat.trace.files[0].shape) == (4, [3, 28, 28])


def test_an_anchored_model_tells_the_nearest_words(open_chat, picture):
    chat = open_chat(projector={"anchor": {"size": 5, "scale": 30.0}})
    chat.model.projector.anchor.token_ids.copy_(torch.tensor([7, 11, 13, 17, 19]))
    chat.ask("w3", image=picture, max_new_tokens=2)
    words = chat.trace.files[0].words
    assert [len(row) for row in words] == [3, 3, 3]
    for row in words:
        assert {word for word, _ in row} < {"w7", "w11", "w13", "w17", "w19"}
        weights = [weight for _, weight in row]
        assert weights == sorted(weights, reverse=True) and 0 < sum(weights) <= 1 + 1e-6


def test_a_video_tells_its_frames_and_hooks_do_not_stay(model, tokenizer, tensors):
    trace = FileTrace("video", "a.mp4", list(tensors["video"].shape))
    with watch(model, tokenizer, trace):
        model.soft_tokens("video", [tensors["video"]])
    assert (trace.frames, trace.tokens) == (4, 4) and trace.encode_s > 0 and trace.project_s > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_second_turn_tells_what_the_cache_held(chat, picture):
    chat.ask("w3 w4 w5", image=picture, max_new_tokens=3)
    assert chat.trace.cached_tokens == 0 and chat.trace.timings.encode_s > 0
    first = chat.trace.files[0]
    chat.ask("w8", max_new_tokens=3)
    assert chat.trace.files == [first] and chat.trace.timings.read_s == 0
    image = next(segment for segment in chat.trace.segments if segment.kind == "image")
    assert image.cached == image.tokens
    assert len(chat.processor.encode(chat.messages[:1])[0]) <= chat.trace.cached_tokens < chat.trace.prompt_tokens


def test_counts_times_and_settings(chat):
    begun_s = time.perf_counter()
    chat.ask("w3", max_new_tokens=5, temperature=0.5, seed=3)
    took_s = time.perf_counter() - begun_s
    trace = chat.trace
    assert 1 <= trace.new_tokens <= 5 and not trace.stopped
    assert 0 < trace.timings.first_token_s <= trace.timings.total_s <= took_s
    assert trace.settings == {"max_new_tokens": 5, "temperature": 0.5, "top_p": 1.0, "seed": 3, "system": ""}
    stream = chat.stream("w4", max_new_tokens=200)
    next(stream)
    stream.close()
    assert chat.trace is not trace and chat.trace.stopped and chat.trace.new_tokens >= 1


def test_a_trace_survives_json_and_refuses_what_is_none(chat, picture):
    chat.ask("w3 " * 60, image=picture, max_new_tokens=2)
    assert all(len(segment.text) <= SHORT for segment in chat.trace.segments)
    kept = json.loads(json.dumps(chat.trace.to_dict()))
    assert Trace.from_dict(kept) == chat.trace
    ragged = kept["files"][0] | {"router": [[0.5, 0.5], [1.0]]}
    for wrong in (None, [], kept | {"new_tokens": "<b>"}, kept | {"files": [{}]}, kept | {"files": [ragged]}):
        with pytest.raises(OneLLMError, match="trace of an answer cannot be read"):
            Trace.from_dict(wrong)


def test_int8_and_float32_trace_alike():
    """The optimised layers are seen like the plain ones."""
    files = {"image": "examples/image/cat.jpg", "audio": "examples/audio/dog.ogg"}
    traces = []
    for mode in ("none", "int8"):
        chat = load("onellm-tiny", quantize=mode)
        chat.ask("What is this?", **files, max_new_tokens=3)
        traces.append(chat.trace)
    plain, int8 = traces
    assert [vars(segment) for segment in plain.segments] == [vars(segment) for segment in int8.segments]
    for one, other in zip(plain.files, int8.files, strict=True):
        assert (one.shape, one.tokens, one.frames) == (other.shape, other.tokens, other.frames)
        assert np.allclose(one.router, other.router, atol=0.02)
        assert [row[0][0] for row in one.words] == [row[0][0] for row in other.words]
    assert plain.files[0].words[0][0][0] == "cat" and plain.files[1].words[0][0][0] == "dog"
