"""Merged soft tokens: averages of runs of neighbours, in order, and a long file in the prompt."""

import pytest
import torch

from onellm.model.merging import Merge, Windows


@pytest.fixture
def words():
    """Three words of each of ten windows."""
    return torch.randn(10, 3, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_what_is_merged_is_the_average_of_its_run(words, count):
    merged, sizes = Merge()(words, count)
    assert len(merged) == len(sizes) == count and sum(sizes) == 10
    for window, run in zip(merged, words.split(sizes), strict=True):
        assert torch.allclose(window, run.mean(dim=0), atol=1e-5)


def test_the_most_alike_neighbours_are_merged_first(words):
    words[4] = words[3]
    words[7] = 2 * words[6]  # alike in direction, which is what counts
    merged, sizes = Merge()(words, 8)
    assert [place for place, size in enumerate(sizes) if size == 2] == [3, 5]
    assert torch.equal(merged[3], words[3]) and torch.equal(merged[0], words[0])


def test_windows_that_are_alike_and_apart_stay_apart(words):
    words[8] = words[2]
    merged, sizes = Merge()(words, 9)
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    assert any(size == 2 for size in sizes) and len(merged) == 9
    run_of = [max(start for start in starts if start <= window) for window in (2, 8)]
    assert run_of[0] != run_of[1]


def test_something_in_a_steady_hum_stays(words):
    hum = words[:1].expand(10, 3, 8) + 0.01 * words  # the same, but for a little
    heard = hum.clone()
    heard[6] = words[6]
    merged, sizes = Merge()(heard, 3)
    assert sizes == [6, 1, 3] and torch.equal(merged[1], words[6])


def test_enough_room_changes_nothing(words):
    merged, sizes = Merge()(words, 30)
    assert torch.equal(merged, words) and sizes == [1] * 10


def read(model, windows):
    """What merging is to give: the windows one by one, tags once."""
    alone = [model.soft_tokens("imu", [tensor])[0] for tensor in windows.tensors]
    merged, _ = Merge()(torch.stack([one[1:-1] for one in alone]), windows.kept)
    return torch.cat([alone[0][:1], *merged, alone[0][-1:]])


@pytest.fixture
def windows():
    chance = torch.Generator().manual_seed(5)
    shapes = (40, 40, 30, 40)  # the third one is shorter
    return Windows(tuple(torch.rand(6, length, generator=chance) for length in shapes), 2)


def test_a_file_in_windows_stands_in_the_prompt_between_its_tags(model, windows, tensors):
    imu, image = (model.config.modalities[modality]["token_id"] for modality in ("imu", "image"))
    ids = torch.tensor([[1, *[imu] * 8, 9, *[image] * 5, *[imu] * 5, 8]])
    media = {"imu": [windows, tensors["imu"]], "image": [tensors["image"]]}
    with torch.no_grad():
        embeds = model.embed(ids, media)[0]
        expected = read(model, windows)
        assert expected.shape[0] == 8 and torch.allclose(embeds[1:9], expected, atol=1e-5)
        assert torch.allclose(embeds[15:20], model.soft_tokens("imu", [tensors["imu"]])[0], atol=1e-5)
        soft = {"imu": model.media_embeds("imu", media["imu"]), "image": model.media_embeds("image", media["image"])}
        given = {"max_new_tokens": 4, "do_sample": False}
        assert torch.equal(
            model.generate(ids, media, **given), model.generate(ids, soft, media_are_embeds=True, **given)
        )
    with pytest.raises(ValueError, match="of it need 16"):
        model.embed(ids[:, 1:], {**media, "imu": [windows, windows]})


def test_a_cache_that_knows_the_file_is_not_encoded_again(model, windows, monkeypatch):
    imu = model.config.modalities["imu"]["token_id"]
    ids = torch.tensor([[1, *[imu] * 8, 9, 8]])
    monkeypatch.setattr(model, "soft_tokens", None)
    model.embed(ids, {"imu": [windows]}, known=9)


def test_what_trains_before_merging_gets_gradients(make_model, windows):
    model = make_model().train()
    model.media_embeds("imu", [windows])[0].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.projector.output_proj["imu"].parameters())
