"""Files in time: long sounds with a thing somewhere in them, and videos with their sound, on the small corpus."""

import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import onellm
from onellm.modalities.audio import RATE_HZ
from train.small.ask import as_part, ask_all
from train.small.bias import draw_pairs
from train.small.items import Item, load_sample, read_items
from train.small.naming import chance_of, is_right, pick

LONG_S = 40.0
PLACE_S = 25.0  # where the sound begins
EARLIER_S = 5.0  # where another one begins, of two
LONGEST_S = 8.0  # of a sound that is placed
HUM = 1e-3  # root mean square of the noise between sounds; theirs is 0.05
PAIRS = 40
BATCH = 4  # questions, each about many files
FILM_S = 4.0
QUESTION, BOTH = "What do you hear?", "What is in the video and what do you hear?"
WAYS = {
    "in one look": {"windows": False},
    "4 windows, all words": {"windows": 4, "words": 1_000},
    "8 windows, all words": {"windows": 8, "words": 1_000},
    "8 windows, 32 words": {"windows": 8, "words": 32},
    "8 windows, 24 words": {"windows": 8, "words": 24},
    "8 windows, 16 words": {"windows": 8, "words": 16},
}


@dataclass
class Row:
    """Figures of one way to read the same files.

    Attributes:
        name: of the way.
        n: answers.
        right: share of answers that name what is to be named.
        chance: the same with the things of all other answers in place of an answer's own.
        positions: mean positions of the files in the prompt, of the first four.
        seconds: of computing per answer, on one core.
    """

    name: str
    n: int
    right: float
    chance: float
    positions: float
    seconds: float


def placed(sounds: list[tuple[float, np.ndarray]], seed: int) -> np.ndarray:
    """Lay sounds, at one loudness, into a long faint hum: [S] float32 at 16 kHz.

    Args:
        sounds: when each begins, in seconds, and its samples.
        seed: of the hum.
    """
    sound = np.random.default_rng(seed).normal(0, HUM, int(LONG_S * RATE_HZ)).astype(np.float32)
    for start_s, samples in sounds:
        samples = samples[: int(LONGEST_S * RATE_HZ)]
        level = max(float(np.sqrt(np.mean(np.square(samples)))), 1e-5)
        start = int(start_s * RATE_HZ)
        sound[start : start + len(samples)] += np.clip(samples * 0.05 / level, -1, 1)
    return sound


def film(path: Path, frames: np.ndarray, samples: np.ndarray) -> Path:
    """Write frames [T, H, W, 3], each as long as the others, and a sound, repeated, as a video of `FILM_S` seconds."""
    import av

    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        track = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for number in range(int(FILM_S * 8)):
            picture = frames[int(number * len(frames) / (FILM_S * 8))]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
        wave = np.resize(samples, int(FILM_S * RATE_HZ))[None]
        for start in range(0, wave.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[:, start : start + 1024]), "fltp", "mono")
            frame.sample_rate, frame.pts = RATE_HZ, start
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return path


def measure(
    chat: onellm.Chat, name: str, parts: list[list[dict | Item]], wanted: list[list[list[Item]]], question: str
) -> list[Row]:
    """Ask about files, and count the answers that name all that is wanted of them: a row for each of `wanted`."""
    begun_s = time.process_time()
    answers = ask_all(chat, [(files, question) for files in parts], batch=BATCH)
    took_s = (time.process_time() - begun_s) / len(answers)
    processor = chat.processor
    placeholders = {settings["token_id"] for settings in processor.modalities.values()}
    tokens = [processor.lay_out(map(as_part, files))[0] for files in parts[:4]]
    positions = float(np.mean([sum(token in placeholders for token in ids) for ids in tokens]))
    rows = []
    for lists in wanted:
        right = [all(is_right(answer, item) for item in items) for answer, items in zip(answers, lists, strict=True)]
        rows.append(Row(name, len(answers), float(np.mean(right)), chance_of(answers, lists), positions, took_s))
    return rows


def measure_timelines(
    chat: onellm.Chat, split: str, limit: int | None = None, seed: int = 0
) -> Iterator[tuple[str, Row]]:
    """Measure long sounds and videos with their sound.

    Args:
        chat: a loaded model.
        split: "dev" or "test".
        limit: at most so many files each.
        seed: of pairs and of the hum.

    Yields:
        Title of a table, and one of its rows.
    """
    import soundfile

    choose = random.Random(seed)
    items = pick(read_items("audio", split), limit or 1_000)
    samples = {item.id: load_sample(item).array for item in items}
    pairs = [list(pair) for pair in draw_pairs(items, items, False, limit or PAIRS, choose)]
    films = draw_pairs(read_items("video", split), items, False, limit or PAIRS, choose)
    single = [[item] for item in items]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def write(name: str, sounds: list[tuple[float, np.ndarray]], number: int) -> dict:
            soundfile.write(folder / f"{name}{number}.wav", placed(sounds, seed + number), RATE_HZ, subtype="FLOAT")
            return {"type": "audio", "path": str(folder / f"{name}{number}.wav")}

        one = [write("one", [(PLACE_S, samples[item.id])], number) for number, item in enumerate(items)]
        two = [
            write("two", [(EARLIER_S, samples[a.id]), (PLACE_S, samples[b.id])], number)
            for number, (a, b) in enumerate(pairs)
        ]
        titles = [
            f"a sound at second {PLACE_S:g} of {LONG_S:g}",
            f"two sounds, at seconds {EARLIER_S:g} and {PLACE_S:g} of {LONG_S:g}, both named",
            f"a video of {FILM_S:g} s with its sound, the thing seen named",
            f"a video of {FILM_S:g} s with its sound, the sound named",
        ]
        yield titles[0], *measure(chat, "the sound by itself", single, [single], QUESTION)
        for title, files, wanted in ((titles[0], one, single), (titles[1], two, pairs)):
            for name, way in WAYS.items():
                yield title, *measure(chat, name, [[part | way] for part in files], [wanted], QUESTION)
        paths = [
            str(film(folder / f"{number}.mp4", load_sample(video).array, samples[sound.id]))
            for number, (video, sound) in enumerate(films)
        ]
        separate = [[{"type": "video", "path": p}, {"type": "audio", "path": p, "track": True}] for p in paths]
        joint = [[{"type": "video", "path": path, "sound": True}] for path in paths]
        things = [[[pair[index]] for pair in films] for index in (0, 1)]
        for name, parts in (("as two files, one after the other", separate), ("second by second, in turns", joint)):
            yield from zip(titles[2:], measure(chat, name, parts, things, BOTH), strict=True)


def table(found: Iterable[tuple[str, Row]]) -> str:
    """Lay the figures out as Markdown."""
    tables: dict[str, list[str]] = {}
    for title, r in found:
        head = [f"| {title} | n | right | chance | positions | CPU s an answer |", "|---|---|---|---|---|---|"]
        tables.setdefault(title, head).append(
            f"| {r.name} | {r.n} | {r.right:.2f} | {r.chance:.2f} | {r.positions:.0f} | {r.seconds:.2f} |"
        )
    return "\n\n".join("\n".join(lines) for lines in tables.values())
