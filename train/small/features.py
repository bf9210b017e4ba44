"""Samples of the small corpus: features that the frozen backbones extracted, and the tokens of their names."""

import torch

from onellm.errors import OneLLMError
from onellm.model.projectors.anchor import FILLER
from train.recipe import Source
from train.small.classes import ImageClasses, SoundClasses
from train.small.items import Item, extract_features, read_items
from train.small.nouns import fit_nouns, noun_vocabulary

# few objects are easily memorised, so a training sample goes without a share of its backbone's features and is often
# blended with another of its noun
DROPPED = 0.4
BLENDED = ("video", "point", "fmri", "depth", "normal")
RARE = 0.3  # weight of a thing whose noun has no other
CLASSES = {"efficientnet-lite2": ImageClasses, "yamnet": SoundClasses}


def classes_of(model, modality: str) -> ImageClasses | SoundClasses | None:
    """Return the classes of a modality's frozen backbone, or None where it has none."""
    settings = model.config.modalities[modality]["tokenizer"]
    name = model.config.modalities[settings.get("share", modality)]["tokenizer"].get("stem")
    if name not in CLASSES:
        return None
    return CLASSES[name](model.stems[name].head.detach(), model.tokenizer_for(modality).class_weights)


class ClassSource:
    """Samples of class names."""

    def __init__(self, model, source: Source):
        self.kind = source.kind
        self.classes = classes_of(model, source.kind)
        nouns = getattr(model.tokenizer_for(source.kind), "nouns", None)
        self.nouns = 0 if nouns is None else nouns.classifier.out_features
        if self.classes is None:
            raise OneLLMError(f"The kind {source.kind} has no backbone whose classes could be mixed; use 'items'.")

    def draw(self, count: int, generator: torch.Generator) -> tuple[list[torch.Tensor], list[str]]:
        """Draw features and texts."""
        features, labels = self.classes.draw(count, generator)
        if self.nouns:  # a classifier that does not know the thing answers nevertheless, less surely
            doubts = torch.randn(count, 1, self.nouns, generator=generator)
            sureness = 2 * torch.rand(count, 1, 1, generator=generator)
            doubts = (sureness * doubts).softmax(dim=-1).expand(-1, features.shape[1], -1)
            features = torch.cat([features, doubts], dim=-1)
        return list(features), [self.classes.texts[label] for label in labels]


class ItemSource:
    """Samples of the corpus, every text equally often, slightly disturbed.

    Where the modality's tokenizer has a noun classifier, that is solved first, on training files alone, and a sample's
    text is the noun it finds, right or wrong, in a file it was not solved on: to say that is all the projection can
    learn without knowing by heart what the few files show.
    """

    def __init__(self, model, processor, source: Source):
        self.kind = source.kind
        items = thin(read_items(source.kind, source.split))
        self.features = extract_features(model, processor, items, source.split)
        self.items = items
        self.raw = self.features[0].shape[-1]  # what follows is the nouns' probabilities
        self.nouns: list[str] = []
        tokenizer = model.tokenizer_for(source.kind)
        if getattr(tokenizer, "nouns", None) is not None and source.split == "train":
            self.features = with_nouns(tokenizer, items, self.features)
            self.nouns = noun_vocabulary(items)
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
        samples = [disturb(self.kind, features, self.raw, generator) for features, _ in pairs]
        if self.nouns:
            found = [int(features.view(-1, features.shape[-1])[0, self.raw :].argmax()) for features, _ in pairs]
            return samples, [self.nouns[index] for index in found]
        return samples, [text for _, text in pairs]

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
    """Keep the picture beside every third map only: the backbone is slow."""
    for index, item in enumerate(items):
        if index % 3:
            item.picture = None
    return items


def with_nouns(tokenizer, items: list[Item], features: list[torch.Tensor]) -> list[torch.Tensor]:
    """Solve the tokenizer's noun classifier and append its answer for each item to the item's features."""
    pooled = torch.stack([tokenizer.pool(value) for value in features])
    found = fit_nouns(tokenizer.nouns.classifier, pooled, [item.noun for item in items], [item.group for item in items])
    rows = [row.expand(*value.shape[:-1], -1) for value, row in zip(features, found, strict=True)]
    return [torch.cat(pair, dim=-1) for pair in zip(features, rows, strict=True)]


def disturb(modality: str, features: torch.Tensor, raw: int, generator: torch.Generator) -> torch.Tensor:
    """Vary a sample's first `raw` features as its modality may vary without changing its name."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    if modality in ("depth", "normal") and len(features) % 2 and torch.rand(1, generator=generator) < 0.7:
        features = features[1:]  # without the picture beside it
    if modality in ("video", "point"):  # any few frames or sides
        features = features[torch.randperm(len(features), generator=generator)[: len(features) - 2]]
    features, nouns = features.tensor_split([raw], dim=-1)
    if modality == "imu":
        noise = 0.03 * torch.randn(features.shape, generator=generator)
        features = features * uniform(0.9, 1.1, 6, 1) + noise
    elif modality == "fmri":
        features = features + 0.5 * torch.randn(features.shape, generator=generator)
    else:
        features = features * (torch.rand(raw, generator=generator) > DROPPED)
    return torch.cat([features, nouns], dim=-1)


class WordTargets:
    """Names as words of a `WordAnchor`'s list: every soft token of a file is to be all of its name."""

    def __init__(self, words: list[str], queries: int):
        self.index_of = {word: index for index, word in enumerate(words)}
        self.queries = queries

    def encode(self, text: str) -> torch.Tensor:
        """Encode a name: [M] times its index."""
        return torch.full((self.queries,), self.index_of[text])


class Targets:
    """Names as tokens of the anchor's vocabulary: [M] indices, filled up with full stops."""

    def __init__(self, tokenizer, queries: int, texts: list[str] | None = None, token_ids: list[int] | None = None):
        self.tokenizer, self.queries = tokenizer, queries
        if token_ids is None:
            found = {token for text in texts or [] for token in self._tokens(text)}
            token_ids = self._tokens(FILLER) + sorted(found - set(self._tokens(FILLER)))
        self.token_ids = token_ids
        self.index_of = {token: index for index, token in enumerate(token_ids)}

    def _tokens(self, text: str) -> list[int]:
        text = text if text == FILLER else f" {text}"
        return self.tokenizer(text, add_special_tokens=False)["input_ids"][: self.queries]

    def encode(self, text: str) -> torch.Tensor:
        """Encode a name; the filler is token 0."""
        indices = [self.index_of[token] for token in self._tokens(text)]
        return torch.tensor(indices + [0] * (self.queries - len(indices)))
