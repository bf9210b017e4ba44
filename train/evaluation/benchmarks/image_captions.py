"""Captions of images (table 1): NoCaps, Flickr30K."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from train.evaluation import prompts, readers, submission
from train.evaluation.benchmark import Benchmark, Question, Split
from train.evaluation.captions import captions

PROMPT = prompts.caption("image")


def nocaps_image(root: Path, item: dict, split: str) -> dict:
    """Return the part of an image of nocaps."""
    return {"type": "image", "path": root / split / item["file_name"]}


def flickr30k(root: Path) -> Iterator[Question]:
    """Read the test images of Karpathy's split: `images` of `filename`, `split`, `sentences` of `raw`."""
    for item in readers.read_json(root / "dataset_flickr30k.json")["images"]:
        if item["split"] == "test":
            yield Question(
                id=str(item["imgid"]),
                files=[{"type": "image", "path": root / "flickr30k-images" / item["filename"]}],
                text=PROMPT,
                answers=[sentence["raw"] for sentence in item["sentences"]],
            )


def _nocaps(split: str, file: str, scored: bool) -> Split:
    """Declare a split of nocaps, in COCO's layout."""
    find = partial(nocaps_image, split=split)
    return Split(
        partial(readers.coco_captions, annotations=file, file=find, prompt=PROMPT), (file, split), scored=scored
    )


BENCHMARKS = [
    Benchmark(
        "nocaps", "NoCaps", "T1", "nocaps",
        {
            "val": _nocaps("val", "nocaps_val_4500_captions.json", True),
            "test": _nocaps("test", "nocaps_test_image_info.json", False),
        },
        captions(),
        {"CIDEr": 115.9}, best=("InstructBLIP (Vicuna-7B)", 123.1), submit=submission.captions,
        url="https://nocaps.org/download",
    ),
    Benchmark(
        "flickr30k", "Flickr30K", "T1", "flickr30k",
        {"test": Split(flickr30k, ("dataset_flickr30k.json", "flickr30k-images"))},
        captions(),
        {"CIDEr": 78.6}, best=("InstructBLIP (Vicuna-13B)", 82.8),
        url="https://cs.stanford.edu/people/karpathy/deepimagesent",
    ),
]  # fmt: skip
