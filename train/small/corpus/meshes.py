"""Textured meshes: loading them at their real size, colours and points on their surface.

World frame: metres, z up.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

SEE_THROUGH = 0.1  # materials and texels less opaque than this, as a share of 1, are holes


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
        if opacity < SEE_THROUGH:
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


def is_flat(mesh: Mesh) -> bool:
    """Return whether the mesh lies as flat as a rug; on a floor it would hardly show in depth."""
    extent = np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0)
    return bool(extent[2] < 0.1 * max(extent[:2]))
