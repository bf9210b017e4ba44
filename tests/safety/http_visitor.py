"""One who uses the running app through its HTTP interface, as a browser or a program does."""

import json
from urllib.parse import quote

import httpx

NOT_ONES_OWN = "no upload of yours"


class Visitor:
    """A browser, which keeps a cookie, or a program, which keeps none; each with sessions of its own."""

    def __init__(self, url, name, cookie):
        self.http, self.name = httpx.Client(base_url=url, timeout=180), name
        if cookie:
            assert "HttpOnly" in self.http.get("/").headers["set-cookie"]
        self.config = httpx.get(f"{url}/config").json()

    def upload(self, name, content):
        (path,) = self.http.post("/gradio_api/upload", files={"files": (name, content)}).json()
        return path

    def fetch(self, path):
        return self.http.get(f"/gradio_api/file={quote(path)}")

    def trigger(self, calls, session="one"):
        """Trigger events at once; returns what became of each: whether it succeeded, and the whole answer as text."""
        session, ids, done = f"{self.name}-{session}", [], {}
        for event, data, act in calls:
            body = {"fn_index": event["id"], "data": data, "event_data": act, "session_hash": session}
            body["trigger_id"] = event["targets"][0][0] if event["targets"] else None
            ids.append(self.http.post("/gradio_api/queue/join", json=body).json()["event_id"])
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
            for line in answer.iter_lines():
                message = json.loads(line[6:]) if line else {}
                if message.get("msg") == "process_completed":
                    done[message["event_id"]] = message["success"], line
        return [done[event] for event in ids]

    def event(self, element, action):
        """Return the event that a component with an id of its own triggers."""
        component = next(c["id"] for c in self.config["components"] if c["props"].get("elem_id") == element)
        return next(event for event in self.config["dependencies"] if [component, action] in event["targets"])

    def give(self, path, session="one"):
        """Put an upload into the form as the page does; tells whether it was taken."""
        event = self.event("any", "upload")
        ((success, told),) = self.trigger([(event, [None, [file_data(path)]], None)], session)
        assert success or NOT_ONES_OWN in told
        return success

    def ask(self, path, session="one"):
        """Ask about an upload as a program does; tells whether it was taken."""
        event = next(event for event in self.config["dependencies"] if event["api_name"] == "ask")
        data = [None if number else "What?" for number in range(len(event["inputs"]))]
        data[1] = file_data(path)
        ((success, told),) = self.trigger([(event, data, None)], session)
        return success or NOT_ONES_OWN not in told


def file_data(path):
    return {"path": path, "meta": {"_type": "gradio.FileData"}}
