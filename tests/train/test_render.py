import json

import numpy as np
import pytest
from PIL import Image

from train.small.corpus import furniture, meshes, render

CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0, 1)], np.float32)
CUBE_FACES = np.array(
    [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [1, 5, 7],
        [1, 7, 3],
    ]
    + [[0, 2, 6], [0, 6, 4]]
)


@pytest.fixture(scope="module")
def cube():
    return meshes.plain_mesh(CUBE, CUBE_FACES, (0.8, 0.2, 0.2))


def test_cube_from_the_front(cube):
    view = render.Renderer(cube).view(0, 0, size_px=101)
    seen = view.depth_m > 0
    camera = render.frame_camera(cube.vertices, 0, 0)
    front_m = -0.5 - camera.position[1]
    assert view.depth_m[seen] == pytest.approx(front_m, abs=1e-4)  # the face is flat: depth, not distance
    assert seen.any(0).mean() == pytest.approx(render.FILL, abs=0.03)
    assert not view.depth_m[0].any()
    np.testing.assert_allclose(view.normal[seen], [[0, 0, 1]] * seen.sum(), atol=1e-5)
    assert tuple(render.encode_normal(view.normal)[50, 50]) == (128, 128, 255)
    assert tuple(render.encode_normal(view.normal)[0, 0]) == (0, 0, 0)
    red, green, _ = view.picture[50, 50]
    assert red > 3 * green


def test_cube_from_above_and_the_side(cube):
    view = render.Renderer(cube).view(45, 35, size_px=101)
    column = view.normal[:, 50]
    top = column[column.any(-1)][0]
    np.testing.assert_allclose(top, [0, np.cos(np.deg2rad(35)), np.sin(np.deg2rad(35))], atol=1e-4)
    middle = view.normal[60]
    assert middle[middle.any(-1)][0, 0] < -0.5  # the left face looks left
    assert middle[middle.any(-1)][-1, 0] > 0.5
    nearest = view.depth_m[view.depth_m > 0].min()
    assert view.depth_m[60, 50] < nearest + 0.2


def test_flipped_faces_still_face_the_viewer(cube):
    flipped = meshes.plain_mesh(CUBE, CUBE_FACES[:, ::-1])
    one = render.Renderer(cube).view(20, 20, size_px=32)
    other = render.Renderer(flipped).view(20, 20, size_px=32)
    np.testing.assert_allclose(one.normal, other.normal, atol=1e-5)
    assert (one.normal[one.depth_m > 0][:, 2] > 0).all()


def test_floor_lies_under_the_cube(cube):
    view = render.Renderer(cube, floor=True).view(0, 30, size_px=64)
    assert (view.depth_m > 0).sum() > (render.Renderer(cube).view(0, 30, size_px=64).depth_m > 0).sum()
    np.testing.assert_allclose(view.normal[63, 32, 1], np.cos(np.deg2rad(30)), atol=1e-3)


def test_points_lie_on_the_surface_in_its_colour(cube):
    points = meshes.sample_points(cube, 600, seed=1)
    assert points.shape == (600, 6)
    off_centre = np.abs(points[:, :3] - [0, 0, 0.5]).max(1)
    np.testing.assert_allclose(off_centre, 0.5, atol=1e-5)
    np.testing.assert_allclose(points[:, 3:], [[0.8, 0.2, 0.2]] * 600, atol=1e-6)
    share = np.bincount((np.abs(points[:, :3] - [0, 0, 0.5]) > 0.4999).argmax(1), minlength=3) / 600
    assert share == pytest.approx(1 / 3, abs=0.08)


def test_texture_holes_are_passed_through(cube):
    texture = np.ones((2, 2, 4), np.float32)
    texture[..., 3] = 0
    front = meshes.plain_mesh(CUBE + [0, -2, 0], CUBE_FACES)
    front.materials = [meshes.Material(np.ones(3, np.float32), texture)]
    both = meshes.Mesh(
        np.concatenate([front.vertices, cube.vertices]),
        np.concatenate([front.faces, cube.faces + len(CUBE)]),
        np.repeat([0, 1], len(CUBE_FACES)),
        np.concatenate([front.normals, cube.normals]),
        np.concatenate([front.uv, cube.uv]),
        front.materials + cube.materials,
    )
    view = render.Renderer(both).view(0, 0, size_px=33)
    camera = render.frame_camera(both.vertices, 0, 0)
    assert view.depth_m[16, 16] == pytest.approx(-0.5 - camera.position[1], abs=1e-3)


