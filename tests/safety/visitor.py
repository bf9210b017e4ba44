"""A visitor of the running app without a browser: the page's own events, as its script sends them."""

import json
import secrets
import time
from functools import lru_cache
from pathlib import Path

import httpx
from gradio_client.utils import apply_diff

DRAWN = (0.0, 1.0)  # temperature, top-p


@lru_cache
def events(url):
    """Return what the page can call: name -> its number, how many inputs it takes, the names of its outputs."""
    config = httpx.get(f"{url}/config").json()
    names = {part["id"]: part["props"].get("elem_id") or str(part["id"]) for part in config["components"]}
    return {
        event["api_name"]: (event["id"], len(event["inputs"]), [names[part] for part in event["outputs"]])
        for event in config["dependencies"]
    }


class Visitor:
    """One page of one person.

    Attributes:
        seen: what the page shows now: component -> value.
        told: errors the page has shown.
    """

    def __init__(self, url):
        self.url, self.session = url, secrets.token_hex(6)
        self.http = httpx.Client(base_url=url, timeout=180)
        self.http.get("/")  # the page, with its cookie
        self.seen, self.told = {}, []

    def start(self, name, *values, data=None):
        """Begin an event; returns its number."""
        number, count, _ = events(self.url)[name]
        body = {"data": [None, *values, *[None] * (count - 1 - len(values))], "fn_index": number, "event_data": data}
        joined = self.http.post("/gradio_api/queue/join", json=body | {"session_hash": self.session})
        assert joined.is_success, joined.text
        return joined.json()["event_id"]

    def follow(self, name, event):
        """Yield after each step of an event that was begun; leaving earlier closes the connection."""
        outputs, values = events(self.url)[name][2], None
        with self.http.stream("GET", f"/gradio_api/queue/data?session_hash={self.session}") as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("event_id") != event or "output" not in message:
                    continue
                if not message["success"]:
                    self.told.append(message["output"]["error"])
                    return
                new = message["output"]["data"]
                if message["msg"] == "process_generating" and values is not None:
                    new = [apply_diff(old, step) for old, step in zip(values, new, strict=True)]
                values = new
                for part, value in zip(outputs, values, strict=True):
                    if not (isinstance(value, dict) and value.get("__type__") == "update" and "value" not in value):
                        self.seen[part] = value["value"] if isinstance(value, dict) and "__type__" in value else value
                yield
                if message["msg"] == "process_completed":
                    return

    def do(self, name, *values, data=None):
        """Do something and wait for its end."""
        for _ in self.follow(name, self.start(name, *values, data=data)):
            pass

    def press(self, name, data=None):
        """Do something that answers at once, whoever waits."""
        body = {"data": [None], "fn_index": events(self.url)[name][0], "session_hash": self.session, "event_data": data}
        answer = self.http.post(f"/gradio_api/run/{name}", json=body)
        assert answer.is_success, answer.text

    def upload(self, path):
        """Bring a file and put it into the form; returns where it lies."""
        path = Path(path)
        sent = self.http.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
        (stored,) = sent.json()
        self.do("add", [{"path": stored, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}])
        return stored

    def begin(self, question, tokens=8):
        """Send a question and begin its answer; returns the answer's number."""
        self.do("begin", question, *DRAWN, tokens, -1, 0, "")
        return self.start("answer")

    def ask(self, question, tokens=8):
        """Ask and wait for the whole answer; returns its words."""
        for _ in self.follow("answer", self.begin(question, tokens)):
            pass
        return self.answer

    def parts(self, modality):
        """Return what stands below the last question: "text" or "component"."""
        messages = self.seen.get("conversation") or [{"role": "user"}]
        if messages[-1]["role"] == "user":
            return []
        return [
            part["text" if modality == "text" else "value"]
            for part in messages[-1]["content"]
            if part["type"] == modality
        ]

    @property
    def answer(self):
        """The words of the last answer."""
        return next(iter(self.parts("text")), "")

    @property
    def note(self):
        """What the app says below the last question."""
        return next((part for part in self.parts("component") if 'class="note' in part), "")

    @property
    def record(self):
        """What the browser keeps of the conversation."""
        return json.loads(self.seen["kept"])

    def close(self):
        """Close the tab."""
        self.http.close()


def waiting(url):
    """Return how many questions the app answers or lets wait."""
    return httpx.get(f"{url}/ready", timeout=20).json()["waiting"]


def free_s(url, count=0, limit_s=20.0):
    """Wait until only so many are answered or wait; returns how long that took."""
    begun_s = time.monotonic()
    while waiting(url) > count:
        assert time.monotonic() - begun_s < limit_s, "the model is still busy"
        time.sleep(0.02)
    return time.monotonic() - begun_s
