"""A tiny random OneLLM built in memory (all eight kinds, hidden size 32, two layers), and the running app."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
MODEL = os.environ.get("ONELLM_TEST_MODEL", "onellm-tiny")


def tiny_config(**changes):
    from onellm.model.configuration import OneLLMConfig

    modalities = {
        "image": {"type": "image-patches", "size": 28, "patch": 14},
        "video": {"share": "image"},
        "audio": {"type": "spectrogram-patches", "mels": 32, "frames": 64},
        "point": {"type": "point-groups", "groups": 8, "neighbours": 4, "hidden": [16]},
        "fmri": {"type": "voxels", "voxels": 20, "count": 3},
        "imu": {"type": "motion-windows", "length": 40},
        "depth": {"share": "image"},
        "normal": {"share": "image"},
    }
    settings = {
        "text_config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        "encoder": {"width": 16, "layers": 2, "heads": 2},
        "projector": {"experts": 2, "layers": 2, "heads": 2, "hidden": 24, "queries": 3, "router_hidden": 8},
        "modalities": {
            modality: {"token_id": 64 + i, "tokenizer": tokenizer, "before": "w5", "after": "w6"}
            for i, (modality, tokenizer) in enumerate(modalities.items())
        },
    }
    for key, value in changes.items():
        settings[key] = {**settings[key], **value} if isinstance(settings.get(key), dict) else value
    return OneLLMConfig(**settings)


SHAPES = {
    "image": (3, 28, 28),
    "video": (4, 3, 28, 28),
    "audio": (1, 32, 64),
    "point": (50, 6),
    "fmri": (20,),
    "imu": (6, 40),
    "depth": (2, 3, 28, 28),
    "normal": (1, 3, 28, 28),
}


@pytest.fixture(autouse=True)
def files_are_not_trusted_for_ever(monkeypatch):
    """Undo what `python -m train` sets for its process when a test runs it in this one."""
    from onellm.modalities import sandbox

    monkeypatch.setattr(sandbox, "_trusted", sandbox._trusted)


@pytest.fixture
def config():
    return tiny_config()


@pytest.fixture
def make_model():
    """Build a random model; the same every time."""

    def make(**changes):
        from onellm.model.auto import OneLLMForConditionalGeneration

        torch.manual_seed(0)
        return OneLLMForConditionalGeneration(tiny_config(**changes)).eval()

    return make


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def tokenizer():
    """Build a word-level tokenizer w0..w63 with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(60)} | {"<unk>": 60}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    # special tokens get the ids 61 to 63, outside the words: typed literally they are unknown words
    built.chat_template = (
        "{{ '<s>' }}{% for m in messages %}{{ ' w1 ' if m['role'] == 'user' else ' w2 ' }}"
        "{{ m['content'] }}{{ '</s>' }}{% endfor %}{% if add_generation_prompt %}{{ ' w2' }}{% endif %}"
    )
    return built


@pytest.fixture
def processor(tokenizer, config):
    from onellm.model.auto import OneLLMProcessor

    return OneLLMProcessor.from_config(tokenizer, config)


@pytest.fixture
def tensors():
    """One random tensor a kind, of the tiny model's shapes."""
    generator = torch.Generator().manual_seed(1)
    return {modality: torch.rand(shape, generator=generator) for modality, shape in SHAPES.items()}


@pytest.fixture(scope="session")
def example_files() -> dict[str, Path]:
    """One bundled file a kind."""
    folder = ROOT / "examples"
    files: dict[str, Path] = {}
    for entry in json.loads((folder / "examples.json").read_text(encoding="utf-8")):
        for modality, given in entry["files"].items():
            path = given["path"] if isinstance(given, dict) else given
            files.setdefault(modality, next(p for p in (folder / path, ROOT / path) if p.exists()))
    return files


@pytest.fixture(scope="session")
def app_folder(tmp_path_factory) -> Path:
    """Where the running app keeps its log, its uploads and its visitors' thumbs."""
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="session")
def warm():
    """Run `python -m onellm` in processes that do not import everything again, see warm_processes.py."""
    from warm_processes import Warm

    server = Warm()
    yield server
    server.close()


@contextlib.contextmanager
def running_app(folder, **environment):
    """Start app.py as a user starts it, on a free port; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    own = {"GRADIO_TEMP_DIR": str(folder / "uploads"), "ONELLM_FEEDBACK": str(folder / "feedback.jsonl")}
    with open(folder / "log.txt", "wb") as log:
        app = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port), "--model", MODEL],
            cwd=ROOT,
            env=os.environ | own | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            for _ in range(720):
                with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
                    break
                assert app.poll() is None, (folder / "log.txt").read_text()
                time.sleep(0.25)
            else:
                pytest.fail(f"no page after three minutes: {(folder / 'log.txt').read_text()}")
            yield url
        finally:
            app.terminate()
            app.wait(60)


def ready(url):
    """Wait until the model of a running app answers; returns its address."""
    for _ in range(720):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/ready", timeout=5):
            return url
        time.sleep(0.25)
    pytest.fail("the model was not ready after three minutes")


@pytest.fixture(scope="session")
def app_url(app_folder):
    """Address of the app that most tests share."""
    with running_app(app_folder) as url:
        yield url


@pytest.fixture(scope="session")
def ready_url(app_url):
    """Address of the running app once its model answers."""
    return ready(app_url)


@pytest.fixture
def own_app(tmp_path):
    """Start an app of one's own, with environment variables; returns its address, once its model answers."""
    with contextlib.ExitStack() as stack:

        def start(**environment):
            return ready(stack.enter_context(running_app(tmp_path, **environment)))

        yield start


def pytest_terminal_summary(terminalreporter):
    """Repeat at the end what tests measured, see the fixture `figure` of tests/safety."""
    reports = [report for modality in ("passed", "failed") for report in terminalreporter.stats.get(modality, [])]
    figures = [line for report in reports for name, line in report.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.line(line)
