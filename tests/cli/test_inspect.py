"""python -m onellm inspect: what a file is taken for, and what is read of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import file_makers as make
import numpy as np
import pytest
import soundfile
from PIL import Image

from onellm.__main__ import main
from onellm.modalities import MODALITIES

KEYS = ["kind", "candidates", "shape", "unit", "rate_hz", "file_rate_hz", "duration_s", "times_s", "notes"]


def inspect(capsys, *arguments):
    code = main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_kind(capsys, tmp_path, example_files, modality):
    path, saved = example_files[modality], tmp_path / "out.npz"
    code, out, _ = inspect(capsys, f"--{modality}", path, "--json", "--save", saved)
    assert code == 0
    found = json.loads(out)
    assert list(found) == KEYS
    sample = MODALITIES[modality].load(path)
    assert found["kind"] == modality and modality in found["candidates"]
    assert found["shape"] == list(sample.array.shape) and found["unit"] == MODALITIES[modality].unit
    with np.load(saved) as arrays:
        assert np.array_equal(arrays["array"], sample.array, equal_nan=modality == "depth")
        assert ("known" in arrays) == (modality in ("depth", "normal"))


def test_times_and_rates(capsys, tmp_path, example_files):
    soundfile.write(tmp_path / "a.wav", make.tone(), 44_100)
    audio = json.loads(inspect(capsys, tmp_path / "a.wav", "--json")[1])
    assert audio["rate_hz"] == 16_000 and audio["file_rate_hz"] == 44_100 and audio["duration_s"] > 0
    video = json.loads(inspect(capsys, example_files["video"], "--frames", 3, "--json")[1])
    assert video["shape"][0] == 3 and len(video["times_s"]) == 3 and video["kind"] == "video"


@pytest.mark.parametrize("coloured", [True, False])
def test_colours_of_a_cloud(capsys, tmp_path, coloured):
    xyz, rgb = make.cloud()
    np.save(tmp_path / "a.npy", np.concatenate([xyz, rgb / 255], axis=1) if coloured else xyz)
    code, _, _ = inspect(capsys, "--point", tmp_path / "a.npy", "--json", "--save", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        assert code == 0 and ("rgb" in arrays) == coloured


def test_a_card_for_people(capsys, tmp_path):
    Image.fromarray(make.picture()).save(tmp_path / "cat.png")
    code, out, _ = inspect(capsys, tmp_path / "cat.png")
    assert code == 0
    for words in ("cat.png", "image", "normal", "onellm-tiny sees", "pixels"):
        assert words in out


def test_refusals(capsys, tmp_path):
    (tmp_path / "a.txt").write_text("Hello there.\n")
    for arguments in ([tmp_path / "a.txt"], ["--image", tmp_path / "a.txt"], [tmp_path / "b.png", "--json"]):
        code, out, err = inspect(capsys, *arguments)
        assert code == 1 and not out and err.count("\n") == 1 and err.endswith(".\n")
    Image.fromarray(make.picture()).save(tmp_path / "cat.png")
    code, _, err = inspect(capsys, tmp_path / "cat.png", "--save", tmp_path / "none" / "out.npz")
    assert code == 1 and "cannot be written" in err


@pytest.mark.parametrize("arguments", [[], ["--image", "--audio", "a.png"], ["a.png", "--frames", "many"]])
def test_usage(arguments):
    with pytest.raises(SystemExit) as ended:
        main(["inspect", *arguments])
    assert ended.value.code == 2


def test_no_deep_learning_library_is_imported(tmp_path):
    Image.fromarray(make.picture()).save(tmp_path / "cat.png")
    program = "import sys; from onellm.__main__ import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program, "inspect", tmp_path / "cat.png", "--json"],
        cwd=Path(__file__).parents[2], env=os.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["kind"] == "image" and not {"torch", "transformers"} & set(done.stderr.split())
