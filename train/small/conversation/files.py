"""The files of the conversation benchmark: items of the corpus's test split, and what is made of them.

Made files have their truth by construction: cut-outs laid on plain grounds, words drawn as signs (with the typeface
that Pillow brings, so that they are the same on every machine), and recorded words laid one after the other.
"""

import hashlib
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onellm.errors import OneLLMError
from onellm.utils import atomic
from train.small import items as corpus
from train.small.conversation.items import File
from train.small.corpus import packages
from train.small.corpus.samples import STAMPS

GROUNDS = {  # (sky or wall, ground or floor)
    "white": ("#ffffff", "#ffffff"), "grey": ("#c9c9c9", "#c9c9c9"), "meadow": ("#a9d3f5", "#6aa84f"),
    "sand": ("#bfe1f6", "#e3cd9b"), "room": ("#e8dfd0", "#9c7650"), "night": ("#141a33", "#20262e"),
}  # fmt: skip
SCENE_PX = (640, 480)
HORIZON = 0.55  # share of the height
PAUSE_S = 0.5  # between recorded words
RATE_HZ = 16_000


def folder() -> Path:
    """Where the files lie: beside the corpus."""
    return corpus.corpus_folder().parent / "conversation"


def prepare(file: File) -> Path:
    """Return a file's path; it is made once.

    Raises:
        OneLLMError: the corpus is not there, or lacks the item.
    """
    name = hashlib.sha256(json.dumps(file.source, sort_keys=True).encode()).hexdigest()[:8]
    if "corpus" in file.source:
        return _of_corpus(file, f"{file.name}-{name}")
    kind, (make, suffix) = next((kind, MAKERS[kind]) for kind in MAKERS if kind in file.source)
    path = folder() / f"{file.name}-{name}{suffix}"
    if not path.exists():
        with atomic.whole(path) as part:
            make(part, file.source[kind])
    return path


@cache
def _test_items(modality: str) -> dict[str, corpus.Item]:
    return {item.id: item for item in corpus.read_items(modality, "test")}


def _item(modality: str, name: str) -> corpus.Item:
    try:
        return _test_items(modality)[name]
    except KeyError:
        raise OneLLMError(
            found=f"The corpus's test split has no {modality} {name}, which the conversations need",
            advice="build the corpus again with: python -m train corpus",
        ) from None


def _of_corpus(file: File, name: str) -> Path:
    """Return an item's file, or write what the corpus keeps in pieces as a file of its modality."""
    item = _item(file.modality, file.source["corpus"])
    if file.modality not in ("video", "imu", "fmri"):
        return corpus.corpus_folder() / item.file
    path = folder() / (name + {"video": ".mp4", "imu": ".csv", "fmri": ".npy"}[file.modality])
    if not path.exists():
        array = corpus.load_sample(item).array
        with atomic.whole(path) as part:
            {"video": write_video, "imu": write_motion, "fmri": _write_array}[file.modality](part, array)
    return path


def write_video(path: Path, frames: np.ndarray, rate_hz: int = 4) -> None:
    """Write frames [T, H, W, 3] as a silent video."""
    import av

    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate_hz, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_motion(path: Path, values: np.ndarray, rate_hz: float = 50.0) -> None:
    """Write [T, 6], m/s² and rad/s, as a csv file."""
    head = "time_s,acc_x_m/s2,acc_y_m/s2,acc_z_m/s2,gyr_x_rad/s,gyr_y_rad/s,gyr_z_rad/s"
    rows = np.column_stack([np.arange(len(values)) / rate_hz, values])
    np.savetxt(path, rows, fmt="%.6g", delimiter=",", header=head, comments="")


def _write_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array[0])


def cut_out(name: str) -> Image.Image:
    """Return a stamp of the test split, RGBA, cropped to what is visible.

    Args:
        name: id of a picture of the corpus that is a stamp.
    """
    stamp = _item("image", name).source.removeprefix("Debian tuxpaint-stamps-default: ")
    picture = Image.open(_stamps() / f"{stamp}.png").convert("RGBA")
    return picture.crop(picture.getchannel("A").point(lambda alpha: 255 * (alpha > 16)).getbbox())


