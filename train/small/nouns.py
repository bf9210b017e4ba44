"""The classifier of a `NounToken`: a linear discriminant analysis, solved at once.

A few hundred labelled files are soon known by heart by anything that trains on them step by step. So the classifier is
solved in closed form, with a covariance that is shrunk as far as unseen files like best, and the projection learns from
what it says of files that it was *not* solved on (folds of objects or runs), which is what it will say of new ones.
"""

import torch
import torch.nn.functional as F
from torch import nn

FOLDS = 5
SHRINKAGES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
SHARPNESS = torch.logspace(-1.5, 0.5, 21, dtype=torch.double)  # the analysis is too sure of itself where files are few


def noun_vocabulary(items: list) -> list[str]:
    """List the nouns of items, in order."""
    return sorted({item.noun for item in items if item.noun})


class Discriminant:
    """A linear discriminant analysis for any shrinkage: classes that share one covariance.

    Args:
        inputs: [n, F] features.
        labels: [n] the class of each; every class below `classes` that has no file is never found.
        classes: how many classes there are.

    Source: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, section 4.3.1.
    """

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor, classes: int):
        inputs, wanted = inputs.double(), F.one_hot(labels, classes).double()
        self.middle, self.spread = inputs.mean(dim=0), inputs.std(dim=0).clamp_min(1e-4)
        inputs = (inputs - self.middle) / self.spread
        count = wanted.sum(dim=0)
        self.means = wanted.T @ inputs / count.clamp_min(1).unsqueeze(1)
        self.logs = torch.log(count / count.sum())
        within = inputs - self.means[labels]
        self.values, self.vectors = torch.linalg.eigh(within.T @ within / len(inputs))

    def linear(self, shrinkage: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weight [classes, F] and bias [classes] of a linear layer on features as they come."""
        values = (1 - shrinkage) * self.values.clamp_min(0) + shrinkage * self.values.mean()
        weight = (self.means @ self.vectors / values) @ self.vectors.T
        bias = self.logs - 0.5 * (weight * self.means).sum(dim=1)
        weight = weight / self.spread
        return weight, (bias - weight @ self.middle).clamp_min(-1e6)


def fit_nouns(classifier: nn.Linear, inputs: torch.Tensor, nouns: list[str | None], groups: list[str]) -> torch.Tensor:
    """Solve a classifier and say what it finds in files it was not solved on.

    Args:
        classifier: a layer from features to nouns, changed in place; its outputs are logits.
        inputs: [n, F] features of the training files.
        nouns: the noun of each, None where it has none.
        groups: the object or run each belongs to; one group is never on both sides.

    Returns:
        [n, nouns] probabilities, each file's from the folds that its group is not in.
    """
    order = sorted({noun for noun in nouns if noun})
    named = torch.tensor([noun is not None for noun in nouns])
    labels = torch.tensor([order.index(noun) if noun else 0 for noun in nouns])
    numbers = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    fold = torch.tensor([numbers[group] % FOLDS for group in groups])
    scores = torch.zeros(len(SHRINKAGES), len(nouns), len(order), dtype=torch.double)
    for number in range(FOLDS):
        seen, unseen = named & (fold != number), fold == number
        analysis = Discriminant(inputs[seen], labels[seen], len(order))
        for index, shrinkage in enumerate(SHRINKAGES):
            weight, bias = analysis.linear(shrinkage)
            scores[index, unseen] = inputs[unseen].double() @ weight.T + bias
    losses = torch.stack(
        [torch.stack([F.cross_entropy(scale * table[named], labels[named]) for scale in SHARPNESS]) for table in scores]
    )
    best, sharpest = divmod(int(losses.argmin()), len(SHARPNESS))
    scale = SHARPNESS[sharpest]
    weight, bias = Discriminant(inputs[named], labels[named], len(order)).linear(SHRINKAGES[best])
    with torch.no_grad():
        classifier.weight.copy_(scale * weight)
        classifier.bias.copy_(scale * bias)
    return (scale * scores[best]).softmax(dim=1).float()
