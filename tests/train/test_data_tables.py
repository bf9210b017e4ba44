"""Captions and instruction lists: what is read, by random access, and what is refused."""

import json
import pickle

import numpy as np
import pytest
from data_makers import everything, files, opened, png, png_bytes, refused, talk, texts, wav

from onellm.modalities import load

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def pictures(tmp_path):
    for index in range(3):
        png(tmp_path / f"{index}.png", 50 * index)
    return tmp_path


def test_captions_with_and_without_a_header(pictures):
    (pictures / "a.tsv").write_text('caption\turl\na "quoted" cat\t0.png\n"a ""wild"" cat"\t1.png\n')
    (pictures / "b.tsv").write_text("a cat\t0.png\na dog\t1.png\n")
    (pictures / "c.csv").write_text('file,caption,size\n0.png,"a cat, sitting",3\n')
    examples = opened(path=pictures / "a.tsv")
    assert examples.blocks == [2] and examples.modalities == ("image",)
    assert [texts(examples.read(0, index)) for index in range(2)] == [['a "quoted" cat'], ['a "wild" cat']]
    assert load("image", files(examples.read(0, 1))[0]["path"]).array[0, 0, 0] == 50
    assert texts(opened(path=pictures / "b.tsv").read(0, 1)) == ["a dog"]
    example = opened(path=pictures / "c.csv", prompt="What is it?").read(0, 0)
    assert texts(example) == ["What is it?", "a cat, sitting"]
    assert [message["role"] for message in example.messages] == ["user", "assistant"]


def test_length_is_the_text_s_without_opening_files(tmp_path):
    (tmp_path / "a.tsv").write_text("four\tmissing.png\n\tmissing.png\n")
    examples = opened(path=tmp_path / "a.tsv")
    assert [examples.length(0, 0), examples.length(0, 1)] == [4, 0]


def test_rows_are_cut_into_blocks_and_found_by_number(pictures):
    (pictures / "long.tsv").write_text("".join(f"caption {row}\t0.png\n" for row in range(2345)))
    examples = opened(path=pictures / "long.tsv")
    assert examples.blocks == [1000, 1000, 345]
    assert texts(examples.read(2, 344)) == ["caption 2344"]
    copy = pickle.loads(pickle.dumps(examples))
    assert texts(copy.read(1, 7)) == ["caption 1007"]
    assert len(pickle.dumps(examples)) < 10_000


def test_a_changed_table_is_read_again(pictures):
    table = pictures / "a.tsv"
    table.write_text("a cat\t0.png\n")
    assert texts(opened(path=table).read(0, 0)) == ["a cat"]
    table.write_text("a lion\t0.png\n")
    assert texts(opened(path=table).read(0, 0)) == ["a lion"]


def test_bad_rows_are_named_and_the_others_stay(pictures):
    wav(pictures / "a.wav")
    rows = [
        "caption\turl",
        "good\t0.png",
        "\t0.png",
        "gone\tgone.png",
        "only a caption",
        "a sound\ta.wav",
        "good\t1.png",
    ]
    (pictures / "a.tsv").write_text("\n".join(rows))
    good, bad = everything(opened(path=pictures / "a.tsv"))
    assert list(good) == [0, 5]
    assert "a.tsv, row 2" in bad[1] and "empty" in bad[1]
    assert "a.tsv, row 3" in bad[2] and "no such file" in bad[2]
    assert "line 5 has 1 columns" in bad[3]
    assert "ends in .wav" in bad[4] and "give it as audio" in bad[4]


def test_a_table_without_the_wanted_column_names_those_there(pictures):
    (pictures / "a.csv").write_text("url,alt\n0.png,a cat\n")
    refused("no column for 'caption'", "url, alt", "columns: {caption: NAME}", path=pictures / "a.csv")
    examples = opened(path=pictures / "a.csv", columns={"caption": "alt"})
    assert texts(examples.read(0, 0)) == ["a cat"]
    refused("no column for 'audio'", kind="audio", path=pictures / "a.csv", columns={"caption": "alt", "audio": "wave"})
    (pictures / "b.csv").write_text("1,2,3\n")
    refused("3 columns have no names", "columns", path=pictures / "b.csv")


def test_refused_tables(tmp_path):
    refused("no such file", path=tmp_path / "a.tsv")
    (tmp_path / "empty.tsv").write_text("")
    refused("no rows", path=tmp_path / "empty.tsv")
    (tmp_path / "a.xlsx").write_text("x")
    refused("no table", path=tmp_path / "a.xlsx")
    (tmp_path / "a.tsv").write_text("a\tb.png\n")
    refused("teach nothing", kind="text", path=tmp_path / "a.tsv")
    refused("'smell' is not known", kind="smell", path=tmp_path / "a.tsv")
    refused("'parchment' is not known", source="parchment", path=tmp_path / "a.tsv")


def test_instructions_of_all_shapes(pictures):
    wav(pictures / "a.wav")
    entries = [
        {"id": 1, "image": "0.png", "conversations": talk("<image>\nWhat?", "A cat.") + talk("Sure?", "Yes.")},
        {"id": "two", "image": ["0.png", "1.png"], "conversations": talk("<image> and <image>", "Two.")},
        {"id": 3, "conversations": talk("Hello?", "Hello.")},
        {"id": 4, "image": "a.wav", "conversations": talk("What do you hear?", "A tone.")},
    ]
    path = pictures / "mix.json"
    path.write_text(json.dumps(entries))
    images = opened(source="instructions", path=path)
    assert sum(images.blocks) == 2, "entries of other kinds are another source's"
    first, second = images.read(0, 0), images.read(0, 1)
    assert texts(first) == ["What?", "A cat.", "Sure?", "Yes."]
    assert [part["type"] for part in second.messages[0]["content"]] == ["image", "text", "image"]
    assert second.key == "mix.json, row 2"
    text = opened(source="instructions", kind="text", path=path)
    assert sum(text.blocks) == 1 and files(text.read(0, 0)) == []
    sound = opened(source="instructions", kind="audio", path=path).read(0, 0)
    assert files(sound)[0]["path"] == pictures / "a.wav"
    refused("none of its 4 entries is of kind point", "image:.png", source="instructions", kind="point", path=path)


