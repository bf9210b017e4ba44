"""Build the point, depth, normal and video items from Debian's ``sweethome3d-furniture`` (820 named models).

Every model is an object with a short name, a noun where at least four objects share one, and a group: models
that differ only in colour, size or variant share it, and a group never crosses the split. Pictures, depth and
normal maps are rendered by ``train.small.corpus.render``.

Source: Sweet Home 3D's furniture libraries 1.8, CC0-1.0 and CC-BY-3.0; creators are named in each item.
"""

import io
import os
import re
import tempfile
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onellm.utils import atomic
from train.small.corpus import meshes, render
from train.small.corpus.lists import write_items as write_list

POINTS = 8192
HELD_OUT_VIEWS = (0, 2, 4, 6)
LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Reallusion": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
}
_MIN_OBJECTS, _MIN_TRAIN_GROUPS = 4, 4

# Catalogue name, or model id after "=": the name people would use, where the catalogue's is another.
RENAMED = (Path(__file__).parent / "furniture_names.txt").read_text(encoding="utf-8")
# noun: words a fair judge accepts for all of its objects: patterns of whole names, divided by "|".
# The first noun that matches wins. Words after "/" are accepted for that pattern only.
NOUNS = (Path(__file__).parent / "furniture_nouns.txt").read_text(encoding="utf-8")
_SOCKETS = {"rj45": "network socket", "antenna": "antenna socket"}
_PLATES = re.compile(r"plug|switch|rj-?45|antenna|dimmer", re.I)
_ONE_GROUP = ("wall plate", "stationnement", "billet", "fleche", "conceptsedan")
_MISLEADING_ENDS = {
    *"can strip unit machine maker press system head roll stand stall control player paper".split(),
    *("hot dog", "clothes horse"),
}


@dataclass
class Thing:
    """One model of the catalogue and what the corpus says about it."""

    id: str
    library: str
    model: str
    name: str
    size_m: tuple[float, float, float]
    rotation: np.ndarray | None
    creator: str
    noun: str | None = None
    accept: list[str] = field(default_factory=list)
    group: str = ""
    split: str = "train"


def read_catalogue(source: Path) -> list[Thing]:
    """List the models of the package.

    Args:
        source: the unpacked package, or the folder its ``.sh3f`` files lie in.

    Returns:
        The models in a fixed order, with names, nouns and accepted words.

    Raises:
        FileNotFoundError: the folder holds no ``.sh3f`` files.
    """
    files = sorted(Path(source).rglob("*.sh3f"))
    if not files:
        raise FileNotFoundError(
            f"{source} holds no .sh3f files; unpack Debian's sweethome3d-furniture there (dpkg-deb -x)."
        )
    renamed = dict(_rows(RENAMED))
    things = []
    for file in files:
        with zipfile.ZipFile(file) as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("unicode_escape")
        entries: dict[int, dict[str, str]] = defaultdict(dict)
        for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.M):
            entries[int(number)][key] = value.strip()
        things += [_thing(file.stem, entries[number], renamed) for number in sorted(entries)]
    _assign_nouns(things)
    return things


def _rows(table: str) -> list[tuple[str, str]]:
    return [tuple(part.strip() for part in cell.rsplit(": ", 1)) for cell in re.split(r"[|\n]", table) if cell.strip()]


def _thing(library: str, entry: dict[str, str], renamed: dict[str, str]) -> Thing:
    model = entry["model"].lstrip("/")
    stem = Path(model).stem
    name = entry["name"].lower().replace(" - ", " ")
    for key in (f"={library.lower()}/{stem}", f"={stem}", entry["name"].lower()):
        if key in renamed:
            name = renamed[key]
            break
    name = re.sub(r"^(rounded|square|wall) (?=.*(plug|switch))", "", name)
    name = re.sub(r"^(type \w|rj45|antenna) plug$", lambda m: _SOCKETS.get(m[1], "wall socket"), name)
    name = re.sub(r"^(double )?switch$", r"\1light switch", name)
    if name == "bamboo" and "Plant" in entry.get("tags", ""):
        name = "bamboo plant"
    elif name == "bamboo":
        name = "bamboo tree"
    rotation = entry.get("modelRotation")
    return Thing(
        id=f"{library}_{stem}".lower().replace("'", ""),
        library=library,
        model=model,
        name=name,
        size_m=tuple(float(entry[side]) / 100 for side in ("width", "height", "depth")),
        rotation=np.array(rotation.split(), float).reshape(3, 3) if rotation else None,
        creator=entry.get("creator", ""),
    )


