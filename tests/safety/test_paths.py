"""Paths as input, at every endpoint: a visitor's own uploads are taken, and nothing else is read, told or fetched."""

import http.client
import http.server
import io
import json
import re
import threading
from urllib.parse import quote, urlsplit

import httpx
import pytest
from http_visitor import NOT_ONES_OWN, Visitor, file_data

SECRET = "the-words-of-somebody-else"


@pytest.fixture(scope="module")
def picture():
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def browser_visitor(ready_url):
    return Visitor(ready_url, "browser", cookie=True)


@pytest.fixture(scope="module")
def program(ready_url):
    return Visitor(ready_url, "program", cookie=False)


@pytest.fixture(scope="module")
def visits():
    """What a server of somebody else's was asked for."""
    return []


@pytest.fixture(scope="module")
def hostile(ready_url, app_folder, tmp_path_factory, browser_visitor, program, picture, visits):
    """Paths that nobody else may use, by what they are."""

    class Trap(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            visits.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())

        def log_message(self, *_):
            pass

    outside = tmp_path_factory.mktemp("outside") / "secret.txt"
    outside.write_text(SECRET)
    uploads = app_folder / "uploads"
    of_browser = browser_visitor.upload("secret.txt", SECRET.encode())
    of_program = program.upload("mine.png", picture + SECRET.encode())
    assert program.ask(of_program)
    links = uploads / ("0" * 64)
    links.mkdir()
    (links / "out.txt").symlink_to(outside)
    (links / "other.txt").symlink_to(of_browser)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trap) as trap:
        threading.Thread(target=trap.serve_forever, daemon=True).start()
        yield {
            "system file": str(outside),
            "parent": f"{uploads}/../../{outside.relative_to(outside.parents[1])}",
            "encoded": quote(str(outside), safe=""),
            "link out of the uploads": str(links / "out.txt"),
            "link to another's": str(links / "other.txt"),
            "folder": str(links),
            "another browser's": of_browser,
            "another program's": of_program,
            "gone": f"{uploads}/{'1' * 64}/gone.txt",
            "http": f"http://127.0.0.1:{trap.server_port}/a",
            "file": f"file://{outside}",
            "nothing": "a\0b",
        }
        trap.shutdown()


def test_uploads_are_used_by_their_owners(browser_visitor, program, picture):
    mine, ours = browser_visitor.upload("red.png", picture), program.upload("red.png", picture)
    assert mine == ours  # the same content has one path, and two owners
    assert browser_visitor.fetch(mine).content == picture
    assert browser_visitor.give(mine) and browser_visitor.give(mine, "after a reload")
    assert program.ask(ours) and program.ask(ours)
    assert not program.ask(ours, "two")  # a program without a cookie is known by its session


def test_a_name_of_an_upload_chooses_no_folder(browser_visitor, app_folder):
    for name in ("../../evil.txt", "/evil.txt", "..", "a/../../evil.txt"):
        answer = browser_visitor.http.post("/gradio_api/upload", files={"files": (name, b"x")})
        assert answer.status_code == 400 or answer.json()[0].startswith(str(app_folder / "uploads"))
    assert not list(app_folder.rglob("../evil.txt"))


@pytest.mark.parametrize("cookie", [True, False], ids=["browser", "program"])
def test_events_take_ones_own_uploads_only(ready_url, hostile, visits, cookie, figure, soak):
    stranger = Visitor(ready_url, f"stranger-{cookie}", cookie)
    events = [event for event in stranger.config["dependencies"] if event["backend_fn"]]
    others = {"another browser's", "another program's"}
    forms = soak({"list": {"system file"}, "text": {"system file", "http", *others}}, {})
    refused = leaked = count = 0
    for number, (what, path) in enumerate(hostile.items()):
        if not cookie and what not in soak(others, hostile):  # what is not about visitors is the same for all
            continue
        listed = what in forms.get("list", hostile)
        values = [file_data(path), [file_data(path)]][: 1 + listed]
        calls = [
            (event, [value] * len(event["inputs"]), None) for event in events for value in values if event["inputs"]
        ]
        for success, told in stranger.trigger(calls, f"files-{number}"):
            refused += not success and NOT_ONES_OWN in told
            leaked += len(told) if SECRET in told else 0
            count += 1
        if what not in forms.get("text", hostile):
            continue
        # the same where a path may stand in a text, or in what a click on the page says
        file = {"kind": "imu", "name": "x", "path": path, "picture": path}
        record = {"version": 1, "id": "0" * 16, "begun_s": 0, "turns": [{"question": "x", "files": [file]}]}
        names = ("id", "kind", "turn", "format", "example", "vote", "model", "quantize", "language")
        act = dict.fromkeys(names, path) | {"record": json.dumps(record)}
        told = stranger.trigger([(event, [path] * len(event["inputs"]), act) for event in events], f"texts-{number}")
        if cookie:
            assert any("no longer here" in text for _, text in told)  # the record was read, its file was not
        leaked += sum(len(text) for _, text in told if SECRET in text)
    figure(f"paths at {len(events)} events, as a {'browser' if cookie else 'program'}: refused", refused, f"{count}")
    figure("bytes leaked, requests sent on", f"{leaked}, {len(visits)}", "0, 0")
    assert count > 50 and refused == count and not leaked and not visits


