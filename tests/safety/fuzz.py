"""Damaged files: small files of every suffix of a kind, changed at random, each the same every time.

`python tests/safety/fuzz.py KIND NUMBER` writes one of them into the current folder and says what comes of it.
"""

import functools
import gzip
import io
import re
import struct
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests" / "modalities"), str(ROOT / "tests" / "safety")]

import file_makers as make  # noqa: E402

INTEGERS = (0, 1, -1, 2, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, -(2**63))
NUMBERS = (
    b"0", b"-1", b"1", b"nan", b"inf", b"-inf", b"1e999", b"1e38", b"-1e308", b"1e-320", b"255", b"65536",
    b"2147483647", b"-2147483648", b"4294967296", b"9223372036854775807", b"99999999999999999999", b"9" * 400,
    b"", b"0x10", b"1,5", b"1_0", b"x",
)  # fmt: skip
KINDS = ("image", "video", "audio", "point", "fmri", "imu", "depth", "normal")


@functools.cache
def seeds(modality):
    """Make the small files of a kind: a list of suffix and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        _SEEDS[modality](folder)
        made = sorted(path for path in folder.iterdir() if path.suffix not in (".mtl",))
        examples = sorted((ROOT / "examples" / modality).iterdir(), key=lambda path: path.stat().st_size)[:2]
        return [("".join(path.suffixes[-2:]) if ".nii" in path.name else path.suffix, path.read_bytes())
                for path in made + examples]  # fmt: skip


def damaged(modality, number):
    """Make a damaged file; returns its suffix and its bytes."""
    rng = np.random.default_rng([KINDS.index(modality), number])
    files = seeds(modality)
    suffix, data = files[rng.integers(len(files))]
    others = [other for other_suffix, other in files if other_suffix == suffix]
    other = others[rng.integers(len(others))]
    if suffix == ".nii.gz" and rng.random() < 0.8:
        data = gzip.compress(_change(gzip.decompress(data), gzip.decompress(other), rng), mtime=0)
    elif suffix == ".npz" and rng.random() < 0.6:
        data = _change_inside(data, rng)
    else:
        data = _change(data, other, rng)
        if suffix == ".png" and rng.random() < 0.6:
            data = _true_checksums(data)
    return suffix, data


def write(modality, number, folder):
    """Write a damaged file; returns its path."""
    suffix, data = damaged(modality, number)
    path = Path(folder) / f"{modality}_{number}{suffix}"
    path.write_bytes(data)
    return path


def _change(data, other, rng):
    """Change bytes in one to three ways; in text, mostly its numbers."""
    changed, ways = bytearray(data), _WAYS
    if all(byte in b"\n\r\t" or 32 <= byte < 127 for byte in data[:200]):
        ways += len(_WAYS) * (_text,)
    for _ in range((1, 1, 2, 3)[rng.integers(4)]):
        way = ways[rng.integers(len(ways))]
        changed = way(changed, other, rng) or bytearray(b"\0")
    return bytes(changed)


def _place(data, rng):
    """Choose a byte: mostly of the header, as a file's header says how the rest is read."""
    return int(rng.integers(min(len(data), (64, 512, len(data))[rng.integers(3)])))


def _bits(data, other, rng):
    for _ in range(rng.integers(1, 9)):
        data[_place(data, rng)] ^= 1 << rng.integers(8)
    return data


def _bytes(data, other, rng):
    for _ in range(rng.integers(1, 9)):
        data[_place(data, rng)] = rng.integers(256)
    return data


def _integer(data, other, rng):
    value, width = INTEGERS[rng.integers(len(INTEGERS))], 2 ** int(rng.integers(4))
    order = ("little", "big")[rng.integers(2)]
    at = _place(data, rng)
    data[at : at + width] = (value % 256**width).to_bytes(width, order)
    return data


def _part(data, rng):
    at = _place(data, rng)
    return at, at + int(rng.integers(1, (8, 64, 4096)[rng.integers(3)]))


def _delete(data, other, rng):
    start, end = _part(data, rng)
    del data[start:end]
    return data


def _repeat(data, other, rng):
    start, end = _part(data, rng)
    data[start:start] = data[start:end] * int(rng.integers(1, 20))
    return data


