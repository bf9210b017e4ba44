"""From a file's content to the modalities it may be: magic bytes, headers, shapes and a few values.

What one modality alone can be sure of, its `Modality.recognises` says; here is what several share.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onellm.errors import OneLLMError
from onellm.modalities import CACHE, MODALITIES, normal, sandbox
from onellm.modalities.base import check_file, describe, refuse
from onellm.modalities.cache import stamp
from onellm.modalities.readers import clouds, exr, motion, sound
from onellm.modalities.readers.archives import open_zip
from onellm.modalities.readers.arrays import Header, pick, read_headers
from onellm.modalities.readers.pictures import FORMATS, STILL_BRANDS, is_deep, open_image
from onellm.modalities.readers.tables import decode_text, parse_table
from onellm.modalities.readers.titles import sensor_of
from onellm.utils.limits import LIMITS

__all__ = ["recognise"]

EXPECTS = "a picture, a video, a sound, a point cloud, a brain scan, motion data, a depth map or a normal map"
_HEAD_BYTES = 65_536
_MAP_FORMATS = ("PNG", "TIFF", "WEBP", "JPEG", "TGA", "BMP")  # of pictures that may hold a map
_DEPTH_FORMATS = ("PNG", "TIFF")
_SAMPLES = 20_000  # pixels or vectors looked at
_DRAFT_SIDE = 128
_RUN = 16  # rows of an array below which it is repetitions of voxels, not a map


def recognise(path: str | os.PathLike) -> list[str]:
    """List the modalities a file may hold, the likeliest first; its content is looked at in a process of its own.

    Args:
        path: the file.

    Returns:
        One modality or more, each of which reads files of this name.

    Raises:
        FileError: the file holds none of the modalities, or its name keeps the reader of its modality from it.
        BusyError: too many files are being read.
    """

    def read() -> list[str]:
        try:
            return sandbox.call(recognise_here, path, libraries=("PIL.Image:init", "av"))
        except sandbox.Died as death:
            raise refuse(path, death.found, EXPECTS, death.advice) from death

    return CACHE.get(lambda: stamp(path), read)


def recognise_here(path: str | os.PathLike) -> list[str]:
    """List the modalities a file may hold in this process; for what is not stated see `recognise`."""
    path, size_bytes = check_file(path, EXPECTS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            modalities = _candidates(path) if size_bytes else []
    except OneLLMError:
        raise
    except Exception as error:  # a reader stumbled over what looked like its modality
        raise refuse(path, f"{describe(path)} that is damaged", EXPECTS, "save or download it again") from error
    if not modalities:
        found = f"this looks like {describe(path)}" if size_bytes else "the file is empty"
        raise refuse(path, found, EXPECTS, "convert it, for instance to png, mp4, wav, ply, nii.gz or csv")
    fitting = [modality for modality in modalities if path.name.lower().endswith(MODALITIES[modality].suffixes)]
    if not fitting:
        title, suffixes = MODALITIES[modalities[0]].title.lower(), ", ".join(MODALITIES[modalities[0]].suffixes)
        ending = f"ends in {path.suffix}" if path.suffix else "has no suffix"
        raise refuse(path, f"the content is {title} and the name {ending}", f"one of {suffixes}", "rename the file")
    return fitting


def _candidates(path: Path) -> list[str]:
    """List the modalities a file's content may be, whatever its name."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if surely := [name for name, modality in MODALITIES.items() if modality.recognises(path, head)]:
        return surely
    for offset, magic, candidates in _BY_MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return candidates(path)
    if sound.container_of(path):
        return _media(path)
    if head[:2] == b"\x1f\x8b":
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(31).decompress(head, _HEAD_BYTES)
    return _text(path, head)


