"""What runs in time: a video and its sound in turns, long files in windows; real files, a random model."""

import os

import numpy as np
import pytest
import soundfile
import torch
from file_makers import tone, video

from onellm.chat.chat import Chat
from onellm.errors import FileError, OneLLMError
from onellm.modalities import MODALITIES, load
from onellm.model import timeline
from onellm.model.messages import name_of

RATE_HZ = 16_000


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Read files in this process, which is quicker."""
    monkeypatch.setattr("onellm.modalities.sandbox._trusted", True)


def settings_of(number, tokenizer, **settings):
    return {"token_id": 64 + number, "tokenizer": tokenizer, "before": "w5", "after": "w6", **settings}


@pytest.fixture
def chat(make_model, tokenizer):
    """A random model that hears 0.64 s at once, of which it makes 3 words, and merges what is longer into 6 of them."""
    from onellm.model.auto import OneLLMProcessor

    patches = {"type": "image-patches", "size": 28, "patch": 14}
    spectrogram = {"type": "spectrogram-patches", "mels": 128, "frames": 64}
    modalities = {
        "image": settings_of(0, patches, input={"size": 28}),
        "video": settings_of(1, {"share": "image"}, input={"size": 28, "frames": 2}),
        "audio": settings_of(2, spectrogram, input={"frames": 64}, windows={"seconds": 0.64, "words": 7}),
    }
    model = make_model(modalities=modalities)
    return Chat(model, OneLLMProcessor.from_config(tokenizer, model.config), "toy")


@pytest.fixture
def film(tmp_path):
    """Three seconds that grow brighter, with a tone."""
    return video(tmp_path / "film.mp4", frames=30, rate=10, gop=10, sound=True)


@pytest.fixture
def rising(tmp_path):
    """A sound of 2.4 s, each tenth of a second unlike all others."""
    pieces = [tone(0.1, RATE_HZ, 200 + 60 * step) for step in range(24)]
    soundfile.write(tmp_path / "rising.wav", np.concatenate(pieces), RATE_HZ, subtype="FLOAT")
    return tmp_path / "rising.wav"


def files(chat):
    return [(segment.kind, segment.text) for segment in chat.trace.segments if segment.file is not None]


def alone(chat, **part):
    """The soft tokens of a file by itself, without a conversation."""
    with torch.no_grad():
        return chat.model.soft_tokens(part["type"], [chat.processor.to_tensor(part)])[0]


def test_a_part_of_a_sound_is_that_part(rising, tmp_path):
    whole = load("audio", rising).array
    soundfile.write(tmp_path / "part.wav", whole[int(0.5 * RATE_HZ) : int(1.3 * RATE_HZ)], RATE_HZ, subtype="FLOAT")
    part = load("audio", rising, start_s=0.5, stop_s=1.3)
    assert np.array_equal(part.array, load("audio", tmp_path / "part.wav").array) and part.seconds == 0.8
    with pytest.raises(FileError, match="from 2 s to 1 s; expected 0 <= start_s < stop_s"):
        load("audio", rising, start_s=2, stop_s=1)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_part_of_a_track_is_that_part(tmp_path, name):
    path = video(tmp_path / name, "mpeg4", sound=True)
    whole = load("audio", path, track=True).array
    part = load("audio", path, track=True, start_s=1, stop_s=2.5).array
    assert np.array_equal(part, whole[RATE_HZ : int(2.5 * RATE_HZ)])
    rest = load("audio", path, track=True, start_s=2).array
    assert np.array_equal(rest, whole[2 * RATE_HZ :])


@pytest.mark.parametrize("gop", [1, 12, 250])
def test_a_part_of_a_video_has_the_frames_of_its_seconds(tmp_path, gop):
    path = video(tmp_path / "a.mp4", frames=40, gop=gop)
    whole = load("video", path, frames=40)
    part = load("video", path, frames=40, start_s=1, stop_s=2)
    assert len(part.array) == 10 and np.allclose(part.times_s, whole.times_s[10:20])
    assert np.array_equal(part.array, whole.array[10:20]) and part.seconds == 1
    between = load("video", path, start_s=1.01, stop_s=1.05)  # no frame begins here: the one before is still shown
    assert np.array_equal(between.array, whole.array[10:11])


def test_spans_are_seconds_in_turns():
    part = {"type": "video", "path": "a.mp4", "frames": 3, "seconds": 3.2, "sound": {"path": "a.mp4", "seconds": 1.7}}
    found = [(cut["type"], cut["start_s"], cut["stop_s"]) for cut in timeline.spans(part)]
    assert found == [
        ("video", 0, 1),
        ("audio", 0, 1),
        ("video", 1, 2),
        ("audio", 1, 1.7),
        ("video", 2, 3.2),  # with the rest
    ]
    assert all("frames" in cut for cut in timeline.spans(part) if cut["type"] == "video")
    long = timeline.spans(part | {"seconds": 100.0})
    assert len([cut for cut in long if cut["type"] == "video"]) == 16 and long[-1]["stop_s"] == 100
    short = timeline.spans(part | {"seconds": 0.3, "sound": {"path": "a.mp4", "seconds": 0.02}})
    assert [name_of(cut) for cut in short] == ["a.mp4 0–0.3 s"]


def test_a_video_with_its_sound_is_read_second_by_second(chat, film):
    chat.ask("w3", video={"path": str(film), "sound": True}, max_new_tokens=2)
    spans = ["0–1 s", "1–2 s", "2–3 s"]
    found = files(chat)
    assert [modality for modality, _ in found] == ["video", "audio"] * 3
    assert [text.removeprefix("film.mp4 ") for modality, text in found if modality == "video"] == spans
    assert len(chat.messages[0]["content"]) == 2  # the video is one part still
    for words, (modality, text) in zip(chat._media_embeds.values(), found, strict=True):
        start, stop = (float(number) for number in text.split()[1].split("–"))
        track = {"track": True} if modality == "audio" else {}
        expected = alone(chat, type=modality, path=str(film), start_s=start, stop_s=stop, **track)
        assert torch.allclose(words, expected, atol=1e-5)
    seen = [chat.processor.load({"type": "video", "path": film, "start_s": s, "stop_s": s + 1}) for s in range(3)]
    levels = [float(sample.array.mean()) for sample in seen]
    assert levels == sorted(levels) and levels[2] - levels[0] > 80


def test_a_sound_given_with_a_video_is_cut_like_files_by_themselves(chat, film, rising, tmp_path):
    chat.ask("w3", video={"path": str(film), "sound": str(rising)}, max_new_tokens=2)
    heard = [
        words
        for (modality, _), words in zip(files(chat), chat._media_embeds.values(), strict=True)
        if modality == "audio"
    ]
    whole = load("audio", rising).array
    assert len(heard) == 3
    for number, (start, stop) in enumerate([(0, 1), (1, 2), (2, 2.4)]):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, whole[int(start * RATE_HZ) : int(stop * RATE_HZ)], RATE_HZ, subtype="FLOAT")
        assert torch.allclose(heard[number], alone(chat, type="audio", path=str(path)), atol=1e-5)


def test_the_processor_by_itself_cuts_alike(chat, film):
    part = {"type": "video", "path": str(film), "sound": True}
    inputs = chat.processor.apply_chat_template([{"role": "user", "content": [part, {"type": "text", "text": "w3"}]}])
    assert {modality: len(values) for modality, values in inputs["media"].items()} == {"video": 3, "audio": 3}
    marked = chat.processor(text="<video> w3", videos=[part])
    for ids in (inputs["input_ids"][0].tolist(), marked["input_ids"][0].tolist()):
        begins = [after for before, after in zip(ids, ids[1:], strict=False) if after >= 64 and before < 64]
        assert begins == [65, 66] * 3
    chat.model.generate(**inputs, max_new_tokens=2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"video": {"path": "silent.mp4", "sound": True}}, "silent.mp4: there is no sound in it"),
        ({"image": {"path": "dot.png", "sound": True}}, "kind image has no 'sound'"),
        ({"video": {"path": "silent.mp4", "sound": "gone.wav"}}, "gone.wav: there is no such file"),
        ({"audio": {"path": "tone.wav", "windows": "many"}}, "'windows' is 'many'; expected a number"),
    ],
)
def test_what_cannot_be_cut_is_told_and_changes_nothing(chat, tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    video("silent.mp4")
    soundfile.write("tone.wav", tone(), RATE_HZ)
    with pytest.raises(OneLLMError, match=words):
        chat.ask("w3", **given)
    assert chat.messages == []


# ---- long files ------------------------------------------------------------------------------------------------------


def test_a_long_sound_is_read_in_windows_and_merged(chat, rising):
    chat.ask("w3", audio=str(rising), max_new_tokens=2)
    (file,) = chat.trace.files
    assert file.windows == [(0, 0.6), (0.6, 1.2), (1.2, 1.8), (1.8, 2.4)] and file.shape[0] == 4
    assert len(file.sizes) == 2 and sum(file.sizes) == 4 and len(file.router) == 6
    assert files(chat) == [("audio", "rising.wav")]
    (segment,) = [segment for segment in chat.trace.segments if segment.kind == "audio"]
    (words,) = chat._media_embeds.values()
    assert segment.tokens == len(words) == 8  # with its tags
    read = [alone(chat, type="audio", path=str(rising), start_s=a, stop_s=b)[1:-1] for a, b in file.windows]
    expected = [run.mean(dim=0) for run in torch.stack(read).split(file.sizes)]
    assert torch.allclose(words[1:-1], torch.cat(expected), atol=1e-5)


def test_a_short_sound_and_one_that_is_to_be_read_at_once_are(chat, rising, tmp_path):
    soundfile.write(tmp_path / "short.wav", tone(0.6), RATE_HZ)
    chat.ask("w3", audio=[str(tmp_path / "short.wav"), {"path": str(rising), "windows": False}], max_new_tokens=2)
    assert [(file.windows, file.sizes) for file in chat.trace.files] == [([], []), ([], [])]
    assert [segment.tokens for segment in chat.trace.segments if segment.kind == "audio"] == [5, 5]


def test_windows_can_be_asked_for_where_the_model_has_none(chat, film):
    chat.ask("w3", video={"path": str(film), "windows": 3, "words": 7}, max_new_tokens=2)
    (file,) = chat.trace.files
    assert file.windows == [(0, 1), (1, 2), (2, 3)] and len(file.sizes) == 2 and sum(file.sizes) == 3


def test_later_questions_and_other_conversations_lay_the_file_out_alike(chat, rising, film):
    chat.ask("w3", audio=str(rising), video={"path": str(film), "sound": True}, max_new_tokens=2)
    first, history = files(chat), [dict(message) for message in chat.messages]
    os.rename(film, film.with_name("moved.mp4"))
    os.rename(rising, rising.with_name("moved.wav"))
    chat.ask("w4", max_new_tokens=2)  # nothing is read again
    assert files(chat) == first and chat.trace.timings.read_s == 0
    os.rename(film.with_name("moved.mp4"), film)
    os.rename(rising.with_name("moved.wav"), rising)
    unresolved = [{"type": "audio", "path": str(rising)}, {"type": "video", "path": str(film), "sound": True}]
    other = chat.new([{**history[0], "content": [*unresolved, history[0]["content"][-1]]}, history[1]])
    other.ask("w4", max_new_tokens=2)
    assert files(other) == first


def test_files_leave_room_for_words(chat, rising):
    chat.model.config.text_config.max_position_embeddings = 22
    chat.ask("w3", audio={"path": str(rising), "words": 9}, max_new_tokens=1)
    with pytest.raises(OneLLMError, match="take 19 of the 22 positions that toy knows; 11 are for files"):
        chat.ask("w4", audio=str(rising), max_new_tokens=1)
    assert len(chat.messages) == 2


def test_a_broken_model_is_found_with_long_files_too(chat, rising):
    with torch.no_grad():
        chat.model.projector.output_proj["audio"][0].weight.fill_(torch.nan)
    with pytest.raises(OneLLMError, match="has to be loaded again"):
        chat.ask("w3", audio=str(rising))
    assert chat.broken


def test_the_preview_says_what_is_heard(rising, film):
    from onellm.web.views.previews import preview_file

    settings = {"frames": 64, "windows": {"seconds": 0.64, "words": 4}}
    seen = MODALITIES["audio"].coverage(load("audio", rising), frames=64)
    assert (
        seen.used == "0.7" and "sees 0.7 of 2.4 seconds" in preview_file("audio", str(rising), {}, {"frames": 64}).html
    )
    assert "sees all 2.4 seconds" in preview_file("audio", str(rising), {}, settings).html
    plain = preview_file("video", str(film), {}, {"frames": 2})
    joint = preview_file("video", str(film), {}, {"frames": 2}, sound=True)
    assert "sees 2 of 30 frames" in plain.html and "sees 6 of 30 frames" in joint.html
    assert plain.sound and joint.sound and "have it heard" in plain.html and "have it heard" not in joint.html


def test_an_answer_ends_where_the_positions_do(make_model, processor):
    chat = Chat(make_model(), processor, "toy")
    chat.ask("w3 w4", max_new_tokens=1)
    prompt = chat.trace.prompt_tokens
    chat.messages.clear()
    chat.model.config.text_config.max_position_embeddings = prompt + 3
    chat.ask("w3 w4", max_new_tokens=50)
    assert chat.trace.new_tokens <= 3
    chat.messages.clear()
    chat.model.config.text_config.max_position_embeddings = prompt
    with pytest.raises(OneLLMError, match=f"takes {prompt} positions, and toy knows {prompt}; begin a new one"):
        chat.ask("w3 w4", max_new_tokens=50)
    assert not chat.messages


def test_a_part_of_a_video_is_not_heard(chat, film):
    with pytest.raises(OneLLMError, match="heard as a whole; leave 'start_s'"):
        chat.ask("w3", video={"path": str(film), "start_s": 1, "sound": True})