def _assign_nouns(things: list[Thing]) -> None:
    rows = [[part.strip() for part in line.split(":", 2)] for line in NOUNS.strip().splitlines()]
    for thing in things:
        last = re.split(r" with | on ", thing.name)[0].split()[-1]
        accept = [thing.name] + [last] * (last not in _MISLEADING_ENDS and thing.name not in _MISLEADING_ENDS)
        matched = None
        for noun, words, patterns in rows:
            cells = [cell.split("/") for cell in patterns.split("|")] if matched in (None, noun) else []
            cells = [cell for cell in cells if re.fullmatch(cell[0], thing.name)]
            if cells:
                matched = noun
                accept += [word.strip() for word in words.split(",") if word.strip()]
                accept += [word for cell in cells for word in cell[1:]]
        thing.noun = None if matched == "null" else matched
        if thing.noun == "table" and "desk" in thing.id:
            accept.append("desk")
        thing.accept = list(dict.fromkeys(accept))
    counts = defaultdict(int)
    for thing in things:
        counts[thing.noun] += 1
    for thing in things:
        if counts[thing.noun] < _MIN_OBJECTS:
            thing.noun = None


@dataclass
class Shape:
    """What near-duplicates share: vertex and face counts, and the box's sorted sides over the longest."""

    vertices: int
    faces: int
    box: np.ndarray


def read_shape(blob: bytes) -> Shape:
    """Measure the text of an OBJ file."""
    lines = re.findall(rb"^v[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)", blob, re.M)
    points = np.array(lines, dtype="S24").astype(float).reshape(-1, 3)
    box = np.sort(np.ptp(points, axis=0)) if len(points) else np.ones(3)
    return Shape(len(points), blob.count(b"\nf "), box / max(box[-1], 1e-9))


def family(thing: Thing) -> str:
    """Return the part of a model's id its variants share: letters only, without pose and size words."""
    stem = Path(thing.model).stem
    if thing.library == "Reallusion":  # one character stands, sits, lies and holds things
        return re.sub(r"(holding|sit|lyingDown|Standing|Sitting|Lying|Ground|Table)", "", stem).lower()
    if _PLATES.search(stem):
        return "wall plate"
    if stem.startswith(("stationnement", "billet", "fleche")):
        return stem.split("-")[0]
    return re.sub(r"[^a-z]|sport|textured?$|_?big$", "", stem.lower())


def assign_groups(things: list[Thing], shapes: list[Shape]) -> None:
    """Give models that differ only in colour, size, pose or variant the same ``group``."""
    parent = list(range(len(things)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    families = [(thing.library, family(thing)) for thing in things]
    for one in range(len(things)):
        for other in range(one):
            a, b = shapes[one], shapes[other]
            near = np.abs(a.box - b.box).max() < 0.05
            same_counts = (a.vertices, a.faces) == (b.vertices, b.faces)
            kin = families[one] == families[other]
            always = kin and (things[one].library == "Reallusion" or families[one][1] in _ONE_GROUP)
            if always or (same_counts and a.vertices >= 100) or (kin and near):
                parent[root(one)] = root(other)
    for index, thing in enumerate(things):
        thing.group = things[root(index)].id


def assign_splits(things: list[Thing], seed: int = 0) -> None:
    """Hold out about 10% (dev) and 15% (test) of each noun's objects; four groups stay in training."""
    random = np.random.default_rng(seed)
    members: dict[str, list[Thing]] = defaultdict(list)
    for thing in things:
        members[thing.group].append(thing)
    groups: dict[str, list[str]] = defaultdict(list)
    for group in sorted(members):  # a group of several nouns, or of none, stays in training
        nouns = {thing.noun for thing in members[group]}
        if len(nouns) == 1 and None not in nouns:
            groups[nouns.pop()].append(group)
    split_of: dict[str, str] = {}
    for noun in sorted(groups):
        order = [groups[noun][index] for index in random.permutation(len(groups[noun]))]
        total = sum(len(members[group]) for group in order)
        spare = len(order) - _MIN_TRAIN_GROUPS
        for split, share in (("test", 0.15), ("dev", 0.1)):
            wanted = max(round(share * total), 1)
            for group in order:
                if spare > 0 and group not in split_of and len(members[group]) <= wanted:
                    split_of[group] = split
                    spare, wanted = spare - 1, wanted - len(members[group])
    for thing in things:
        thing.split = split_of.get(thing.group, "train")


def write_items(things: list[Thing], out: Path) -> None:
    """Write ``point.jsonl``, ``depth.jsonl``, ``normal.jsonl`` and ``video.jsonl``."""
    rows: dict[str, list[dict]] = {kind: [] for kind in ("point", "depth", "normal", "video")}
    for thing in things:
        common = {
            "name": thing.name,
            "noun": thing.noun,
            "accept": thing.accept,
            "caption": None,
            "group": thing.group,
            "split": thing.split,
            "source": f"sweethome3d-furniture 1.8, {thing.library}, {thing.creator}",
            "licence": LICENCES.get(thing.library, "CC-BY-3.0"),
        }
        point = {"id": thing.id, "kind": "point", "file": f"point/{thing.id}.npy"}
        rows["point"].append(point | common)
        frames = [f"picture/{thing.id}_{view}.jpg" for view in range(render.VIEWS)]
        rows["video"].append({"id": thing.id, "kind": "video", "file": None, "frames": frames} | common)
        for view in range(render.VIEWS) if thing.split == "train" else HELD_OUT_VIEWS:
            for kind in ("depth", "normal"):
                name = f"{thing.id}_{view}"
                head = {"id": name, "kind": kind, "file": f"{kind}/{name}.png", "picture": frames[view]}
                rows[kind].append(head | common)
    for kind, items in rows.items():
        write_list(out / f"{kind}.jsonl", items)


def _open_mesh(thing: Thing, archive: zipfile.ZipFile) -> meshes.Mesh:
    folder = thing.model.rsplit("/", 1)[0] + "/"
    with tempfile.TemporaryDirectory() as scratch:
        archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(folder)])
        return meshes.load_mesh(Path(scratch) / thing.model, thing.size_m, thing.rotation)


