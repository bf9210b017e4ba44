"""Hostile videos and sounds."""

import struct

import file_makers as make
import numpy as np
from hostile_files import example, hostile, patched
from hostile_pictures import zlib_zeros

# ---- videos ---------------------------------------------------------------------------------------------------------


def mp4(path, **options):
    return make.video(path.with_suffix(".mp4"), frames=10, **options).read_bytes()


for _name, _text in {
    "playlist": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    "local playlist": "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    "list of files": "ffconcat version 1.0\nfile /etc/passwd\n", "address": "file:///etc/passwd\n",
    "manifest": "<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>",
    "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
}.items():  # fmt: skip
    for _suffix in (".mp4", ".avi", ".webm"):
        hostile(_name + _suffix, "video", *(["audio"] if _suffix == ".webm" else []))(
            lambda path, text=_text: text.encode()
        )

for _table in (b"stts", b"stsz", b"stsc", b"stco", b"stss", b"ctts", b"elst"):
    for _count in (2**32 - 1, 2**26):

        @hostile(f"{_table.decode()} of {_count:,} entries.mp4", "video", fine="?")
        def long_table(path, table=_table, count=_count):
            data = mp4(path, sound=True)
            return patched(data, table, 12 if table == b"stsz" else 8, count) if table in data else data[:-500]


@hostile("frames of 2 years.mp4", "video", fine="?")
def long_frames(path):
    return patched(mp4(path), b"stts", 16, 2**31 - 1)


@hostile("65,535 × 65,535.mp4", "video", fine="each frame says how large it is, too")
def large_mp4(path):
    return patched(mp4(path), b"stsd", 44, 0xFFFFFFFF)


@hostile("moved for ever.mp4", "video", fine="?")
def long_edit(path):
    return patched(patched(mp4(path, sound=True), b"elst", 12, 2**31 - 1), b"elst", 16, -(2**31))


@hostile("a file elsewhere.mp4", "video", fine="it is not looked for")
def outside_reference(path):
    return patched(mp4(path), b"url ", 7, 0, 1)  # its frames are said to lie in another file


@hostile("boxes in boxes.mp4", "video")
def nested_boxes(path):
    data = b""
    for _ in range(3000):
        data = struct.pack(">I", 8 + len(data)) + b"moov" + data
    return struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + data


@hostile("a million boxes.mp4", "video")
def many_boxes(path):
    return struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(">I4s", 8, b"free") * 1_000_000


@hostile("packed index of 2 GB.mp4", "video")
def packed_index(path):
    packed = zlib_zeros(500_000_000)
    inner = struct.pack(">I4s4s", 12, b"dcom", b"zlib") + struct.pack(">I4sI", 12 + len(packed), b"cmvd", 2**31 - 9)
    inner = struct.pack(">I4s", 8 + len(inner) + len(packed), b"cmov") + inner + packed
    return struct.pack(">I4s4sI", 16, b"ftyp", b"qt  ", 0) + struct.pack(">I4s", 8 + len(inner), b"moov") + inner


@hostile("sizes that grow.mkv", "video", fine="?")
def growing(path):
    small = make.video(path.with_suffix(".webm"), "libvpx", frames=3, size=(640, 480)).read_bytes()
    return patched(small, b"\xb0\x82\x02\x80", 2, 0x7FFF, 2)


@hostile("element of 2^56 bytes.mkv", "video")
def endless_element(path):
    return b"\x1aE\xdf\xa3\x84\x42\x82\x81w" + b"\x18S\x80g\x01" + b"\xff" * 7 + b"\x16T\xaek\x01" + b"\xff" * 7


@hostile("index of 4 billion.avi", "video", fine="?")
def long_avi_index(path):
    data = make.video(path, "mpeg4", frames=10).read_bytes()
    return patched(patched(data, b"idx1", 4, 2**32 - 1, order="little"), b"avih", 24, 2**32 - 1, order="little")


@hostile("rate of 4 billion.avi", "video", fine="?")
def fast_avi(path):
    data = make.video(path, "mpeg4", frames=10).read_bytes()
    return patched(patched(data, b"strh", 28, 1, order="little"), b"strh", 32, 2**32 - 1, order="little")


