"""Turn a textured mesh into depth maps, normal maps and shaded pictures, on the CPU.

World frame: metres, z up. Camera frame: x right, y up, z towards the viewer. Files:

* depth: 16-bit PNG in millimetres along the optical axis; 0 = nothing was hit.
* normal: 8-bit RGB PNG, ``round((n + 1) / 2 * 255)``; the pixel 0, 0, 0 = nothing was hit (no unit vector
  encodes to it, so it cannot be mistaken for one).
* picture: JPEG, Lambert shading under one lamp and ambient light.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onellm.utils import atomic
from train.small.corpus.meshes import Mesh, face_normals, plain_mesh, surface_colours

VIEWS = 8
SIZE_PX = 224
FIELD_OF_VIEW_DEG = 40.0
FILL = 0.8  # share of the frame's side the object's longer projected side takes
MIN_RADIUS_M, MAX_RADIUS_M = 0.25, 8.0  # keeps whole millimetres fine enough and 16 bits wide enough
BACKGROUND_RGB = (0.92, 0.92, 0.92)
_HOLES_DEEP = 6  # cut-out leaves a ray may pass before it is given up


@dataclass
class Camera:
    """A pinhole camera: ``position`` [3] in metres and the rows right, up, backward of ``axes`` [3, 3]."""

    position: np.ndarray
    axes: np.ndarray


@dataclass
class Render:
    """One view.

    ``depth_m`` [S, S] float32, 0 = nothing; ``normal`` [S, S, 3] float32 unit vectors in the camera frame,
    the zero vector = nothing; ``picture`` [S, S, 3] uint8.
    """

    depth_m: np.ndarray
    normal: np.ndarray
    picture: np.ndarray


def render_scale(mesh: Mesh) -> float:
    """Return the factor that brings the mesh's radius into the range millimetres can hold well."""
    radius_m = np.linalg.norm(np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0)) / 2
    return float(np.clip(radius_m, MIN_RADIUS_M, MAX_RADIUS_M) / radius_m)


def view_angles(mesh: Mesh, seed: int) -> np.ndarray:
    """Return [VIEWS, 2] azimuth and elevation in degrees; azimuth 0 looks at the front (from -y).

    The elevation swings smoothly between 5 and 35 degrees so that the views in order make a turntable; things
    flat as a rug are seen from 35 to 60.
    """
    random = np.random.default_rng(seed)
    start, phase = 22.5 + random.uniform(-10, 10), random.uniform(0, 2 * np.pi)
    azimuth = start + np.arange(VIEWS) * 360 / VIEWS
    extent = np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0)
    low, high = (35, 60) if extent[2] < 0.12 * min(extent[:2]) else (5, 35)
    swing = 0.5 + 0.5 * np.sin(np.deg2rad(azimuth) + phase)
    return np.stack([azimuth, low + (high - low) * swing], 1)


def frame_camera(points: np.ndarray, azimuth_deg: float, elevation_deg: float) -> Camera:
    """Place a camera so that points [N, 3] in metres fill FILL of the frame, centred."""
    azimuth, elevation = np.deg2rad([azimuth_deg, elevation_deg])
    across = np.cos(elevation)
    backward = np.array([np.sin(azimuth) * across, -np.cos(azimuth) * across, np.sin(elevation)])
    right = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    axes = np.stack([right, np.cross(backward, right), backward])
    half = np.tan(np.deg2rad(FIELD_OF_VIEW_DEG / 2))
    local = points @ axes.T
    centre = (local.min(0) + local.max(0)) / 2
    distance = np.ptp(local, axis=0).max() / half
    for _ in range(30):  # perspective ties size and centre together; small steps settle
        seen = local - centre
        nearest = seen[:, 2].max()
        distance = max(distance, nearest * 1.001)
        plane = seen[:, :2] / (distance - seen[:, 2:]) / half
        low, high = plane.min(0), plane.max(0)
        centre[:2] += (low + high) / 2 * half * (distance - nearest)
        distance = nearest + (distance - nearest) * (high - low).max() / 2 / FILL
    return Camera((centre + [0, 0, distance]) @ axes, axes)


