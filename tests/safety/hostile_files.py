"""Files made to harm: bombs, lying headers, endless loops, other people's files and addresses; and odd names.

Each is made by a few lines of code when it is needed. The other modules called `hostile_…` add theirs.
"""

import gzip
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("image", "video", "audio", "point", "fmri", "imu", "depth", "normal")
FIRST_SUFFIX = dict(zip(KINDS, (".png", ".mp4", ".wav", ".ply", ".nii.gz", ".csv", ".png", ".png"), strict=True))
HOSTILE = []
CHUNK = bytes(1 << 22)


@dataclass(frozen=True)
class Hostile:
    """A hostile file.

    Attributes:
        name: what the file is called.
        kinds: what it is given as.
        make: writes it to a path.
        fine: why it is read as one of the kinds all the same; "" if all must refuse it; "?" where both is right.
        slow: it takes so long to make or to give up that only the long form tries it.
    """

    name: str
    modalities: tuple[str, ...]
    make: Callable[[Path], None]
    fine: str = ""
    slow: bool = False


def hostile(name, *modalities, fine="", slow=False):
    """Add what the decorated function writes, or returns as bytes, to the hostile files."""

    def add(make):
        def write(path):
            data = make(path)
            if data is not None:
                path.write_bytes(data)

        HOSTILE.append(Hostile(name, modalities, write, fine, slow))
        return make

    return add


def packed_zeros(count):
    """Deflate `count` zero bytes, without making them: a block of 4 MB, again and again; returns raw deflate."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(CHUNK) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    return block * (count // len(CHUNK)) + rest.compress(bytes(count % len(CHUNK))) + rest.flush()


def gzip_zeros(start, count):
    """Gzip some bytes and then `count` zero bytes, as two members of one file."""
    blocks = gzip.compress(CHUNK, mtime=0) * (count // len(CHUNK))
    return gzip.compress(start, mtime=0) + blocks + gzip.compress(bytes(count % len(CHUNK)), mtime=0)


def patched(data, magic, offset, value, width=4, order="big"):
    """Write a number at an offset from the first place where the bytes `magic` are."""
    at = data.index(magic) + offset
    return data[:at] + (value % 256**width).to_bytes(width, order) + data[at + width :]


def example(modality):
    """Find the first bundled file of a kind."""
    for entry in json.loads((ROOT / "examples" / "examples.json").read_text(encoding="utf-8")):
        if modality in entry["files"]:
            given = entry["files"][modality]
            return ROOT / "examples" / (given["path"] if isinstance(given, dict) else given)
    raise LookupError(modality)


# ---- no files, odd names, other kinds -------------------------------------------------------------------------------

for _kind in KINDS:
    hostile(f"empty{FIRST_SUFFIX[_kind]}", _kind)(lambda path: b"")
    hostile(f"zeros{FIRST_SUFFIX[_kind]}", _kind)(lambda path: bytes(100_000))

hostile("pipe.png", *KINDS)(lambda path: os.mkfifo(path))
hostile("pipe.nii.gz", "fmri")(lambda path: os.mkfifo(path))
hostile("folder.ply", "point", "image")(lambda path: path.mkdir())
hostile("endless.png", *KINDS)(lambda path: path.symlink_to("/dev/zero"))
hostile("gone.png", "image")(lambda path: path.symlink_to(path.parent / "nothing"))
hostile("loop.wav", "audio")(lambda path: path.symlink_to(path))
hostile("socket.csv", "imu")(lambda path: os.mknod(path, 0o140600))

for _name in (
    "line\nbreak\r\n\tand \x1b[31mcolour.png", "bell\x07 and delete\x7f.wav", "..nothing..png", " .png",
    "x" * 251 + ".png", "🧠🎬 \u202egnp.exe.png", "<img src=x onerror=alert(1)>.png", "<image>; expected nothing.csv",
    "{0} %s %(name)s $HOME `id`.ply", "-rf.npy", "file:etc:passwd.mp4", "concat:a|b.mp4", "\udcff\udcfe.png",
):  # fmt: skip
    hostile(_name, next(modality for modality in KINDS if _name.endswith((FIRST_SUFFIX[modality], ".npy"))))(
        lambda path: b"hello, this is a letter\n" * 9
    )

LETTERS = {
    "letter": b"Dear reader,\nthis is a letter.\n", "web page": b"<html><script>alert(1)</script></html>",
    "report": b"%PDF-1.7\n" + bytes(range(256)), "program": b"\x7fELF" + bytes(range(256)) * 9,
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "picture": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "shell": b"#!/bin/sh\ntouch owned\n",
}  # fmt: skip
for _number, (_name, _content) in enumerate(LETTERS.items()):
    for _kind in (KINDS[_number], KINDS[(_number + 3) % 8]):
        hostile(f"{_name}{FIRST_SUFFIX[_kind]}", _kind)(lambda path, content=_content: content)

# every bundled example under the name of every other kind's files
for _kind in KINDS:
    _other = KINDS[(KINDS.index(_kind) + 1) % 8]
    hostile(f"a {_kind} called{FIRST_SUFFIX[_other]}", _other, fine="?" if _kind in ("depth", "normal") else "")(
        lambda path, modality=_kind: example(modality).read_bytes()
    )

# the examples, cut off at three places
for _kind in KINDS:
    for _share in (0.1, 0.5, 0.95):
        _suffix = "".join(example(_kind).suffixes)
        _fine = "a shorter table of numbers is a table of numbers" if _kind == "imu" else ""
        hostile(f"cut at {_share:.0%}{_suffix}", _kind, fine=_fine)(
            lambda path, modality=_kind, share=_share: example(modality).read_bytes()[
                : int(share * example(modality).stat().st_size)
            ]
        )
