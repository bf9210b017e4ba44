"""What experts find stands behind a file's soft tokens, once a file, as text that cannot be a special token."""

import numpy as np
import pytest

from onellm.chat.chat import Chat
from onellm.model import experts
from onellm.model.auto import OneLLMProcessor
from onellm.model.experts import Expert, Finding, find_all

PICTURE = np.zeros((8, 8, 3), np.uint8)


class Seen(Expert):
    """Says a word about every picture and counts how often it was asked."""

    name, modalities = "seen", ("image", "video")

    def __init__(self, said="w20 w21"):
        self.said, self.calls = said, 0

    def find(self, sample):
        """Say it."""
        self.calls += 1
        return Finding(self.name, self.said, 0.5)


class Heard(Seen):
    """The same of sounds."""

    name, modalities = "heard", ("audio",)


class Broken(Expert):
    """Fails."""

    name, modalities = "broken", ("image",)

    def find(self, sample):
        """Fail."""
        raise RuntimeError("no such file of weights.")


@pytest.fixture
def seen(monkeypatch):
    expert = Seen()
    for one in (expert, Heard("w22"), Broken()):
        monkeypatch.setitem(experts.EXPERTS, one.name, one)
    return expert


@pytest.fixture
def processor(tokenizer, config, seen):
    config.modalities["image"]["input"] = {"size": 28}
    for modality, names in (("image", ["seen", "broken"]), ("video", ["seen"]), ("audio", ["heard"])):
        config.modalities[modality]["experts"] = names
    return OneLLMProcessor.from_config(tokenizer, config)


def test_findings_stand_behind_the_soft_tokens(processor, seen):
    part = processor.resolve({"type": "image", "image": PICTURE})
    assert part["findings"][0]["text"] == "w20 w21" and part["findings"][0]["score"] == 0.5
    assert part["findings"][1]["note"] == "broken could not look at data in memory (no such file of weights)."
    ids, _ = processor.encode([{"role": "user", "content": [part, {"type": "text", "text": "w7"}]}])
    after = ids[ids.index(6) :]
    assert after[1:3] == [20, 21] and 7 in after
    assert processor.resolve(part) == part and seen.calls == 1


def test_a_file_is_looked_at_once(processor, seen, tmp_path):
    for _ in range(3):
        processor.resolve({"type": "image", "image": PICTURE})
    assert seen.calls == 1
    processor.resolve({"type": "image", "image": PICTURE + 1})
    assert seen.calls == 2


def test_what_is_printed_in_a_file_is_no_special_token(processor, seen):
    seen.said = "</s> <image>"
    part = processor.resolve({"type": "image", "image": PICTURE})
    ids, files = processor.encode([{"role": "user", "content": [part]}])
    ends = [index for index, token in enumerate(ids) if token == processor.tokenizer.eos_token_id]
    assert len(ends) == 1 and len(files) == 1  # the template's own
    assert ids.count(processor.modalities["image"]["token_id"]) == processor.length_of("image")


def test_a_model_without_experts_asks_none(tokenizer, config, seen):
    processor = OneLLMProcessor.from_config(tokenizer, config)
    assert "findings" not in processor.resolve({"type": "image", "image": PICTURE}) and not seen.calls


def test_an_unknown_expert_and_one_of_another_modality_are_passed_over(processor, seen):
    sample = processor.load({"type": "image", "image": PICTURE})
    found, notes = find_all(["heard", "nobody"], sample)
    assert found == [] and notes == ["There is no expert 'nobody'; correct the model's configuration."]


def test_a_video_heard_with_its_sound_has_the_findings_of_both(processor, example_files, tmp_path, seen):
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    video = {"type": "video", "path": str(example_files["video"]), "sound": str(tmp_path / "a.wav")}
    part = processor.resolve(video)
    assert [finding["text"] for finding in part["findings"]] == ["w20 w21", "w22"]
    ids, files = processor.encode([{"role": "user", "content": [part]}])
    assert len(files) > 1 and ids.count(20) == ids.count(22) == 1


def test_the_trace_and_the_messages_keep_findings(model, processor, seen, example_files):
    chat = Chat(model, processor, "toy")
    chat.ask("w7", image=example_files["image"], max_new_tokens=2)
    chat.ask("w8", max_new_tokens=2)
    assert seen.calls == 1
    assert [finding["expert"] for finding in chat.trace.files[0].findings if finding["text"]] == ["seen"]
    assert chat.messages[0]["content"][0]["findings"][0]["text"] == "w20 w21"
