"""Hostile scans, arrays and tables."""

import gzip
import io
import pickle
import struct
import zipfile
import zlib

import numpy as np
from hostile_files import CHUNK, example, gzip_zeros, hostile, packed_zeros


def nifti(shape=(4, 4, 4), code=16, bits=32, offset=352.0, slope=1.0, extension=b"\0\0\0\0"):
    """Build a NIfTI-1 header of 348 bytes and the 4 that follow."""
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<3f", header, 108, offset, slope, 0.0)
    header[344:348] = b"n+1\0"
    return bytes(header) + extension


# ---- scans ----------------------------------------------------------------------------------------------------------

NOISE = np.random.default_rng(0).normal(size=4000).astype("<f4").tobytes()


@hostile("9 GB in 9 MB.nii.gz", "fmri")
def nine_gigabytes(path):
    return gzip_zeros(nifti((1300, 1300, 1300)), 9_000_000_000)


@hostile("true header, 9 GB behind.nii.gz", "fmri")
def more_than_promised(path):
    return gzip_zeros(nifti((100, 100, 100)), 9_000_000_000)


@hostile("512 MB of one value.nii.gz", "fmri", slow=True)
def as_large_as_allowed(path):
    return gzip_zeros(nifti((500, 500, 511)), 511_000_000)


@hostile("extension of 2 GB.nii.gz", "fmri")
def long_extension(path):
    extension = b"\1\0\0\0" + struct.pack("<2i", 2**31 - 16, 4)
    return gzip_zeros(nifti(offset=2.0e9, extension=extension), 2_100_000_000)


@hostile("extension longer than the rest.nii", "fmri", fine="what is skipped does not matter")
def lying_extension(path):
    return nifti((10, 10, 10), offset=368.0, extension=b"\1\0\0\0" + struct.pack("<2i", 2**31 - 16, 4)) + NOISE


for _name, _offset in (("-1", -1.0), ("1e30", 1e30), ("nan", float("nan")), ("inf", float("inf")), ("1e9", 1e9)):
    for _suffix in (".nii", ".nii.gz"):

        @hostile(f"values at {_name}{_suffix}", "fmri", fine="?")
        def values_elsewhere(path, offset=_offset):
            data = nifti((10, 10, 10), offset=offset) + NOISE
            return gzip.compress(data) if path.suffix == ".gz" else data


@hostile("seven sides.nii", "fmri")
def seven_sides(path):
    return nifti((30_000,) * 7) + NOISE


@hostile("sides below zero.nii", "fmri")
def negative_sides(path):
    return nifti((-10, 10, -10)) + NOISE


@hostile("no type.nii", "fmri")
def no_type(path):
    return nifti((10, 10, 10), code=9999) + NOISE


@hostile("128 bits.nii", "fmri")
def long_doubles(path):
    return nifti((5, 5, 5), code=1536, bits=128) + bytes(range(250)) * 16


@hostile("scaled beyond numbers.nii", "fmri")
def huge_slope(path):
    return nifti((10, 10, 10), slope=3e38) + NOISE


@hostile("name of 5 MB inside.nii.gz", "fmri")
def long_name(path):
    packed = gzip.compress(nifti((10, 10, 10)) + NOISE)
    return packed[:3] + b"\x08" + packed[4:10] + b"x" * 5_000_000 + b"\0" + packed[10:]


@hostile("a million empty members.nii.gz", "fmri")
def many_members(path):
    return gzip.compress(nifti((10, 10, 10))) + gzip.compress(b"", mtime=0) * 300_000


@hostile("gzip in gzip.nii.gz", "fmri")
def gzip_in_gzip(path):
    return gzip.compress(example("fmri").read_bytes() if example("fmri").suffix == ".gz" else gzip.compress(NOISE))


# ---- arrays ---------------------------------------------------------------------------------------------------------


def npy(header, data=b"", version=1):
    """Build an npy file of any header."""
    text = header.encode()
    width = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(width, len(text)) + text + data


