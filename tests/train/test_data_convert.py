"""Conversion to shards: what goes in comes out, bad examples are left out by name, a stopped run goes on."""

import json

import numpy as np
import pytest
from data_makers import captioned_pictures, files, opened, png, source, talk, tar, texts, wav

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES, load
from train.data.convert import convert, summary
from train.data.formats.shard_writer import ShardWriter

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def captions(tmp_path):
    rows = [f"caption {index}\t{index}.png" for index in range(12)]
    rows[5] = "caption 5\tmissing.png"
    return source(path=captioned_pictures(tmp_path / "files", rows, broken=7))


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_goes_in_comes_out(tmp_path, captions):
    out = tmp_path / "out"
    index = convert(captions, out, shard_mb=0.006)
    sizes = [entry["bytes"] for entry in index["shards"].values()]
    # a tar is filled up to a multiple of 10,240 bytes
    assert len(sizes) > 2 and sum(entry["examples"] for entry in index["shards"].values()) == 10 and max(sizes) == 10240
    assert [entry["number"] for entry in index["bad"]] == [5, 7]
    report = summary(index, out)
    assert "10 examples (image)" in report and "a.tsv, row 6: missing.png" in report and "a.tsv, row 8: 7.png" in report
    examples = opened(source="webdataset", path=out)
    assert sum(examples.blocks) == 10
    found = [examples.read(block, index) for block, count in enumerate(examples.blocks) for index in range(count)]
    assert [texts(example)[0] for example in found] == [f"caption {n}" for n in range(12) if n not in (5, 7)]
    assert load("image", files(found[-1])[0]["path"]).array[0, 0, 0] == 220


def test_the_same_source_gives_the_same_bytes_however_many_workers(tmp_path, captions):
    convert(captions, tmp_path / "a", shard_mb=0.006)
    convert(captions, tmp_path / "b", shard_mb=0.006, workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_stopped_conversion_goes_on(tmp_path, captions, monkeypatch):
    convert(captions, tmp_path / "whole", shard_mb=0.006)
    add, seen = ShardWriter.add, []

    def stop(self, number, packed):
        seen.append(number)
        if number == 8 and seen.count(8) == 1:
            raise KeyboardInterrupt
        add(self, number, packed)

    monkeypatch.setattr(ShardWriter, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(captions, tmp_path / "out", shard_mb=0.006)
    before = contents(tmp_path / "out")
    assert any(name.endswith(".tar") for name in before) and not any(name.endswith(".part") for name in before)
    convert(captions, tmp_path / "out", shard_mb=0.006)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert seen.count(0) == 1, "finished shards are kept"
    seen.clear()
    convert(captions, tmp_path / "out", shard_mb=0.006)
    assert not seen, "a finished conversion has nothing to do"


def test_shards_of_another_source_are_not_overwritten(tmp_path, captions):
    convert(captions, tmp_path / "out")
    captions.prompt = "What?"
    with pytest.raises(OneLLMError, match="another source"):
        convert(captions, tmp_path / "out")
    (tmp_path / "theirs").mkdir()
    tar(tmp_path / "theirs" / "a.tar", {"a": "b"})
    with pytest.raises(OneLLMError, match="unknown origin"):
        convert(captions, tmp_path / "theirs")


def test_nothing_usable(tmp_path):
    (tmp_path / "a.tsv").write_text("a cat\tgone.png\n")
    with pytest.raises(OneLLMError, match="None of 1 examples can be used; the first: a.tsv, row 1: gone.png"):
        convert(source(path=tmp_path / "a.tsv"), tmp_path / "out")


def test_maps_with_pictures_keep_their_options_and_conversations(tmp_path):
    png(tmp_path / "p.jpg", 90)
    np.save(tmp_path / "d.npy", np.tile(np.arange(1, 6, dtype=np.float32), (4, 1)))
    entry = {
        "image": "p.jpg",
        "depth_image": "d.npy",
        "conversations": talk("<image>\nFar?", "No.") + talk("Why?", "So."),
    }
    (tmp_path / "a.json").write_text(json.dumps([entry]))
    convert(source(source="instructions", kind="depth", path=tmp_path / "a.json"), tmp_path / "out")
    example = opened(source="webdataset", kind="depth", path=tmp_path / "out").read(0, 0)
    assert texts(example) == ["Far?", "No.", "Why?", "So."]
    part = files(example)[0]
    sample = load("depth", part["path"], picture=part["picture"])
    assert sample.array[0].tolist() == [1, 2, 3, 4, 5] and sample.picture.shape == (30, 40, 3)


def test_motion_windows_keep_units_and_rate(tmp_path):
    values = np.tile(
        np.float32([0.1, 0.2, 1.0, 0.5, 0.0, 25.0]), (400, 1)
    )  # sizes that would be guessed as g and deg/s
    np.save(tmp_path / "v.npy", values)
    np.save(tmp_path / "v_timestamps.npy", np.arange(400) * 5.0)
    row = {"video_uid": "v", "window_start": 0, "window_end": 2, "caption": "turning"}
    (tmp_path / "w.json").write_text(json.dumps([row]))
    convert(source(source="imu", kind="imu", path=tmp_path / "w.json"), tmp_path / "out")
    part = files(opened(source="webdataset", kind="imu", path=tmp_path / "out").read(0, 0))[0]
    sample = MODALITIES["imu"].load(part.pop("path"), **{k: v for k, v in part.items() if k != "type"})
    assert np.allclose(sample.array, values) and sample.rate_hz == pytest.approx(200)


def test_two_files_a_sample_and_shards_again(tmp_path):
    for name in "ab":
        png(tmp_path / "x" / f"{name}.png")
        wav(tmp_path / "x" / f"{name}.wav")
        (tmp_path / "x" / f"{name}.txt").write_text(name)
    convert(source(source="folder", kind=["image", "audio"], path=tmp_path / "x"), tmp_path / "one")
    convert(source(source="webdataset", kind=["image", "audio"], path=tmp_path / "one"), tmp_path / "two", workers=1)
    example = opened(source="webdataset", kind=["image", "audio"], path=tmp_path / "two").read(0, 1)
    assert texts(example) == ["b"] and [part["type"] for part in files(example)] == ["image", "audio"]
    assert b'"key": "x/b"' in (tmp_path / "one" / "00000.tar").read_bytes(), "its own name is kept"