def test_maps_with_a_picture_beside_and_two_kinds(pictures):
    np.save(pictures / "d.npy", np.ones((4, 5), np.float32) * np.arange(1, 6, dtype=np.float32))
    wav(pictures / "a.wav")
    entries = [
        {"image": "0.png", "depth_image": "d.npy", "conversations": talk("<image>\nFar?", "No.")},
        {"image": "0.png", "audio": "a.wav", "conversations": talk("<audio><image>Both?", "Yes.")},
    ]
    path = pictures / "maps.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    part = files(opened(source="instructions", kind="depth", path=path).read(0, 0))[0]
    assert part == {"type": "depth", "path": pictures / "d.npy", "picture": pictures / "0.png"}
    both = opened(source="instructions", kind=["image", "audio"], path=path).read(0, 0)
    assert [part["type"] for part in files(both)] == ["audio", "image"]


def test_bad_conversations(pictures):
    def entry(turns, **values):
        return {"image": "0.png", "conversations": turns} | values

    entries = [
        entry(talk("a", "b")),
        entry([{"from": "human", "value": "a"}]),
        entry(talk("<image><image>", "b")),
        entry(talk("a", "  ")),
        entry([{"from": "robot", "value": "a"}]),
        {"image": "0.png"},
        entry(talk("a", "b"), image=["0.png", 7]),
    ]
    path = pictures / "bad.json"
    path.write_text(json.dumps(entries))
    good, bad = everything(opened(source="instructions", path=path))
    assert list(good) == [0]
    for number, words in enumerate(("end with an answer", "has no file", "empty", "robot", "conversation is empty"), 1):
        assert f"row {number + 1}: " in bad[number] and words in bad[number], bad[number]
    assert "its image is 7" in bad[6]


def test_json_without_conversations_and_broken_json(pictures):
    path = pictures / "a.json"
    path.write_text(json.dumps([{"id": 1, "image": "0.png", "caption": "a cat"}]))
    refused("no column for 'conversations'", "id, image, caption", source="instructions", path=path)
    assert texts(opened(path=path).read(0, 0)) == ["a cat"]
    path.write_text('[{"image": "0.png", "caption": "a"}, {"image"')
    refused("breaks off after 1 entries", path=path)
    path.write_text("no json")
    refused("no JSON", path=path)
    path.write_text('{"image": "0.png", "caption": "a"}\n{"image"\n[1]\n')
    good, bad = everything(opened(path=path))
    assert list(good) == [0] and "line 2 is no JSON" in bad[1] and "it is a list" in bad[2]


def test_a_json_list_longer_than_a_chunk(tmp_path, monkeypatch):
    from train.data.formats import table_files

    monkeypatch.setattr(table_files, "CHUNK", 7)
    with open(png(tmp_path / "x" / "0.png").parent / "a.json", "w+") as file:
        entries = [{"text": "ü" * index, "n": -1.5e3} for index in range(20)]
        json.dump(entries, file, indent=1, ensure_ascii=False)
        file.seek(0)
        assert [row for row, _ in table_files._json_rows("a.json", file)] == entries


def test_parquet_and_a_saved_data_set(tmp_path):
    import datasets

    rows = datasets.Dataset.from_dict(
        {
            "picture": [{"bytes": png_bytes(90), "path": None}, {"bytes": png_bytes(200), "path": "b.png"}],
            "sentences": [["a cat", "a pet"], ["a dog"]],
            "scan": [[0.5, 1.0, -1.0], [1.0, 2.0, 0.0]],
        }
    )
    rows.to_parquet(tmp_path / "a.parquet")
    rows = rows.cast_column("picture", datasets.Image())
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "saved")
    columns = {"image": "picture", "caption": "sentences"}
    for values in ({"path": tmp_path / "a.parquet"}, {"path": tmp_path / "saved", "source": "hub"}):
        examples = opened(columns=columns, **values)
        example = pickle.loads(pickle.dumps(examples)).read(0, 1)
        assert texts(example) == ["a dog"]
        assert load("image", files(example)[0]["path"]).array[0, 0, 0] == 200
        assert load("image", files(examples.read(0, 0))[0]["path"]).array[0, 0, 0] == 90
        assert examples.length(0, 0) == 5
    scan = files(
        opened(
            kind="fmri", columns={"fmri": "scan", "caption": "sentences"}, path=tmp_path / "saved", source="hub"
        ).read(0, 0)
    )[0]
    assert scan["fmri"].tolist() == [0.5, 1.0, -1.0]
    refused("no split 'test'", "train", path=tmp_path / "saved", source="hub", split="test")
    refused("no column for 'caption'", "sentences", path=tmp_path / "saved", source="hub")


def test_files_of_addresses_are_fetched(tmp_path):
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    png(tmp_path / "served" / "0.png", 120)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=tmp_path / "served"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "a.tsv").write_text(f"a cat\t{address}/0.png\ngone\t{address}/1.png\n")
    examples = opened(path=tmp_path / "a.tsv")
    assert load("image", files(examples.read(0, 0))[0]["path"]).array[0, 0, 0] == 120
    with pytest.raises(Exception, match="1.png: it cannot be fetched"):
        load("image", files(examples.read(0, 1))[0]["path"])
    server.shutdown()
