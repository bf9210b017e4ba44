"""Tar shards: both layouts, by random access, whole and broken."""

import json
import os
import pickle

import numpy as np
import pytest
from data_makers import everything, files, opened, png, png_bytes, refused, tar, texts

from onellm.modalities import load
from train.data.formats import fetch, shards

pytestmark = pytest.mark.usefixtures("cache")


def pairs(start, count):
    members = {}
    for index in range(start, start + count):
        members[f"{index:05d}.png"] = png_bytes(index)
        members[f"{index:05d}.txt"] = f"caption {index}"
    return members


def test_pictures_with_txt_and_with_json(tmp_path):
    tar(tmp_path / "a.tar", pairs(0, 3) | {"d/9.jpg": png_bytes(9), "d/9.json": {"caption": "of json", "width": 4}})
    examples = opened(source="webdataset", path=tmp_path / "a.tar", prompt="What?")
    assert examples.blocks == [4]
    example = examples.read(0, 2)
    assert example.key == "a.tar: 00002" and texts(example) == ["What?", "caption 2"]
    assert load("image", files(example)[0]["path"]).array[0, 0, 0] == 2
    assert texts(examples.read(0, 3)) == ["What?", "of json"]
    assert examples.length(0, 1) == len("What?caption 1")


def test_own_layout_takes_its_files_from_the_tar_alone(tmp_path):
    outside = png(tmp_path / "outside.png")

    def messages(path):
        user = {"role": "user", "content": [{"type": "image", "path": path}, {"type": "text", "text": "What?"}]}
        return {"messages": [user, {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]}

    members = {"0.json": messages("image.png"), "0.image.png": png_bytes(7), "1.json": messages(str(outside))}
    tar(tmp_path / "a.tar", members | {"2.json": {"messages": [{"role": "user"}]}})
    good, bad = everything(opened(source="webdataset", path=tmp_path / "a.tar"))
    assert texts(good[0]) == ["What?", "A cat."]
    assert load("image", files(good[0])[0]["path"]).array[0, 0, 0] == 7
    assert "outside.png; add it" in bad[1] and "another form" in bad[2]


def test_bad_samples_are_named(tmp_path):
    members = pairs(0, 1) | {"1.png": png_bytes(), "2.txt": "no picture", "3.png": png_bytes(), "3.txt": " "}
    members |= {"4.png": png_bytes(), "4.json": "{broken", "5.png": b"no picture", "5.txt": "a cat"}
    tar(tmp_path / "a.tar", members)
    good, bad = everything(opened(source="webdataset", path=tmp_path / "a.tar"))
    assert list(good) == [0, 5]
    assert "a.tar: 1: " in bad[1] and "expected a txt" in bad[1]
    assert "a file of kind image" in bad[2] and "empty" in bad[3] and "json is none" in bad[4]
    with pytest.raises(Exception, match="5.png.*cannot be read"):
        load("image", files(good[5])[0]["path"])


def test_the_kind_chooses_the_member(tmp_path):
    array = (tmp_path / "x.npy", np.arange(5, dtype=np.float32))
    np.save(*array)
    data = array[0].read_bytes()
    tar(tmp_path / "a.tar", {"0.coco73k.npy": b"", "0.nsdgeneral.npy": data, "0.jpg": png_bytes(), "0.txt": "a face"})
    example = opened(source="webdataset", kind="fmri", path=tmp_path / "a.tar").read(0, 0)
    assert load("fmri", files(example)[0]["path"]).array.tolist() == [[0, 1, 2, 3, 4]]
    both = opened(source="webdataset", kind=["image", "fmri"], path=tmp_path / "a.tar").read(0, 0)
    assert [part["type"] for part in files(both)] == ["image", "fmri"]


def test_a_truncated_tar_keeps_what_comes_before_the_break(tmp_path):
    whole = tar(tmp_path / "whole.tar", pairs(0, 4)).read_bytes()
    position = whole.index(b"caption 2")
    (tmp_path / "a.tar").write_bytes(whole[: position + 3])
    good, bad = everything(opened(source="webdataset", path=tmp_path / "a.tar"))
    assert list(good) == [0, 1]
    assert len(bad) == 2 and "broken after 3 samples" in bad[3], bad
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 100)
    good, bad = everything(opened(source="webdataset", path=tmp_path / "b.tar"))
    assert not good and "broken after 0 samples" in bad[0]