# ---- sounds ---------------------------------------------------------------------------------------------------------


def wav(rate=16_000, channels=1, bits=16, form=1, data=b"", said=None, before=b""):
    said = len(data) if said is None else said
    block = channels * bits // 8
    head = struct.pack("<4sI2H2I2H", b"fmt ", 16, form, channels, rate, rate * block % 2**32, block % 65536, bits)
    body = b"WAVE" + before + head + struct.pack("<4sI", b"data", said) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


SOUND = (make.tone() * 32_000).astype("<i2").tobytes()
WAVES = {
    "4 billion a second": (wav(rate=2**32 - 1, data=SOUND), ""),
    "65,535 channels": (wav(channels=65_535, data=SOUND * 9), ""),
    "rate times channels": (wav(192_000, 255, data=SOUND * 99), ""),
    "one a second": (wav(rate=1, data=SOUND * 99), ""),
    "none a second": (wav(rate=0, data=SOUND), ""),
    "no channels": (wav(channels=0, data=SOUND), ""),
    "data of 4 GB": (wav(data=SOUND, said=0xFFFFFFF0), "streams do not know their size"),
    "data of 2 GB": (wav(data=SOUND, said=0x7FFF0000), "what is there is read"),
    "65,535 bits": (wav(bits=65_535, data=SOUND), "?"),
    "floats that are no numbers": (wav(bits=32, form=3, data=np.full(16_000, np.nan, "<f4").tobytes()), ""),
    "floats beyond": (wav(bits=32, form=3, data=np.array([3e38, -3e38] * 8000, "<f4").tobytes()), "?"),
    "doubles beyond": (wav(bits=64, form=3, data=np.array([1e308, -1e308] * 8000, "<f8").tobytes()), "?"),
    "a million empty pieces": (wav(data=SOUND, before=b"junk\0\0\0\0" * 1_000_000), "?"),
    "pieces of 4 GB": (wav(data=SOUND, before=b"LIST" + b"\xff" * 4), ""),
    "unknown form": (wav(form=0xFFFE, data=SOUND), "?"),
}
for _name, (_content, _fine) in WAVES.items():
    hostile(f"{_name}.wav", "audio", fine=_fine)(lambda path, content=_content: content)


def flac(path):
    import soundfile

    soundfile.write(path.with_suffix(".flac"), make.tone(), 16_000)
    return path.with_suffix(".flac").read_bytes()


@hostile("68 billion values.flac", "audio")
def long_flac(path):
    return patched(flac(path), b"fLaC", 21, 0xF << 32 | 0xFFFFFFFF, 5)


@hostile("unknown length.flac", "audio", fine="streams do not know their length")
def open_flac(path):
    return patched(patched(flac(path), b"fLaC", 22, 0), b"fLaC", 21, 0xF0, 1)


@hostile("block of 16 MB.flac", "audio")
def long_block(path):
    return flac(path)[:42] + b"\4\xff\xff\xff" + flac(path)[42:]


@hostile("a year.ogg", "audio", fine="?")
def long_ogg(path):
    data = example("audio").read_bytes()
    at = data.rindex(b"OggS") + 6
    return data[:at] + struct.pack("<q", 10**12) + data[at + 8 :]


@hostile("200,000 empty pages.ogg", "audio")
def many_pages(path):
    return example("audio").read_bytes()[:58] + (b"OggS\0\0" + bytes(20) + b"\0") * 200_000


@hostile("tag of 256 MB.mp3", "audio")
def long_tag(path):
    return b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(5000)


@hostile("tag in tag.mp3", "audio")
def many_tags(path):
    return b"ID3\4\0\0\0\0\0\0" * 400_000


@hostile("noise.mp3", "audio", fine="?")
def noise_mp3(path):
    return b"\xff\xfb\x90\0" + np.random.default_rng(0).bytes(400_000)


@hostile("no sound.m4a", "audio")
def no_sound(path):
    return mp4(path)


@hostile("4 billion a second.m4a", "audio", fine="?")
def fast_m4a(path):
    return patched(make.m4a(path, 0.3).read_bytes(), b"mp4a", 28, 0xFFFFFFFF)
