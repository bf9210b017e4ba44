"""The corpus on disk: items, their tensors as the model gets them, and what the frozen backbones extract of these."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES, load
from onellm.modalities.base import Sample
from onellm.model.runtime import kernels
from onellm.utils import atomic
from onellm.utils.paths import cache_folder

CHUNK = 32  # files that go through a backbone together


def corpus_folder() -> Path:
    """Folder that `python -m train corpus` fills."""
    return Path(os.environ.get("ONELLM_CORPUS", cache_folder() / "corpus"))


@dataclass
class Item:
    """One labelled thing: a right answer contains one of the words `accept` and none of `reject`."""

    id: str
    kind: str
    file: str | None
    name: str
    noun: str | None
    accept: list[str]
    group: str
    split: str
    source: str = ""
    licence: str = ""
    caption: str | None = None
    index: int | None = None
    picture: str | None = None
    frames: list[str] = field(default_factory=list)
    options: dict = field(default_factory=dict)
    reject: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What the model should say: the basic noun first, then the name where it says more."""
        return describe(self.name, self.noun)


def describe(name: str, basic: str | None) -> str:
    """Join a basic noun and a name: ("German shepherd", "dog") becomes "dog, German shepherd".

    The basic noun always comes first, so that the first soft tokens mean the same thing for every file.
    """
    return name if not basic or basic.lower() == name.lower() else f"{basic}, {name}"


def read_lines(name: str) -> list[dict]:
    """Read a JSON-lines file of the corpus.

    Raises:
        OneLLMError: it is not there.
    """
    path = corpus_folder() / f"{name}.jsonl"
    if not path.exists():
        raise OneLLMError(f"There is no {path}; build the corpus first with: python -m train corpus")
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_items(modality: str, *splits: str) -> list[Item]:
    """Read the corpus items of a modality that belong to the given splits."""
    known = Item.__dataclass_fields__
    lines = (line for line in read_lines(modality) if line["split"] in splits)
    return [Item(**{key: value for key, value in line.items() if key in known}) for line in lines]


def load_sample(item: Item) -> Sample:
    """Load an item as the app would load the file; rows of an array file and frame lists are made samples here."""
    root = corpus_folder()
    if item.frames:
        frames = [load("image", root / frame).array for frame in item.frames]
        return Sample(modality="video", name=item.id, array=np.stack(frames), summary="")
    if item.index is not None:
        with np.load(root / item.file) as archive:
            row = archive[archive.files[0]][item.index].astype(np.float32)
        if item.kind == "imu":
            return Sample(modality="imu", name=item.id, array=row.T, summary="", rate_hz=50.0)
        return Sample(modality=item.kind, name=item.id, array=row[None], summary="")
    options = dict(item.options)
    if item.picture and MODALITIES[item.kind].name in ("depth", "normal"):
        options["picture"] = root / item.picture
    return load(item.kind, root / item.file, **options)


def extract_features(model, processor, items: list[Item], split: str) -> list[torch.Tensor]:
    """Return what the modality's tokenizer extracts of every item; computed once and kept beside the corpus.

    Args:
        model: a OneLLM; only its frozen backbones matter here.
        processor: its processor.
        items: items of one modality.
        split: name of the kept file.

    Returns:
        One float32 tensor an item.
    """
    modality = items[0].kind
    kept = corpus_folder() / "features" / f"{modality}-{split}-{_fingerprint(model, modality)}.safetensors"
    features: dict[str, torch.Tensor] = load_file(kept) if kept.exists() else {}
    missing = [item for item in items if item.id not in features]
    settings = processor.modalities[modality].get("input", {})
    for start in tqdm(
        range(0, len(missing), CHUNK), desc=f"{modality} {split} features", disable=not missing, mininterval=10
    ):
        chunk = missing[start : start + CHUNK]
        shapes: dict[tuple, list[tuple[Item, torch.Tensor]]] = {}
        for item in chunk:
            tensor = MODALITIES[modality].to_tensor(load_sample(item), **settings)
            shapes.setdefault(tuple(tensor.shape), []).append((item, tensor))
        for group in shapes.values():
            # training tolerates what bfloat16 rounds away, and processors that multiply it are twice as fast
            tiles = split == "train" and kernels.has_tiles()
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=tiles):
                batch = model.tokenizer_for(modality).extract(torch.stack([tensor for _, tensor in group]))
            for (item, _), feature in zip(group, batch.half(), strict=True):
                features[item.id] = feature.clone()
        if start + CHUNK >= len(missing) or start % (20 * CHUNK) == 0:
            with atomic.whole(kept) as part:
                save_file(features, part)
    return [features[item.id].float() for item in items]


def _fingerprint(model, modality: str) -> str:
    """Name what the features of a modality depend on: its input and what its tokenizer does before it trains."""
    settings = model.config.modalities[modality]
    tokenizer = settings["tokenizer"]
    tokenizer = model.config.modalities[tokenizer.get("share", modality)]["tokenizer"]
    fixed = [settings.get("input"), *(tokenizer.get(key) for key in ("type", "stem", "views"))]
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:8]
