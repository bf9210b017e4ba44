"""Writes small real files of all kinds for the tests."""

import json
import struct

import av
import numpy as np
from PIL import Image


def picture(width=64, height=48):
    """A colour gradient, [H, W, 3] uint8: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 80)], axis=2).astype(np.uint8)


def video(path, codec="libx264", frames=30, rate=10, size=(64, 48), gop=12, sound=False, pixel_format="yuv420p"):
    """A video whose brightness grows from frame to frame; with a 440 Hz tone if wanted."""
    options = {"movflags": "faststart"} if str(path).endswith((".mp4", ".mov")) else {}
    options["fflags"] = "+bitexact"  # the same file every time
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.gop_size = gop
        tone = None
        if sound:
            tone = container.add_stream("libopus" if str(path).endswith((".webm", ".mkv")) else "aac", rate=48000)
        for i in range(frames):
            level = 20 + int(200 * i / max(frames - 1, 1))
            image = np.full((size[1], size[0], 3), level, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixel_format)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
        if tone:
            _encode_tone(container, tone, frames / rate)
    return path


def m4a(path, seconds=2.0):
    with av.open(str(path), "w", format="ipod", options={"movflags": "faststart", "fflags": "+bitexact"}) as container:
        _encode_tone(container, container.add_stream("aac", rate=48000), seconds)
    return path


def webm_sound(path, seconds=1.0):
    """What browsers record: Opus in WebM, without a picture."""
    with av.open(str(path), "w", format="webm", options={"fflags": "+bitexact"}) as container:
        _encode_tone(container, container.add_stream("libopus", rate=48000), seconds)
    return path


def _encode_tone(container, stream, seconds):
    samples = np.sin(2 * np.pi * 440 * np.arange(int(48000 * seconds)) / 48000).astype(np.float32) * 0.5
    for start in range(0, len(samples), 960):
        part = samples[start : start + 960]
        frame = av.AudioFrame.from_ndarray(part[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = 48000, start
        resampler = av.AudioResampler(format=stream.codec_context.format.name, layout="stereo", rate=48000)
        for converted in resampler.resample(frame):
            converted.pts = start
            for packet in stream.encode(converted):
                container.mux(packet)
    for packet in stream.encode():
        container.mux(packet)


def tone(seconds=1.0, rate_hz=16000, frequency_hz=440.0):
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def gif(path, frames=8, size=(40, 30), transparent=False):
    images = [Image.new("RGB", size, (30 * i, 100, 50)) for i in range(frames)]
    if transparent:
        images = [Image.new("RGBA", size, (255, 0, 0, 255 * (i % 2))) for i in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0)
    return path


def cube():
    """Corners [8, 3], triangles [12, 3] and corner colours [8, 3] uint8 of a cube from 0 to 1."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    return corners, triangles, (corners * 255).astype(np.uint8)


def cloud(count=500):
    """xyz [P, 3] float32 on a tall box and rgb [P, 3] uint8."""
    rng = np.random.default_rng(1)
    xyz = rng.random((count, 3), np.float32) * np.float32([1, 2, 3])
    return xyz, (xyz / [1, 2, 3] * 255).astype(np.uint8)


def ply(path, layout="ascii", coloured=True, faces=False, float_colours=False):
    if faces:
        xyz, triangles, rgb = cube()
    else:
        (xyz, rgb), triangles = cloud(), []
    number = "float" if float_colours else "uchar"
    lines = ["ply", f"format {layout} 1.0", "comment made for a test", f"element vertex {len(xyz)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property {number} {name}" for name in ("red", "green", "blue")] if coloured else []
    lines += [f"element face {len(triangles)}", "property list uchar int vertex_indices"] if faces else []
    head = "\n".join([*lines, "end_header\n"]).encode()
    colours = rgb / 255 if float_colours else rgb
    body = b""
    for point, colour in zip(xyz, colours, strict=True):
        if layout == "ascii":
            body += (" ".join(map(str, [*point, *(colour if coloured else ())])) + "\n").encode()
        else:
            order = "<" if "little" in layout else ">"
            body += struct.pack(order + "3f", *point)
            body += struct.pack(order + ("3f" if float_colours else "3B"), *colour) if coloured else b""
    for triangle in triangles:
        if layout == "ascii":
            body += ("3 " + " ".join(map(str, triangle)) + "\n").encode()
        else:
            body += struct.pack(("<" if "little" in layout else ">") + "B3i", 3, *triangle)
    path.write_bytes(head + body)
    return path


