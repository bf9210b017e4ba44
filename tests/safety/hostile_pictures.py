"""Hostile pictures and maps."""

import io
import struct
import zlib

import file_makers as make
import numpy as np
from hostile_files import hostile, packed_zeros, patched

# ---- png ------------------------------------------------------------------------------------------------------------


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *chunks, bits=8, colour=0, pixels=b""):
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def zlib_zeros(count):
    """Return zlib's stream of `count` zero bytes."""
    return b"\x78\xda" + packed_zeros(count) + struct.pack(">I", (count % 65521) << 16 | 1)


LINES = zlib.compress((b"\0" + bytes(range(24))) * 24)  # 24 × 24 pixels
MAPS = ("image", "depth", "normal")


@hostile("179 million pixels in 22 kB.png", *MAPS)
def large_png(path):
    return png(13_400, 13_400, bits=1, pixels=zlib_zeros(13_400 * (1 + 13_400 // 8 + 1)))


@hostile("900 million pixels.png", *MAPS)
def larger_png(path):
    return png(30_000, 30_000, pixels=zlib_zeros(30_000 * 30_001))


@hostile("16 bits, 100 million pixels.png", *MAPS)
def deep_png(path):
    return png(10_000, 10_000, bits=16, pixels=zlib_zeros(10_000 * 20_001))


@hostile("one pixel high.png", "image", fine="40 million pixels are allowed")
def thin_png(path):
    return png(40_000_000, 1, pixels=zlib_zeros(40_000_001))


@hostile("no pixels.png", *MAPS)
def no_pixels(path):
    return png(0, 0, pixels=zlib.compress(b""))


@hostile("2 billion wide.png", *MAPS)
def widest_png(path):
    return png(2**31 - 1, 1, pixels=LINES)


@hostile("more pixels than said.png", "image", "depth", fine="what is behind the last line is not read")
def more_than_said(path):
    return png(24, 24, pixels=zlib_zeros(1_000_000_000))


@hostile("text of 200 MB.png", *MAPS)
def text_bomb(path):
    return png(24, 24, chunk(b"zTXt", b"a\0\0" + zlib_zeros(200_000_000)), pixels=LINES)


@hostile("200 texts of 0.9 MB.png", *MAPS)
def text_bombs(path):
    return png(24, 24, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 900_000))] * 200, pixels=LINES)


@hostile("profile of 200 MB.png", "image", "depth", fine="a picture does not need its profile")
def profile_bomb(path):
    return png(24, 24, chunk(b"iCCP", b"a\0\0" + zlib_zeros(200_000_000)), pixels=LINES)


@hostile("100,000 pieces of nothing.png", *MAPS, fine="they mean nothing")
def many_chunks(path):
    return png(24, 24, chunk(b"tEXt", b"a\0b") * 50_000, chunk(b"IDAT", b"") * 50_000, pixels=LINES)


@hostile("4 billion frames.png", *MAPS, fine="the first frame is used")
def endless_png(path):
    return png(24, 24, chunk(b"acTL", struct.pack(">2I", 2**31 - 1, 0)), pixels=LINES)


@hostile("chunk of 4 GB.png", *MAPS)
def long_chunk(path):
    return png(24, 24)[:33] + struct.pack(">I", 2**32 - 1) + b"IDAT" + LINES


# ---- other pictures -------------------------------------------------------------------------------------------------


def gif(width, height, frames, size=(1, 1)):
    """Build an animation; each frame is one pixel at the upper left."""
    start = b"GIF89a" + struct.pack("<2H3B", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"!\xf9\4\0\0\0\0\0," + struct.pack("<4HB", 0, 0, *size, 0) + b"\2\2\x4c\1\0"
    return start + frame * frames + b";"


@hostile("4.6 GB of frames.gif", "video", "image", fine="the picture is its first frame")
def gif_bomb(path):
    return gif(1000, 1000, 4600)


@hostile("60,000 frames.gif", "video", "image", fine="the picture is its first frame")
def many_frames(path):
    return gif(2, 2, 60_000)


@hostile("a screen of 65,535 × 65,535.gif", "video", "image")
def wide_gif(path):
    return gif(65_535, 65_535, 2)


@hostile("a frame beyond the screen.gif", "video", "image", fine="what is beyond is not shown")
def wide_frame(path):
    return gif(2, 2, 2, size=(65_535, 65_535))


def tiff(tags, directories=1, following=0, data=b""):
    """Build a tiff of equal directories in a row; the last one says that another is at `following`."""
    size = 2 + 12 * len(tags) + 4
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<2H2I", *tag) for tag in tags)
    after = [8 + size * (number + 1) for number in range(directories - 1)] + [following]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(entries + struct.pack("<I", place) for place in after) + data


def tags(width=24, height=24, bits=8, strips=(1, 8), counts=(1, 24 * 24), more=()):
    """List a grey picture's tags: name, type, count, value."""
    listed = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 1)]
    return [*listed, (273, 4, *strips), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, *counts), *more]


@hostile("150,000 directories.tiff", "image", "depth", fine="the first picture is used")
def many_directories(path):
    return tiff(tags(), 150_000) + bytes(600)


@hostile("directories in a ring.tiff", "image", "depth", fine="the first picture is used")
def ring_of_directories(path):
    return tiff(tags(), 3, following=8, data=bytes(600))