def test_a_shard_that_shrank_after_it_was_counted(tmp_path):
    tar(tmp_path / "a.tar", pairs(0, 3))
    opened(source="webdataset", path=tmp_path / "a.tar")
    index = json.loads((tmp_path / "shards.json").read_text())
    index["shards"]["a.tar"]["examples"] = 5
    (tmp_path / "shards.json").write_text(json.dumps(index))
    good, bad = everything(opened(source="webdataset", path=tmp_path / "a.tar"))
    assert list(good) == [0, 1, 2] and "promises more" in bad[3]


def test_counts_are_kept_beside_the_shards(tmp_path, monkeypatch):
    for index in range(3):
        tar(tmp_path / f"{index:03d}.tar", pairs(10 * index, index + 1))
    pattern = str(tmp_path / "{000..002}.tar")
    assert opened(source="webdataset", path=pattern).blocks == [1, 2, 3]
    with monkeypatch.context() as patch:
        patch.setattr(shards, "scan", lambda path: pytest.fail(f"{path} was counted again"))
        assert opened(source="webdataset", path=pattern).blocks == [1, 2, 3]
        assert opened(source="webdataset", path=tmp_path).blocks == [1, 2, 3]
        assert opened(source="webdataset", path=f"{tmp_path}/*2.tar").blocks == [3]
    tar(tmp_path / "001.tar", pairs(0, 7))
    assert opened(source="webdataset", path=pattern).blocks == [1, 7, 3]


def test_missing_shards(tmp_path):
    tar(tmp_path / "0.tar", pairs(0, 1))
    refused("1.tar: there is no such file", source="webdataset", path=tmp_path / "{0..1}.tar")
    refused("no file matches", source="webdataset", path=tmp_path / "x*.tar")
    (tmp_path / "empty").mkdir()
    refused("no .tar files", source="webdataset", path=tmp_path / "empty")


def test_braces():
    assert fetch.expand_braces("a{08..10}{x,y}") == ["a08x", "a08y", "a09x", "a09y", "a10x", "a10y"]


def test_few_shards_stay_open_and_all_are_right(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "OPEN_SHARDS", 2)
    for index in range(4):
        tar(tmp_path / f"{index}.tar", pairs(10 * index, 2))
    examples = opened(source="webdataset", path=tmp_path)
    order = [(block, index) for index in range(2) for block in (3, 0, 2, 1)]
    assert [texts(examples.read(*where)) for where in order] == [[f"caption {10 * b + p}"] for b, p in order]
    assert len(examples._shards) == 2
    copy = pickle.loads(pickle.dumps(examples))
    assert not copy._shards and texts(copy.read(1, 1)) == ["caption 11"]


def test_temporary_files_go_with_their_examples(tmp_path):
    tar(tmp_path / "a.tar", pairs(0, 1))
    example = opened(source="webdataset", path=tmp_path / "a.tar").read(0, 0)
    path = os.fspath(files(example)[0]["path"])
    assert path.endswith("00000.png") and os.path.exists(path)
    again = pickle.loads(pickle.dumps(files(example)[0]["path"]))
    del example
    assert not os.path.exists(path)
    assert load("image", again).array.shape == (30, 40, 3)


def test_shards_elsewhere_are_fetched_once_and_dropped_when_room_is_short(tmp_path, monkeypatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    for index in range(3):
        memory.pipe(f"/set/{index}.tar", tar(tmp_path / "x.tar", pairs(10 * index, 2)).read_bytes())
    examples = opened(source="webdataset", path="memory://set/{0..2}.tar")
    assert examples.blocks == [2, 2, 2] and texts(examples.read(2, 1)) == ["caption 21"]
    assert opened(source="webdataset", path="memory://set/*.tar").blocks == [2, 2, 2]
    kept = tmp_path / "cache" / "shards"
    assert {file.name.split("-")[1] for file in kept.glob("*.tar")} == {"0.tar", "1.tar", "2.tar"}
    memory.rm("/set/1.tar")
    assert texts(examples.read(1, 0)) == ["caption 10"], "it was fetched before"
    monkeypatch.setattr(fetch, "CACHE_BYTES", 0)
    memory.pipe("/set/3.tar", b"")
    fetch.local("memory://set/3.tar")
    assert [file.name.split("-")[1] for file in kept.glob("*.tar")] == ["3.tar"]
    assert texts(examples.read(2, 0)) == ["caption 20"], "it is fetched again"
    refused("cannot be fetched", source="webdataset", path="memory://set/9.tar")
