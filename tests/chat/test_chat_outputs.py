"""Chat with models that make pictures, videos and sounds: codes, signals, and prompts in words."""

import functools
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_pipelines import picture_pipeline

from onellm.chat.chat import Chat
from onellm.chat.outputs.diffusion import Generators

CODES = {"size": 16, "codes": 8, "dim": 4, "encoder": [8, 8], "decoder": [8, 8], "blocks": 1}
SIGNALS = {"type": "representation", "tokens": 3, "queries": 77, "width": 32, "hidden": 16, "layers": 1, "ffn": 16}
WORDS = {"type": "text", "start": "w7 w8", "end": "w9", "instruction": "w10 w11"}
FAST = {"image": {"num_inference_steps": 2}}


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    return str(picture_pipeline(tmp_path_factory.mktemp("pipeline")))


def chat_with(make_model, tokenizer, outputs, generators=None):
    from onellm.model.auto import OneLLMProcessor

    model = make_model(outputs=outputs)
    return Chat(model, OneLLMProcessor.from_config(tokenizer, model.config), "toy", generators=generators)


def write(chat, tokens):
    """Let a model write tokens, whatever is asked; it ends with its end token."""
    generate, model = type(chat.model).generate, chat.model

    class Dictated:
        def __init__(self, prompt):
            self.prompt = prompt

        def __call__(self, ids, scores):
            place = ids.shape[1] - self.prompt
            wanted = [*tokens, chat.processor.tokenizer.eos_token_id][min(place, len(tokens))]
            return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([wanted]), 0.0)

    @functools.wraps(generate)
    def dictated(input_ids=None, **kwargs):
        kwargs["logits_processor"] = [*kwargs.get("logits_processor", []), Dictated(input_ids.shape[1])]
        return generate(model, input_ids, **kwargs)

    model.generate = dictated


def test_codes_become_a_picture(make_model, tokenizer, tmp_path):
    chat = chat_with(make_model, tokenizer, {"image": {"type": "tokens", "codes": CODES}})
    chat.output_path = lambda name, size: tmp_path / name
    (span,) = chat.model.config.spans
    tokens = span.tokens_of([1, 2, 3, 4] * 4)
    write(chat, [5, *tokens, 6])
    assert "".join(chat.stream("w3", max_new_tokens=30)).split() == ["w5", "w6"]
    (part,) = chat.generated
    assert part["type"] == "image" and part["tokens"] == tokens
    with Image.open(part["path"]) as picture:
        assert picture.size == (16, 16) and Path(part["path"]).parent == tmp_path
    assert chat.messages[-1]["content"][0] == {"type": "text", "text": "w5 w6"}
    assert chat.trace.new_tokens == 23

    known = chat.model.embed_tokens  # the next turn reads the picture's tokens as it wrote them
    seen = []
    chat.model.embed_tokens = lambda ids: seen.append(ids) or known(ids)
    del chat.model.generate
    chat.ask("w4", max_new_tokens=2)
    assert any(torch.isin(torch.tensor(tokens), ids).all() for ids in seen)
    other = chat.new(chat.messages)  # and so does a conversation that goes on from messages
    assert isinstance(other.ask("w4", max_new_tokens=2), str)


def test_a_picture_that_was_cut_says_so(make_model, tokenizer):
    chat = chat_with(make_model, tokenizer, {"image": {"type": "tokens", "codes": CODES}})
    (span,) = chat.model.config.spans
    write(chat, span.tokens_of([1] * 16))
    assert chat.ask("w3", max_new_tokens=9) == ""
    (part,) = chat.generated
    assert "allow more tokens" in part["error"] and "path" not in part
    del chat.model.generate
    assert isinstance(chat.ask("w4", max_new_tokens=2), str)


def test_signals_go_through_the_projector_to_the_generator(make_model, tokenizer, pipeline):
    generators = Generators({"image": pipeline}, "cpu", FAST)
    chat = chat_with(make_model, tokenizer, {"image": SIGNALS}, generators)
    write(chat, chat.model.config.spans[0].tokens_of())
    chat.ask("w3", seed=1)
    first = Path(chat.generated[0]["path"]).read_bytes()
    chat.ask("w3 w4 w5", seed=1)
    assert (
        len(chat.generated) == 1 and Path(chat.generated[0]["path"]).read_bytes() != first
    )  # the states say what was asked


def test_words_between_marks_are_a_prompt(make_model, tokenizer, pipeline):
    generators = Generators({"image": pipeline}, "cpu", FAST)
    chat = chat_with(make_model, tokenizer, {"image": WORDS}, generators)
    write(chat, [5, 7, 8, 20, 21, 9, 6])
    assert chat.ask("w3").split() == ["w5", "w6"]
    (part,) = chat.generated
    assert part["prompt"] == "w20 w21" and part["tokens"] == [7, 8, 20, 21, 9] and Path(part["path"]).exists()
    asked, _ = chat.processor.encode([{"role": "system", "content": "w10 w11"}, *chat.messages[:1]])
    assert chat.trace.prompt_tokens == len(asked)


def test_without_a_generator_the_answer_says_so(make_model, tokenizer, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    chat = chat_with(make_model, tokenizer, {"audio": WORDS})
    write(chat, [5, 7, 8, 20, 9])
    assert chat.ask("w3").strip() == "w5"
    (part,) = chat.generated
    assert "no generator for sounds here" in part["error"] and part["prompt"] == "w20" and "path" not in part


def test_a_stop_ends_a_generator(make_model, tokenizer, pipeline):
    generators = Generators({"image": pipeline}, "cpu", {"image": {"num_inference_steps": 500}})
    chat = chat_with(make_model, tokenizer, {"image": WORDS}, generators)
    write(chat, [5, 7, 8, 20, 9])
    steps, watched = [], Generators.make

    def make(self, *arguments):
        *others, stopped = arguments
        return watched(self, *others, lambda: (steps.append(1), len(steps) == 2 and chat.stop(), stopped())[-1])

    monkeypatched = pytest.MonkeyPatch()
    with monkeypatched.context() as patch:
        patch.setattr(Generators, "make", make)
        chat.ask("w3")
    assert chat.generated == [] and len(steps) < 5 and chat.trace.stopped


def test_a_picture_that_cannot_be_written_leaves_the_words(make_model, tokenizer):
    chat = chat_with(make_model, tokenizer, {"image": {"type": "tokens", "codes": CODES}})

    def nowhere(name, size):
        raise PermissionError("read-only")

    chat.output_path = nowhere
    (span,) = chat.model.config.spans
    write(chat, [5, *span.tokens_of([1, 2, 3, 4] * 4), 6])
    assert chat.ask("w3", max_new_tokens=30).split() == ["w5", "w6"]
    assert chat.generated[0]["error"] == "It could not be written (read-only); choose another folder."
