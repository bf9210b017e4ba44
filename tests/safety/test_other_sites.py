"""Other sites: names that resolve to this machine, and pages that send requests to it, as browsers would send them."""

import argparse
import http.client
import json
import shutil
from urllib.parse import urlsplit

import pytest

from onellm import serve
from onellm.web.security import visitors
from onellm.web.security.origins import Origins

EVIL = "http://evil.example"
ADDRESSES = {  # every way in: Gradio's, programs', our own
    "POST": (
        *("/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/call/ask", "/gradio_api/run/switch"),
        *("/gradio_api/cancel", "/v1/chat/completions"),
    ),
    "GET": ("/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x", "/gradio_api/heartbeat/x")
    + ("/v1/models", "/metrics", "/ready", "/onellm/plotly.min.js"),
    "OPTIONS": ("/gradio_api/queue/join", "/v1/chat/completions", "/"),
    "DELETE": ("/gradio_api/queue/join",),
}
WAYS = [(method, address) for method, addresses in ADDRESSES.items() for address in addresses]


def send(url, method, address, **headers):
    """Send a request with the headers that are given; returns the status, the answer's headers, and its beginning."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.putrequest(method, address, skip_host="host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    body = b"{}" if method == "POST" else b""
    if body:
        connection.putheader("content-length", str(len(body)))
        connection.putheader("content-type", "application/json")
    connection.endheaders(body)
    answer = connection.getresponse()
    told = answer.read(2000) if answer.status >= 400 else b""
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, told


@pytest.mark.parametrize(
    "name", ["evil.example", "x.localhost", "localhost.", "127.0.0.1.nip.io", "10.0.0.1", "a b", "u@"]
)
def test_a_foreign_name_is_served_by_no_address(page_url, name):
    """A stranger's name that resolves to this machine makes his page one of the app's own, to the browser."""
    port = urlsplit(page_url).port
    for method, address in WAYS:
        status, headers, told = send(page_url, method, address, host=f"{name}:{port}", origin=f"http://{name}:{port}")
        assert status == 421 and b"--allow-host" in told, (method, address)
        assert "access-control-allow-origin" not in headers


ORIGINS = [EVIL, "null", "http://x.localhost", "http://127.0.0.1:1", "http://localhost", "https://127.0.0.1", "file://"]


@pytest.mark.parametrize("sent", [*ORIGINS, "cross-site", "same-site"])
def test_another_sites_page_gets_nothing(page_url, sent):
    header = {"sec_fetch_site": sent, "sec_fetch_mode": "no-cors"} if sent.endswith("-site") else {"origin": sent}
    for method, address in WAYS:
        status, headers, told = send(page_url, method, address, **header)
        assert status == 403 and b"Another site" in told, (method, address)
        assert not any(name.startswith("access-control-allow") for name in headers)
    navigation = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert send(page_url, "GET", "/", **navigation)[0] == 200  # a link to the page
    assert send(page_url, "GET", "/config", **navigation)[0] == 200  # which no script can read
    assert send(page_url, "POST", "/gradio_api/queue/join", **navigation)[0] == 403
    assert send(page_url, "GET", "/gradio_api/heartbeat/x", **navigation)[0] == 403


def test_ones_own_page_and_programs_are_served(page_url):
    port = urlsplit(page_url).port
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"):
        own = {"host": name, "origin": f"http://{name}", "sec_fetch_site": "same-origin"}
        assert send(page_url, "GET", "/v1/models", **own)[0] == 200
        assert send(page_url, "POST", "/v1/chat/completions", **own)[0] == 400  # read, and found wanting
    assert send(page_url, "GET", "/v1/models")[0] == 200


def test_every_answer_says_what_a_browser_is_to_keep_to(page_url):
    for address in ("/", "/config", "/v1/models", "/ready", "/none", "/gradio_api/info", "/gradio_api/file=x"):
        headers = send(page_url, "GET", address)[1]
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'self'" in policy and "hf.space" not in policy
        assert "default-src 'none'; " in policy and "sandbox" in policy or "default-src 'self'" in policy
        assert headers["x-frame-options"] == "SAMEORIGIN" and headers["x-content-type-options"] == "nosniff"
    assert "'none'" in policy  # an upload opened by itself runs nothing


def asks(origins, **headers):
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "headers": headers}
    try:
        origins.check(scope)
    except Exception as refused:
        return refused.status_code
    return 200


def test_names_that_the_app_was_told_to_serve():
    told = Origins(["chat.example.org", "lab.example:8443", " "], "127.0.0.1")
    https = "https://chat.example.org"
    assert asks(told, host="chat.example.org", origin=https) == 200
    assert asks(told, host="127.0.0.1:7860", origin=https) == 200  # a proxy that does not pass the name on
    assert asks(told, host="lab.example:8443", origin="https://lab.example:8443") == 200
    assert asks(told, host="127.0.0.1:7860", origin="https://lab.example") == 403
    assert asks(told, host="chat.example.org", origin="http://127.0.0.1:7860") == 403
    assert asks(told, host="10.0.0.1:7860") == asks(told, host="example.org") == 421
    spoofed = {"host": "127.0.0.1:7860", "origin": EVIL, "x_forwarded_host": "evil.example"}
    assert asks(told, **spoofed) == 403
    assert asks(told, host="127.0.0.1:7860", origin="http://localhost:80", x_forwarded_host="localhost") == 200


def test_an_app_that_others_can_connect_to_is_reached_by_its_address():
    for host in ("0.0.0.0", "::", "192.168.1.5"):
        origins = Origins([], host)
        assert asks(origins, host="192.168.1.5:7860", origin="http://192.168.1.5:7860") == 200
        assert asks(origins, host="[fe80::1]:7860") == 200  # no name, so none that a stranger could let resolve to it
        assert asks(origins, host="evil.example:7860", origin="http://evil.example:7860") == 421
        assert asks(origins, host="192.168.1.5:7860", origin="http://192.168.1.6:7860") == 403


def test_a_space_is_served_in_its_frame(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "you/onellm")
    monkeypatch.setenv("SPACE_HOST", "you-onellm.hf.space")
    space = Origins([], "0.0.0.0")
    own = "https://you-onellm.hf.space"
    assert asks(space, host="you-onellm.hf.space", origin=own, sec_fetch_site="same-origin") == 200
    assert asks(space, host="10.1.2.3:7860", origin=own) == 200
    assert asks(space, host="you-onellm.hf.space", origin="https://huggingface.co") == 200
    assert asks(space, host="you-onellm.hf.space", origin="https://evil.hf.space") == 403
    from starlette.datastructures import MutableHeaders

    headers = MutableHeaders(raw=[])
    space.protect(headers, "/")
    assert "frame-ancestors 'self' https://huggingface.co https://*.hf.space" in headers["content-security-policy"]
    assert "x-frame-options" not in headers


@pytest.mark.parametrize(
    ("options", "fixed"),
    [
        ([], None),
        (["--public"], True),
        (["--host", "0.0.0.0"], True),
        (["--root-path", "/onellm"], True),
        (["--allow-host", "chat.example.org"], True),
        (["--allow-host", "chat.example.org", "--no-fixed-model"], False),
    ],
)
def test_whoever_serves_others_fixes_the_model(options, fixed):
    parser = argparse.ArgumentParser()
    serve.add_options(parser)
    given = parser.parse_args(options)
    assert serve._is_fixed(given, given.allow_host) is fixed


def test_who_comes_through_a_proxy_cannot_switch_the_model(page_url):
    """Also where nobody told the app that it stands behind one."""
    from http_visitor import Visitor

    visitor = Visitor(page_url, "proxied", cookie=True)
    event = next(event for event in visitor.config["dependencies"] if event["api_name"] == "switch")
    chosen = {"model": "none", "quantize": "none"}
    ((success, told),) = visitor.trigger([(event, [None], chosen)])
    assert not success and "fixed the model" not in json.loads(told[6:])["output"]["error"]
    for header in visitors.PROXIES:
        visitor.http.headers[header] = "x"
        ((success, told),) = visitor.trigger([(event, [None], chosen)], header)
        assert not success and "fixed the model" in json.loads(told[6:])["output"]["error"], told
        del visitor.http.headers[header]


ATTACK = """async (url) => {
    const told = [];
    for (const [path, options] of [
        ["/config", {credentials: "include"}],
        ["/v1/models", {}],
        ["/gradio_api/call/ask", {method: "POST", body: JSON.stringify({data: ["x"]}), credentials: "include"}],
    ]) {
        try { told.push((await fetch(url + path, options)).status); } catch { told.push("refused"); }
    }
    return told;
}"""


@pytest.mark.browser
def test_in_a_real_browser(page_url):
    """The app's own page works under its policy; a page of another name reads nothing and is in no frame."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here; on Debian and Ubuntu: apt-get install chromium")
    port, said = urlsplit(page_url).port, []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(page_url, timeout=170_000)
        page.wait_for_selector("body[data-opened]", timeout=170_000)
        assert page.locator("#message textarea").is_visible()
        page.locator("#settings > button").first.click()
        page.wait_for_timeout(1000)
        assert not [text for text in said if "Security Policy" in text or "is not defined" in text], said
        foreign = browser.new_page()
        assert foreign.goto(f"http://x.localhost:{port}/", timeout=170_000).status == 421
        assert foreign.evaluate(ATTACK, page_url) == ["refused"] * 3
        foreign.set_content(f'<iframe src="{page_url}"></iframe>')
        foreign.wait_for_timeout(2000)
        assert not [frame for frame in foreign.frames[1:] if frame.locator("#message").count()]
        browser.close()
