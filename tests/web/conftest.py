"""A running app for the tests that need one, and the files they give it."""

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

ROOT = Path(__file__).resolve().parents[2]
MODEL = os.environ.get("ONELLM_TEST_MODEL", "onellm-tiny")


@pytest.fixture(scope="session")
def example_files() -> dict[str, Path]:
    """One bundled file a kind."""
    folder = ROOT / "examples"
    files: dict[str, Path] = {}
    for entry in json.loads((folder / "examples.json").read_text(encoding="utf-8")):
        for kind, given in entry["files"].items():
            path = given["path"] if isinstance(given, dict) else given
            files.setdefault(kind, next(p for p in (folder / path, ROOT / path) if p.exists()))
    return files


@pytest.fixture(scope="session")
def app_url(tmp_path_factory):
    """Address of app.py, started as a user starts it, on a free port."""
    folder = tmp_path_factory.mktemp("app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "uploads")}
    with open(folder / "log.txt", "wb") as log:
        app = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port), "--model", MODEL],
            cwd=ROOT,
            env=environment,
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
            app.wait(20)