def test_named_endpoints_take_ones_own_uploads_only(ready_url, hostile):
    endpoints = httpx.get(f"{ready_url}/gradio_api/info").json()["named_endpoints"]
    for endpoint, described in endpoints.items():
        for path in hostile.values():
            data = ["What?", *[file_data(path)] * (len(described["parameters"]) - 1)]
            event = httpx.post(f"{ready_url}/gradio_api/call{endpoint}", json={"data": data}).json()["event_id"]
            told = httpx.get(f"{ready_url}/gradio_api/call{endpoint}/{event}", timeout=60).text
            assert "event: error" in told and NOT_ONES_OWN in told and SECRET not in told


def test_no_address_sends_what_is_not_ones_own(ready_url, hostile, visits, browser_visitor, figure):
    import gradio as gr
    from gradio.routes import App

    routes = [
        route for route in iter_routes(App.create_app(gr.Blocks())) if "GET" in (getattr(route, "methods", 0) or ())
    ]
    ids = ("{event_id}", "{session_hash}")
    templates = {route.path for route in routes if "{" in route.path and not route.path.endswith(ids)}
    assert {"/gradio_api/file={path_or_url:path}", "/static/{path:path}"} <= templates
    refused = leaked = count = 0
    for template in sorted(templates):
        for what, path in hostile.items():
            # without a cookie, a program's file is sent to whoever knows its path
            cookie = browser_visitor.http.cookies["onellm-visitor"] if what == "another program's" else ""
            for value in {path.replace("\0", "%00"), quote(path), quote(quote(path, safe=""), safe="")}:
                address = re.sub(r"\{[^}]+\}", lambda _, value=value: value, template)
                status, told = get(ready_url, address, cookie)
                count += 1
                refused += status >= 400
                if status < 400:
                    print("OFF", address, status, told[:100])
                leaked += len(told) if SECRET.encode() in told else 0
    for page in ("/", "/config"):
        _, told = get(ready_url, f"{page}?deep_link={quote(hostile['system file'])}")
        leaked += len(told) if SECRET.encode() in told else 0
    figure(f"paths at {len(templates)} addresses: refused", refused, f"{count}")
    figure("bytes leaked, requests sent on", f"{leaked}, {len(visits)}", "0, 0")
    assert refused == count and not leaked and not visits
    assert SECRET in browser_visitor.fetch(hostile["another browser's"]).text  # the owner has it


def get(url, address, cookie=""):
    """Ask for an address as it is, which httpx would tidy."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", address, headers={"Cookie": f"onellm-visitor={cookie}"} if cookie else {})
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    return answer.status, told


def iter_routes(app):
    """Walk through the routes of an app and of the routers in it."""
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        yield from iter_routes(inner) if inner is not None else [route]


def test_the_openai_style_server_fetches_nothing(ready_url, hostile, visits):
    for path in hostile.values():
        for part in (
            {"type": "image_url", "image_url": {"url": path}},
            {"type": "video_url", "video_url": {"url": path}},
            {"type": "input_audio", "input_audio": {"data": path, "format": "wav"}},
            {"type": "file", "file": {"filename": path, "file_data": path}},
            {"type": "file", "file": {"filename": "x.png", "file_data": "AAAA", "kind": "depth", "picture": path}},
        ):
            body = {"model": "onellm-tiny", "messages": [{"role": "user", "content": [part]}]}
            answer = httpx.post(f"{ready_url}/v1/chat/completions", json=body)
            assert answer.status_code == 400 and SECRET not in answer.text
    assert not visits
