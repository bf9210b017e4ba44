"""The naming benchmark: the share of answers that name the thing, on held-out objects, people, runs and recordings."""

import re
from dataclasses import asdict, dataclass, field, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import torch

import onellm
from onellm.modalities import MODALITIES
from onellm.utils import atomic
from train.small.ask import ask_all
from train.small.features import classes_of
from train.small.items import Item, extract_features, read_items
from train.small.questions import WORDS

LIMIT = 300  # items a modality, evenly spread; enough for a standard error below 0.03


@dataclass
class Result:
    """Figures of one modality.

    Attributes:
        modality: the modality.
        n: answers counted.
        accuracy: share of answers that contain an accepted word.
        chance: accuracy of always naming the commonest noun among the test items.
        probe: accuracy of a linear probe (logistic regression on nouns) on the same frozen features, trained on the
            training split, or on the dev split for modalities that train on class names alone.
        stem: accuracy of the frozen backbone's likeliest class name; None where it has no classifier.
        answers: every item with its question, answer and verdict.
    """

    modality: str
    n: int
    accuracy: float
    chance: float
    probe: float | None = None
    stem: float | None = None
    answers: list[dict] = field(default_factory=list)


def is_right(answer: str, item: Item) -> bool:
    """Tell whether an answer contains an accepted word, whole and plural or not, and none of the rejected ones."""

    def contains(word: str) -> bool:
        return bool(re.search(rf"\b{re.escape(word.lower())}(s|es)?\b", answer.lower()))

    return any(map(contains, item.accept)) and not any(map(contains, item.reject))


def chance_of(answers: list[str], wanted: list[list[Item]]) -> float:
    """Return how often an answer names all that is wanted of another one, where none of that is its own too.

    Args:
        answers: as many as `wanted`.
        wanted: the items that each is to name.
    """
    hits = [
        all(is_right(answers[one], item) for item in wanted[other])
        for one, other in permutations(range(len(answers)), 2)
        if not {noun for item in wanted[one] for noun in item.accept}
        & {n for item in wanted[other] for n in item.accept}
    ]
    return float(np.mean(hits)) if hits else 0.0


def without_pictures(items: list[Item]) -> list[Item]:
    """Return items without the pictures that may lie beside maps."""
    return [replace(item, picture=None) for item in items]


def pick(items: list[Item], limit: int) -> list[Item]:
    """Take at most `limit` items, evenly spread."""
    if len(items) <= limit:
        return items
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, limit)]


def map_alone(model, modality: str, features: list[torch.Tensor]) -> list[torch.Tensor]:
    """Drop the features of the picture beside a map, where kept features hold them: the map comes last."""
    tokenizer = model.tokenizer_for(modality)
    return [value[-max(tokenizer.looks, 1) :] for value in features] if getattr(tokenizer, "picture", 0) else features


def pooled(features: list[torch.Tensor]) -> np.ndarray:
    """Average features over frames, or describe motion by simple statistics, for the probe: [n, F]."""
    rows = []
    for value in features:
        if (
            value.dim() == 2 and value.shape[0] == 6 and value.shape[1] < 1000
        ):  # motion: mean, spread and spectrum of every channel
            spectrum = torch.fft.rfft(value, dim=1).abs()[:, :24] / value.shape[1]
            value = torch.cat([value.mean(dim=1), value.std(dim=1), spectrum.flatten()])
        elif value.dim() == 2:
            value = value.mean(dim=0)
        rows.append(value.numpy())
    return np.stack(rows)


def probe_accuracy(model, processor, items: list[Item], split: str) -> float | None:
    """Fit a linear probe on the training split and count its right nouns on `items`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    modality = items[0].kind
    # modalities that train on class names alone have no training files: there the probe learns from the dev split
    source = "train" if read_items(modality, "train") else "dev"
    train = [item for item in read_items(modality, source) if item.noun]
    if not train or source == split:
        return None
    kept = map_alone(model, modality, extract_features(model, processor, train, source))
    found = map_alone(model, modality, extract_features(model, processor, items, split))
    indices = pick(list(range(len(train))), 3000)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    probe.fit(pooled([kept[i] for i in indices]), [train[i].noun for i in indices])
    guesses = probe.predict(pooled(found))
    return float(np.mean([is_right(guess, item) for guess, item in zip(guesses, items, strict=True)]))


def backbone_accuracy(model, processor, items: list[Item], split: str) -> float | None:
    """Count the right top-1 class names of the modality's frozen backbone."""
    classes = classes_of(model, items[0].kind)
    if classes is None:
        return None
    features = map_alone(model, items[0].kind, extract_features(model, processor, items, split))
    guesses = [int(value.mean(dim=0)[: len(classes.texts)].argmax()) for value in features]
    pairs = zip(guesses, items, strict=True)
    return float(np.mean([is_right(classes.texts[guess], item) for guess, item in pairs]))


def evaluate(
    name: str,
    modalities: list[str] | None,
    split: str,
    limit: int | None = None,
    out: Path | None = None,
    quantize: str | None = None,
) -> str:
    """Measure a model; depth and normal maps are shown alone, without the picture that may lie beside them.

    Args:
        name: of the model, or its folder.
        modalities: only these; all by default.
        split: "test", or "dev" while tuning.
        limit: at most this many items a modality.
        out: write every figure and answer there, as JSON.
        quantize: how the model's weights are kept; as it would be in the app if None.

    Returns:
        A Markdown table.
    """
    chat = onellm.load(name, quantize=quantize)
    model, processor = chat.model, chat.processor
    results = []
    for modality in modalities or list(MODALITIES):
        items = without_pictures(pick(read_items(modality, split), limit or LIMIT))
        answers = ask_all(chat, [([item], WORDS[modality][2]) for item in items])
        verdicts = [is_right(answer, item) for answer, item in zip(answers, items, strict=True)]
        nouns = [item.noun or item.name for item in items]
        results.append(
            Result(
                modality=modality,
                n=len(items),
                accuracy=float(np.mean(verdicts)),
                chance=max(map(nouns.count, nouns)) / len(nouns),
                probe=probe_accuracy(model, processor, items, split),
                stem=backbone_accuracy(model, processor, items, split),
                answers=[
                    {"id": i.id, "expected": i.accept, "answer": a, "right": bool(v)}
                    for i, a, v in zip(items, answers, verdicts, strict=True)
                ],
            )
        )
        if out:
            atomic.write_json(out, {"model": name, "split": split, "kinds": [asdict(r) for r in results]})
    return table(results)


def table(results: list[Result]) -> str:
    """Lay results out as Markdown."""

    def figure(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    rows = ["| kind | n | accuracy | chance | linear probe | backbone's top-1 |", "|---|---|---|---|---|---|"]
    for r in results:
        rows.append(
            f"| {r.modality} | {r.n} | {figure(r.accuracy)} | {figure(r.chance)} | {figure(r.probe)} | "
            f"{figure(r.stem)} |"
        )
    return "\n".join(rows)
