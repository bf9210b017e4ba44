"""Turn a textured mesh into points, depth maps, normal maps and shaded pictures, on the CPU.

World frame: metres, z up. Camera frame: x right, y up, z towards the viewer. Files:

* depth: 16-bit PNG in millimetres along the optical axis; 0 = nothing was hit.
* normal: 8-bit RGB PNG, ``round((n + 1) / 2 * 255)``; the pixel 0, 0, 0 = nothing was hit (no unit vector
  encodes to it, so it cannot be mistaken for one).
* picture: JPEG, Lambert shading under one lamp and ambient light.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onellm.utils import atomic

VIEWS = 8
SIZE_PX = 224
FIELD_OF_VIEW_DEG = 40.0
FILL = 0.8  # share of the frame's side the object's longer projected side takes
MIN_RADIUS_M, MAX_RADIUS_M = 0.25, 8.0  # keeps whole millimetres fine enough and 16 bits wide enough
BACKGROUND_RGB = (0.92, 0.92, 0.92)
_SEE_THROUGH = 0.1  # materials and texels less opaque than this, as a share of 1, are holes
_HOLES_DEEP = 6  # cut-out leaves a ray may pass before it is given up


@dataclass
class Material:
    """A surface's look: ``rgb`` in 0..1 and, where it has one, ``texture`` [H, W, 4] float32 in 0..1."""

    rgb: np.ndarray
    texture: np.ndarray | None = None

    @property
    def has_holes(self) -> bool:
        """Whether some texels are see-through."""
        return self.texture is not None and bool((self.texture[..., 3] < 0.5).any())


@dataclass
class Mesh:
    """Triangles in metres, z up.

    ``vertices`` [V, 3] float32; ``faces`` [F, 3] int; ``material_of`` [F] int; ``normals`` [F, 3, 3] float32,
    one unit vector a corner; ``uv`` [F, 3, 2] float32; ``materials`` as ``material_of`` counts them.
    """

    vertices: np.ndarray
    faces: np.ndarray
    material_of: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    materials: list[Material]


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


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return [F, 3] unit normals; a triangle without area gets the zero vector."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    return cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-20)


def plain_mesh(vertices: np.ndarray, faces: np.ndarray, rgb=(0.7, 0.7, 0.7)) -> Mesh:
    """Return a flat-shaded mesh of one colour from [V, 3] vertices in metres and [F, 3] faces."""
    vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.int64)
    normals = np.repeat(face_normals(vertices, faces)[:, None], 3, axis=1).astype(np.float32)
    uv = np.zeros((len(faces), 3, 2), np.float32)
    material = Material(np.asarray(rgb, np.float32))
    return Mesh(vertices, faces, np.zeros(len(faces), np.int64), normals, uv, [material])


def load_mesh(path: Path, size_m: tuple[float, float, float], rotation: np.ndarray | None = None) -> Mesh:
    """Load a y-up model with its materials and bring it to its real size, z up.

    Args:
        path: an OBJ file beside its MTL and texture files.
        size_m: width (x), height (y) and depth (z) in metres the model is stretched to.
        rotation: [3, 3] applied to the y-up model before it is stretched.

    Returns:
        The mesh, standing on z = 0 and centred in x and y.

    Raises:
        ValueError: the file holds no triangles.
    """
    import trimesh

    loaded = trimesh.load(path, process=False)
    parts = list(loaded.geometry.values()) if isinstance(loaded, trimesh.Scene) else [loaded]
    vertices, faces, material_of, normals, uvs, materials, first = [], [], [], [], [], [], 0
    for part in parts:
        if not isinstance(part, trimesh.Trimesh) or not len(part.faces):
            continue
        material, opacity = _material(part)
        if opacity < _SEE_THROUGH:
            continue
        corners = np.asarray(part.faces)
        flat = np.repeat(face_normals(part.vertices, corners)[:, None], 3, axis=1)
        if "vertex_normals" in part._cache.cache:  # the file's own; computed ones would round off every edge
            smooth = np.asarray(part.vertex_normals)[corners]
            agree = np.abs((smooth * flat).sum(-1, keepdims=True)) > 0.2
            flat = np.where(agree, smooth, flat)
        uv = getattr(part.visual, "uv", None)
        uv = np.asarray(uv)[corners] if uv is not None else np.zeros((len(corners), 3, 2))
        vertices.append(np.asarray(part.vertices))
        faces.append(corners + first)
        material_of.append(np.full(len(corners), len(materials)))
        normals.append(flat)
        uvs.append(uv)
        materials.append(material)
        first += len(part.vertices)
    if not faces:
        raise ValueError(f"{Path(path).name} holds no triangles.")
    points, corners = np.concatenate(vertices), np.concatenate(faces)
    normal = np.concatenate(normals)
    if rotation is not None:
        points, normal = points @ rotation.T, normal @ rotation.T
    used = points[np.unique(corners)]
    low, extent = used.min(0), np.maximum(np.ptp(used, axis=0), 1e-9)
    stretch = np.asarray(size_m) / extent
    points = (points - low - extent * (0.5, 0, 0.5)) * stretch
    normal = normal / stretch
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-20)
    to_z_up = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    return Mesh(
        (points @ to_z_up.T).astype(np.float32),
        corners,
        np.concatenate(material_of),
        (normal @ to_z_up.T).astype(np.float32),
        np.nan_to_num(np.concatenate(uvs)).astype(np.float32),
        materials,
    )


