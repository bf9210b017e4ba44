"""Point clouds and meshes: [P, 6] float32, x, y, z, r, g, b."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onellm.modalities.base import Coverage, Modality, Preview, Sample, megabytes, refuse
from onellm.modalities.plots import style
from onellm.modalities.readers import clouds, meshes, ply
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch

MESH_POINTS = 16_384
_PREVIEW_POINTS = 8_000
_BACKGROUND, _LINES, _TEXT = "#666d78", "#858c97", "#e6e8eb"  # white and black points both stand out from it
_Y_UP = ("obj", "glb", "gltf")  # by the format or by custom; the others have z up
_FARTHEST = 1e9  # of a coordinate; more are marks of missing points
_FAR = 200  # extents from 0: a float32 keeps fewer than five digits of a point's place in the cloud
_HEAD_BYTES = 512
_MARKS = (
    (rb"ply[\r\n]", "ply"),
    (rb"glTF", "glb"),
    (rb"LASF", "las"),
    (rb"\s*\{", "gltf"),
    (rb"(?:# \.PCD|VERSION\s+0?\.7|#[^\n]*\n\s*VERSION\s+0?\.7)", "pcd"),
    (rb"\x93NUMPY|PK\x03\x04", "numpy"),
    (rb"\s*(?:ST)?C?N?4?OFF(?![A-Za-z])", "off"),
)
_NAMES = {".obj": "obj", ".stl": "stl", ".off": "off", ".ply": "ply", ".pcd": "pcd", ".glb": "glb", ".gltf": "gltf",
          ".npy": "numpy", ".npz": "numpy", ".bin": "kitti", ".las": "las", ".laz": "las"}  # fmt: skip
_READERS = {
    "pcd": clouds.read_pcd,
    "text": clouds.read_text,
    "numpy": clouds.read_numpy,
    "kitti": clouds.read_kitti,
    "las": clouds.read_las,
}


class Point(Modality):
    """Point clouds, read with NumPy and laspy, and meshes, read with trimesh and sampled.

    Canonical array: [P, 6] float32: x, y, z in the file's own unit with z up, and r, g, b in 0..1 (0.5 where
    the file has no colours). Meshes give 16,384 points spread evenly over their surface, with the colours of
    their vertices, materials or textures.

    Text files (xyz, txt, csv, pts, asc) have a point a line, x y z or x y z r g b, or a line of names first that says
    what the columns are; npy [P, 3] or [P, 6]; npz xyz and rgb, or one array; bin is KITTI's laser scan. obj and glb
    are taken to have y up, the others z; the option `up` says otherwise. Coordinates that lie far from 0, as on a
    map, are moved to it in double precision.
    """

    name = "point"
    title = "Point cloud"
    icon = "🧩"
    libraries = ("trimesh", "laspy")
    suffixes = (
        ".ply", ".pcd", ".xyz", ".npy", ".npz", ".obj", ".off", ".stl", ".glb", ".gltf", ".las", ".laz", ".txt",
        ".csv", ".pts", ".ptx", ".asc", ".bin",
    )  # fmt: skip
    layout = ("[P, 6], xyz and rgb in 0..1", 2, 6)
    unit = "x, y, z in the file's unit, red, green, blue in 0..1"
    expects = (
        "a point cloud (ply, pcd, las, laz, xyz, txt, csv, pts, ptx, npy, npz, bin) or mesh "
        f"(obj, off, stl, glb, gltf, ply) of up to {megabytes(LIMITS.point_bytes)}"
    )

    def read(self, path: Path, up: str | None = None) -> Sample:
        """Read a cloud, or sample a mesh.

        Args:
            path: the file.
            up: "y" or "z", the axis that points up in the file.

        Returns:
            A sample whose array is [P, 6] float32.
        """
        layout = _layout(path)
        up = up or ("y" if layout in _Y_UP else "z")
        if up not in ("y", "z"):
            raise refuse(path, f"the option up is {up!r}", "y or z", "correct the option")
        cloud, triangles = self._read(path, layout)
        notes = cloud.notes
        xyz, rgb = self._numbers(path, cloud.xyz, cloud.rgb, notes, cloud.missing)
        xyz = _centre(xyz, notes)
        if float(np.ptp(xyz, axis=0).max()) == 0:
            found = f"{len(xyz):,} points, all in one place"
            raise refuse(path, found, self.expects, "check that the right file was saved")
        if rgb is None:
            notes.append("the file has no colours: all points are grey")
            rgb, coloured = np.full_like(xyz, 0.5), False
        else:
            rgb, coloured = rgb.clip(0, 1), True
        if up == "y":
            xyz = np.stack([xyz[:, 0], -xyz[:, 2], xyz[:, 1]], axis=1)
        colours = "coloured" if coloured else "without colours"
        if triangles:
            summary = f"mesh of {triangles:,} triangles, {len(xyz):,} points sampled, {colours}"
        else:
            summary = f"{len(xyz):,} points, {colours}"
        array = np.concatenate([xyz, rgb], axis=1).astype(np.float32)
        return Sample(self.name, path.name, array, summary, notes=notes, coloured=coloured)

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a file is ply, glb, gltf, las, pcd, binary stl or a laser scan; the last two have no magic bytes."""
        if head.startswith((b"ply\n", b"ply\r", b"glTF", b"LASF", b"# .PCD")):
            return True
        if head.lstrip()[:1] == b"{" and re.search(rb'"asset"\s*:', head):
            return True
        if path.suffix.lower() == ".bin" and clouds.kitti_width(path) is not None:
            return True
        return len(head) >= 84 and path.stat().st_size == 84 + 50 * struct.unpack_from("<I", head, 80)[0]

    def _numbers(
        self, path: Path, xyz: np.ndarray, rgb: np.ndarray | None, notes: list[str], missing: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Leave out points that are not numbers, of which there may be many if they are `missing`."""
        good = np.isfinite(xyz).all(axis=1) & (np.abs(xyz) < _FARTHEST).all(axis=1)
        if good.sum() < max(1, 0 if missing else len(xyz) / 2):
            found = f"{int((~good).sum()):,} of {len(xyz):,} points are not numbers"
            raise refuse(path, found, self.expects, "save or download it again")
        if not good.all():
            notes.append(f"{int((~good).sum()):,} points that are not numbers were left out")
        return xyz[good], None if rgb is None else np.nan_to_num(rgb[good], nan=0.5)

    def clean(self, path: Path, array: np.ndarray, notes: list[str]) -> np.ndarray:
        """Leave out points [P, 6] that are not numbers."""
        return np.concatenate(self._numbers(path, array[:, :3], array[:, 3:], notes), axis=1)

    def arrays(self, sample: Sample) -> dict[str, np.ndarray]:
        """Return "array" [P, 6] and, where the file has colours, "rgb" [P, 3]."""
        return {"array": sample.array} | ({"rgb": sample.array[:, 3:]} if sample.coloured else {})

    def _read(self, path: Path, layout: str) -> tuple[clouds.Cloud, int]:
        """Return the points, and the number of triangles."""
        if layout == "ply":
            header = ply.read_ply_header(path, self.expects)
            if header.faces:
                return meshes.read_mesh(path, "ply", MESH_POINTS, self.expects)
            return ply.read_ply(path, header, self.expects), 0
        if layout in _READERS:
            return _READERS[layout](path, self.expects), 0
        return meshes.read_mesh(path, layout, MESH_POINTS, self.expects)

    def to_tensor(self, sample: Sample, points: int = 8192) -> torch.Tensor:
        """Choose points at random (always the same ones) and bring them into the unit ball.

        Args:
            sample: what `load` returned.
            points: number of points; a smaller cloud repeats some.

        Returns:
            [points, 6] float32, x, y, z within a radius of 1 and r, g, b in 0..1.
        """
        import torch

        cloud = sample.array[_choose(len(sample.array), points)]
        cloud[:, :3] -= cloud[:, :3].mean(axis=0)
        radius = float(np.linalg.norm(cloud[:, :3], axis=1).max())
        cloud[:, :3] /= max(radius, 1e-12)
        return torch.from_numpy(cloud)

    def coverage(self, sample: Sample, points: int = 8192) -> Coverage:
        """Say how many of the points the model takes."""
        count = len(sample.array)
        return Coverage(f"{len(set(_choose(count, points))):,}", f"{count:,}", "points")

    def preview(self, sample: Sample, **settings) -> Preview:
        """Show the points in space, to be turned with the mouse; the first ones of those the model takes."""
        from plotly import graph_objects

        count = len(sample.array)
        cloud = sample.array[_choose(count, min(count, _PREVIEW_POINTS))]
        if not sample.coloured:
            height = cloud[:, 2]
            colour = {"color": height.astype(np.float32), "colorscale": "Viridis", "showscale": False}
        else:
            levels = (cloud[:, 3:] * 255).round().astype(int)
            colour = {"color": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in levels]}
        size = 3.5 if len(cloud) < 1500 else 2.4 if len(cloud) < 4000 else 1.8
        figure = graph_objects.Figure(
            graph_objects.Scatter3d(
                x=cloud[:, 0], y=cloud[:, 1], z=cloud[:, 2], mode="markers",
                marker={"size": size, "line": {"width": 0}, **colour}, hoverinfo="skip",
            )
        )  # fmt: skip
        axis = {"backgroundcolor": _BACKGROUND, "gridcolor": _LINES, "zerolinecolor": _LINES, "color": _TEXT}
        axis |= {"showspikes": False, "nticks": 4, "showbackground": False}
        style(figure, 420).update_layout(
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
            scene={
                "aspectmode": "data",
                "bgcolor": _BACKGROUND,
                "xaxis": axis,
                "yaxis": axis,
                "zaxis": axis,
                "dragmode": "orbit",
                "camera": {"eye": {"x": -1.1, "y": -1.8, "z": 0.9}, "center": {"x": 0, "y": 0, "z": -0.08}},
            },
        )
        return Preview("plot", figure, f"{sample.name}: {sample.summary}")


def _layout(path: Path) -> str:
    """Tell a file's format by its first bytes where they say it, else by its name."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    for mark, layout in _MARKS:
        if re.match(mark, head):
            return layout
    return _NAMES.get(path.suffix.lower(), "text")


def _centre(xyz: np.ndarray, notes: list[str]) -> np.ndarray:
    """Move points [P, 3] that lie far from 0 for their extent to it, and return them in single precision.

    Coordinates on a map have more digits than a float32 keeps; a scan's own are left as they are.
    """
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    if np.abs([low, high]).max() > _FAR * max(float((high - low).max()), 1e-12):
        middle = np.round((low + high) / 2)
        notes.append(
            "the coordinates lie far from 0, as those of maps do: "
            f"{', '.join(f'{value:.0f}' for value in middle)} was subtracted from x, y, z"
        )
        xyz = xyz - middle
    return xyz.astype(np.float32)


def _choose(count: int, points: int) -> np.ndarray:
    """Choose `points` of `count` points at random, always the same ones; of fewer, all and some repeatedly."""
    rng = np.random.default_rng(0)
    if count >= points:
        return rng.permutation(count)[:points]
    return np.concatenate([np.arange(count), rng.integers(0, count, points - count)])