def described(shape, descr="'<f4'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


ARRAYS = ("point", "fmri", "imu", "depth", "normal")
HEADERS = {
    "a tera of values": described("(1000000000000,)"),
    "more than can be counted": described("(9223372036854775807, 9223372036854775807)"),
    "below zero": described("(-1, 6)"),
    "below zero twice": described("(-3, -4)"),
    "no values": described("(0, 1000000000000000000)"),
    "sixty sides": described("(" + "1, " * 60 + "10)"),
    "structured": described("(9,)", "[('a', '<f4'), ('b', 'O')]"),
    "texts": described("(9,)", "'<U99999999'"),
    "objects": described("(9,)", "'|O'"),
    "shape of truths": described("(True, False)"),
    "shape of words": described("('a', 'b')"),
    "code": described("__import__('os').system('touch owned')"),
    "deep": "(" * 9000 + ")" * 900,
    "endless number": described("(" + "9" * 8000 + ",)"),
    "not closed": "{'descr': '<f4', ",
}
for _name, _header in HEADERS.items():
    hostile(f"{_name}.npy", *ARRAYS)(lambda path, header=_header: npy(header, bytes(4096)))
hostile("header of 4 GB.npy", *ARRAYS)(lambda path: b"\x93NUMPY\2\0" + b"\xff" * 4 + bytes(5000))
hostile("header of 60 kB.npy", *ARRAYS)(lambda path: npy(described("(9,)") + " " * 60_000, bytes(99)))
hostile("version 9.npy", *ARRAYS)(lambda path: npy(described("(9,)"), bytes(36), version=9))
hostile("truths.npy", "fmri", "imu", "depth", fine="?")(lambda path: npy(described("(9, 6)", "'|b1'"), bytes(9) * 6))


class Owned:
    def __reduce__(self):
        return (exec, ("open('owned', 'w')",))


@hostile("pickle.npy", *ARRAYS)
def pickled(path):
    return npy(described("(1,)", "'|O'"), pickle.dumps(Owned()))


@hostile("bare pickle.npy", *ARRAYS)
def bare_pickle(path):
    return pickle.dumps(Owned())


@hostile("not numbers.npy", *ARRAYS)
def no_numbers(path):
    np.save(path, np.full((40, 6), np.nan))


@hostile("beyond numbers.npy", *ARRAYS, fine="?")
def huge_numbers(path):
    np.save(path, np.full((40, 6), 1e308) * np.array([1, -1, 1, -1, 1, -1]))


@hostile("tiny numbers.npy", *ARRAYS, fine="?")
def tiny_numbers(path):
    np.save(path, np.random.default_rng(0).random((40, 6)) * 1e-42)


@hostile("largest integers.npy", *ARRAYS, fine="?")
def large_integers(path):
    np.save(path, np.random.default_rng(0).integers(0, 2**64, (40, 6), np.uint64))


def member(name, packed, plain_bytes, checksum, method=8, flags=0):
    """Build a zip archive of one packed file."""
    head = struct.pack("<HHHIIIIHH", 20, flags, method, 0, checksum, len(packed), plain_bytes, len(name), 0)
    local = b"PK\3\4" + head + name + packed
    directory = b"PK\1\2\x14\0" + head + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    return local + directory + end(1, len(directory), len(local))


def end(count, size, offset):
    return struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count % 65536, count % 65536, size, offset, 0)


def zeros_of(header, count):
    """Return packed bytes, plain length and checksum of an npy file of `count` zero bytes."""
    start, checksum = npy(header), zlib.crc32(npy(header))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH) + packed_zeros(count)
    for _ in range(count // len(CHUNK)):
        checksum = zlib.crc32(CHUNK, checksum)
    return packed, len(start) + count, zlib.crc32(bytes(count % len(CHUNK)), checksum)


@hostile("800 MB in 0.8 MB.npz", "point", "fmri", "imu")
def npz_bomb(path):
    return member(b"arr_0.npy", *zeros_of(described("(200000000,)"), 800_000_000))


@hostile("says 1 kB, has 800 MB.npz", "point", "fmri", "imu")
def lying_member(path):
    packed, _, checksum = zeros_of(described("(200000000,)"), 800_000_000)
    return member(b"arr_0.npy", packed, 1000, checksum)


@hostile("header of 4 GB inside.npz", "point", "fmri", "imu")
def header_bomb(path):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(b"\x93NUMPY\2\0" + b"\xff" * 4) + packer.flush(zlib.Z_FULL_FLUSH)
    return member(b"xyz.npy", start + packed_zeros(400_000_000), 400_000_012, 0)


@hostile("a million names.npz", "point", "fmri")
def million_names(path):
    head = struct.pack("<HHHIIIIHH", 20, 0, 0, 0, 0, 0, 0, 5, 0)
    local = b"PK\3\4" + head + b"a.npy"
    directory = (b"PK\1\2\x14\0" + head + struct.pack("<HHHII", 0, 0, 0, 0, 0) + b"a.npy") * 900_000
    big = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 9 * 10**5, 9 * 10**5, len(directory), len(local))
    where = struct.pack("<4sIQI", b"PK\6\7", 0, len(local) + len(directory), 1)
    return local + directory + big + where + end(9 * 10**5, len(directory), len(local))