def obj(path, with_materials=True):
    corners, triangles, _ = cube()
    lines = [f"mtllib {path.stem}.mtl"] if with_materials else []
    lines += ["v {} {} {}".format(*corner) for corner in corners]
    for i, triangle in enumerate(triangles):
        if with_materials and i in (0, 6):
            lines.append(f"usemtl {'red' if i == 0 else 'blue'}")
        lines.append("f {} {} {}".format(*(triangle + 1)))
    path.write_text("\n".join(lines) + "\n")
    if with_materials:
        path.with_suffix(".mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n")
    return path


def off(path):
    corners, triangles, _ = cube()
    lines = ["OFF", f"{len(corners)} {len(triangles)} 0"]
    lines += [" ".join(map(str, corner)) for corner in corners]
    lines += ["3 " + " ".join(map(str, triangle)) for triangle in triangles]
    path.write_text("\n".join(lines) + "\n")
    return path


def mesh(path, colours="vertex", z_scale=1.0):
    """Write the cube with trimesh; colours: "vertex", "face", "texture", "material" or None."""
    import trimesh

    corners, triangles, rgb = cube()
    made = trimesh.Trimesh(corners * [1, 1, z_scale], triangles, process=False)
    if colours == "vertex":
        made.visual.vertex_colors = rgb
    elif colours == "face":
        made.visual.face_colors = np.tile([[0, 255, 0, 255]], (12, 1))
    elif colours == "texture":
        image = Image.fromarray(np.full((8, 8, 3), (250, 10, 20), np.uint8))
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
        made.visual = trimesh.visual.TextureVisuals(uv=corners[:, :2], material=material)
    elif colours == "material":
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0, 0, 255, 255])
        made.visual = trimesh.visual.TextureVisuals(uv=corners[:, :2], material=material)
    made.export(path)
    return path


def stl_text():
    """The cube as an stl file that is text."""
    import trimesh

    corners, triangles, _ = cube()
    return trimesh.Trimesh(corners, triangles).export(file_type="stl_ascii")


def glb_with(path, change):
    """Rewrite the JSON of a glb file."""
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + length])
    change(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    path.write_bytes(head + struct.pack("<I4s", len(text), b"JSON") + text + rest)
    return path


def depth_mm(width=64, height=48):
    """A ramp from 1 to 3 m in mm, [H, W] uint16, with an unknown corner."""
    depth = np.tile(np.linspace(1000, 3000, width), (height, 1)).astype(np.uint16)
    depth[:5, :5] = 0
    return depth


def exr(path, values):
    """Write [H, W] float32 as a one-channel exr."""
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("exr", rate=1)
        stream.width, stream.height, stream.pix_fmt = values.shape[1], values.shape[0], "grayf32le"
        frame = av.VideoFrame.from_ndarray(values, format="grayf32le")
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def normals(size=64):
    """A ball, [size, size, 3] float32 unit vectors, 0 outside."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, -axis)
    square = 1 - x**2 - y**2
    ball = np.stack([x, y, np.sqrt(np.maximum(square, 0))], axis=2)
    return np.where(square[..., None] > 0, ball, 0).astype(np.float32)


def normal_png(path, size=64):
    ball = normals(size)
    known = np.any(ball != 0, axis=2, keepdims=True)
    Image.fromarray(np.where(known, np.round((ball + 1) * 127.5), 0).astype(np.uint8)).save(path)
    return path


def motion(rows=200, rate_hz=50.0):
    """Acceleration in m/s² about gravity on z and turning in rad/s, [T, 6] float64."""
    t = np.arange(rows) / rate_hz
    return np.stack(
        [np.sin(t), np.cos(2 * t), 9.81 + 0.3 * np.sin(5 * t), 0.5 * np.sin(t), 0.2 * np.cos(t), 0 * t],
        axis=1,
    )


def csv(path, header, table, separator=","):
    lines = [header] if header else []
    lines += [separator.join(f"{value:.6f}" for value in row) for row in table]
    path.write_text("\n".join(lines) + "\n")
    return path


def nifti(path, array, spacing_s=None):
    import nibabel

    image = nibabel.Nifti1Image(array, np.diag([3, 3, 3, 1]))
    if spacing_s:
        image.header.set_zooms((3, 3, 3, spacing_s))
    nibabel.save(image, path)
    return path