def _material(part) -> tuple[Material, float]:
    """Return the material of a trimesh part and its opacity in 0..1."""
    source = getattr(part.visual, "material", None)
    if source is None:
        return Material(np.full(3, 0.7, np.float32)), 1.0
    rgb = np.asarray(source.diffuse[:3], np.float32) / 255
    opacity = 1.0
    extra = getattr(source, "kwargs", {})
    try:
        opacity = float(np.ravel(extra.get("d", [1.0]))[0])
    except (TypeError, ValueError):
        pass  # a damaged number in the file: the surface counts as opaque
    image = getattr(source, "image", None)
    if image is None:
        return Material(rgb), opacity
    image = image.convert("RGBA")
    image.thumbnail((512, 512))
    return Material(rgb, np.asarray(image, np.float32) / 255), opacity


def surface_colours(mesh: Mesh, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Look up colours on the surface.

    Args:
        mesh: the mesh.
        face: [N] int, the triangle each point lies on.
        weights: [N, 3] float, the point's barycentric weights.

    Returns:
        [N, 4] float32: red, green, blue, opacity in 0..1.
    """
    colours = np.ones((len(face), 4), np.float32)
    owner = mesh.material_of[face]
    for index in np.unique(owner):
        chosen, material = owner == index, mesh.materials[index]
        if material.texture is None:
            colours[chosen, :3] = material.rgb
            continue
        uv = (mesh.uv[face[chosen]] * weights[chosen, :, None]).sum(1) % 1.0
        height, width = material.texture.shape[:2]
        column = np.minimum((uv[:, 0] * width).astype(int), width - 1)
        row = np.minimum(((1 - uv[:, 1]) * height).astype(int), height - 1)
        colours[chosen] = material.texture[row, column]
    return colours


def sample_points(mesh: Mesh, count: int, seed: int) -> np.ndarray:
    """Draw coloured points from the surface, uniformly by area.

    Args:
        mesh: the mesh.
        count: how many points, P.
        seed: of the random choice.

    Returns:
        [P, 6] float32: x, y, z in metres and red, green, blue in 0..1.
    """
    random = np.random.default_rng(seed)
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    draws = count * (4 if any(material.has_holes for material in mesh.materials) else 1)
    face = random.choice(len(area), draws, p=area / area.sum())
    root, other = np.sqrt(random.random(draws)), random.random(draws)
    weights = np.stack([1 - root, root * (1 - other), root * other], 1)
    colours = surface_colours(mesh, face, weights)
    solid = np.flatnonzero(colours[:, 3] >= 0.5)
    kept = np.resize(solid if len(solid) else np.arange(draws), count)
    xyz = (mesh.vertices[mesh.faces[face[kept]]] * weights[kept, :, None]).sum(1)
    return np.concatenate([xyz, colours[kept, :3]], 1).astype(np.float32)


def render_scale(mesh: Mesh) -> float:
    """Return the factor that brings the mesh's radius into the range millimetres can hold well."""
    radius_m = np.linalg.norm(np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0)) / 2
    return float(np.clip(radius_m, MIN_RADIUS_M, MAX_RADIUS_M) / radius_m)


def is_flat(mesh: Mesh) -> bool:
    """Return whether the mesh lies as flat as a rug; on a floor it would hardly show in depth."""
    extent = np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0)
    return bool(extent[2] < 0.1 * max(extent[:2]))


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
