"""The noun classifier: solved, honest about files it has not seen, and part of the tokenizers."""

import pytest
import torch
from torch import nn

from onellm.errors import ModelError
from onellm.model.tokenizers import BackboneTokens, Voxels
from train.small.nouns import Discriminant, fit_nouns

FEATURES = 30


def files(signal: float, count: int = 240, objects: int = 60):
    """Make features of objects of three nouns; every object has its own noise, which its views share."""
    generator = torch.Generator().manual_seed(0)
    centres = signal * torch.randn(3, FEATURES, generator=generator)
    own = torch.randn(objects, FEATURES, generator=generator)
    groups = [index % objects for index in range(count)]
    nouns = [["bed", "chair", "table"][group % 3] for group in groups]
    inputs = own[groups] + centres[[group % 3 for group in groups]]
    inputs = 5 + inputs + 0.1 * torch.randn(count, FEATURES, generator=generator)
    return inputs, nouns, [f"object {group}" for group in groups]


def share_right(found: torch.Tensor, nouns: list[str]) -> float:
    order = sorted(set(nouns))
    guesses = [order[index] for index in found.argmax(dim=1).tolist()]
    return sum(guess == noun for guess, noun in zip(guesses, nouns, strict=True)) / len(nouns)


def test_it_tells_nouns_of_objects_it_was_not_solved_on():
    inputs, nouns, groups = files(signal=1.0)
    classifier = nn.Linear(FEATURES, 3)
    unseen = fit_nouns(classifier, inputs, nouns, groups)
    assert torch.allclose(unseen.sum(dim=1), torch.ones(len(nouns)))
    assert share_right(unseen, nouns) > 0.9
    assert share_right(classifier(inputs).detach(), nouns) > 0.95


def test_what_is_only_memorised_is_not_taken_for_knowledge():
    """Without a signal the classifier knows the objects it was solved on by heart, and nothing of others."""
    inputs, nouns, groups = files(signal=0.0)
    classifier = nn.Linear(FEATURES, 3)
    unseen = fit_nouns(classifier, inputs, nouns, groups)
    assert share_right(unseen, nouns) < 0.5 < share_right(classifier(inputs).detach(), nouns)
    assert float(unseen.amax(dim=1).mean()) < 0.7  # nor is it sure


def test_files_without_a_noun_are_judged_but_not_learned_from():
    inputs, nouns, groups = files(signal=1.0)
    unnamed = [None if index % 4 == 3 else noun for index, noun in enumerate(nouns)]
    found = fit_nouns(nn.Linear(FEATURES, 3), inputs, unnamed, groups)
    assert share_right(found[3::4], nouns[3::4]) > 0.8


def test_the_linear_layer_is_the_analysis():
    """Against the definition: log prior, and distance under the shared covariance."""
    inputs, nouns, _ = files(signal=1.0)
    indices = torch.tensor([["bed", "chair", "table"].index(noun) for noun in nouns])
    analysis = Discriminant(inputs, indices, 3)
    weight, bias = analysis.linear(0.3)
    whitened = ((inputs.double() - analysis.middle) / analysis.spread)[:5]
    within = analysis.vectors @ torch.diag(analysis.values) @ analysis.vectors.T
    shrunk = 0.7 * within + 0.3 * within.diagonal().mean() * torch.eye(FEATURES, dtype=torch.double)
    offsets = whitened[:, None] - analysis.means
    distances = torch.einsum("nkf,fg,nkg->nk", offsets, torch.linalg.inv(shrunk), offsets)
    wanted = (analysis.logs - 0.5 * distances).softmax(dim=1)
    assert torch.allclose((inputs[:5].double() @ weight.T + bias).softmax(dim=1), wanted, atol=1e-9)


class Stem(nn.Module):
    """Stands for a classifier of 4 classes and 5 features."""

    classes, features = 4, 5

    def __init__(self):
        super().__init__()
        self.head = nn.Parameter(torch.randn(4, 5))


def test_stem_tokens_with_nouns_and_a_picture_before_two_looks():
    torch.manual_seed(0)
    tokenizer = BackboneTokens(8, Stem(), ["mixture", "nouns"], picture=True, looks=2, nouns=["bed", "chair"])
    features = torch.rand(3, 3, 9)  # a picture, two looks
    with_picture, alone = tokenizer(features), tokenizer(features[:, 1:])
    assert with_picture.shape == (3, 3, 8) and alone.shape == (3, 2, 8)
    assert torch.equal(with_picture[:, :2], alone)
    assert torch.equal(tokenizer.pool(features[0]), features[0, 1:, 4:].mean(dim=0))
    given = tokenizer.nouns.classifier(features[:, 1:, 4:].mean(dim=1)).softmax(dim=-1)
    same = tokenizer(torch.cat([features, given[:, None].expand(-1, 3, -1)], dim=-1))
    assert torch.allclose(same, with_picture, atol=1e-6)
    other = tokenizer(torch.cat([features, given.flip(1)[:, None].expand(-1, 3, -1)], dim=-1))
    assert torch.equal(other[:, 0], with_picture[:, 0]) and not torch.allclose(other[:, 1], with_picture[:, 1])


def test_voxels_with_nouns_are_one_token():
    tokenizer = Voxels(8, 20, nouns=["face", "house"])
    voxels = torch.randn(3, 20)
    given = tokenizer.nouns.classifier(voxels).softmax(dim=-1)
    assert tokenizer(voxels).shape == (3, 1, 8) and tokenizer.count == 1
    assert torch.allclose(tokenizer(torch.cat([voxels, given], dim=-1)), tokenizer(voxels), atol=1e-6)


def test_a_noun_token_without_nouns_says_so():
    with pytest.raises(ModelError, match="add 'nouns'"):
        BackboneTokens(8, Stem(), ["nouns"])
