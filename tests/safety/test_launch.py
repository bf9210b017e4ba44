"""The app as it starts by default: it listens on this machine alone, and calls nobody."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
# Every address that Python code of the process connects to or looks up, a line each.
OBSERVED = """
import os, runpy, sys
log = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def observe(event, args):
    if event == "socket.connect":
        os.write(log, f"{args[1]!r}\\n".encode())
    elif event == "socket.getaddrinfo":
        os.write(log, f"{args[0]!r}\\n".encode())
sys.addaudithook(observe)
sys.argv = ["app.py", *sys.argv[2:]]
runpy.run_path("app.py", run_name="__main__")
"""


def own_address():
    """Return an address of this machine that others could connect to; None if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # sends nothing
            return probe.getsockname()[0]


def can_connect(host, port):
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=3):
        return True
    return False


def test_the_default_launch_is_private(tmp_path, figure):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GRADIO_", "ONELLM_", "SPACE"))}
    environment = kept | {"TMPDIR": str(tmp_path), "ONELLM_FEEDBACK": os.devnull}  # uploads go where a user's do
    environment.pop("HF_HUB_OFFLINE", None)  # the hub may be asked, and is not
    command = [sys.executable, "-c", OBSERVED, str(tmp_path / "calls"), "--port", str(port), "--model", "onellm-tiny"]
    with open(tmp_path / "log", "wb") as log:
        app = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(720):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            assert app.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.25)
        page, config = httpx.get(url).text, httpx.get(f"{url}/config").json()
        assert config["analytics_enabled"] is False
        assert httpx.get(f"{url}/gradio_api/info").json()["named_endpoints"]  # the documented calls are there
        assert not re.findall(r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1)', page)  # nothing is fetched elsewhere
        listens = {line.split()[1] for table in ("tcp", "tcp6") for line in listening(app.pid, table)}
        assert listens == {f"0100007F:{port:04X}"}
        address = own_address()
        open_to_others = address is not None and not address.startswith("127.") and can_connect(address, port)
        assert can_connect("127.0.0.1", port) and not open_to_others
        (folder,) = (path for path in tmp_path.iterdir() if path.name.startswith("onellm-uploads"))
        assert folder.stat().st_mode & 0o777 == 0o700
        upload = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.txt", b"x")}).json()[0]
        assert Path(upload).is_relative_to(folder)
    finally:
        app.terminate()
        app.wait(60)
    assert not Path(upload).exists()  # who stops the app leaves no uploads behind
    told = (tmp_path / "log").read_text()
    assert "gradio.live" not in told and "Traceback" not in told
    calls = {line for line in (tmp_path / "calls").read_text().splitlines() if not is_local(line)}
    figure("default launch listens on", sorted(listens), "0100007F, which is 127.0.0.1, alone")
    figure("other hosts called", len(calls), "0")
    assert not calls


def listening(pid, table):
    """Return the lines of /proc/PID/net for sockets that listen and are the process's own."""
    own = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(os.readlink(link))
    lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in own]


def is_local(line):
    """Tell whether an address is this machine's."""
    return any(name in line for name in ("'127.", "'localhost'", "'::1'", "'0.0.0.0'", "None")) or line.startswith("'/")