def make_points(thing: Thing, index: int, archive: zipfile.ZipFile, out: Path) -> None:
    """Write an object's point cloud, [POINTS, 6] float16, unless it is there."""
    file = out / "point" / f"{thing.id}.npy"
    if not file.exists():
        buffer = io.BytesIO()
        np.save(buffer, meshes.sample_points(_open_mesh(thing, archive), POINTS, index).astype(np.float16))
        atomic.write(file, buffer.getvalue())


def make_views(thing: Thing, index: int, archive: zipfile.ZipFile, out: Path, views: range) -> None:
    """Render those of an object's views that are not there; half of them on a floor, flat things never."""
    names = {view: f"{thing.id}_{view}" for view in views}
    missing = [view for view in views if not (out / "picture" / f"{names[view]}.jpg").exists()]
    if not missing:
        return
    mesh = _open_mesh(thing, archive)
    mesh.vertices *= np.float32(render.render_scale(mesh))
    angles = render.view_angles(mesh, index)
    can_stand = not meshes.is_flat(mesh)
    for floor in (False, True):
        chosen = [view for view in missing if (can_stand and (view // 2 + index) % 2 == 1) == floor]
        renderer = render.Renderer(mesh, floor=floor) if chosen else None
        for view in chosen:
            render.save_render(
                renderer.view(*angles[view]),
                out / "depth" / f"{names[view]}.png",
                out / "normal" / f"{names[view]}.png",
                out / "picture" / f"{names[view]}.jpg",
            )


def build(out: Path, source: Path) -> None:
    """Build everything that comes from the furniture; what is already there is kept.

    The item lists are written first, then point clouds, then views 0, 2, 4, 6 of every object, then the
    others, so that training can begin meanwhile.

    Args:
        out: the corpus folder.
        source: the unpacked ``sweethome3d-furniture`` package.

    Raises:
        FileNotFoundError: the source holds no ``.sh3f`` files.
    """
    from tqdm import tqdm

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for folder in ("point", "depth", "normal", "picture"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    things = read_catalogue(source)
    archives = {file.stem: zipfile.ZipFile(file) for file in sorted(Path(source).rglob("*.sh3f"))}
    shapes = [read_shape(archives[thing.library].read(thing.model)) for thing in tqdm(things, "shapes")]
    assign_groups(things, shapes)
    assign_splits(things)
    write_items(things, out)
    for index, thing in enumerate(tqdm(things, "point clouds")):
        make_points(thing, index, archives[thing.library], out)
    for title, views in (("even views", range(0, render.VIEWS, 2)), ("odd views", range(1, render.VIEWS, 2))):
        for index, thing in enumerate(tqdm(things, title)):
            make_views(thing, index, archives[thing.library], out, views)
