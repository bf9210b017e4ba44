"""The wheel holds what the program needs when it is installed without its checkout."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USE = """
import json
from onellm.hub.registry import PRETRAINED
from onellm.model.configuration import PRESETS
from onellm.utils.paths import EXAMPLES
from onellm.web.views import examples
print(json.dumps([str(EXAMPLES), len(examples.read()), sorted(PRESETS), len(list(PRETRAINED.glob("*/config.json")))]))
"""


def test_examples_presets_and_weights_are_in_the_wheel(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    source = tmp_path / "source"  # a build leaves files beside what it builds
    source.mkdir()
    for name in (
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "requirements.txt",
        "onellm",
        "train",
        "examples",
    ):
        (source / name).symlink_to(ROOT / name)
    subprocess.run([*command, tmp_path, source], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path / "site", capture_output=True, text=True, check=True
    )
    folder, count, presets, pretrained = json.loads(done.stdout.splitlines()[-1])
    assert folder == str(tmp_path / "site" / "onellm" / "examples")
    assert count == len(json.loads((ROOT / "examples" / "examples.json").read_text(encoding="utf-8")))
    assert presets == sorted(path.stem for path in (ROOT / "onellm/model/presets").glob("*.json")) and pretrained == 3
