"""Content parts of files that the app's own loaders do not open as they are published: made when their turn comes."""

import base64
import io
from pathlib import Path

import numpy as np

from onellm.errors import FileError, OneLLMError
from onellm.modalities import MODALITIES
from onellm.modalities.base import refuse
from onellm.modalities.readers.sound import container_of
from train.data.formats.motion_windows import load_window

VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
CLIP_FRAMES = 16


def find_video(folder: Path, name: str) -> Path:
    """Return the video of a name without suffix, or the .mp4 that should be there."""
    paths = (folder / (name + suffix) for suffix in VIDEOS)
    return next((path for path in paths if path.exists()), folder / f"{name}.mp4")


def sound_track(path: Path) -> dict | None:
    """Return the sound track of a video as an audio part, or None where the video has none.

    Raises:
        FileError: the file is no video.
    """
    import av

    video = MODALITIES["video"]
    with av.open(str(video.check(path)), format=_reader(path)) as container:
        if not container.streams.audio:
            return None
    sample = video.soundtrack(path)
    return {"type": "audio", "audio": sample.array, "rate_hz": sample.rate_hz}


def video_clip(path: Path, start_s: float, end_s: float) -> dict:
    """Return the part of a video between two times: 16 frames, evenly spread, whatever the video's size.

    Raises:
        FileError: there are no frames between the times.
    """
    import av

    if not path.exists():
        raise refuse(path, "there is no such file", "a video", "check the path")
    wanted_s = start_s + (np.arange(CLIP_FRAMES) + 0.5) * (end_s - start_s) / CLIP_FRAMES
    frames: list[np.ndarray] = []
    with av.open(str(path), format=_reader(path)) as container:
        if not container.streams.video:
            raise refuse(path, "there is no picture in it", "a video", "choose a file with video")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        first = stream.start_time or 0
        container.seek(first + int(start_s / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            time_s = float((frame.pts - first) * stream.time_base)
            while len(frames) < CLIP_FRAMES and time_s >= wanted_s[len(frames)]:
                frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == CLIP_FRAMES or time_s > end_s:
                break
    if not frames:
        raise refuse(path, f"no frames from {start_s:g} s to {end_s:g} s", "a longer video", "fetch it again")
    return {"type": "video", "video": np.stack(frames)}


def encoded_picture(text: str) -> dict:
    """Return the picture that a table holds as base64 text.

    Raises:
        FileError: it is none.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True))).convert("RGB")
    except (ValueError, OSError, UnidentifiedImageError) as error:
        raise FileError("a picture in the table: the text is no picture; expected base64; fetch it again.") from error
    return {"type": "image", "image": picture}


def unnamed_picture(path: Path) -> dict:
    """Return a picture from a file without a suffix, which the app would not open.

    Raises:
        FileError: it is none.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return {"type": "image", "image": picture.convert("RGB")}
    except (OSError, UnidentifiedImageError) as error:
        found = "there is no such file" if isinstance(error, FileNotFoundError) else "it is no picture"
        raise refuse(path, found, "a picture", "fetch it again") from error


def kinect_depth(path: Path) -> dict:
    """Return a depth map of SUN RGB-D: 16 bits rotated to the left by 3, millimetres, up to 8 m.

    Source:
        read3dPoints of the data set's toolbox.
    """
    from PIL import Image

    with Image.open(MODALITIES["depth"].check(path)) as image:
        values = np.asarray(image).astype(np.uint16)
    depth_m = ((values >> 3) | (values << 13)).astype(np.float32) / 1000
    depth_m[depth_m > 8] = 8
    depth_m[values == 0] = np.nan
    return {"type": "depth", "depth": depth_m}


def nyu_depth(path: Path, index: int) -> dict:
    """Return map `index` of nyu_depth_v2_labeled.mat, whose `depths` are [1449, W, H] in metres as HDF5 sees them."""
    with open_hdf5(path) as file:
        depth_m = np.asarray(file["depths"][index], np.float32).T
    return {"type": "depth", "depth": np.where(depth_m > 0, depth_m, np.nan)}


def open_hdf5(path: Path):
    """Open a MATLAB 7.3 file.

    Raises:
        OneLLMError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise OneLLMError(f"{path.name} is a MATLAB 7.3 file; install h5py to read it.") from error
    return h5py.File(path, "r")


def imu_window(folder: Path, uid: str, start_s: float, end_s: float) -> dict:
    """Return a window of an Ego4D recording.

    Raises:
        DataError: the recording does not cover the window.
    """
    values, rate_hz = load_window(folder, uid, start_s, end_s)
    return {"type": "imu", "imu": values, "rate_hz": rate_hz}


def _reader(path: Path) -> str:
    """Name libavformat's reader, so that it never guesses a playlist."""
    reader = container_of(path)
    if reader is None:
        raise refuse(path, "not a video in these formats", MODALITIES["video"].expects, "convert it")
    return reader
