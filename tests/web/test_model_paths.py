"""Where a model's folder lies on this machine is not for visitors: they see its name, and choose it all the same."""

import json
import re
from types import SimpleNamespace

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_handlers import PlainChat

from onellm.errors import ModelError
from onellm.hub.catalogue import Entry, Option
from onellm.serve import routes
from onellm.serving.engine import Engine
from onellm.web import layout
from onellm.web.handlers.comparing import Comparing
from onellm.web.handlers.settings import Options
from onellm.web.session import Session
from onellm.web.views.page import Page

FREE = 9 * 10**9
SYMPTOMS = (  # how a folder is named in errors
    "There is no choice '{}'; take another one.",
    "{}/config.json is no readable configuration; copy it again.",
    "The folder {} has no config.json",
)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "somewhere" / "my model"
    folder.mkdir(parents=True)
    return folder


def choices(folders, _):
    reason = SYMPTOMS[2].format(folders[0])
    ways = Option("none", 10**9, FREE), Option("int8", 10**9, FREE), Option("8bit", 0, FREE, "device", reason)
    return [
        Entry(folders[0], ways, 10**9, folders[0]),
        Entry("onellm-7b", ways, 10**9, f"{folders[0]}/of-7b"),
        Entry(f"{folders[0]}/sub", ways[2:]),
    ]


def engine_of(folder, load, monkeypatch):
    monkeypatch.setattr("onellm.hub.catalogue.asked", list)
    engine = Engine(str(folder), load, choices)
    engine.wait()
    return engine


def everything(engine, monkeypatch):
    """Return all that a visitor is sent, and the page."""
    pages, keep = [], Page.__init__
    monkeypatch.setattr(Page, "__init__", lambda self, *a, **k: (keep(self, *a, **k), pages.append(self))[0])
    blocks, session, client = layout.build(engine), Session(), TestClient(FastAPI(routes=routes(engine)))
    shown = [json.dumps(blocks.config, default=str), *pages[0].model(session), *pages[0].comparison(session).values()]
    shown += [client.get(path).text for path in ("/v1/models", "/ready", "/metrics")]
    return "\n".join(shown), pages[0]


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_a_folder_that_cannot_be_loaded(folder, monkeypatch, tmp_path, symptom):
    def load(name, **_):
        raise ModelError(symptom.format(name))

    shown, _ = everything(engine_of(folder, load, monkeypatch), monkeypatch)
    assert "my model" in shown and str(tmp_path) not in shown and "somewhere" not in shown


def test_a_folder_is_chosen_by_its_name(folder, monkeypatch, tmp_path):
    loaded = []

    def load(name, *, quantize, **_):
        loaded.append((name, quantize))
        chat = PlainChat()
        chat.name, chat.origin, chat.quantize = f"{folder.name} ({quantize})", name, quantize
        return chat

    engine = engine_of(folder, load, monkeypatch)
    shown, page = everything(engine, monkeypatch)
    assert "my model" in shown and str(tmp_path) not in shown and "somewhere" not in shown
    models, session = page.models(Session()), Session()
    model = re.search(r'data-model="([^"]+)"', models)[1]
    assert "/" not in model and 'data-model="onellm-7b"' in models
    Options(page).switch(session, SimpleNamespace(model=model, quantize="int8"))
    engine.wait()
    assert loaded[-1] == (str(folder), "int8") and engine.ready
    with pytest.raises(gr.Error, match="my model cannot be loaded") as refused:
        Options(page).switch(session, SimpleNamespace(model=model, quantize="8bit"))
    assert str(tmp_path) not in str(refused.value)
    with pytest.raises(gr.Error, match="is loaded") as refused:
        Comparing(page, None).begin(session, SimpleNamespace(other=f"int8 {model}"), "w3")
    assert str(tmp_path) not in str(refused.value)
