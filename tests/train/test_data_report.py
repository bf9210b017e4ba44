"""The report, the bench and the commands: what people see of training data."""

import json
import re

import numpy as np
import pytest
import yaml
from data_makers import captioned_pictures, refused, source, talk, tar

from onellm.errors import OneLLMError
from train.__main__ import main
from train.data import commands, throughput
from train.data.inspect import inspect_source
from train.data.report import render
from train.data.throughput import Speed, measure, table

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def pictures(tmp_path):
    """Write twelve captioned pictures, two of them bad."""
    rows = [f"w{index} w3\t{index}.png" for index in range(12)]
    rows[4] = " \t4.png"
    return captioned_pictures(tmp_path / "files", rows, broken=9)


def test_labelled_tokens_and_places_are_told_apart(pictures, processor):
    processor.modalities["image"]["input"] = {"size": 28}
    report, shown = inspect_source(source(path=pictures, prompt="w9"), processor, "chat", 100, 100)
    assert (report.examples, report.checked, len(report.bad), len(shown)) == (12, 12, 2, 10)
    assert "a.tsv, row 5" in report.bad[0] and "a.tsv, row 10: 9.png" in report.bad[1]
    runs = {run.sort: run.texts for run in shown[2].runs}
    assert runs["image"] == [""] * processor.media_length
    assert runs["trained"] == ["w2", "w3", "</s>"]
    assert shown[2].trained == 3 and shown[2].tokens == sum(len(run.texts) for run in shown[2].runs)
    assert shown[2].files[0].shape == (3, 28, 28)
    assert report.lengths.count(7) == 9 and sum(count for _, count in report.histogram) == 12


def test_more_are_checked_than_shown(pictures, processor):
    report, shown = inspect_source(source(path=pictures), processor, "caption", 2, 12)
    assert report.checked == 12 and len(report.bad) == 2 and len(shown) == 2
    limited, _ = inspect_source(source(path=pictures, limit=3), processor, "chat", 2, 12)
    assert limited.examples == limited.checked == 3


def test_a_kind_the_model_lacks(tmp_path, processor):
    del processor.modalities["fmri"]
    np.save(tmp_path / "a.npy", np.ones((1, 20), np.float32))
    (tmp_path / "a.tsv").write_text("w1\ta.npy\n")
    with pytest.raises(OneLLMError, match="of kind fmri, which this model lacks; it knows image, video"):
        inspect_source(source(kind="fmri", path=tmp_path / "a.tsv"), processor, "chat", 1, 1)
    with pytest.raises(OneLLMError, match="of kind fmri, which this model lacks"):
        measure(source(kind="fmri", path=tmp_path / "a.tsv"), processor, 0, 0.1)


def test_the_page_stands_alone_and_shows_text_as_text(tmp_path, pictures, processor):
    (tmp_path / "t.json").write_text(json.dumps([{"conversations": talk("<script>alert(1)</script>", "w1 & <b>")}]))
    sources = [source(path=pictures), source(kind="text", source="instructions", path=tmp_path / "t.json")]
    looked = [inspect_source(one, processor, "chat", 3, 12) for one in sources]
    shown = [example for _, examples in looked for example in examples]
    page = render([report for report, _ in looked], shown, "mine", "toy", "chat")
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "Plotly" not in page
    assert page.count("data:image/webp;base64,") == 3 and f"image × {processor.media_length}" in page
    assert "2 of 12 examples looked at are bad" in page


def test_plots_come_with_their_library(tmp_path, processor):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(2, 20)).astype(np.float32))
    (tmp_path / "a.tsv").write_text("w1\ta.npy\n")
    report, shown = inspect_source(source(kind="fmri", path=tmp_path / "a.tsv"), processor, "chat", 1, 1)
    page = render([report], shown, "scans", "toy", "chat")
    assert 'data-plot="0"' in page and "Plotly.newPlot" in page and len(page) > 1_000_000


@pytest.mark.parametrize("workers", [0, 1])
def test_speed_counts_what_arrives(pictures, processor, workers, monkeypatch):
    class Clock:
        """Every look at it takes a sixteenth of a second."""

        now = 0.0

        def perf_counter(self):
            self.now += 1 / 16
            return self.now

    monkeypatch.setattr(throughput, "time", Clock())
    speed = measure(source(path=pictures), processor, workers, 3)
    assert (speed.samples, speed.seconds, speed.workers) == (47, 3, workers)
    assert 4 <= speed.bad <= 10, "two of twelve are bad in every round"
    assert speed.rate == pytest.approx(47 / 3)


def test_workers_for_a_wanted_rate():
    text = table([Speed("a", ("image",), 2, samples=100, bad=1, seconds=2.0)], wanted=130)
    assert "| a | image | 2 | 50.0 | 25.0 | 1 of 100 | 6 |" in text


def run(*arguments):
    return main(["data", *map(str, arguments)])


def test_commands_from_a_folder_to_shards_to_a_page(tmp_path, pictures, processor, monkeypatch, capsys):
    monkeypatch.setattr(commands, "_processor", lambda model: processor)
    assert run("convert", pictures, "--kind", "image", "--out", tmp_path / "shards") == 0
    assert "10 examples (image) in 1 shards" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert run("inspect", tmp_path / "shards", "--count", 4, "--out", page) == 0, "shards say their kind"
    assert "10 examples; of 10 looked at 0 are bad" in capsys.readouterr().out
    assert page.read_text().count("<article") == 4
    assert run("bench", tmp_path / "shards", "--workers", 0, "--seconds", 0.2, "--wanted", 1) == 0
    assert capsys.readouterr().out.strip().endswith("| 1 |")


def test_commands_take_a_source_or_a_recipe_as_yaml(tmp_path, pictures, capsys, settings):
    one = {"kind": "image", "source": "captions", "path": str(pictures), "limit": 3}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(one))
    assert run("convert", tmp_path / "one.yaml", "--out", tmp_path / "one") == 0
    assert "3 examples" in capsys.readouterr().out
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings | {"data": [one, *settings["data"]]}))
    options = type("Options", (), {"what": str(tmp_path / "recipe.yaml"), "path": None})
    sources, objective = commands.sources_of(options)
    assert [found.kind for found in sources] == ["image", "fmri"] and objective == "caption"
    assert run("convert", tmp_path / "recipe.yaml", "--out", tmp_path / "two") == 1
    assert "lists 2 sources" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to look at"),
        (("nothing.tsv", "--kind", "image"), "no such file"),
        (("a.tsv",), "name it with --kind"),
        (("a.xyz", "--kind", "image"), "name it with --source"),
        (("a.yaml",), "cannot be read"),
    ],
)
def test_wrong_commands_get_one_sentence(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert run("convert", *arguments, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and "Traceback" not in error


def test_formats_are_told_from_paths(tmp_path, pictures):
    (tmp_path / "talk.json").write_text(json.dumps([{"image": "a.png", "conversations": talk("a", "b")}]))
    (tmp_path / "plain.json").write_text(json.dumps([{"image": "a.png", "caption": "b"}]))
    tar(tmp_path / "a.tar", {"a.txt": "a"})
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    expected = {"talk.json": "instructions", "plain.json": "captions", "a.tar": "webdataset", "files": "folder"}
    expected |= {"saved": "hub", "files/a.tsv": "captions", ".": "webdataset"}
    assert {name: commands.guess_format(str(tmp_path / name)) for name in expected} == expected
    refused("cannot be opened", source="hub", path=tmp_path / "saved")