def test_loading_stretches_and_turns_z_up(tmp_path):
    file = tmp_path / "box.obj"
    lines = [f"v {x} {y} {z}" for x, y, z in CUBE] + [f"f {a} {b} {c}" for a, b, c in CUBE_FACES + 1]
    file.write_text("\n".join(lines))
    mesh = meshes.load_mesh(file, size_m=(1.0, 2.0, 3.0))
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), [1, 3, 2], atol=1e-5)
    assert mesh.vertices[:, 2].min() == pytest.approx(0, abs=1e-6)


def test_saved_maps_keep_millimetres_and_unknown(cube, tmp_path):
    view = render.Renderer(cube).view(30, 20, size_px=48)
    files = [tmp_path / name for name in ("depth.png", "normal.png", "picture.jpg")]
    render.save_render(view, *files)
    depth = np.asarray(Image.open(files[0])).astype(float) / 1000
    np.testing.assert_allclose(depth, view.depth_m, atol=6e-4)
    normal = np.asarray(Image.open(files[1])).astype(float) / 255 * 2 - 1
    seen = view.depth_m > 0
    np.testing.assert_allclose(normal[seen], view.normal[seen], atol=0.01)
    assert (normal[~seen] == -1).all()
    assert Image.open(files[2]).size == (48, 48)


def made_up(count=60):
    things, shapes = [], []
    for index in range(count):
        noun = ("chair", "table", None)[index % 3]
        thing = furniture.Thing(
            f"lib_thing{index}",
            "Lib",
            f"lib/t/{noun}{index}.obj",
            noun or "odd",
            (1, 1, 1),
            None,
            "someone",
            noun,
        )
        things.append(thing)
        # Every seventh model repeats its forerunner's geometry, three earlier: the same noun.
        same = index - 3 if index % 7 == 0 and index >= 3 else index
        sides = np.random.default_rng(same).random(3)
        shapes.append(furniture.Shape(1000 + same, 2000 + same, np.sort(sides / sides.max())))
    return things, shapes


def test_no_group_crosses_the_split():
    things, shapes = made_up()
    furniture.assign_groups(things, shapes)
    furniture.assign_splits(things)
    splits = {}
    for thing in things:
        splits.setdefault(thing.group, set()).add(thing.split)
    assert len(splits) < len(things)
    assert all(len(found) == 1 for found in splits.values())
    assert things[7].group == things[4].group
    for noun in ("chair", "table"):
        found = [thing.split for thing in things if thing.noun == noun]
        assert {"train", "dev", "test"} <= set(found)
        assert len({thing.group for thing in things if thing.noun == noun and thing.split == "train"}) >= 4
    assert all(thing.split == "train" for thing in things if thing.noun is None)


def test_split_is_the_same_every_time():
    runs = []
    for _ in range(2):
        things, shapes = made_up()
        furniture.assign_groups(things, shapes)
        furniture.assign_splits(things)
        runs.append([thing.split for thing in things])
    assert runs[0] == runs[1]


def test_item_lists(tmp_path):
    things, shapes = made_up(30)
    furniture.assign_groups(things, shapes)
    furniture.assign_splits(things)
    furniture.write_items(things, tmp_path)
    rows = {
        modality: [json.loads(line) for line in (tmp_path / f"{modality}.jsonl").read_text().splitlines()]
        for modality in ("point", "depth", "normal", "video")
    }
    assert len(rows["point"]) == len(rows["video"]) == len(things)
    held_out = sum(thing.split != "train" for thing in things)
    assert len(rows["depth"]) == len(rows["normal"]) == 8 * (len(things) - held_out) + 4 * held_out
    assert rows["depth"][0]["picture"] == "picture/lib_thing0_0.jpg"
    assert len(rows["video"][0]["frames"]) == 8


def test_names_and_accepted_words(tmp_path):
    import zipfile

    entries = [("Hot dog", "hotDog"), ("Female", "female01"), ("Sofa 2 seats", "sofa")] + [("Armchair", "a")] * 4
    lines = [
        f"name#{n}={name}\nmodel#{n}=/lib/{stem}{n}/{stem}{n}.obj\nwidth#{n}=50\ndepth#{n}=60\nheight#{n}=70"
        for n, (name, stem) in enumerate(entries, 1)
    ]
    with zipfile.ZipFile(tmp_path / "Lib.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join(lines))
    hot_dog, woman, sofa, *chairs = furniture.read_catalogue(tmp_path)
    assert hot_dog.name == "hot dog" and "dog" not in hot_dog.accept and "food" in hot_dog.accept
    assert woman.name == "woman" and "person" in woman.accept and woman.noun is None
    assert sofa.name == "two-seat sofa" and {"sofa", "couch"} <= set(sofa.accept)
    assert all(thing.noun == "chair" and thing.size_m == (0.5, 0.7, 0.6) for thing in chairs)
    with pytest.raises(FileNotFoundError, match="sweethome3d-furniture"):
        furniture.read_catalogue(tmp_path / "empty")
