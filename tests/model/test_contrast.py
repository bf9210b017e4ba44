"""The querying transformer's own training: it learns pairs it can tell apart on files it has not seen."""

import pytest
import torch

from onellm.model.projectors import build_projector

KINDS, WORDS, WIDTH = 6, 20, 16
SETTINGS = {
    "type": "qformer", "queries": 3, "hidden": 24, "layers": 2, "heads": 2, "intermediate": 32, "cross_every": 1,
    "vocabulary": WORDS, "dropout": 0.0, "contrast": {"width": 12},
}  # fmt: skip


@pytest.fixture
def projector():
    torch.manual_seed(0)
    return build_projector(["image"], WIDTH, 32, SETTINGS, ())


def draw(count, seed):
    """Noisy pictures of six things, and texts of one to three words that name them."""
    chance = torch.Generator().manual_seed(seed)
    things = torch.randn(KINDS, WIDTH, generator=torch.Generator().manual_seed(9))
    places = torch.randint(KINDS, (count,), generator=chance)
    features = things[places].unsqueeze(1) + 0.5 * torch.randn(count, 4, WIDTH, generator=chance)
    said = [[1, 2 + place, 10 + place, 11 + place][: 2 + place % 3] + [18] for place in range(KINDS)]
    width = max(map(len, said))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in said])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in said])
    return features, places, ids, mask


def right(projector, seed):
    """Return the share of unseen pictures whose text is the likeliest of all six."""
    features, places, ids, mask = draw(120, seed)
    queries = projector.queries_for(features, "image")
    with torch.no_grad():
        likeness = projector.contrast.likeness(projector.qformer, queries, features, (ids, mask))
    return float((likeness.argmax(dim=1) == places).float().mean())


def test_texts_of_unseen_pictures_are_found(projector):
    before, losses = right(projector, 100), []
    optimiser = torch.optim.AdamW(projector.parameters(), lr=3e-3)
    for step in range(60):
        features, places, ids, mask = draw(16, step)
        loss = projector.contrast_loss(features, "image", (ids[places], mask[places]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert before < 0.4  # chance is 1 in 6
    assert right(projector, 100) > 0.8


def test_a_word_is_written_from_the_picture_and_the_words_before_it(projector):
    """What stands behind a word, and padding, changes nothing; the picture and the words before it do."""
    contrast, seen = projector.contrast.eval(), []
    projector.qformer.register_forward_hook(lambda _, __, output: seen.append(output.last_hidden_state))
    features, _, ids, mask = draw(KINDS, 0)
    queries = projector.queries_for(features, "image")

    def read(features, ids, mask):
        with torch.no_grad():
            contrast._writing_loss(projector.qformer.eval(), queries, features, (ids, mask))
        return seen.pop()

    first = read(features, ids, mask)
    later = ids.clone()
    later[:, 2] = 19
    changed = read(features, later, mask)
    assert torch.allclose(first[:, :5], changed[:, :5], atol=1e-6)  # three queries, the beginning and a word
    assert not torch.allclose(first[:, 5], changed[:, 5], atol=1e-3)
    assert not torch.allclose(first[:, 4], read(features.flip(0), ids, mask)[:, 4], atol=1e-6)
    longer = [torch.cat([part, torch.zeros(KINDS, 2, dtype=torch.long)], dim=1) for part in (ids, mask)]
    assert torch.allclose(first, read(features, *longer)[:, : first.shape[1]], atol=1e-5)


def test_one_text_alone_has_nothing_to_be_told_from(projector):
    features, _, ids, mask = draw(4, 0)
    loss = projector.contrast_loss(features, "image", (ids[:1].expand(4, -1), mask[:1].expand(4, -1)))
    assert loss.isfinite()
