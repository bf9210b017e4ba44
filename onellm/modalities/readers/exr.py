"""OpenEXR pictures: channels by name, whole and half floats, tiles and layers, read with the OpenEXR library."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from onellm.modalities.base import Damaged

__all__ = ["channel_names", "read_channels", "windows"]

_HEADER_BYTES = 65_536


def windows(path: Path) -> list[tuple[int, int]]:
    """Read height and width of what an exr file holds and of what is to be seen of it, from its first header.

    Raises:
        Damaged: it does not say so, or has no pixels.
    """
    with open(path, "rb") as file:
        header = file.read(_HEADER_BYTES)
    found = []
    for name in (b"dataWindow", b"displayWindow"):
        start = header.find(name + b"\0box2i\0\x10\0\0\0")
        corners = header[start + len(name) + 11 :][:16]
        if start < 0 or len(corners) < 16:
            raise Damaged("it does not say how large it is")
        left, top, right, bottom = struct.unpack("<4i", corners)
        found.append((bottom - top + 1, right - left + 1))
    if min(min(size) for size in found) < 1:
        raise Damaged("it has no pixels")
    return found


def channel_names(head: bytes) -> list[str]:
    """List the channels that the first header of an exr file names."""
    start = head.find(b"channels\0chlist\0")
    names, position = [], start + 20
    while start >= 0 and head[position : position + 1] not in (b"", b"\0"):
        end = head.find(b"\0", position)
        if end < 0:
            break
        names.append(head[position:end].decode("latin-1"))
        position = end + 17  # type, linearity and sampling follow
    return names


def read_channels(path: Path) -> dict[str, np.ndarray]:
    """Read all channels of the first part of an exr file, whose size was checked.

    Returns:
        Name to [H, W] float32, in the file's order.

    Raises:
        Damaged: it has no channels, or not of one size.
    """
    import OpenEXR

    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = {name: np.asarray(channel.pixels, np.float32) for name, channel in file.channels().items()}
    shapes = {values.shape for values in channels.values()}
    if len(shapes) != 1 or len(shapes.pop()) != 2:
        raise Damaged("it has no channels of one size")
    return channels
