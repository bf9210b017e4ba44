"""Point clouds (table 5), depth and normal maps (table 6): Objaverse, NYUv2, SUN RGB-D."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from train.evaluation import judge, media, metrics, prompts, readers, submission
from train.evaluation.benchmark import Benchmark, Question, Split
from train.evaluation.captions import captions

OBJAVERSE = "PointLLM_brief_description_val_200_GT.json"
NYU = "nyu_depth_v2_labeled.mat"
# nine scene types by name, every other of the 27 is the tenth class
NYU_CLASSES = (
    "bedroom", "kitchen", "living room", "bathroom", "dining room", "office", "home office", "classroom", "bookstore",
    "others",
)  # fmt: skip
SUN_SPLIT = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
SUN_CLASSES = (
    "bathroom", "bedroom", "classroom", "computer room", "conference room", "corridor", "dining area", "dining room",
    "discussion area", "furniture store", "home office", "kitchen", "lab", "lecture theatre", "library", "living room",
    "office", "rest space", "study space",
)  # fmt: skip


def objaverse(root: Path, prompt: str) -> Iterator[Question]:
    """Read PointLLM's 200 held-out objects: a list of `object_id`, `conversations` of question and caption."""
    for item in readers.read_json(root / OBJAVERSE):
        name = item["object_id"]
        yield Question(
            id=name,
            files=[{"type": "point", "path": root / "8192_npy" / f"{name}_8192.npy"}],
            text=prompt,
            answers=[item["conversations"][-1]["value"]],
            info={"question": prompt},
        )


def nyu(root: Path, modality: str) -> Iterator[Question]:
    """Read the 654 test frames of NYUv2: `sceneTypes` of the labelled file, `testNdxs` (from 1) of splits.mat."""
    import numpy as np
    from scipy.io import loadmat

    with media.open_hdf5(root / NYU) as file:
        references = np.asarray(file["sceneTypes"]).reshape(-1)
        types = ["".join(map(chr, np.asarray(file[reference]).reshape(-1))) for reference in references]
    for number in loadmat(root / "splits.mat")["testNdxs"].reshape(-1).tolist():
        name = types[number - 1].replace("_", " ")
        part = {"type": "normal", "path": root / "normal" / f"{number:04d}.png"}
        if modality == "depth":
            part = {"type": "depth", "make": partial(media.nyu_depth, root / NYU, number - 1)}
        yield _scene(f"{number:04d}", part, name if name in NYU_CLASSES else "others", NYU_CLASSES)


def sun(root: Path, modality: str) -> Iterator[Question]:
    """Read the test frames of SUN RGB-D that show one of its 19 common scenes: `scene.txt`, `depth_bfx` a folder."""
    from scipy.io import loadmat

    listed = loadmat(root / SUN_SPLIT, squeeze_me=True)["alltest"].reshape(-1)
    for line in listed:
        name = str(line).replace("\\", "/").partition("SUNRGBD/")[2].strip("/")
        folder = root / "SUNRGBD" / name
        scene = (folder / "scene.txt").read_text(encoding="utf-8").strip().replace("_", " ")
        if scene not in SUN_CLASSES:
            continue
        part = {"type": "normal", "path": folder / "normal.png"}
        if modality == "depth":
            maps = sorted((folder / "depth_bfx").glob("*.png")) or [folder / "depth_bfx" / "depth.png"]
            part = {"type": "depth", "make": partial(media.kinect_depth, maps[0])}
        yield _scene(name, part, scene, SUN_CLASSES)


def _scene(name: str, part: dict, scene: str, classes: tuple[str, ...]) -> Question:
    return Question(
        id=name,
        files=[part],
        text=prompts.scene(classes),
        answers=[scene],
        category=scene,
        info={"classes": list(classes)},
    )


def _scenes(name: str, title: str, folder: str, read, modality: str, needs: tuple[str, ...], paper: float, **numbers):
    """Declare the depth or the normal half of a scene benchmark."""
    return Benchmark(
        f"{name}-{modality}", f"{title} ({modality})", "T6", folder,
        {"test": Split(partial(read, modality=modality), needs)},
        metrics.per_question(accuracy=metrics.scene_class),
        {"accuracy": paper}, **numbers,
    )  # fmt: skip


NYU_NUMBERS = {
    "best": ("CLIP ViT-H on depth", 41.9), "tuned": ("Omnivore", 76.7),
    "url": "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
}  # fmt: skip
SUN_NUMBERS = {
    "best": ("CLIP ViT-H on depth", 25.4), "tuned": ("Omnivore", 64.9), "url": "https://rgbd.cs.princeton.edu",
}  # fmt: skip

BENCHMARKS = [
    Benchmark(
        "objaverse-cap", "Objaverse caption", "T5", "objaverse",
        {"val200": Split(partial(objaverse, prompt=prompts.caption("point cloud")), (OBJAVERSE, "8192_npy"))},
        captions("METEOR"),
        {"BLEU-1": 42.2, "ROUGE-L": 45.3, "METEOR": 20.3}, best=("InstructBLIP-13B on one view", 12.6),
        url="https://github.com/OpenRobotLab/PointLLM",
    ),
    Benchmark(
        "objaverse-cls", "Objaverse classification", "T5", "objaverse",
        {"val200": Split(partial(objaverse, prompt="What is this?"), (OBJAVERSE, "8192_npy"))},
        judge.judged(judge.OBJAVERSE),
        {"GPT accuracy": 44.5}, best=("PointLLM-7B", 47.5), submit=submission.objaverse,
        url="https://github.com/OpenRobotLab/PointLLM",
    ),
    _scenes("nyuv2", "NYUv2", "nyuv2", nyu, "depth", (NYU, "splits.mat"), 50.9, **NYU_NUMBERS),
    _scenes("nyuv2", "NYUv2", "nyuv2", nyu, "normal", (NYU, "splits.mat", "normal"), 46.5, **NYU_NUMBERS),
    _scenes("sunrgbd", "SUN RGB-D", "sunrgbd", sun, "depth", (SUN_SPLIT, "SUNRGBD"), 29.0, **SUN_NUMBERS),
    _scenes("sunrgbd", "SUN RGB-D", "sunrgbd", sun, "normal", (SUN_SPLIT, "SUNRGBD"), 21.2, **SUN_NUMBERS),
]  # fmt: skip
