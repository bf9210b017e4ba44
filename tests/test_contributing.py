"""docs/contributing.md, "Adding a modality": followed with a ninth one in a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

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
from onellm.modalities import MODALITIES, Modality, load
from onellm.modalities.detect import recognise
from onellm.model.auto import OneLLMForConditionalGeneration, OneLLMProcessor

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
    if hasattr(Modality, "recognises"):  # where a modality says itself what it surely recognises
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

    chat = Chat(model, processor, "toy")
    chat.ask("w3", thermal=path, max_new_tokens=3)
    assert chat.messages[0]["content"][0]["type"] == "thermal" and len(chat.messages) == 2
"""


def test_adding_a_modality_touches_its_file_the_registry_and_a_tokenizer(tmp_path):
    shutil.copytree(ROOT / "onellm", tmp_path / "onellm", ignore=shutil.ignore_patterns("pretrained", "__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    touched = [
        write(tmp_path, "modalities/thermal.py", MODALITY),
        insert(
            tmp_path,
            "modalities/__init__.py",
            ("from onellm.modalities.video import", "from onellm.modalities.thermal import Thermal\n"),
            (")\n}\nModality.siblings", ", Thermal()"),
        ),
        insert(
            tmp_path,
            "model/tokenizers.py",
            ("TOKENIZERS = {", TOKENIZER),
            ('    "voxels": Voxels,', '    "thermal-rows": ThermalRows,\n'),
        ),
    ]
    (tmp_path / "tests" / "test_thermal.py").write_text(TEST)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), "tests"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(touched) == 3  # of the package; the example and the row of the tests are the two others


def write(root, name, text):
    (root / "onellm" / name).write_text(text)
    return name


def insert(root, name, *changes):
    """Put lines before others that the file has once."""
    path = root / "onellm" / name
    text = path.read_text()
    for before, new in changes:
        assert text.count(before) == 1, (name, before)
        text = text.replace(before, new + before)
    path.write_text(text)
    return name
