"""Photographs and sounds with English names, for evaluation only: dev and test, nothing to train on.

Sources: Debian ``tuxpaint-stamps-default`` (photo cut-outs, sound effects) and ``gcompris-qt-data``
(photographs, animal and instrument recordings). What counts as a photograph, and what it shows, was judged
by eye; the result is ``photos.txt`` and ``sounds.txt`` beside this file.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from onellm.utils import atomic
from train.small.corpus import packages
from train.small.corpus.lists import accepted, dev_or_test, read_table, slug, write_items
from train.small.corpus.rcc import read_rcc

log = logging.getLogger(__name__)
HERE = Path(__file__).parent
STAMPS = Path("usr/share/tuxpaint/stamps")
BUNDLES = Path("usr/share/gcompris-qt/rcc")
LONGEST_SIDE_PX = 512
MARGIN = 0.08  # white space around a cut-out, as a share of its longer side
SHORTEST_S = 0.5  # shorter clips give an audio encoder too little to work with
LONGEST_S = 20.0
SOUND_VERBS = set(
    """bang bark bleat boil bray bubble buzz caterwaul caw chatter cheer chink chirp chuckle clink cluck
    crackle creak croak flush gobble groan growl grunt gurgle hiss honk hoot howl knock laugh meow moo neigh
    oink pour purr quack ring roar scream snort squawk squeak tweet whinny whistle yip""".split()
)


def cut_out(picture: Image.Image) -> Image.Image:
    """Paste a cut-out on a white square, cropped to what is visible; leave other pictures whole.

    The square keeps long things whole when a model crops the middle.

    Args:
        picture: any mode; transparency marks the background.

    Returns:
        RGB picture, longer side at most ``LONGEST_SIDE_PX``.
    """
    picture = picture.convert("RGBA")
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0).getbbox()
    clear = picture.getchannel("A").getextrema()[0] < 250
    if clear and box:
        picture = picture.crop(box)
    size = (round(max(picture.size) * (1 + 2 * MARGIN)),) * 2 if clear else picture.size
    page = Image.new("RGB", size, "white")
    page.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2), picture)
    page.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    return page


def licences(readme: str) -> dict[str, str]:
    """Read a GCompris README: which file has which licence.

    Args:
        readme: paragraphs of ``Copyright:``, ``License:`` and ``Files:`` lines, file names below ``Files:``.

    Returns:
        File name -> "licence, by author".
    """
    found: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", readme.replace("\r", "")):
        licence = re.search(r"^Licen[sc]e:\s*(.+)$", paragraph, re.M)
        author = re.search(r"^Copyright:\s*(.+)$", paragraph, re.M)
        files = re.search(r"^Files:(.*)\Z", paragraph, re.M | re.S)
        if not (licence and files):
            continue
        terms = licence[1].strip() + (f", by {author[1].strip()}" if author else "")
        for name in re.split(r"[\s,]+", files[1]):
            if name:
                found[name] = terms
    return found


def with_gerunds(words: list[str]) -> list[str]:
    """Add the -ing form of every verb of sound, so that "bark" and "barking" both count."""
    verbs = [word for word in words if word in SOUND_VERBS]
    return accepted(*words, *(f"{verb.removesuffix('e')}ing" for verb in verbs))


class Gcompris:
    """Files of GCompris's bundles, found by ``bundle/stem``."""

    def __init__(self, root: Path):
        self.root = root
        self._bundles: dict[str, dict[str, tuple[str, bytes, str]]] = {}

    def _bundle(self, name: str) -> dict[str, tuple[str, bytes, str]]:
        if name not in self._bundles:
            path = self.root / BUNDLES / f"{name}.rcc"
            content = dict(read_rcc(path)) if path.exists() else {}
            terms: dict[str, str] = {}
            for file, data in content.items():
                if file.rsplit("/", 1)[-1].lower() == "readme":
                    terms |= licences(data.decode("utf-8", "replace"))
            self._bundles[name] = {}
            for file, data in content.items():
                base = file.rsplit("/", 1)[-1]
                if base.endswith((".webp", ".ogg", ".wav")):
                    licence = terms.get(base, "GPL-3+, by the GCompris authors")
                    self._bundles[name][base] = (base, data, licence)
        return self._bundles[name]

    def get(self, key: str, suffixes: tuple[str, ...]) -> tuple[str, bytes, str] | None:
        """Return (file name, content, licence) of ``bundle/stem``, or None where there is none."""
        name, stem = key.split("/")
        bundle = self._bundle(name)
        return next((bundle[stem + suffix] for suffix in suffixes if stem + suffix in bundle), None)


