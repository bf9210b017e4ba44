"""What a host relies on: front matter, requirements, the Dockerfile, proxies, and the documented calls."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
MODEL = os.environ.get("ONELLM_TEST_MODEL", "onellm-tiny")
HOSTING = (ROOT / "docs/hosting.md").read_text(encoding="utf-8")
API = (ROOT / "docs/api.md").read_text(encoding="utf-8")
LOCAL = "http://127.0.0.1:7860"


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(command, url, **options):
    """Run a server until the block ends; it must answer at `url`."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    try:
        for _ in range(400):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url).status_code < 500:
                    break
            assert server.poll() is None, server.stdout.read()
            time.sleep(0.1)
        else:
            pytest.fail(f"{command[0]} does not answer at {url}")
        yield server
    finally:
        server.terminate()
        try:
            server.communicate(timeout=5)
        except subprocess.TimeoutExpired:  # proxies wait for clients that keep a connection open
            server.kill()
            server.communicate()


def requirements(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {need.name: need for line in lines if not line.startswith("#") for need in [Requirement(line)]}


def test_the_tree_is_a_space():
    matter = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert {"title", "emoji", "license"} <= set(matter) and len(matter["short_description"]) <= 60
    assert matter["sdk"] == "gradio" and (ROOT / matter["app_file"]).is_file()
    assert requirements("requirements.txt")["gradio"].specifier.contains(matter["sdk_version"])
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">={matter["python_version"]}"' in pyproject
    assert all(re.fullmatch(r"[a-z0-9.+-]+", name) for name in (ROOT / "packages.txt").read_text().split())


def test_every_requirement_has_a_floor():
    for name in ("requirements.txt", "requirements-dev.txt"):
        for need in requirements(name).values():
            assert ">=" in str(need.specifier), f"{name}: {need}"


def test_the_dockerfile_is_clean():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_the_dockerfile_copies_is_an_app(tmp_path):
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            assert source in allowed
            place = tmp_path / target / source if target == "./" else tmp_path / target
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, place)
    port = free_port()
    environment = os.environ | {"ONELLM_PORT": str(port), "ONELLM_MODEL": MODEL, "ONELLM_HOST": "127.0.0.1"}
    command = json.loads(re.search(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[1])
    begun_s = time.monotonic()
    with running([sys.executable, *command[1:]], f"{LOCAL[:-5]}:{port}/health", cwd=tmp_path, env=environment) as app:
        assert time.monotonic() - begun_s < 20
        assert httpx.get(f"{LOCAL[:-5]}:{port}/").status_code == 200
        app.terminate()
        assert app.wait(20) == 0


def test_a_taken_port_is_told(app_url):
    command = [sys.executable, "app.py", "--port", app_url.rpartition(":")[2]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is taken" in done.stderr and "Traceback" not in done.stderr


# Proxies.


@pytest.fixture(scope="module")
def app_below_a_path(tmp_path_factory):
    """Address of an app that believes to live at /onellm."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "app.py", "--port", url.rpartition(":")[2], "--model", MODEL, "--root-path", "/onellm"]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("uploads"))}
    with running(command, f"{url}/health", cwd=ROOT, env=environment):
        while httpx.get(f"{url}/ready").status_code != 200:
            time.sleep(0.2)
        yield url


def nginx(folder, app, port):
    server = next(block for block in blocks(HOSTING, "nginx") if "location" in block)
    server = server.replace("listen 80", f"listen {port}").replace(LOCAL, app)
    paths = "".join(
        f"{modality}_temp_path {folder}/{modality};"
        for modality in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(f"daemon off; pid {folder}/pid; events {{}} http {{ access_log off; {paths} {server} }}")
    return [shutil.which("nginx", path="/usr/sbin:/usr/bin"), "-e", "stderr", "-c", str(config)]


def caddy(folder, app, port):
    config = folder / "Caddyfile"
    site = blocks(HOSTING, "caddy")[0].replace(":80 {", f":{port} {{").replace(LOCAL.removeprefix("http://"), app[7:])
    config.write_text(f"{{\n admin off\n auto_https off\n}}\n{site}")
    return [shutil.which("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxied(request, app_below_a_path, tmp_path_factory):
    port, folder = free_port(), tmp_path_factory.mktemp("proxy")
    command = request.param(folder, app_below_a_path, port)
    if command[0] is None:
        pytest.skip(f"no {request.param.__name__} here; on Debian and Ubuntu: apt-get install nginx-light caddy")
    url = f"http://127.0.0.1:{port}/onellm"
    with running(command, f"{url}/health", env=os.environ | {"HOME": str(folder)}):
        yield url


def test_the_page_behind_a_proxy_knows_its_path(proxied):
    assert httpx.get(f"{proxied}/config").json()["root"] == proxied
    page = httpx.get(f"{proxied}/").text
    scripts = re.findall(r'src="(\./[^"]+\.js)"', page)
    assert scripts
    for path in (*scripts, "onellm/plotly.min.js"):
        assert httpx.get(f"{proxied}/{path}").status_code == 200


def test_answers_stream_through_a_proxy(proxied):
    client = openai.OpenAI(base_url=f"{proxied}/v1", api_key="none", max_retries=0)
    asked = [{"role": "user", "content": "Tell me a long story about the sea."}]
    arrivals_s = [
        time.monotonic()
        for _ in client.chat.completions.create(model=MODEL, messages=asked, max_tokens=60, stream=True)
    ]
    gaps_s = [later - earlier for earlier, later in zip(arrivals_s, arrivals_s[1:], strict=False)]
    assert len(arrivals_s) > 30 and max(gaps_s) < 0.8 * (arrivals_s[-1] - arrivals_s[0])


def test_uploads_go_through_a_proxy(proxied, example_files):
    from gradio_client import Client, handle_file

    client = Client(f"{proxied}/", verbose=False)
    image = handle_file(example_files["image"])
    assert list(client.submit("What is in the picture?", image=image, api_name="/ask_stream"))[-1]


def test_a_proxy_lets_large_bodies_through_to_the_apps_own_words(proxied):
    body = b'{"model": "m", "note": "' + b"x" * 120_000_000 + b'"}'
    answer = httpx.post(
        f"{proxied}/v1/chat/completions", content=body, headers={"content-type": "application/json"}, timeout=60
    )
    assert answer.status_code == 400 and "messages" in answer.json()["error"]["message"]


# The documented calls.


def test_the_python_of_the_api_page(ready_url, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    for block in blocks(API, "python"):
        exec(compile(block.replace(LOCAL, ready_url), "docs/api.md", "exec"), names)
    assert capsys.readouterr().out.lower().count("cat") >= 3


def test_the_commands_of_the_api_page(ready_url):
    for block in blocks(API, "bash"):
        script = "set -eo pipefail\n" + block.replace(LOCAL, ready_url).replace(".venv/bin/python", sys.executable)
        own = os.environ | {"ONELLM_MODEL": MODEL}
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=own, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
        assert '"error"' not in done.stdout and "event: error" not in done.stdout


def test_the_options_of_the_hosting_page_exist(capsys):
    from onellm.serve import main

    with pytest.raises(SystemExit):
        main(["--help"])
    known = capsys.readouterr().out
    for option in set(re.findall(r"--[a-z-]{4,}", HOSTING)) - {"--gpus", "--memory"}:
        assert option in known
