"""Whatever a visitor does, and types: the prompt holds a file's placeholders for each file, and for nothing else."""

import wave
from contextlib import nullcontext
from types import SimpleNamespace

import gradio as gr
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from PIL import Image
from transformers import AutoTokenizer

from onellm.chat.chat import Chat
from onellm.hub.registry import PRETRAINED
from onellm.model.auto import OneLLMProcessor
from onellm.serving.engine import Engine
from onellm.utils.limits import LIMITS
from onellm.web import layout
from onellm.web.handlers.asking import Asking
from onellm.web.handlers.composer import Composer
from onellm.web.session import Session
from onellm.web.views.page import Page

KINDS = ("image", "audio", "fmri", "imu", "normal")
SETTINGS = (0.0, 1.0, 3, -1, 0, "")
# What a prompt is made of, typed by somebody: marks of files, of the template, of the processor.
MARKS = [
    *(f"<{modality}>" for modality in KINDS),
    *("<|im_start|>", "<|im_end|>", "<|im_start|>assistant\n", "<|endoftext|>", "<s>", "</s>", "[INST]", "<repo_name>"),
    *(
        "\ue000",
        "\ue001",
        "\ue0000\ue001",
        "\ue00012\ue001",
        "{{ messages }}",
        "{% for m in messages %}",
        "<b>",
        "&lt;",
    ),
]
TEXTS = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=8)), max_size=5).map("".join)


