"""Build the point, depth, normal and video items from Debian's ``sweethome3d-furniture`` (820 named models).

Every model is an object with a short name, a noun where at least four objects share one, and a group: models
that differ only in colour, size or variant share it, and a group never crosses the split. Pictures, depth and
normal maps are rendered by ``train.small.corpus.render``.

Source: Sweet Home 3D's furniture libraries 1.8, CC0-1.0 and CC-BY-3.0; creators are named in each item.
"""

from __future__ import annotations

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
from train.small.corpus import render
from train.small.corpus.items import write_items as write_list

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
RENAMED = """
acacia: acacia tree | air conditioning - external unit: air conditioner
air conditioning - internal unit: air conditioner | apple ibook: laptop | apple imac 1998: desktop computer
apple imac 2004: desktop computer | apple iphone: smartphone | armchair ottoman: ottoman
arrow straight ahead: road arrow | arrow turn right: road arrow | arrow turn right and ahead: road arrow
baby bed: cradle | barnum: canopy tent | basin: plastic basin | bath: bathtub
bended coconut tree: coconut tree | bike: children's bicycle | bill 10€: banknote | bill 20€: banknote
bill 50€: banknote | blue pine under snow: snowy pine tree | boiler: tea kettle | bootie: ankle boots
bowl with fruits: bowl of fruit | bowl with salad: bowl of salad | brush: toothbrush
bullet trash can: trash can | burlap sofa: sofa | camping lamp: camping lantern | car model: toy car
cctv: security camera | chandelier lamp: chandelier | chevrolet: car | child bed: children's bed
child chair: children's chair | child hut: playhouse with a slide | child swing: swing
children chair: children's chair | children game: playground slide | children table: children's table
class seat: classroom chair | clear sofa: sofa | clothes washing machine: washing machine
concept sedan 01: sedan car | concept sedan 02: sedan car | concept sedan 02 sport: sports car
cone: traffic cone | contemporary living room: wall unit | convertible sofa bz: sofa bed
copper beech: copper beech tree | cosmetics pot: cosmetics jar | cup cake: cupcake | cypress: cypress tree
dart game: dartboard | decorative plant: potted plant | desk table: desk
double french window 3 panes: double window | double french window small panes: double window
double vanity: bathroom vanity | double window 3 panes: double window | double window 4 panes: double window
double window with large pane: double window | drawers cabinet: cabinet with drawers
dryer machine: clothes dryer | dustbin: trash can | electronic scale: kitchen scale
emergency sign: emergency exit sign | entry bell ring: doorbell | entry speech unit: door intercom
espresso kettle: espresso pot | exterior door: front door | extinguisher: fire extinguisher | female: woman
ficus: ficus tree | fitness tower: home gym | flacon: perfume bottle | flipper: pinball machine
football table: table football | ford focus: car | fork lift: forklift | frame chambord: picture frame
frame hôi an: picture frame | full bookcase: bookcase | gaz water heater: gas water heater
glass door cabinet: cabinet with glass doors | hashtray: ashtray | high cabinet: tall kitchen cabinet
holding female: woman | holding male: man | hood: range hood | indoor bike: exercise bike
indoor plant: potted plant | induction cooker 2 zones: induction hob | induction cooker 4 zones: induction hob
inkjet printer and scanner: printer | island: kitchen island | island bath: bathtub
island extension: kitchen island | japanese maple: japanese maple tree | joystick: game controller
keyboard: electronic keyboard | knife stand: knife block | large fridge: fridge | large stove: stove
letters box: mailbox | lip stick: lipstick | little bank: bench | little lamp: table lamp
little plant: small potted plant | locked locker: locker | lower cabinet: kitchen cabinet
lower corner cabinet: corner cabinet | lying down boy: lying boy | lying down female: lying woman
lying down male: lying man | male: man | mannequin female: female mannequin | mannequin male: male mannequin
mezzanine bed: loft bed | milk: milk carton | mini stereo: stereo system | mixer: stand mixer
mocassin: moccasins | modern armchair: armchair | motorbike: spring rider | mower: lawn mower
mp3 base: music speaker | mp3 station: music speaker | number lock: combination lock
oil servers: oil and vinegar bottles | opened convertible sofa bz: sofa bed | osaka chair: chair
oval plate: plate | paper towel holder: paper towel roll | park trashcan: trash can
parking slot: parking space | parking slot 45°: parking space | parking slot 60°: parking space
parking slot 75°: parking space | parking slot 90°: parking space | peach blossom: peach tree
pedestrian railing: railing | penbox: pencil cup | peugeot 308 cc: car | pine: pine tree
pine under snow: snowy pine tree | plant box: planter box | plate, glass and cutlery: plate with cutlery
plate, glasses and cutlery: plate with cutlery | pool lounge: sun lounger | poplar: poplar tree
puff: beanbag | punching ball: punching bag | quadruple arched window: arched window
quadruple french window: wide window | quadruple french window 3 panes: wide window
quadruple french window small panes: wide window | rail crossing: railway crossing | reflex camera: camera
relax chair: lounge chair | renault scenic: car | residential trashcan: trash can | rigged fan: fan
round chimney: chimney | ryokan chair: floor chair | screen: folding screen | seat leon: car | short: shorts
shower head and faucet: shower head | sitting female: sitting woman | sitting male: sitting man
small lavatory: small sink | small lower cabinet: kitchen cabinet | small step ladder: step ladder
small upper cabinet: kitchen cabinet | smart car: small car | socket: sock | sofa 2 seats: two-seat sofa
sofa 3 seats: three-seat sofa | spathiphyllum: peace lily plant | spice tower: spice rack
stone grill device: table grill | sugar: sugar bowl | sycamore maple: maple tree
table tennis: table tennis table | tape: roll of tape | tatami: tatami mat | technical table: work table
teck chair: teak chair | television cabinet: tv cabinet | text marker: highlighter pen
toilet paper dispenser: toilet paper | toilets unit: toilet | triple french window: wide window
trunck: trunk | turn window: roof window | tv: television | tv 16:9: television
upper cabinet: kitchen cabinet | upper corner cabinet: corner cabinet | upper shelves cabinet: corner shelves
vanity: bathroom vanity | video projector: projector | vw new beetle: car | wall flat tv: wall television
wall lamp artwork: wall lamp | white board: whiteboard | winchester armchair: leather armchair
winchester sofa: leather sofa | wireless phone: cordless phone | woman shoes: women's shoes
wood bank: wooden bench | wood logs: firewood | wood toy: wooden toy | wooden alder table: wooden table
wooden teak table: wooden table | yamaha yzr r6: motorcycle | yucca: yucca plant | =bathroom4: sink
=blendswap-cc-by/boiler: tea kettle | =box_room: wooden box | =cafe_set_tonon_table: cafe table
=com_bath3: towel on a rack | =complements2: candle holder | =desk_table: glass table
=ext_chair: outdoor armchair | =katorlegaz/scooter: motor scooter | =keys: keys | =kids_desk_chair: desk chair
=kitchenTools: kitchen tools | =kitchen_tool1: serving spoon | =kitchen_tool2: ladle | =kitchen_tool3: spatula
=kitchen_tool4: spaghetti spoon | =lamp: table lamp | =lamp2: chandelier | =living_lamp: floor lamp
=livingroom_lamp1: table lamp | =medicoscopia_box: medicine box | =office-chair: office chair
=office_box: shelves with boxes | =office_chair: office chair | =office_furniture1: office cabinet
=scooter2: motor scooter | =scopia/scooter: kick scooter | =shovel: dustpan | =table_lamp: table lamp
=technicalTable1: work table | =technicalTable2: drafting table | =towel3: towel on a rack
=vase5: vase with dried flowers
"""