def _picture(path: Path) -> list[str]:
    """Pictures of all formats: the pixels' type tells maps from pictures, several frames tell videos."""
    from PIL import Image

    with open_image(path, LIMITS.image_pixels, FORMATS, LIMITS.jpeg_pixels) as image:
        if image.mode == "F" or image.mode.startswith("I"):
            return ["depth", "image"]
        if getattr(image, "is_animated", False) and image.format in ("GIF", "WEBP", "AVIF"):
            return ["video", "image"]
        if image.format == "GIF":
            return ["image", "video"]
        if is_deep(path, image) and image.mode in ("LA", "La"):
            return ["depth", "image"]
        if image.format not in _MAP_FORMATS:
            return ["image"]
        if image.mode in ("1", "L"):
            return ["image", "depth"] if image.format in _DEPTH_FORMATS else ["image"]
        if image.width * image.height > LIMITS.map_pixels:  # as large as no map may be
            return ["image"]
        image.draft("RGB", (_DRAFT_SIDE, _DRAFT_SIDE))  # lets JPEG decode at a fraction of its size
        step = max(1, int((image.width * image.height / _SAMPLES) ** 0.5))
        few = image.resize((-(-image.width // step), -(-image.height // step)), Image.Resampling.NEAREST)
        rgba = np.asarray(few.convert("RGBA"))
        lossless = image.format in _DEPTH_FORMATS
    if np.ptp(rgba[..., :3].astype(np.int16), axis=2).max() <= 2:
        return ["image", "depth"] if lossless else ["image"]
    if _are_normals(*normal.from_picture(rgba)):
        return ["normal", "image"]
    return ["image", "normal"] if lossless else ["image"]


def _exr(path: Path) -> list[str]:
    """EXR pictures: the names of their channels tell."""
    with open(path, "rb") as file:
        names = exr.channel_names(file.read(_HEAD_BYTES))
    last = {name.rpartition(".")[2].lower() for name in names}
    vectors = {"x", "y", "z"} <= last or {"r", "g", "b"} <= last and "z" not in last
    return ["normal", "depth"] if vectors else ["depth"]


def _are_normals(vectors: np.ndarray, known: np.ndarray) -> bool:
    """Tell whether nearly all vectors [..., 3] that are known [...] have length 1."""
    lengths = np.linalg.norm(vectors[known], axis=-1)
    return bool(lengths.size and (np.abs(lengths - 1) < 0.05).mean() > 0.85)


def _media(path: Path) -> list[str]:
    """Containers of sound and pictures: their streams tell."""
    import av

    with av.open(str(path), format=sound.container_of(path)) as container:
        covers = av.stream.Disposition.attached_pic
        pictures = any(not stream.disposition & covers for stream in container.streams.video)
        return ["video"] * pictures + ["audio"] * bool(container.streams.audio)


def _numpy(path: Path) -> list[str]:
    """One array, or several with names: shapes and values tell; an archive of tables is a recording."""
    arrays = read_headers(path, EXPECTS)
    if not arrays and _holds_tables(path):
        return ["imu"]
    sensors = {sensor_of(name)[0] for name, array in arrays.items() if 3 in array.shape}
    if {"acc", "linear"} & sensors:
        return ["imu"]
    for names, modality in _NAMES:
        if pick(arrays, *names):
            return [modality]
    array = pick(arrays, "", "arr_0", "data", "array") or next(iter(arrays.values()), None)
    return [] if array is None else _array(path, array)


def _holds_tables(path: Path) -> bool:
    """Tell whether a zip archive has a table of text in it that may be a sensor's."""
    with open_zip(path) as archive:
        return any(name.lower().endswith((".csv", ".txt", ".tsv")) for name in archive.namelist())


def _array(path: Path, array: Header) -> list[str]:
    """List the modalities an array without a name may be."""
    shape = array.shape
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 3 and shape[2] == 1:
        shape = shape[:2]
    if len(shape) == 3 and 3 in (shape[0], shape[2]):
        return ["normal", "fmri"] if _are_normals(*normal.from_array(_vectors(path, shape))) else ["fmri", "normal"]
    if len(shape) != 2:
        return ["fmri"] if 1 <= len(shape) <= 4 else []
    short, long = sorted(shape)
    if short in (6, 7):
        table = array.start[: array.start.size // short * short]
        table = table.reshape(-1, short) if shape[1] == short else None
        return ["point", "imu"] if _are_colours(table) else ["imu", "point"]
    if short == 3 or (shape[1] in range(4, 10) and long > shape[1]):
        return ["point"]
    values = array.start[np.isfinite(array.start)]
    positive = bool(values.size and values.min() >= 0)
    return ["depth", "fmri"] if positive and short > _RUN else ["fmri", "depth"]


def _vectors(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read some of an npy file's vectors [H, W, 3]; an npz file's are no normal map."""
    if path.suffix.lower() != ".npy":
        return np.zeros((1, 1, 3), np.float32)
    array = np.load(path, mmap_mode="r", allow_pickle=False).reshape(shape)
    array = array if shape[2] == 3 else array.transpose(1, 2, 0)
    step = max(1, int((array.shape[0] * array.shape[1] / _SAMPLES) ** 0.5))
    return np.asarray(array[::step, ::step])


def _are_colours(table: np.ndarray | None) -> bool:
    """Tell whether columns 4 to 6 of rows can be colours: a sensor that turns has negative rates too."""
    return table is not None and table.shape[1] == 6 and clouds.split_columns(table).rgb is not None


def _text(path: Path, head: bytes) -> list[str]:
    """Tables of numbers, with or without a header, and meshes written as text."""
    try:
        wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")  # UTF-16, whose line ends have two bytes
        text = decode_text(head if wide else head[: head.rfind(b"\n") + 1 or None])
    except ValueError:
        return []
    lines = [line.strip() for line in text.splitlines() if line.strip() and line.lstrip()[0] not in "#/"][:50]
    if not lines:
        return []
    if re.match(r"solid\b|(ST)?C?N?OFF(?![A-Za-z])|VERSION\s+0?\.7", lines[0]):
        return ["point"]
    if sum(bool(re.match(r"(v|vt|vn|f|o|g|mtllib|usemtl|s)\s", line)) for line in lines) > 0.9 * len(lines):
        return ["point"]
    table = parse_table(text)
    if table is None or len(table.rows) < 0.5 * len(lines):
        return []
    stem = re.sub(r"\.[^.]*(\.gz)?$", "", path.name)
    roles = {clouds.column_role(title) for title in table.header or ()}
    if motion.is_recording(table, stem):
        return ["imu", "point"] if {"x", "y", "z"} <= roles else ["imu"]
    if {"x", "y", "z"} <= roles:
        return ["point"]
    try:
        values = table.numbers(range(table.width))
    except ValueError:  # words among the numbers
        return ["imu", "point"] if table.width > 4 and not table.header else []
    if table.width in (6, 7):
        return ["point", "imu"] if _are_colours(values) else ["imu", "point"]
    if table.width < 3:
        return []
    return ["point"] if table.width < 6 or clouds.split_columns(values).rgb is not None else ["imu", "point"]


def _always(*modalities: str) -> Callable[[Path], list[str]]:
    return lambda path: list(modalities)


_BY_MAGIC: tuple[tuple[int, bytes, Callable[[Path], list[str]]], ...] = (
    (0, b"\x89PNG", _picture),
    (0, b"GIF8", _picture),
    (0, b"II*\0", _picture),
    (0, b"MM\0*", _picture),
    (0, b"\xff\xd8\xff", _picture),
    (8, b"WEBP", _picture),
    (0, b"BM", _picture),
    *((4, b"ftyp" + brand, _picture) for brand in (*STILL_BRANDS, b"avis")),
    (0, b"\xff\x0a", _always("image")),
    (0, b"\0\0\0\x0cJXL ", _always("image")),
    (0, b"\0\0\0\x0cjP  ", _picture),
    (0, b"P6", _picture),
    (0, b"\0\0\1\0", _picture),
    (0, b"P5", _always("depth", "image")),
    (0, b"P2", _always("depth", "image")),
    (0, b"Pf", _always("depth")),
    (0, b"v/1\x01", _exr),
    (0, b"\x89HDF", _always("depth")),
    (0, b"\x93NUMPY", _numpy),
    (0, b"PK\x03\x04", _numpy),
)
# names of an npz file's arrays -> modality
_NAMES = (
    (tuple(name for name in clouds.POINT_NAMES if name not in ("", "data", "arr_0")), "point"),
    (("fmri", "voxels", "betas"), "fmri"),
    (("imu",), "imu"),
    (("depth", "depths", "depth_map", "depth_m", "disparity", "disp", "inverse_depth"), "depth"),
    (("normals", "normal_map"), "normal"),
)
