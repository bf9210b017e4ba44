"""docs/contributing.md, "Adding a modality": followed with a ninth one in a copy of the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (".py", ".json", ".html", ".js", ".css", ".svg")

MODALITY = '''"""Thermal pictures: [H, W] float32 in degrees Celsius."""

import numpy as np

from onellm.modalities.base import Coverage, Damaged, Modality, Preview, Sample


class Thermal(Modality):
    """A text file: THERMAL, width and height, then the degrees."""

    name = "thermal"
    title = "Thermal picture"
    icon = "T"
    suffixes = (".thermal",)
    expects = "a thermal picture (thermal)"
    limit_bytes = 1_000_000

    def recognises(self, path, head):
        return head.startswith(b"THERMAL")

    def read(self, path):
        first, *values = path.read_text().split("\\n")
        word, width, height = first.split()
        if word != "THERMAL":
            raise Damaged("it does not begin with THERMAL")
        array = np.array(" ".join(values).split(), np.float32).reshape(int(height), int(width))
        return Sample(self.name, path.name, array, f"{width} x {height}")

    def to_tensor(self, sample, size=4):
        import torch

        return torch.from_numpy(sample.array[:size, :size] / 100)

    def coverage(self, sample, size=4):
        return Coverage(str(size * size), str(sample.array.size), "pixels")

    def preview(self, sample, **settings):
        from PIL import Image

        return Preview("image", Image.fromarray(sample.array.astype(np.uint8)), sample.summary)
'''

TOKENIZER = '''class ThermalRows(Tokenizer):
    """Every row of degrees is a token."""

    def __init__(self, width: int, size: int):
        super().__init__(width, size)
        self.linear = nn.Linear(size, width)

    def forward(self, degrees: torch.Tensor) -> torch.Tensor:
        """Tokenize [B, size, size] degrees."""
        return self.linear(degrees)


'''

TEST = """import numpy as np
import pytest
import torch
from conftest import tiny_config

import onellm
from onellm.chat.chat import Chat
from onellm.errors import FileError
from onellm.modalities import MODALITIES, load
from onellm.modalities.detect import recognise
from onellm.model.auto import OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.serving.engine import Engine
from onellm.web import layout
from onellm.web.views import examples

THERMAL = {"token_id": 72, "tokenizer": {"type": "thermal-rows", "size": 4}, "before": "w5", "after": "w6"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "hand.thermal"
    path.write_text("THERMAL 6 5\\n" + "\\n".join(" ".join(["36.5"] * 6) for _ in range(5)))
    return path


def test_thermal(path, tokenizer, tmp_path):
    assert list(MODALITIES)[-1] == "thermal" and list(onellm.MODALITIES) == list(MODALITIES)
    sample = load("thermal", path)
    assert sample.array.shape == (5, 6) and MODALITIES["thermal"].coverage(sample).of == "30"
    assert recognise(path) == ["thermal"]
    bad = tmp_path / "bad.thermal"
    bad.write_text("no")
    with pytest.raises(FileError, match="bad.thermal.*expected a thermal picture"):
        load("thermal", bad)

    config = tiny_config(modalities={"thermal": THERMAL})
    torch.manual_seed(0)
    model = OneLLMForConditionalGeneration(config).eval()
    processor = OneLLMProcessor.from_config(tokenizer, config)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "thermal", "path": str(path)}, {"type": "text", "text": "w3"}]}],
        tokenize=True, return_dict=True, add_generation_prompt=True,
    )
    assert inputs["input_ids"].tolist()[0].count(72) == config.length_of("thermal")
    assert model(**inputs).logits.isfinite().all()

    (example,) = examples.read()
    assert example.question == "How warm is it?" and example.files[0].modality == "thermal"
    page = layout.build(Engine("toy", lambda *_, **__: Chat(model, processor, "toy"), lambda *_: []))
    assert any(block.elem_id == "add-thermal" for block in page.blocks.values() if hasattr(block, "elem_id"))

    chat = Chat(model, processor, "toy")
    chat.ask("w3", thermal=path, max_new_tokens=3)
    assert chat.messages[0]["content"][0]["type"] == "thermal" and len(chat.messages) == 2
"""


def test_adding_a_modality_touches_its_file_the_registry_a_tokenizer_an_example_and_a_test(tmp_path):
    shutil.copytree(ROOT / "onellm", tmp_path / "onellm", ignore=shutil.ignore_patterns("pretrained", "__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    write(tmp_path / "onellm/modalities/thermal.py", MODALITY)
    insert(
        tmp_path / "onellm/modalities/__init__.py",
        ("from onellm.modalities.video import", "from onellm.modalities.thermal import Thermal\n"),
        (")\n}\nModality.siblings", ", Thermal()"),
    )
    insert(
        tmp_path / "onellm/model/tokenizers.py",
        ("TOKENIZERS = {", TOKENIZER),
        ('    "voxels": Voxels,', '    "thermal-rows": ThermalRows,\n'),
    )
    write(tmp_path / "examples/thermal/hand.thermal", "THERMAL 2 2\n30 31\n32 33")
    example = {"files": {"thermal": "thermal/hand.thermal"}, "question": "How warm is it?"}
    write(tmp_path / "examples/examples.json", json.dumps([example]))
    write(tmp_path / "tests/test_thermal.py", TEST)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), "tests"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert different(ROOT / "onellm", tmp_path / "onellm") == [
        "modalities/__init__.py",
        "modalities/thermal.py",
        "model/tokenizers.py",
    ]


def different(old, new):
    """List the files of the package that are not as they were."""
    files = {str(path.relative_to(new)): path for path in new.rglob("*") if path.suffix in SOURCES}
    return sorted(name for name, path in files.items() if not same(old / name, path))


def same(one, other):
    return one.exists() and one.read_bytes() == other.read_bytes()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def insert(path, *changes):
    """Put lines before others that the file has once."""
    text = path.read_text()
    for before, new in changes:
        assert text.count(before) == 1, (path, before)
        text = text.replace(before, new + before)
    path.write_text(text)