def _insert(data, other, rng):
    start, end = _part(data, rng)
    data[start:start] = bytes(end - start) if rng.random() < 0.5 else rng.bytes(end - start)
    return data


def _cut(data, other, rng):
    return data[: _place(data, rng) + 1]


def _splice(data, other, rng):
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def _text(data, other, rng):
    """Change numbers that are written out."""
    found = list(re.finditer(rb"[-+]?\d[\d.]*(?:e[-+]?\d+)?", data[:20_000]))
    for _ in range(rng.integers(1, 4)):
        if found:
            match = found[int(rng.integers(min(len(found), (20, len(found))[rng.integers(2)])))]
            number = NUMBERS[rng.integers(len(NUMBERS))]
            data[match.start() : match.end()] = number.ljust(len(match[0])) if rng.random() < 0.5 else number
    return data


_WAYS = (_bits, _bytes, _integer, _integer, _delete, _repeat, _insert, _cut, _splice, _text)


def _change_inside(data, rng):
    """Change the files in a zip archive, which stays whole."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as changed:
        for name in archive.namelist():
            inside = archive.read(name)
            changed.writestr(zipfile.ZipInfo(name), _change(inside, inside, rng))
    return packed.getvalue()


def _true_checksums(data):
    """Set the checksums of a png, so that readers look at what is in it."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        end = at + 8 + struct.unpack_from(">I", fixed, at)[0]
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def _images(folder):
    from PIL import Image

    colours = Image.fromarray(make.picture(24, 18))
    for name, options in {
        "a.png": {}, "a.jpg": {}, "b.jpeg": {"progressive": True}, "a.webp": {}, "b.webp": {"lossless": True},
        "a.bmp": {}, "a.gif": {}, "a.tif": {}, "b.tiff": {"compression": "tiff_lzw"},
        "c.tiff": {"compression": "tiff_adobe_deflate"}, "d.tiff": {"compression": "jpeg"},
    }.items():  # fmt: skip
        colours.save(folder / name, **options)
    colours.convert("P").save(folder / "palette.png", transparency=3)
    colours.convert("RGBA").save(folder / "alpha.png")
    colours.save(folder / "moving.webp", save_all=True, append_images=[colours.rotate(90)])
    colours.save(folder / "moving.png", save_all=True, append_images=[colours.rotate(180)])
    colours.convert("P").save(folder / "palette.bmp")
    make.gif(folder / "moving.gif", 4, (12, 9), transparent=True)
    Image.fromarray(make.depth_mm(24, 18)).save(folder / "deep.png")
    Image.fromarray(make.depth_mm(24, 18)).save(folder / "deep.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    colours.save(folder / "turned.jpg", exif=exif)


def _videos(folder):
    size = {"frames": 6, "size": (32, 24)}
    for name, codec, options in (
        ("a.mp4", "libx264", {"sound": True}), ("b.mp4", "mpeg4", {}), ("a.mov", "libx264", {"gop": 2}),
        ("b.mov", "mjpeg", {"pixel_format": "yuvj420p"}), ("a.webm", "libvpx-vp9", {}), ("b.webm", "libvpx", {}),
        ("a.mkv", "mpeg4", {}), ("a.avi", "mpeg4", {}), ("b.avi", "mjpeg", {"pixel_format": "yuvj420p"}),
    ):  # fmt: skip
        make.video(folder / name, codec, **size, **options)
    make.gif(folder / "a.gif", 5, (16, 12))
    make.gif(folder / "b.gif", 4, (16, 12), transparent=True)


def _sounds(folder):
    import soundfile
    from scipy.io import wavfile

    tone = make.tone(0.2)
    wavfile.write(folder / "b.wav", 16000, tone)  # soundfile writes the time of day into such files
    for name, options in {
        "a.wav": {}, "c.wav": {"subtype": "IMA_ADPCM"}, "d.wav": {"subtype": "ULAW"},
        "a.flac": {}, "a.mp3": {},
    }.items():  # fmt: skip
        soundfile.write(folder / name, tone, 16000, **options)
    soundfile.write(folder / "stereo.wav", np.stack([tone, -tone], axis=1), 44100)
    make.m4a(folder / "a.m4a", 0.2)
    make.webm_sound(folder / "a.webm", 0.2)


def _points(folder):
    import open3d

    for layout in ("ascii", "binary_little_endian", "binary_big_endian"):
        make.ply(folder / f"cloud_{layout}.ply", layout)
        make.ply(folder / f"mesh_{layout}.ply", layout, faces=True)
    make.ply(folder / "float.ply", "binary_little_endian", float_colours=True)
    xyz, rgb = make.cloud(60)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(xyz))
    cloud.colors = open3d.utility.Vector3dVector(rgb / 255)
    for name, ascii_, compressed in (("a", True, False), ("b", False, False), ("c", False, True)):
        open3d.io.write_point_cloud(str(folder / f"{name}.pcd"), cloud, write_ascii=ascii_, compressed=compressed)
    table = np.concatenate([xyz, rgb / np.float32(255)], axis=1)
    make.csv(folder / "a.xyz", None, table, " ")
    make.csv(folder / "b.xyz", "x,y,z", xyz)
    np.save(folder / "a.npy", table)
    np.savez(folder / "a.npz", xyz=xyz, rgb=rgb)
    make.obj(folder / "a.obj")
    make.obj(folder / "b.obj", False)
    make.off(folder / "a.off")
    make.mesh(folder / "a.stl", None)
    (folder / "b.stl").write_text(make.stl_text())
    for colours in ("vertex", "face", "texture", "material"):
        make.mesh(folder / f"{colours}.glb", colours)


