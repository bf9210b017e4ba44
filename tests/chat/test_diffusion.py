import argparse
import json

import numpy as np
import pytest
import torch
from small_pipelines import picture_pipeline, sound_pipeline, video_pipeline

from onellm.chat.outputs import media
from onellm.chat.outputs.diffusion import Generators, Interrupted, add_options, caption_condition, from_environment
from onellm.errors import ModelError, OneLLMError

SETTINGS = {
    "image": {"num_inference_steps": 2},
    "video": {"num_inference_steps": 2, "num_frames": 3, "height": 17, "width": 16},
    "audio": {"num_inference_steps": 2},
}
SETTINGS["video"]["height"] = 16
MAKERS = {"image": picture_pipeline, "video": video_pipeline, "audio": sound_pipeline}


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory):
    """Folders of a small pipeline a kind."""
    folder = tmp_path_factory.mktemp("pipelines")
    return {modality: str(make(folder)) for modality, make in MAKERS.items()}


@pytest.fixture
def generators(pipelines):
    return Generators(pipelines, "cpu", SETTINGS)


@pytest.mark.parametrize("modality", MAKERS)
def test_words_become_a_file(generators, tmp_path, modality):
    first = generators.make(modality, "a dog", seed=3)
    assert np.array_equal(first.array, generators.make(modality, "a dog", seed=3).array)
    assert not np.array_equal(first.array, generators.make(modality, "a cat", seed=4).array)
    path = tmp_path / media.name_for(modality)
    media.write(first, path)
    from onellm.modalities import load

    sample = load(modality, path)
    if modality == "image":
        assert first.array.shape == (16, 16, 3) and np.array_equal(sample.array, first.array)
    elif modality == "video":
        assert first.array.shape == (3, 16, 16, 3) and "3 frames" in sample.summary or "0.4 s" in sample.summary
    else:
        assert first.rate_hz == 16000 and sample.rate_hz == 16000


@pytest.mark.parametrize("modality", MAKERS)
def test_a_caption_s_condition_makes_what_the_caption_does(generators, modality):
    condition = caption_condition(generators.pipeline(modality), "a dog")
    assert condition.shape == ((1, 32) if modality == "audio" else (77, 32))
    spoken = generators.make(modality, "a dog", seed=1).array.astype(float)
    shown = generators.make(modality, condition=condition, seed=1).array.astype(float)
    assert np.allclose(spoken, shown, atol=1e-3 if modality == "audio" else 1)


def test_a_condition_of_another_size_is_refused(generators):
    with pytest.raises(ModelError, match=r"takes conditions of \[77, 32\] and the model makes \[77, 8\]"):
        generators.make("image", condition=torch.zeros(77, 8))


@pytest.mark.parametrize("modality", MAKERS)
def test_it_stops_within_a_step(generators, modality):
    asked = []
    with pytest.raises(Interrupted):
        generators.make(modality, "a dog", stopped=lambda: bool(asked.append(1)) or len(asked) > 1)
    assert len(asked) == 2


def test_without_one_it_says_so_in_words(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="no generator for pictures here; start the program with --generator image="):
        Generators().make("image", "a dog")
    with pytest.raises(ModelError, match="no folder of a diffusers pipeline"):
        Generators({"image": str(tmp_path)}).make("image", "a dog")


def test_pipelines_with_code_or_pickles_are_refused(pipelines, tmp_path):
    import shutil

    copied = tmp_path / "image"
    shutil.copytree(pipelines["image"], copied)
    (copied / "evil.py").write_text("raise SystemExit")
    with pytest.raises(ModelError, match="brings code of its own"):
        Generators({"image": str(copied)}).make("image", "a dog")
    (copied / "evil.py").unlink()
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {"_class_name": ["evil", "Pipeline"]}))
    with pytest.raises(ModelError, match="brings code of its own"):
        Generators({"image": str(copied)}).make("image", "a dog")
    for changes, named in (
        ({"unet": ["antigravity", "Net"]}, "antigravity"),
        ({"_class_name": "EvilPipeline"}, "Evil"),
    ):
        (copied / "model_index.json").write_text(json.dumps(index | changes))
        with pytest.raises(ModelError, match=f"classes of {named}.*which are not run; give one of diffusers' and"):
            Generators({"image": str(copied)}).make("image", "a dog")
    (copied / "model_index.json").write_text(json.dumps(index))
    weights = copied / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="safetensors"):
        Generators({"image": str(copied)}).make("image", "a dog")


def test_generators_are_named_by_options_and_environment(monkeypatch):
    monkeypatch.setenv("ONELLM_GENERATORS", "image=a,audio=b")
    assert from_environment() == {"image": "a", "audio": "b"}
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert dict(parser.parse_args(["--generator", "image=c=d"]).generator) == {"image": "c=d"}
    for wrong in ("image", "smell=x", "image="):
        monkeypatch.setenv("ONELLM_GENERATORS", wrong)
        with pytest.raises(OneLLMError, match="names no generator"):
            from_environment()
        with pytest.raises(SystemExit):
            parser.parse_args(["--generator", wrong])


def test_one_that_fails_says_so_in_words(monkeypatch):
    class Broken:
        device = torch.device("cpu")

        def __call__(self, prompt, output_type, **_):
            raise TypeError("it wants a picture")

    generators = Generators({"image": "somewhere"})
    monkeypatch.setattr(generators, "pipeline", lambda modality, own: Broken())
    with pytest.raises(
        ModelError, match=r"generator of pictures failed \(TypeError: it wants a picture\); name another"
    ):
        generators.make("image", "a dog")