def _stamps() -> Path:
    """Return the folder of the stamps' package, as the corpus's build left it."""
    return packages.debian("tuxpaint-stamps-default", corpus.corpus_folder().parent / "packages") / STAMPS


def make_scene(path: Path, scene: dict) -> None:
    """Lay things on a ground.

    Args:
        path: of the picture.
        scene: `ground`, and `things`: each `thing` (id of a stamp) or `sign`, `at` [x, y] of its middle and `height`,
            all as shares of the picture, and `turned` by degrees.
    """
    page = ground(scene.get("ground", "white"))
    for thing in scene["things"]:
        picture = draw_sign(thing["sign"]) if "sign" in thing else cut_out(thing["thing"])
        picture = picture.rotate(thing.get("turned", 0), expand=True, resample=Image.Resampling.BICUBIC)
        height = round(thing["height"] * page.height)
        picture = picture.resize((round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS)
        x, y = (round(share * side) for share, side in zip(thing["at"], page.size, strict=True))
        page.paste(picture, (x - picture.width // 2, y - picture.height // 2), picture)
    page.save(path, "PNG")


def ground(name: str) -> Image.Image:
    """Paint a ground: two bands, or one colour."""
    upper, lower = GROUNDS[name]
    page = Image.new("RGB", SCENE_PX, upper)
    ImageDraw.Draw(page).rectangle((0, round(HORIZON * page.height), *page.size), fill=lower)
    return page


def draw_sign(sign: dict) -> Image.Image:
    """Draw lines of words on a board.

    Args:
        sign: `lines`, `size` of the letters in pixels, colours `board` and `ink`, `frame` in pixels.
    """
    size = sign.get("size", 56)
    font = ImageFont.load_default(size)
    widths = [font.getlength(line) for line in sign["lines"]]
    width, height = math.ceil(max(widths) + 2 * size), math.ceil((len(widths) * 1.35 + 1) * size)
    board = Image.new("RGBA", (width, height), sign.get("board", "white"))
    draw = ImageDraw.Draw(board)
    if frame := sign.get("frame", 4):
        draw.rectangle((0, 0, width - 1, height - 1), outline=sign.get("ink", "black"), width=frame)
    for number, (line, length) in enumerate(zip(sign["lines"], widths, strict=True)):
        place = ((width - length) / 2, (0.5 + number * 1.35) * size)
        draw.text(place, line, font=font, fill=sign.get("ink", "black"), stroke_width=sign.get("bold", 1))
    return board


def make_sign(path: Path, sign: dict) -> None:
    """Write a sign alone, turned by `turned` degrees on grey, as a picture."""
    board = draw_sign(sign).rotate(sign.get("turned", 0), expand=True, resample=Image.Resampling.BICUBIC)
    page = Image.new("RGB", (board.width + 120, board.height + 120), "#b9bcc0")
    page.paste(board, (60, 60), board)
    page.save(path, "PNG")


def make_spoken(path: Path, spoken: dict) -> None:
    """Lay recorded words one after the other.

    Args:
        path: of the sound.
        spoken: `stamps` whose names a person says, and the `language`, "" for English.
    """
    import soundfile
    import soxr

    pause = np.zeros(int(PAUSE_S * RATE_HZ), np.float32)
    language = f"_{spoken['language']}" if spoken.get("language") else ""
    pieces = [pause]
    for stamp in spoken["stamps"]:
        samples, rate_hz = soundfile.read(_stamps() / f"{stamp}_desc{language}.ogg", dtype="float32", always_2d=True)
        samples = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ)
        pieces += [0.5 * samples / max(float(np.abs(samples).max()), 1e-3), pause]
    soundfile.write(path, np.concatenate(pieces), RATE_HZ, format="FLAC")


MAKERS = {"scene": (make_scene, ".png"), "sign": (make_sign, ".png"), "spoken": (make_spoken, ".flac")}