@hostile("4 billion strips.tiff", "image", "depth")
def many_strips(path):
    return tiff(tags(strips=(2**32 - 1, 8), counts=(2**32 - 1, 8)), data=bytes(9000))


@hostile("5 million strips.tiff", "image", "depth", fine="the picture needs only the first")
def strips_in_file(path):
    return tiff(tags(strips=(4_700_000, 122), counts=(4_700_000, 122)), data=bytes(19_000_000))


@hostile("900 million pixels.tiff", "image", "depth")
def large_tiff(path):
    return tiff(tags(30_000, 30_000), data=bytes(9000))


@hostile("packed bomb.tiff", "image", "depth", fine="what is behind the last line is not read")
def packed_tiff(path):
    data = zlib_zeros(900_000_000)
    listed = [(n, t, c, 8 if (n, v) == (259, 1) else v) for n, t, c, v in tags(counts=(1, len(data)), strips=(1, 122))]
    return tiff(listed, data=data)


@hostile("tiles of 2 billion.tiff", "image", "depth")
def huge_tiles(path):
    more = [(322, 4, 1, 2**31 - 16), (323, 4, 1, 2**31 - 16), (324, 4, 1, 8), (325, 4, 1, 500)]
    return tiff([tag for tag in tags() if tag[0] not in (273, 278, 279)] + more, data=bytes(600))


@hostile("65,535 × 65,535.jpg", "image")
def large_jpeg(path):
    data = io.BytesIO()
    _noise().save(data, "JPEG")
    return patched(data.getvalue(), b"\xff\xc0", 5, 0xFFFFFFFF)


@hostile("5,000 scans.jpg", "image", fine="it takes half a second")
def many_scans(path):
    data = io.BytesIO()
    _noise(1500).save(data, "JPEG", progressive=True, quality=30)
    data = data.getvalue()
    start = data.index(b"\xff\xda")
    second = data.index(b"\xff\xc4", start)
    third = data.index(b"\xff\xc4", data.index(b"\xff\xda", second))
    return data[:third] + data[second:third] * (19_000_000 // (third - second)) + b"\xff\xd9"


@hostile("65,533 bytes of exif, 200 times.jpg", "image", fine="what is not understood is not used")
def much_exif(path):
    data = io.BytesIO()
    _noise().save(data, "JPEG")
    entry = b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0II*\0\x08\0\0\0" + b"\xff\xff" + b"\x12\1\3\0" * 16_000
    return data.getvalue()[:2] + entry[: 2 + 65_535] * 200 + data.getvalue()[2:]


def _noise(side=64):
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8))


@hostile("16,384 × 16,384.webp", "image")
def large_webp(path):
    data = io.BytesIO()
    _noise().save(data, "WEBP", save_all=True, append_images=[_noise().rotate(90)])
    return patched(data.getvalue(), b"VP8X", 12, 16_383 | 16_383 << 24, 6, "little")


@hostile("20,000 frames.webp", "image", fine="the first frame is used")
def many_webp_frames(path):
    data = io.BytesIO()
    _noise(8).save(data, "WEBP", save_all=True, append_images=[_noise(8).rotate(90)])
    data = data.getvalue()
    start = data.index(b"ANMF")
    length = 8 + struct.unpack_from("<I", data, start + 4)[0]
    body = data[:start] + data[start : start + length] * 20_000
    return body[:4] + struct.pack("<I", len(body) - 8) + body[8:]


def bmp(width, height, packing, bits, data):
    header = struct.pack("<I2i2H6I", 40, width, height, 1, bits, packing, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<3I", 14 + len(header) + 1024 + len(data), 0, 1078) + header + bytes(1024) + data


@hostile("repeated lines.bmp", "image", fine="?", slow=True)
def slow_bmp(path):
    return bmp(6300, 6300, 1, 8, b"\1\0" * 9_900_000)


@hostile("2 billion high.bmp", "image")
def high_bmp(path):
    return bmp(1, -(2**31), 0, 8, bytes(900))


# ---- exr ------------------------------------------------------------------------------------------------------------


def exr(path):
    return make.exr(path, make.depth_mm(24, 18) / np.float32(1000)).read_bytes()


def window(data, name, *corners):
    at = data.index(name) + len(name) + 11
    return data[:at] + struct.pack("<4i", *corners) + data[at + 16 :]


@hostile("60,000 × 60,000.exr", "depth")
def large_exr(path):
    data = window(exr(path), b"dataWindow", 0, 0, 59_999, 59_999)
    return window(data, b"displayWindow", 0, 0, 59_999, 59_999)


@hostile("small window, large data.exr", "depth")
def large_data(path):
    return window(exr(path), b"dataWindow", -30_000, -30_000, 30_000, 30_000)


@hostile("window turned round.exr", "depth")
def turned_window(path):
    return window(exr(path), b"dataWindow", 2**31 - 1, 5, -(2**31), 0)


for _name, _bit in (("tiles", 2), ("deep", 8), ("parts", 16), ("everything", 0x1E)):
    hostile(f"says it has {_name}.exr", "depth")(lambda path, bit=_bit: exr(path)[:5] + bytes([bit]) + exr(path)[6:])


@hostile("lines elsewhere.exr", "depth")
def wild_offsets(path):
    data = exr(path)
    start = data.index(b"screenWindowWidth")
    return data[: start + 40] + b"\xff" * 200 + data[start + 240 :]