@pytest.fixture
def chat(config, make_model):
    """A random model of two layers that speaks with the shipped model's tokenizer and template."""
    tokenizer = AutoTokenizer.from_pretrained(PRETRAINED / "onellm-tiny")
    text = config.text_config.to_dict() | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    modalities = {
        modality: dict(config.modalities[modality], token_id=len(tokenizer) + number, before="It shows", after=".\n")
        for number, modality in enumerate(config.modalities)
    }
    modalities["audio"]["tokenizer"] = {"type": "spectrogram-patches", "mels": 128, "frames": 64}
    for modality, given in {"audio": {"frames": 64}, "fmri": {"voxels": 20}, "imu": {"length": 40}}.items():
        modalities[modality]["input"] = given
    for modality in ("image", "normal"):
        modalities[modality]["input"] = {"size": 28}
    model = make_model(text_config=text, modalities=modalities)
    return Chat(model, OneLLMProcessor.from_config(tokenizer, model.config), "toy")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two small files a kind, below the upload folder."""
    folder, random, made = tmp_path, np.random.default_rng(0), {}
    for number in range(2):
        for modality in ("image", "normal"):
            made[modality, number] = folder / f"{modality}{number}.png"
            Image.fromarray(random.integers(0, 255, (30, 40, 3), np.uint8)).save(made[modality, number])
        made["audio", number] = folder / f"audio{number}.wav"
        with wave.open(str(made["audio", number]), "wb") as sound:
            sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(8000)
            sound.writeframes(random.integers(-9000, 9000, 4000, np.int16).tobytes())
        made["fmri", number] = folder / f"fmri{number}.npy"
        np.save(made["fmri", number], random.normal(size=20).astype(np.float32))
        made["imu", number] = folder / f"imu{number}.npy"
        np.save(made["imu", number], random.normal(size=(60, 6)).astype(np.float32))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return {key: str(path) for key, path in made.items()}


@pytest.fixture
def page(chat, monkeypatch):
    """The page with that model behind it."""
    made, keep = [], Page.__init__
    monkeypatch.setattr(Page, "__init__", lambda self, *a, **k: (keep(self, *a, **k), made.append(self))[0])
    layout.build(Engine("toy", lambda *_, **__: chat, lambda *_: []))
    made[0].engine.wait()
    return made[0]


class Turns(RuleBasedStateMachine):
    """A visitor who sends, stops, retries, takes back and edits, in any order."""

    steps = 0

    @initialize()
    def opened(self):
        self.session, self.on, self.form = Session(), Asking(self.page), Composer(self.page)
        self.asked = []  # text and kinds of each question that stands on the page

    def attach(self, modalities):
        for modality, number in modalities:
            full = len(self.session.pending) == LIMITS.files_per_turn
            with pytest.raises(gr.Error, match="8 files") if full else nullcontext():
                self.form.add(self.session, [self.files[modality, number]], modality=modality)

    def answer(self, steps=None):
        """Let the answer come; after some steps it is stopped."""
        running = self.on.answer(self.session)
        for _ in range(steps or 0):
            next(running, None)
        if steps is not None:
            self.on.halt(self.session)
        list(running)
        self.session.settle()  # a stopped answer ends behind the page's back, and what follows waits for it

    def told(self, text, count):
        """What the page must refuse: nothing asked."""
        return not text.strip() and not count

    @rule(
        text=TEXTS,
        modalities=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 1)), max_size=3),
        stop=st.one_of(st.none(), st.none(), st.integers(0, 6)),
    )
    def send(self, text, modalities, stop):
        kept = list(self.session.pending)
        self.attach(modalities)
        given = [(item.file.modality, item.file.path) for item in self.session.pending]
        before = self.asked if self.session.editing is None else self.asked[: self.session.editing]
        if self.told(text, len(given)):
            with pytest.raises(gr.Error):
                self.on.begin(self.session, text, *SETTINGS)
            assert self.session.pending == kept
            return
        self.on.begin(self.session, text, *SETTINGS)
        self.asked = [*before, (text, given)]
        self.answer(stop)

    @precondition(lambda self: self.session.turns)
    @rule(stop=st.one_of(st.none(), st.integers(0, 6)))
    def retry(self, stop):
        self.on.begin_again(self.session, SimpleNamespace(turn=len(self.session.turns) - 1))
        self.answer(stop)

    @precondition(lambda self: self.session.turns)
    @rule()
    def undo(self):
        self.on.undo(self.session, SimpleNamespace(turn=0))
        self.asked.pop()

    @precondition(lambda self: self.session.turns)
    @rule(number=st.integers(0, 20))
    def edit(self, number):
        self.on.edit(self.session, SimpleNamespace(turn=str(number % len(self.session.turns))))

    @rule()
    def cancel_edit(self):
        self.on.cancel_edit(self.session, SimpleNamespace())

    @rule()
    def clear_the_form(self):
        while self.session.pending:
            self.form.remove(self.session, SimpleNamespace(id=self.session.pending[0].id))

    @invariant()
    def placeholders_are_files(self):
        type(self).steps += 1
        if not hasattr(self, "session"):
            return
        turns, chat = self.session.turns, self.session.chat
        assert [turn.question for turn in turns] == [text.strip() or "What is this?" for text, _ in self.asked]
        held = [given for turn, (_, given) in zip(turns, self.asked, strict=True) if turn.held]
        assert all(not turn.failed for turn in turns), [turn.note for turn in turns]
        messages = chat.messages if chat is not None else []
        assert [message["role"] for message in messages] == ["user", "assistant"] * len(held)
        expected = [file for given in held for file in sorted(given, key=lambda file: first_of(given, file[0]))]
        parts = [part for message in messages for part in message["content"] if part["type"] != "text"]
        assert [(part["type"], part["path"]) for part in parts] == expected
        if not messages:
            return
        processor = chat.processor
        ids, laid_out = processor.encode(messages[:-1])
        of = {settings["token_id"]: modality for modality, settings in processor.modalities.items()}
        found = [of[token] for token in ids if token in of]
        asked = expected[: len(laid_out)]
        assert found == [modality for modality, _ in asked for _ in range(processor.media_length)]
        assert [part["path"] for part in laid_out] == [path for _, path in asked]


def first_of(given, modality):
    """Return where a kind comes first: the files of one question stand kind by kind."""
    return [other for other, _ in given].index(modality)


def test_placeholders_are_files_at_every_step(page, files, figure, soak):
    machine = type("Visits", (Turns,), {"page": page, "files": files})
    examples = soak(20, 500)
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=soak(8, 20),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(machine, settings=settings)
    figure(
        f"send, edit, undo, retry, stop: {examples} visits", f"placeholders = files at all {machine.steps} steps", "all"
    )


def test_typed_marks_stay_text(chat):
    """Whatever is typed becomes the tokens of its letters: none of them is one that the template or a file uses."""
    processor, tokenizer = chat.processor, chat.processor.tokenizer
    special = set(tokenizer.all_special_ids) | {settings["token_id"] for settings in processor.modalities.values()}
    for mark in MARKS:
        runs = processor.runs(processor.render([{"role": "user", "content": [{"type": "text", "text": mark}]}]))
        (typed,) = [ids for piece, ids in runs if isinstance(piece, dict)]
        assert not special & set(typed), mark
        assert tokenizer.decode(typed, clean_up_tokenization_spaces=False) == mark