@hostile("1,001 names.npz", "point", "fmri", "imu")
def too_many_names(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(1001):
            archive.writestr(f"{number}.npy", b"")


@hostile("names that overlap.npz", "point", "fmri", "imu")
def overlapping(path):
    data = member(b"a.npy", *zeros_of(described("(1000000,)"), 4_000_000))
    start = data.index(b"PK\1\2")
    entry = data[start : data.index(b"PK\5\6")]
    return data[:start] + entry * 900 + end(900, 900 * len(entry), start)


@hostile("lzma.npz", "point", "fmri", "imu")
def unusual_compression(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("xyz.npy", npy(described("(4, 3)"), bytes(48)))


@hostile("with a password.npz", "point", "fmri", "imu")
def encrypted(path):
    return member(b"xyz.npy", bytes(200), 188, 0, method=0, flags=1)


@hostile("path in a name.npz", "fmri", fine="names of arrays are no paths")
def path_in_name(path):
    array = io.BytesIO()
    np.save(array, np.random.default_rng(0).normal(size=99))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../owned.npy", array.getvalue())


# ---- tables ---------------------------------------------------------------------------------------------------------

ROW = b"0.1,0.2,9.8,0.01,0.02,0.03\n"
TABLES = {
    "5 MB of commas": (b"," * 4_999_999, ""),
    "5 MB of line ends": (b"\n" * 4_999_999, ""),
    "5 MB of odd line ends": (b"\x0b\x0c\x1c\x1d\x1e" * 999_999, ""),
    "one line": (b"1.5," * 1_249_999, ""),
    "one number": (b"9" * 4_999_999, ""),
    "numbers of 100,000 digits": (b",".join([b"1" * 100_000] * 6) + b"\n" + ROW * 9, ""),
    "beyond numbers": ((b"1e999,-1e999,9.8,0,0,0\n" + ROW) * 9, "half of the rows are whole"),
    "a huge quoted field": (b'"' + b"x" * 4_000_000 + b'",ay,az,gx,gy,gz\n' + ROW, ""),
    "quotes that never close": (b'"' * 4_000_000 + b"\n" + ROW, ""),
    "brackets": (b"[ (" * 1_600_000 + b"\n" + ROW, ""),
    "brackets in a title": (b"ax [" + b" " * 30_000 + b",ay,az,gx,gy,gz\n" + ROW * 9, ""),
    "NUL": (b"ax,ay,az,gx,gy,gz\n" + ROW + b"\0" * 1000 + b"\n", ""),
    "too many rows": (b"ax,ay,az,gx,gy,gz\n" + b"1,2,9,0,0,0\n" * 300_000, ""),
    "UTF-16": (ROW.decode().encode("utf-16") * 9, ""),
    "formulas": (b"=cmd|' /C calc'!A0,ay,az,gx,gy,gz\n" + ROW * 9, ""),
    "time that stands": (b"t,ax,ay,az,gx,gy,gz\n" + b"5," + ROW + b"5," + ROW, ""),
    "time that leaps": (b"t,ax,ay,az,gx,gy,gz\n" + b"".join(b"%d," % (i**9) + ROW for i in range(99)), ""),
    "time beyond numbers": (b"t,ax,ay,az,gx,gy,gz\n-1e308," + ROW + b"0," + ROW + b"1e308," + ROW, ""),
    "columns of all widths": (b"".join(b"1," * i + b"1\n" for i in range(1500)), ""),
}
for _name, (_content, _fine) in TABLES.items():
    hostile(f"{_name}.csv", "imu", fine=_fine)(lambda path, content=_content: content)
