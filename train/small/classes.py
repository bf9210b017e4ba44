"""Class mixtures: samples made of the class names a frozen backbone knows, no picture or sound needed.

A backbone's classifier turns a file into class probabilities; training draws such probabilities synthetically over all
classes, with confusions among classes whose classifier rows are alike, so that the projection learns every name the
backbone knows and not only those the corpus shows.
"""

import torch
import torch.nn.functional as F

from train.small.items import describe, read_lines


class ImageClasses:
    """ImageNet's classes: probabilities that sum to one."""

    def __init__(self, head: torch.Tensor, weights: torch.Tensor):
        lines = sorted(read_lines("imagenet"), key=lambda line: line["index"])
        self.names = [line["name"] for line in lines]
        self.basics = [line["basic"] for line in lines]
        self.texts = [describe(*pair) for pair in zip(self.names, self.basics, strict=True)]
        order = sorted(set(self.basics))
        self.weights = weights
        self.groups = torch.tensor([order.index(basic) for basic in self.basics])
        unit = F.normalize(head, dim=-1)
        self.likeness = unit @ unit.T
        self.features = head.shape[1]

    def label(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Choose the class to name, [B, C] to [B]: the likeliest inside the likeliest basic group."""
        probabilities = probabilities * self.weights
        mass = torch.zeros(len(probabilities), int(self.groups.max()) + 1)
        mass.index_add_(1, self.groups, probabilities)
        inside = self.groups == mass.argmax(dim=1, keepdim=True)
        return torch.where(inside, probabilities, -1.0).argmax(dim=1)

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, list[int]]:
        """Draw [B, 1, C + F] features (the pooled part zero) and the classes to name."""
        classes = len(self.names)
        main = torch.randint(classes, (count,), generator=generator)
        # how sure the backbone is, and how far its doubts wander from the class
        share = 0.12 + 0.88 * torch.rand(count, 1, generator=generator)
        spread = 0.02 + 0.15 * torch.rand(count, 1, generator=generator)
        noise = torch.randn(count, classes, generator=generator)
        doubts = (self.likeness[main] / spread + 1.5 * noise).softmax(dim=1)
        probabilities = share * F.one_hot(main, classes) + (1 - share) * doubts
        features = torch.cat([probabilities, torch.zeros(count, self.features)], dim=1)
        return features.unsqueeze(1), self.label(probabilities).tolist()


class SoundClasses:
    """AudioSet's classes: independent probabilities; general classes speak along with the particular one."""

    def __init__(self, head: torch.Tensor, weights: torch.Tensor):
        lines = sorted(read_lines("audioset"), key=lambda line: line["index"])
        self.texts = [line["name"] for line in lines]
        self.weights = weights
        self.parents = torch.zeros(len(lines), len(lines))
        for line in lines:
            self.parents[line["index"], line["parents"]] = 1
        unit = F.normalize(head, dim=-1)
        self.likeness = unit @ unit.T
        self.features = head.shape[1]

    def label(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Choose the class to name, [B, C] to [B]: the likeliest after general ones are turned down."""
        return (probabilities * self.weights).argmax(dim=1)

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, list[int]]:
        """Draw [B, 2, C + F] features of two patches (the pooled part zero) and the classes to name."""
        classes = len(self.texts)
        main = torch.multinomial((self.weights > 0).float(), count, replacement=True, generator=generator)
        level = 10 ** (-1.7 * torch.rand(count, 1, generator=generator))  # 0.02 to 1
        noise = torch.randn(count, classes, generator=generator)
        likely = (self.likeness[main] / 0.08 + 1.5 * noise).softmax(dim=1)
        doubts = level * torch.rand(count, 1, generator=generator) * likely / likely.amax(dim=1, keepdim=True)
        above = level ** (0.2 + 0.8 * torch.rand(count, classes, generator=generator))
        probabilities = torch.maximum(doubts, level * F.one_hot(main, classes))
        probabilities = torch.maximum(probabilities, above * self.parents[main])
        # two patches: the mean and the peak over time differ
        fade = torch.rand(count, 1, generator=generator)
        patches = torch.stack([probabilities, probabilities * fade], dim=1)
        labels = self.label(probabilities).tolist()
        return torch.cat([patches, torch.zeros(count, 2, self.features)], dim=2), labels
