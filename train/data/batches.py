"""Samples of the small corpus: features that the frozen stems extracted, and the words of their names."""

import torch

from onellm.errors import OneLLMError
from train.data.classes import ImageClasses, SoundClasses
from train.data.items import Item, extract_features, read_items
from train.recipe import Source

# few objects are easily memorised, so a training sample goes without a share of its stem's features and is often
# blended with another of its noun
DROPPED = 0.4
BLENDED = ("video", "point", "fmri", "depth", "normal")
RARE = 0.3  # weight of a thing whose noun has no other
CLASSES = {"efficientnet-lite0": ImageClasses, "yamnet": SoundClasses}


def classes_of(model, kind: str) -> ImageClasses | SoundClasses | None:
    """Return the classes of a kind's frozen stem, or None where it has no such stem."""
    settings = model.config.modalities[kind]["tokenizer"]
    name = model.config.modalities[settings.get("share", kind)]["tokenizer"].get("stem")
    if name not in CLASSES:
        return None
    return CLASSES[name](model.stems[name].head.detach(), model.tokenizer_for(kind).class_weights)


class ClassSource:
    """Samples of class names."""

    def __init__(self, model, source: Source):
        self.kind = source.kind
        self.classes = classes_of(model, source.kind)
        if self.classes is None:
            raise OneLLMError(f"The kind {source.kind} has no stem whose classes could be mixed; use 'items'.")

    def draw(self, count: int, generator: torch.Generator) -> tuple[list[torch.Tensor], list[str]]:
        """Draw features and texts."""
        features, labels = self.classes.draw(count, generator)
        return list(features), [self.classes.texts[label] for label in labels]


class ItemSource:
    """Samples of the corpus, every text equally often, slightly disturbed."""

    def __init__(self, model, processor, source: Source):
        self.kind = source.kind
        items = thin(read_items(source.kind, source.split))
        self.features = extract_features(model, processor, items, source.split)
        self.items = items
        self.alike: dict[str, list[int]] = {}
        for index, item in enumerate(items):
            self.alike.setdefault(item.noun or item.name, []).append(index)
        # half-way between every noun equally often and every item equally often; things of a kind of their own rarely
        self.weights = torch.zeros(len(items), dtype=torch.double)
        for indices in self.alike.values():
            self.weights[indices] = len(indices) ** -0.5 if items[indices[0]].noun else RARE

    def draw(self, count: int, generator: torch.Generator) -> tuple[list[torch.Tensor], list[str]]:
        """Draw features and texts."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator).tolist()
        pairs = [self._blend(index, generator) for index in chosen]
        return [disturb(self.kind, features, generator) for features, _ in pairs], [text for _, text in pairs]

    def _blend(self, index: int, generator: torch.Generator) -> tuple[torch.Tensor, str]:
        """Return an item, or half of the time its mixture with another thing of the same noun, and their text."""
        item, features = self.items[index], self.features[index]
        alike = self.alike[item.noun or item.name]
        other = alike[int(torch.randint(len(alike), (1,), generator=generator))]
        share = torch.rand(2, generator=generator)
        if self.kind not in BLENDED or share[0] < 0.5 or self.features[other].shape != features.shape:
            return features, item.text
        same = item.text == self.items[other].text
        return torch.lerp(features, self.features[other], share[1]), item.text if same else item.noun


def thin(items: list[Item]) -> list[Item]:
    """Keep the picture beside every third map only: the stem takes its time."""
    for place, item in enumerate(items):
        if place % 3:
            item.picture = None
    return items


def disturb(kind: str, features: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Vary a sample as its kind may vary without changing its name."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    if kind == "imu":
        noise = 0.03 * torch.randn(features.shape, generator=generator)
        return features * uniform(0.9, 1.1, 6, 1) + noise
    if kind == "fmri":
        return features + 0.5 * torch.randn(features.shape, generator=generator)
    if kind in ("depth", "normal") and len(features) == 2 and torch.rand(1, generator=generator) < 0.7:
        features = features[1:]  # without the picture beside it
    if kind in ("video", "point"):  # any few frames or sides
        features = features[torch.randperm(len(features), generator=generator)[: len(features) - 2]]
    return features * (torch.rand(features.shape[1], generator=generator) > DROPPED)


class Targets:
    """Names as words of the anchor's vocabulary: [M] indices, filled up with full stops."""

    FILLER = "."

    def __init__(self, tokenizer, queries: int, texts: list[str] | None = None, token_ids: list[int] | None = None):
        self.tokenizer, self.queries = tokenizer, queries
        if token_ids is None:
            found = {token for text in texts or [] for token in self._tokens(text)}
            token_ids = self._tokens(self.FILLER) + sorted(found - set(self._tokens(self.FILLER)))
        self.token_ids = token_ids
        self.places = {token: place for place, token in enumerate(token_ids)}

    def _tokens(self, text: str) -> list[int]:
        text = text if text == self.FILLER else f" {text}"
        return self.tokenizer(text, add_special_tokens=False)["input_ids"][: self.queries]

    def encode(self, text: str) -> torch.Tensor:
        """Encode a name; the filler is word 0."""
        words = [self.places[token] for token in self._tokens(text)]
        return torch.tensor(words + [0] * (self.queries - len(words)))