# noun: words a fair judge accepts for all of its objects: patterns of whole names, divided by "|".
# The first noun that matches wins. Words after "/" are accepted for that pattern only.
NOUNS = r"""
null: : wheelchair|garden hut|dog house|doll house|stone lantern|window blind|window shutter|diving board
null: : table tennis bat|towel rack|tv remote control|paper towel roll
null: washer: washing machine/laundry machine|clothes dryer/dryer/washing machine/tumble dryer
television: television, tv, screen: .*television
truck: truck, lorry, vehicle: truck
bus: bus, coach, vehicle: .*bus
motorcycle: motorcycle, motorbike, scooter, moped: motorcycle|motor scooter
ladder: ladder: .*ladder
clock: clock: .*clock
watch: watch: watch
ball: ball: basketball|soccer ball/football
swimming pool: pool: .*pool
rock: rock, stone, boulder: rock
column: column, pillar, post: porch column
umbrella: umbrella, parasol: umbrella
water heater: heater, boiler, tank: .*water heater
fireplace: fireplace, fire: fireplace|furnace/stove/wood stove/heater
banknote: banknote, bill, money, note: banknote
mailbox: mailbox, letterbox, post box: mailbox
range hood: hood, extractor: range hood
fan: fan: .*fan
kettle: kettle, teapot, pot: tea kettle|teapot
step: stairs, staircase, steps: spiral staircase|escalator
road marking: road, marking, sign: road arrow/arrow|parking space/parking
road marking: road, marking, sign: pedestrian crossing/crosswalk/zebra crossing
playground: playground: swing|playground slide/slide|playhouse with a slide/slide|seesaw
playground: playground: spring rider/motorcycle/toy
goal: goal: football goal/soccer goal
air conditioner: air conditioner, air conditioning: air conditioner
ashtray: ashtray, bowl: ashtray
candle: candle: candle|candle holder/lantern/lamp
knife block: knife, knives: knife block
gym: gym, exercise: home gym/weight machine|treadmill|punching bag
ottoman: ottoman, stool, seat: ottoman|beanbag/pouf
lounger: lounger, chair, seat: sun lounger
dresser: dresser, drawers, cabinet: dresser with drawers|locker
pen: pen, pencil, marker: pencil|highlighter pen|pencil cup
frame: frame, picture, painting: picture frame
game: game: card game/cards|chessboard/chess|dartboard/dart|pinball machine/arcade
glasses: glasses, eyeglasses: glasses|sunglasses
curtain: curtain, drape: .*curtain
stool: stool, seat: .*stool
sofa: sofa, couch, settee: .*sofa|.*couch|sofa bed/bed
chair: chair, armchair, seat: .*chair|chair with cushion
table: table: workbench/bench|table on trestles|table with tablecloth
bench: bench, seat: .*bench
bed: bed: .*bed|cradle/crib/cot|crib/cot/cradle|futon/mattress
desk: desk, table: (wooden )?desk
table: table: .*table|table football/foosball/football|pool table/billiard/snooker|bedside table/nightstand
table: table: dressing table/vanity
lamp: lamp, light, lantern: .*lamp|.*light|.*lights|.*spotlight|chandelier|fluorescent strip|.*lantern
lamp: lamp, light, lantern: flashlight/torch
lamp: lamp, light, lantern: classic lamppost/street lamp/lamp post|street light/streetlight
door: door: .*door|double door with panes/window
window: window: .*window.*
shelf: shelf, shelves, bookcase, bookshelf: bookcase|.*shelves|wall unit/cabinet/unit
shelf: shelf, shelves, bookcase, bookshelf: shelves with boxes/locker/cabinet
wardrobe: wardrobe, closet, cupboard, cabinet: wardrobe|cupboard
sink: sink, washbasin, basin: sink|.*sink|washbasin|.*vanity/vanity|sink cabinet/cabinet/cupboard
cabinet: cabinet, cupboard: .*cabinet.*|tv stand/television stand|kitchen island/island/counter
cabinet: cabinet, cupboard: office cabinet/bookcase
plant: plant: .*plant|bonsai tree/tree/bonsai|cactus|flower box/flowers|flowers|planter box|orchids/flower
plant: plant: tulips/flower
plant: plant: white lily/flower/lilies|flowers/flower/bouquet/vase
bush: bush, hedge, shrub: bush|hedge|high hedge
tree: tree: .*tree
car: car: .*car|suv|van
person: person, people, human: woman/lady|man|boy/child/kid|girl/child/kid|sitting woman|sitting man
person: person, people, human: lying woman
person: person, people, human: lying man|lying boy/child|sitting boy/child|sitting girl/child
person: person, people, human: female mannequin/woman
person: person, people, human: male mannequin/man
animal: animal: bulldog/dog/puppy|dog/puppy|cat/kitten|siamese cat|chicken/hen/bird|deer/stag/statue
animal: animal: horse/pony|rabbit/bunny
computer: computer: laptop/notebook|desktop computer/imac|tablet/ipad
bathtub: bathtub, bath, tub: .*bathtub|jacuzzi/hot tub/spa
toilet: toilet: toilet|urinal
musical instrument: instrument: .*piano|electronic keyboard/piano/synthesizer|electric guitar|xylophone
refrigerator: refrigerator, fridge, freezer: fridge|refrigerator|chest freezer
stove: stove, cooker, oven, range: cooker|cooktop/hob|.*oven|.*stove|induction hob/cooktop
stove: oven: microwave
coffee maker: coffee: coffee machine|coffee maker|coffee brewer|espresso pot/kettle/moka|coffee press
cup: cup, mug: coffee cup|coffee mug|cup|plastic cup
glass: glass, tumbler, cup: glass|beer glass|cocktail glass
bottle: bottle: .*bottle|oil and vinegar bottles/cruet
bowl: bowl: bowl|bowl of fruit/fruits|bowl of salad
plate: plate, dish: plate|plate with cutlery/place setting|tray
vase: vase, pot, jar, jug: vase.*|pottery|old jar/pitcher
utensil: utensil: fork/cutlery|knife/cutlery|kitchen knife|spoon/cutlery|serving spoon|ladle/spoon
utensil: utensil: spatula/turner|spaghetti spoon
utensil: utensil: kitchen tools/tools|utensils pot/pot
tool: tool: hammer|cutting pliers|drill/power drill|grinder|saw|screwdriver|shovel/spade|tape measure
radiator: radiator, heater: radiator
box: box, crate, chest: box|.* box|crate|chest|trunk|gift/present
trash can: trash, bin, garbage, dustbin, waste: .*trash can|recycling bin
shoe: shoe, boot, footwear: ankle boots|moccasins|slippers|sneakers/trainers|women's shoes/heels
clothes: clothes, clothing, garment: dress|folded clothes|hanging clothes/shirt|jacket/coat|shorts/pants|skirt
clothes: clothes, clothing, garment: suit/jacket
clothes: clothes, clothing, garment: trousers/pants|sock|glove|cap/hat|hat
towel: towel: towel|towel on a rack/rack
rug: rug, carpet, mat: bathmat|oriental rug|round carpet|doormat|tatami mat
fence: fence, railing, balustrade: fence|.*railing
food: food: apples|birthday cake|bread/loaf|butter|cupcake/cake|french fries/chips|hamburger/burger
food: food: hot dog/sausage
food: food: roasted chicken|steak/meat|sushi tray
toy: toy: biplane/plane/airplane|toy car|doll|teddy bear/bear|toy train|wooden toy/doll|puzzle|rubik's cube
toy: toy: rocking horse
phone: phone, telephone: smartphone/mobile|mobile phone|phone|cordless phone
camera: camera: camera|security camera|surveillance camera
stereo: stereo, speaker, radio, music: speaker|music speaker|stereo system|radio
stereo: stereo, speaker, radio, music: stereo amplifier/amplifier/receiver
bag: bag, luggage: backpack|briefcase|handbag/purse|suitcase
bicycle: bicycle, bike, cycle: bicycle|children's bicycle|tricycle|exercise bike
wall socket: socket, outlet, plug: .*socket
wall switch: switch: .*switch
"""
_SOCKETS = {"rj45": "network socket", "antenna": "antenna socket"}
_PLATES = re.compile(r"plug|switch|rj-?45|antenna|dimmer", re.I)
_ONE_GROUP = ("wall plate", "stationnement", "billet", "fleche", "conceptsedan")
_MISLEADING_ENDS = (
    *(
        "can",
        "strip",
        "unit",
        "machine",
        "maker",
        "press",
        "system",
        "head",
        "roll",
        "stand",
        "stall",
        "control",
    ),
    *("player", "paper", "hot dog", "clothes horse"),
)


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


def _open_mesh(thing: Thing, archive: zipfile.ZipFile) -> render.Mesh:
    folder = thing.model.rsplit("/", 1)[0] + "/"
    with tempfile.TemporaryDirectory() as scratch:
        archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(folder)])
        return render.load_mesh(Path(scratch) / thing.model, thing.size_m, thing.rotation)


def make_points(thing: Thing, index: int, archive: zipfile.ZipFile, out: Path) -> None:
    """Write an object's point cloud, [POINTS, 6] float16, unless it is there."""
    file = out / "point" / f"{thing.id}.npy"
    if not file.exists():
        buffer = io.BytesIO()
        np.save(buffer, render.sample_points(_open_mesh(thing, archive), POINTS, index).astype(np.float16))
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
    can_stand = not render.is_flat(mesh)
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