class Renderer:
    """Casts rays at one mesh, with or without a floor under it."""

    def __init__(self, mesh: Mesh, floor: bool = False, floor_rgb=(0.75, 0.73, 0.7)):
        import open3d

        used = mesh.vertices[np.unique(mesh.faces)]
        self.object_points = used[:: max(1, len(used) // 5000)]
        if floor:
            mesh = _with_floor(mesh, used, floor_rgb)
        self.mesh = mesh
        self.flat = face_normals(mesh.vertices, mesh.faces)
        self.has_holes = any(material.has_holes for material in mesh.materials)
        self.tensor = open3d.core.Tensor
        self.scene = open3d.t.geometry.RaycastingScene(nthreads=1)
        self.scene.add_triangles(self.tensor(mesh.vertices), self.tensor(mesh.faces.astype(np.uint32)))

    def view(self, azimuth_deg: float, elevation_deg: float, size_px: int = SIZE_PX) -> Render:
        """Render one view; see the module's text for the frames and units."""
        camera = frame_camera(self.object_points, azimuth_deg, elevation_deg)
        half = np.tan(np.deg2rad(FIELD_OF_VIEW_DEG / 2))
        side = ((np.arange(size_px) + 0.5) / size_px * 2 - 1) * half
        local = np.stack(np.broadcast_arrays(side[None], -side[:, None], -1.0), -1).reshape(-1, 3)
        # Directions are one metre deep each, so a hit's ray parameter is its depth along the optical axis.
        directions = (local @ camera.axes).astype(np.float32)
        depth, face, weights, colours = self._cast(camera.position.astype(np.float32), directions)
        hit = face >= 0
        normal = np.zeros((len(depth), 3), np.float32)
        corner = (self.mesh.normals[face[hit]] * weights[hit, :, None]).sum(1)
        corner /= np.maximum(np.linalg.norm(corner, axis=1, keepdims=True), 1e-20)
        outward = self.flat[face[hit]]
        away = (outward * directions[hit]).sum(1, keepdims=True) > 0
        outward = np.where(away, -outward, outward)
        corner = np.where((corner * outward).sum(1, keepdims=True) < 0, -corner, corner)
        towards = -directions[hit] / np.linalg.norm(directions[hit], axis=1, keepdims=True)
        corner = np.where((corner * towards).sum(1, keepdims=True) > 0, corner, outward)
        normal[hit] = corner @ camera.axes.T
        picture = np.tile(np.asarray(BACKGROUND_RGB, np.float32), (len(depth), 1))
        lamp = np.array([-0.4, 0.6, 0.7]) / np.linalg.norm([-0.4, 0.6, 0.7])
        light = 0.4 + 0.6 * np.maximum(normal[hit] @ lamp, 0) + 0.1 * np.maximum(normal[hit, 2], 0)
        picture[hit] = np.clip(colours[hit, :3], 0.04, 1) * light[:, None]
        shape = (size_px, size_px)
        pixels = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
        return Render(depth.astype(np.float32).reshape(shape), normal.reshape(*shape, 3), pixels.reshape(*shape, 3))

    def _cast(self, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return depth [N] (0 = none), face [N] (-1 = none), weights [N, 3] and colours [N, 4]."""
        count = len(directions)
        depth, face = np.zeros(count), np.full(count, -1)
        weights, colours = np.zeros((count, 3)), np.zeros((count, 4), np.float32)
        start, active = np.zeros(count, np.float32), np.arange(count)
        for _ in range(_HOLES_DEEP if self.has_holes else 1):
            begin = origin + directions[active] * start[active, None]
            answer = self.scene.cast_rays(self.tensor(np.concatenate([begin, directions[active]], 1)))
            distance = answer["t_hit"].numpy()
            hit = np.isfinite(distance)
            active, distance = active[hit], distance[hit]
            found = answer["primitive_ids"].numpy()[hit].astype(np.int64)
            uv = answer["primitive_uvs"].numpy()[hit]
            mix = np.concatenate([1 - uv.sum(1, keepdims=True), uv], 1)
            rgba = surface_colours(self.mesh, found, mix)
            solid = rgba[:, 3] >= 0.5
            done = active[solid]
            depth[done] = start[done] + distance[solid]
            face[done], weights[done], colours[done] = found[solid], mix[solid], rgba[solid]
            active, distance = active[~solid], distance[~solid]
            start[active] = (start[active] + distance) * (1 + 1e-5)
        return depth, face, weights, colours


def _with_floor(mesh: Mesh, used: np.ndarray, rgb) -> Mesh:
    """Return the mesh with a square floor under it, reaching half the object's size beyond it."""
    low, high = used.min(0), used.max(0)
    reach = 0.5 * float(np.max(high - low))
    level = low[2] - 1e-3 * float(np.max(high - low))
    (x0, y0), (x1, y1) = low[:2] - reach, high[:2] + reach
    floor = plain_mesh(
        [[x0, y0, level], [x1, y0, level], [x1, y1, level], [x0, y1, level]], [[0, 1, 2], [0, 2, 3]], rgb
    )
    return Mesh(
        np.concatenate([mesh.vertices, floor.vertices]),
        np.concatenate([mesh.faces, floor.faces + len(mesh.vertices)]),
        np.concatenate([mesh.material_of, floor.material_of + len(mesh.materials)]),
        np.concatenate([mesh.normals, floor.normals]),
        np.concatenate([mesh.uv, floor.uv]),
        mesh.materials + floor.materials,
    )


def encode_depth(depth_m: np.ndarray) -> np.ndarray:
    """Return [H, W] uint16 millimetres of a depth map in metres (0 = unknown)."""
    return np.clip(np.rint(depth_m * 1000), 0, 65535).astype(np.uint16)


def encode_normal(normal: np.ndarray) -> np.ndarray:
    """Return [H, W, 3] uint8 of unit vectors; the zero vector becomes 0, 0, 0."""
    pixels = np.rint((normal + 1) / 2 * 255).astype(np.uint8)
    pixels[~normal.any(-1)] = 0
    return pixels


def save_render(render: Render, depth: Path, normal: Path, picture: Path) -> None:
    """Write one view's three files; the picture comes last, so its presence means the view is complete."""
    from PIL import Image

    with atomic.whole(depth) as part:
        Image.fromarray(encode_depth(render.depth_m)).save(part, compress_level=3)
    with atomic.whole(normal) as part:
        Image.fromarray(encode_normal(render.normal)).save(part, compress_level=3)
    with atomic.whole(picture) as part:
        Image.fromarray(render.picture).save(part, quality=90)
