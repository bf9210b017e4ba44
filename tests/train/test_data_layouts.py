"""Published layouts of motion, scans and points; folders of files with captions beside them."""

import json

import numpy as np
import pytest
from data_makers import everything, files, opened, png, refused, talk, texts, wav

from onellm.modalities import MODALITIES, load
from onellm.modalities.in_memory import from_memory
from train.data.formats.motion_windows import load_window

pytestmark = pytest.mark.usefixtures("cache")


def recording(folder, name="v", rate_hz=200.0, seconds=20.0, turned=True):
    """Write a recording whose first channel is the time in seconds, at uneven times in ms."""
    chance = np.random.default_rng(0)
    times_ms = np.arange(0, seconds * 1000, 1000 / rate_hz)
    times_ms[1:-1] += chance.uniform(-1, 1, len(times_ms) - 2)
    values = np.zeros((len(times_ms), 6), np.float32)
    values[:, 0], values[:, 2] = times_ms / 1000, 9.81
    np.save(folder / f"{name}.npy", values.T if turned else values)
    np.save(folder / f"{name}_timestamps.npy", times_ms)


@pytest.mark.parametrize("turned", [True, False])
def test_a_window_is_cut_and_evened_out(tmp_path, turned):
    recording(tmp_path, turned=turned)
    rows, rate_hz = load_window(tmp_path, "v", 5.0, 7.0)
    assert rows.shape[1] == 6 and abs(len(rows) - 400) <= 2 and 190 < rate_hz < 210
    expected_s = rows[0, 0] + np.arange(len(rows)) / rate_hz
    assert 5.0 <= rows[0, 0] < 5.01 and np.abs(rows[:, 0] - expected_s).max() < 0.01, "time runs evenly"


def test_windows_of_a_list(tmp_path):
    recording(tmp_path)
    np.save(tmp_path / "broken.npy", np.zeros((3, 5)))
    np.save(tmp_path / "broken_timestamps.npy", np.zeros(3))

    def window(start, end, **values):
        return {"video_uid": "v", "window_start": start, "window_end": end, "caption": "walking"} | values

    rows = [
        window(5, 7),
        window(17, 26),
        window(16, 23.5),
        window(30, 32),
        window(1, 1.02),
        window(1, 2, video_uid="x"),
    ]
    rows += [window(1, 2, video_uid="broken"), window(1, 2, window_end=None)]
    (tmp_path / "w.json").write_text(json.dumps(rows))
    examples = opened(source="imu", kind="imu", path=tmp_path / "w.json")
    good, bad = everything(examples)
    assert list(good) == [0, 2], bad
    assert "miss 6.0 s" in bad[1] and "0 rows" in bad[3] and "5 rows; expected 10" in bad[4]
    assert "x.npy: there is no such file" in bad[5] and "shape [3, 5]" in bad[6] and "no times" in bad[7]
    part = files(good[0])[0]
    sample = from_memory("imu", part["imu"], rate_hz=part["rate_hz"])
    tensor = MODALITIES["imu"].to_tensor(sample, rate_hz=200, length=400)
    assert tensor.shape == (6, 400) and abs(float(tensor[0, 200]) - 6) < 0.05


def test_windows_in_an_instruction_list(tmp_path):
    recording(tmp_path)
    rows = [
        {
            "video_uid": "v",
            "window_start": 1.0,
            "window_end": 3.0,
            "conversations": talk("Describe the motion.", "Up."),
        },
        {"image": "a.png", "conversations": talk("a", "b")},
    ]
    (tmp_path / "w.json").write_text(json.dumps(rows))
    examples = opened(source="instructions", kind="imu", path=tmp_path / "w.json")
    assert sum(examples.blocks) == 1
    assert files(examples.read(0, 0))[0]["imu"].shape[1] == 6


def test_scans_are_averaged_over_their_repetitions(tmp_path):
    np.save(tmp_path / "7.npy", np.float32([[1, 2, 3], [3, 2, 5]]))
    (tmp_path / "a.csv").write_text("fmri,caption\n7.npy,a face\n7,a face by number\n")
    good, bad = everything(opened(source="fmri", kind="fmri", path=tmp_path / "a.csv"))
    assert not bad
    for example in good.values():
        assert MODALITIES["fmri"].to_tensor(load("fmri", files(example)[0]["path"])).tolist() == [2, 2, 4]


def test_points_by_their_ids(tmp_path):
    (tmp_path / "clouds").mkdir()
    cloud = np.random.default_rng(0).random((50, 6)).astype(np.float32)
    np.save(tmp_path / "clouds" / "abc.npy", cloud)
    np.save(tmp_path / "clouds" / "def_8192.npy", cloud)
    (tmp_path / "cap.csv").write_text('abc,"a car, red"\ndef,a chair\nghi,gone\n')
    examples = opened(source="point", kind="point", path=tmp_path / "cap.csv", root=tmp_path / "clouds")
    good, bad = everything(examples)
    assert texts(good[0]) == ["a car, red"] and list(good) == [0, 1] and "ghi: there is no such file" in bad[2]
    assert np.allclose(load("point", files(good[1])[0]["path"]).array, cloud)


def test_a_folder_of_files_with_captions_beside_them(tmp_path):
    folder = tmp_path / "mine"
    png(folder / "a" / "cat.png")
    png(folder / "dog.png")
    png(folder / "mute.png")
    (folder / "a" / "cat.txt").write_text("a cat\n")
    (folder / "dog.txt").write_text("")
    (folder / "notes.md").write_text("x")
    good, bad = everything(opened(source="folder", path=folder))
    assert [(example.key, texts(example)) for example in good.values()] == [("mine/a/cat", ["a cat"])]
    assert {reason.split(":")[0] for reason in bad.values()} == {"mine/dog", "mine/mute"}
    assert any("empty" in reason for reason in bad.values()) and any("no mute.txt" in r for r in bad.values())
    refused("no files of kind audio", source="folder", kind="audio", path=folder)
    refused("no such folder", source="folder", path=folder / "cat.png")


def test_a_folder_of_two_kinds(tmp_path):
    png(tmp_path / "x" / "a.png")
    png(tmp_path / "x" / "b.png")
    wav(tmp_path / "x" / "a.wav")
    for name in "ab":
        (tmp_path / "x" / f"{name}.txt").write_text("both")
    good, bad = everything(opened(source="folder", kind=["image", "audio"], path=tmp_path / "x"))
    assert [part["type"] for part in files(good[0])] == ["image", "audio"]
    assert "no audio beside it" in bad[1]


def test_a_folder_with_a_table(tmp_path):
    png(tmp_path / "x" / "sub" / "a.png")
    (tmp_path / "x" / "metadata.csv").write_text("file_name,text\nsub/a.png,a cat\n")
    assert texts(opened(source="folder", path=tmp_path / "x").read(0, 0)) == ["a cat"]