def _scans(folder):
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(7, 6, 5)).astype(np.float32)
    make.nifti(folder / "a.nii", volume)
    make.nifti(folder / "b.nii", (volume * 100).astype(np.int16))
    make.nifti(folder / "a.nii.gz", volume)
    make.nifti(folder / "run.nii.gz", rng.normal(size=(4, 4, 3, 20)).astype(np.float32), spacing_s=2)
    np.save(folder / "a.npy", volume)
    np.save(folder / "b.npy", volume.reshape(3, -1).astype(np.float64))
    np.savez_compressed(folder / "a.npz", betas=volume.ravel(), subject=1)


def _motions(folder):
    table = make.motion(40)
    timed = np.concatenate([np.arange(40)[:, None] * 20, table], axis=1)
    make.csv(folder / "a.csv", "time_ms,acc_x_g,acc_y_g,acc_z_g,gyr_x_deg,gyr_y_deg,gyr_z_deg", timed)
    make.csv(folder / "b.csv", None, table)
    make.csv(folder / "c.csv", "ax;ay;az;gx;gy;gz", table, ";")
    np.save(folder / "a.npy", table)
    np.save(folder / "b.npy", timed.astype(np.float32))
    np.savez(folder / "a.npz", acc=table[:, :3], gyro=table[:, 3:], rate_hz=50)
    np.savez_compressed(folder / "b.npz", imu=table, t=timed[:, 0])


def _depths(folder):
    from PIL import Image

    metres = make.depth_mm(24, 18) / np.float32(1000)
    Image.fromarray(make.depth_mm(24, 18)).save(folder / "a.png")
    Image.fromarray((make.depth_mm(24, 18) // 12).astype(np.uint8)).save(folder / "b.png")
    Image.fromarray(make.depth_mm(24, 18)).save(folder / "a.tif")
    Image.fromarray(metres).save(folder / "b.tiff", compression="tiff_adobe_deflate")
    np.save(folder / "a.npy", metres)
    np.save(folder / "b.npy", metres.astype(np.float64)[None])
    make.exr(folder / "a.exr", metres)


def _normals(folder):
    from PIL import Image

    make.normal_png(folder / "a.png", 24)
    Image.open(folder / "a.png").convert("RGBA").save(folder / "b.png")
    Image.open(folder / "a.png").convert("P").save(folder / "c.png")
    np.save(folder / "a.npy", make.normals(24))
    np.save(folder / "b.npy", make.normals(24).transpose(2, 0, 1).astype(np.float64))


_SEEDS = dict(zip(KINDS, (_images, _videos, _sounds, _points, _scans, _motions, _depths, _normals), strict=True))


if __name__ == "__main__":
    from verdicts import judge, judge_kind

    written = write(sys.argv[1], int(sys.argv[2]), ".")
    print(written, *judge(sys.argv[1], written, preview=True), *judge_kind(written), sep="\n")
