"""Point clouds and meshes: [P, 6] float32, x, y, z, r, g, b."""

from __future__ import annotations

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
_Y_UP = (".obj", ".glb")  # by the format or by custom; the others have z up


class Point(Modality):
    """Point clouds, read with NumPy and Open3D, and meshes, read with trimesh and sampled.

    Canonical array: [P, 6] float32: x, y, z in the file's own unit with z up, and r, g, b in 0..1 (0.5 where
    the file has no colours). Meshes give 16,384 points spread evenly over their surface, with the colours of
    their vertices, materials or textures.

    Text files (xyz) have a point a line, x y z or x y z r g b; npy [P, 3] or [P, 6]; npz xyz and rgb, or
    one array. obj and glb are taken to have y up, the others z; the option `up` says otherwise.
    """

    name = "point"
    title = "Point cloud"
    icon = "🧩"
    libraries = ("open3d", "trimesh")
    suffixes = (".ply", ".pcd", ".xyz", ".npy", ".npz", ".obj", ".off", ".stl", ".glb")
    layout = ("[P, 6], xyz and rgb in 0..1", 2, 6)
    unit = "x, y, z in the file's unit, red, green, blue in 0..1"
    expects = (
        "a point cloud (ply, pcd, xyz, npy, npz) or mesh (obj, off, stl, glb, ply) "
        f"of up to {megabytes(LIMITS.point_bytes)}"
    )

    def read(self, path: Path, up: str | None = None) -> Sample:
        """Read a cloud, or sample a mesh.

        Args:
            path: the file.
            up: "y" or "z", the axis that points up in the file.

        Returns:
            A sample whose array is [P, 6] float32.
        """
        suffix = path.suffix.lower()
        up = up or ("y" if suffix in _Y_UP else "z")
        if up not in ("y", "z"):
            raise refuse(path, f"the option up is {up!r}", "y or z", "correct the option")
        (xyz, rgb), triangles = self._read(path, suffix[1:])
        notes: list[str] = []
        xyz, rgb = self._numbers(path, xyz, rgb, notes)
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
        """Whether a file is a ply, glb, pcd or binary stl file; the latter has no magic bytes, but a length."""
        if head.startswith((b"ply", b"glTF", b"# .PCD")):
            return True
        return len(head) >= 84 and path.stat().st_size == 84 + 50 * struct.unpack_from("<I", head, 80)[0]

    def _numbers(
        self, path: Path, xyz: np.ndarray, rgb: np.ndarray | None, notes: list[str]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Leave out points that are not numbers; colours that are none become grey."""
        good = np.isfinite(xyz).all(axis=1) & (np.abs(xyz) < 1e9).all(axis=1)
        if good.sum() < max(1, len(xyz) / 2):
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
        """Return xyz and rgb, and the number of triangles."""
        if layout == "ply":
            header = ply.read_ply_header(path, self.expects)
            if header.faces:
                return meshes.read_mesh(path, "ply", MESH_POINTS, self.expects)
            return ply.read_ply(path, header, self.expects), 0
        if layout == "pcd":
            return clouds.read_pcd(path, self.expects), 0
        if layout == "xyz":
            return clouds.read_xyz(path, self.expects), 0
        if layout in ("npy", "npz"):
            return clouds.read_numpy(path, self.expects), 0
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


def _choose(count: int, points: int) -> np.ndarray:
    """Choose `points` of `count` points at random, always the same ones; of fewer, all and some repeatedly."""
    rng = np.random.default_rng(0)
    if count >= points:
        return rng.permutation(count)[:points]
    return np.concatenate([np.arange(count), rng.integers(0, count, points - count)])
