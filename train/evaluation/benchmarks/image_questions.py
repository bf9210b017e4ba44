"""Questions about images (table 1): GQA, VQAv2, OKVQA, TextVQA, ScienceQA-IMG, VizWiz."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from train.evaluation import metrics, prompts, readers, submission
from train.evaluation.benchmark import Benchmark, Question, Split

COCO_VAL = "val2014/COCO_val2014_{:012d}.jpg"
COCO_TEST = "test2015/COCO_test2015_{:012d}.jpg"
VQA_TEST = "v2_OpenEnded_mscoco_{}_questions.json"


def gqa(root: Path, file: str) -> Iterator[Question]:
    """Read a GQA question file: id -> `imageId`, `question`, `answer`."""
    for number, item in readers.read_json(root / file).items():
        yield Question(
            id=number,
            files=[{"type": "image", "path": root / "images" / f"{item['imageId']}.jpg"}],
            text=prompts.short(item["question"]),
            answers=[item["answer"]],
            category=item.get("types", {}).get("structural", ""),
        )


def text_vqa(root: Path) -> Iterator[Question]:
    """Read TextVQA's `data`: `question_id`, `image_id`, `question`, `answers` of 10 people."""
    for item in readers.read_json(root / "TextVQA_0.5.1_val.json")["data"]:
        yield Question(
            id=str(item["question_id"]),
            files=[{"type": "image", "path": root / "train_images" / f"{item['image_id']}.jpg"}],
            text=prompts.short(item["question"]),
            answers=item["answers"],
        )


def science_qa(root: Path, split: str) -> Iterator[Question]:
    """Read the ScienceQA questions of a split that have an image; the hint comes before the question."""
    problems = readers.read_json(root / "problems.json")
    for number in readers.read_json(root / "pid_splits.json")[split]:
        item = problems[number]
        if item["image"]:
            yield Question(
                id=number,
                files=[{"type": "image", "path": root / "images" / split / number / item["image"]}],
                text=prompts.letter(item["question"], item["choices"], item["hint"]),
                answers=[prompts.LETTERS[item["answer"]]],
                category=item["subject"],
                info={"options": item["choices"]},
            )


def vizwiz(root: Path, split: str) -> Iterator[Question]:
    """Read VizWiz-VQA: a list of `image`, `question`, `answers` of `answer`."""
    for item in readers.read_json(root / "Annotations" / f"{split}.json"):
        yield Question(
            id=item["image"],
            files=[{"type": "image", "path": root / split / item["image"]}],
            text=prompts.short_or_unanswerable(item["question"]),
            answers=[answer["answer"] for answer in item.get("answers", [])],
            category=item.get("answer_type", ""),
        )


def _vqav2_test(name: str) -> Split:
    """Declare a test split of VQAv2, which only the server scores."""
    file = VQA_TEST.format(name)
    return Split(partial(readers.vqa, questions=file, images=COCO_TEST), (file, "test2015"), scored=False)


def _vqa_val(questions: str, annotations: str) -> Split:
    """Declare a split over COCO's val2014 in VQA's layout."""
    read = partial(readers.vqa, questions=questions, annotations=annotations, images=COCO_VAL)
    return Split(read, (questions, annotations, "val2014"))


BENCHMARKS = [
    Benchmark(
        "gqa", "GQA", "T1", "gqa",
        {
            split: Split(partial(gqa, file=file), (file, "images"))
            for split, file in (("testdev", "testdev_balanced_questions.json"), ("val", "val_balanced_questions.json"))
        },
        metrics.per_question(accuracy=metrics.exact),
        {"accuracy": 59.5}, best=("LLaVA-v1.5-7B", 62.0),
        url="https://cs.stanford.edu/people/dorarad/gqa",
    ),
    Benchmark(
        "vqav2", "VQAv2", "T1", "coco",
        {
            "val": _vqa_val("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
            "test-dev": _vqav2_test("test-dev2015"),
            "test": _vqav2_test("test2015"),
        },
        metrics.per_question(accuracy=metrics.vqa),
        {"accuracy": 71.6}, best=("LLaVA-v1.5-7B", 78.5), submit=submission.vqa,
        url="https://visualqa.org/download.html",
    ),
    Benchmark(
        "okvqa", "OKVQA", "T1", "coco",
        {"val": _vqa_val("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json")},
        metrics.per_question(accuracy=metrics.vqa),
        {"accuracy": 58.9}, best=("Qwen-VL", 56.6),
        url="https://okvqa.allenai.org",
    ),
    Benchmark(
        "textvqa", "TextVQA", "T1", "textvqa",
        {"val": Split(text_vqa, ("TextVQA_0.5.1_val.json", "train_images"))},
        metrics.per_question(accuracy=metrics.text_vqa),
        {"accuracy": 34.0}, best=("Qwen-VL", 61.5),
        url="https://textvqa.org/dataset",
    ),
    Benchmark(
        "sqa", "SQA", "T1", "scienceqa",
        {
            split: Split(partial(science_qa, split=split), ("problems.json", "pid_splits.json", f"images/{split}"))
            for split in ("test", "val")
        },
        metrics.per_question(accuracy=metrics.choice),
        {"accuracy": 63.4}, best=("AnyMAL-70B", 70.8),
        url="https://scienceqa.github.io",
    ),
    Benchmark(
        "vizwiz", "VizWiz", "T1", "vizwiz",
        {
            "val": Split(partial(vizwiz, split="val"), ("Annotations/val.json", "val")),
            "test": Split(partial(vizwiz, split="test"), ("Annotations/test.json", "test"), scored=False),
        },
        metrics.per_question(accuracy=metrics.vqa),
        {"accuracy": 45.9}, best=("LLaVA-v1.5-7B", 50.0), submit=submission.vizwiz,
        url="https://vizwiz.org/tasks-and-datasets/vqa",
    ),
]  # fmt: skip
