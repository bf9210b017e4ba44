"""Read Qt resource bundles (.rcc), the archives GCompris ships its pictures and sounds in.

Source: Qt's documented resource file layout (header "qres", then three tables: tree, data, names), as
written by ``rcc --binary`` in format versions 1 to 3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_COMPRESSED, _FOLDER, _ZSTD = 1, 2, 4


def read_rcc(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file of a bundle.

    Args:
        path: the ``.rcc`` file.

    Yields:
        (path inside the bundle with ``/`` between folders, content).

    Raises:
        ValueError: the file is not a Qt resource bundle, is cut short, or uses a compression other than zlib.
    """
    blob = Path(path).read_bytes()
    if len(blob) < 20 or blob[:4] != b"qres":
        raise ValueError(f"{Path(path).name} is not a Qt resource bundle: it does not begin with 'qres'.")
    version, tree, data, names = struct.unpack_from(">4I", blob, 4)
    if not 1 <= version <= 3:
        raise ValueError(f"{Path(path).name} is a Qt resource bundle of version {version}; 1 to 3 are known.")
    node_bytes = 14 if version == 1 else 22  # version 2 added a 64-bit modification time to each node

    def name_at(offset: int) -> str:
        (length,) = struct.unpack_from(">H", blob, names + offset)
        start = names + offset + 6  # 2 bytes of length, 4 bytes of hash
        return blob[start : start + 2 * length].decode("utf-16-be")

    def walk(index: int, prefix: str, depth: int) -> Iterator[tuple[str, bytes]]:
        if depth > 32:
            raise ValueError(f"{Path(path).name} nests folders more than 32 deep; it is damaged.")
        start = tree + index * node_bytes
        name_offset, flags = struct.unpack_from(">IH", blob, start)
        here = prefix if index == 0 else f"{prefix}/{name_at(name_offset)}".lstrip("/")
        if flags & _FOLDER:
            count, first = struct.unpack_from(">2I", blob, start + 6)
            for child in range(first, first + count):
                yield from walk(child, here, depth + 1)
            return
        (offset,) = struct.unpack_from(">I", blob, start + 10)
        (length,) = struct.unpack_from(">I", blob, data + offset)
        content = blob[data + offset + 4 : data + offset + 4 + length]
        if len(content) != length:
            raise ValueError(f"{Path(path).name} is cut short inside {here}.")
        if flags & _ZSTD:
            raise ValueError(f"{here} in {Path(path).name} is compressed with zstd; only zlib is supported.")
        # Qt's qCompress puts the unpacked size, 4 bytes, before the zlib stream
        yield here, zlib.decompress(content[4:]) if flags & _COMPRESSED else content

    try:
        yield from walk(0, "", 0)
    except struct.error as error:
        raise ValueError(f"{Path(path).name} is damaged: {error}.") from error
