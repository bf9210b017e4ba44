"""The bench measures what it says, on a tiny random model."""

import json

import pytest
import torch

from onellm.cli import bench


@pytest.fixture
def folder(config, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "CONTEXTS", (4, 8))
    monkeypatch.setattr(bench, "NEW_TOKENS", 16)
    for modality, given in {"image": {"size": 28}, "video": {"size": 28, "frames": 3}, "point": {"points": 50}}.items():
        config.modalities[modality]["input"] = given
    for modality in ("depth", "normal"):
        config.modalities[modality]["input"] = {"size": 28}
    config.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"plain": True}], ids=["none", "int8", "plain"])
def test_every_figure_is_there_and_nothing_beats_the_limit_by_far(folder, options, tmp_path):
    text = bench.measure_and_report(tmp_path / "out.json", name=str(folder), random_weights=True, **options)
    figures = {figure["name"]: figure for figure in json.loads((tmp_path / "out.json").read_text())["figures"]}
    modalities = ["image", "video", "audio", "point", "fmri", "imu", "depth", "normal"]
    assert {f"encode {modality}" for modality in modalities} | {
        "decode at 4",
        "prefill at 8",
        "load",
        "peak memory",
    } <= set(figures)
    assert all(figure["value"] > 0 for figure in figures.values())
    assert all(0 < figure["share"] < 1.5 for figure in figures.values() if figure["share"] is not None)
    assert text.count("\n|") == len(figures) + 2


def test_streaming_is_measured_against_the_forward(model, processor):
    from onellm.chat.chat import Chat

    chat = Chat(model, processor, "toy")
    before = model.generation_config.min_new_tokens
    assert 0 < bench.stream_share(chat, count=6, pairs=2) < 20
    assert model.generation_config.min_new_tokens == before and chat.messages == []


def test_operations_are_counted(config):
    """A frame more is so many operations more, whatever ran in between."""
    one, two = (bench.encode_operations(config, {"video": torch.rand(frames, 3, 28, 28)})["video"] for frames in (1, 2))
    width, tokens, patch = 16, 5, 3 * 14 * 14
    linears = 2 * tokens * 12 * width**2 * 2
    attention = 2 * 2 * tokens**2 * width * 2
    assert two - one == linears + attention + 2 * 4 * patch * width
    assert one > linears


def test_bytes_are_those_kept(make_model, monkeypatch):
    from onellm.model.runtime import cpu

    monkeypatch.setattr(cpu, "SMALL", 0)
    model = make_model()
    plain = bench.stored_bytes(model.language_model)
    assert plain == sum(p.nbytes for p in model.language_model.parameters()) + sum(
        b.nbytes for b in model.language_model.buffers()
    )
    assert plain == pytest.approx(bench.stored_bytes(cpu.optimise(model).language_model), rel=0.01)
    small = bench.stored_bytes(cpu.optimise(make_model(), int8=True).language_model)
    embedding = model.get_input_embeddings().weight.nbytes
    assert (small - embedding) / (plain - embedding) == pytest.approx(0.3, abs=0.06)  # a quarter, scales and norms