def _rows(
    table: str, suffixes: tuple[str, ...], cache: Path
) -> Iterator[tuple[str, str, str, list[str], bytes, str, str]]:
    """Yield (id, name, noun, accept, content, source, licence) of a table's files that exist."""
    stamps = packages.debian("tuxpaint-stamps-default", cache) / STAMPS
    bundles = Gcompris(packages.debian("gcompris-qt-data", cache))
    for key, name, noun, accept in tqdm(read_table(HERE / table), desc=table, unit="file"):
        origin, entry = key.split(":")
        if origin == "t":
            path = stamps / f"{entry}{suffixes[0]}"
            terms = "GPL-2, by the Tux Paint authors"
            found = (path.name, path.read_bytes(), terms) if path.exists() else None
            source = f"Debian tuxpaint-stamps-default: {entry}"
        else:
            found = bundles.get(entry, suffixes)
            source = f"Debian gcompris-qt-data: {entry}"
        if not found:
            log.warning("%s is not in this version of its package; skipped.", entry)
            continue
        yield f"{origin}-{slug(entry)}", name, noun, accept, found[1], source, found[2]


def _item(
    kind: str, key: str, file: str, name: str, noun: str, accept: list[str], source: str, licence: str, group: str
) -> dict:
    """Return a line of an item list; items of one group lie in one split."""
    head = {"id": f"{kind}-{key}", "kind": kind, "file": file, "name": name, "noun": noun, "accept": accept}
    tail = {"group": group, "split": dev_or_test(group), "source": source, "licence": licence}
    return {**head, "caption": None, **tail}


def build_image(out: Path, cache: Path) -> int:
    """Write ``image.jsonl`` and its pictures.

    Args:
        out: corpus folder.
        cache: download folder.

    Returns:
        Number of items.
    """
    (out / "image").mkdir(parents=True, exist_ok=True)
    items = []
    for key, name, noun, accept, content, source, licence in _rows("photos.txt", (".png", ".webp"), cache):
        file = f"image/{key}.jpg"
        if not (out / file).exists():
            with atomic.whole(out / file) as part:
                cut_out(Image.open(io.BytesIO(content))).save(part, quality=92)
        items.append(_item("image", key, file, name, noun, accept, source, licence, f"image:{name.rstrip('s')}"))
    return write_items(out / "image.jsonl", items)


def build_audio(out: Path, cache: Path) -> int:
    """Write ``audio.jsonl`` and its recordings (FLAC, 16 kHz mono, 0.5 to 20 s).

    Args:
        out: corpus folder.
        cache: download folder.

    Returns:
        Number of items.
    """
    import soundfile
    import soxr

    (out / "audio").mkdir(parents=True, exist_ok=True)
    items = []
    for key, name, noun, accept, content, source, licence in _rows("sounds.txt", (".ogg", ".wav"), cache):
        sound, rate_hz = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
        sound = soxr.resample(sound.mean(1), rate_hz, 16000)
        loud = np.flatnonzero(np.abs(sound) > 1e-3)
        if len(loud) < 2 or (loud[-1] - loud[0]) / 16000 < SHORTEST_S:
            log.info("%s is shorter than %s s; skipped.", key, SHORTEST_S)
            continue
        file = f"audio/{key}.flac"
        if not (out / file).exists():
            sound = np.clip(sound[loud[0] : loud[-1] + 1], -1, 1)
            with atomic.whole(out / file) as part:
                soundfile.write(part, sound[: int(LONGEST_S * 16000)], 16000)
        accept = with_gerunds(accept)
        items.append(_item("audio", key, file, name, noun, accept, source, licence, f"audio:{noun}"))
    return write_items(out / "audio.jsonl", items)
