"""Suites of image questions (table 1): MME, MMBench, MM-Vet, SEED-Bench."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from train.evaluation import judge, media, metrics, prompts, readers, submission
from train.evaluation.benchmark import Benchmark, BenchmarkError, Question, Split

MME_TASKS = (
    *metrics.PERCEPTION, "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip
PICTURES = (".jpg", ".png", ".jpeg")
ROTATION = 1_000_000  # MMBench's rotated copies of question i have the index i + n · 1,000,000


def mme(root: Path) -> Iterator[Question]:
    """Read MME: per picture a text file of two lines, question and Yes or No with a tab between.

    Pictures and texts of a task lie together, or in `images` and `questions_answers_YN`.
    """
    for task in MME_TASKS:
        folder = root / task
        texts = folder / "questions_answers_YN" if (folder / "questions_answers_YN").exists() else folder
        pictures = folder / "images" if (folder / "images").exists() else folder
        for file in sorted(texts.glob("*.txt")):
            named = [pictures / (file.stem + suffix) for suffix in PICTURES]
            picture = next((path for path in named if path.exists()), named[0])
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            for number, line in enumerate(lines):
                question, answer = line.rsplit("\t", 1)
                yield Question(
                    id=f"{task}/{file.stem}/{number}",
                    files=[{"type": "image", "path": picture}],
                    text=question.strip(),
                    answers=[answer.strip()],
                    group=f"{task}/{file.stem}",
                    category=task,
                    info={"file": picture.name},
                )


def mmbench(root: Path, file: str) -> Iterator[Question]:
    """Read MMBench: a row a question and rotation, its picture as base64, or as the index of the row that has it."""
    pictures: dict[str, str] = {}
    for row in readers.read_table(root / file, separator="\t"):
        if len(row["image"]) > 64:
            pictures[row["index"]] = row["image"]
        picture = pictures[row["index"] if len(row["image"]) > 64 else row["image"]]
        options = [row[letter] for letter in "ABCD" if row.get(letter) not in (None, "", "nan")]
        hint = row.get("hint") or ""
        yield Question(
            id=row["index"],
            files=[{"type": "image", "make": partial(media.encoded_picture, picture)}],
            text=prompts.letter(row["question"], options, "" if hint == "nan" else hint),
            answers=[row["answer"]] if row.get("answer") else [],
            group=str(int(row["index"]) % ROTATION),
            category=row["category"],
            info={"options": options, "row": {key: row.get(key) for key in submission.MMBENCH_COLUMNS}},
        )


def mm_vet(root: Path) -> Iterator[Question]:
    """Read MM-Vet: id -> `imagename`, `question`, `answer`, `capability`."""
    for number, item in readers.read_json(root / "mm-vet.json").items():
        yield Question(
            id=number,
            files=[{"type": "image", "path": root / "images" / item["imagename"]}],
            text=item["question"],
            answers=[item["answer"]],
            category=", ".join(sorted(item["capability"])),
            info={"question": item["question"]},
        )


def seed_bench(root: Path, split: str) -> Iterator[Question]:
    """Read SEED-Bench's questions about images, or about (parts of) videos."""
    content = readers.read_json(root / "SEED-Bench.json")
    names = {number: name for name, number in content["question_type"].items()}
    for item in content["questions"]:
        if item["data_type"] != split:
            continue
        path = root / f"SEED-Bench-{split}" / item["data_id"]
        options = [item[f"choice_{letter}"] for letter in "abcd"]
        part = {"type": split, "path": path}
        if split == "image" and not path.suffix:
            part = {"type": split, "make": partial(media.unnamed_picture, path)}
        elif item.get("segment"):
            part = {"type": split, "make": partial(media.video_clip, path, *map(float, item["segment"]))}
        yield Question(
            id=str(item["question_id"]),
            files=[part],
            text=prompts.letter(item["question"], options),
            answers=[item["answer"]],
            category=names[item["question_type_id"]],
            info={"options": options},
        )


def _mmbench_dev(root: Path) -> Iterator[Question]:
    """Read the dev split and make sure that it has answers."""
    for question in mmbench(root, "mmbench_dev_20230712.tsv"):
        if not question.answers:
            raise BenchmarkError("mmbench_dev_20230712.tsv has no column 'answer'; fetch it again.")
        yield question


BENCHMARKS = [
    Benchmark(
        "mme", "MME", "T1", "MME_Benchmark_release_version",
        {"test": Split(mme, metrics.PERCEPTION)},
        metrics.mme,
        {"perception": 1392.0}, best=("LLaVA-v1.5-7B", 1510.7), submit=submission.mme,
        url="https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation",
    ),
    Benchmark(
        "mmbench", "MMB", "T1", "mmbench",
        {
            "dev": Split(_mmbench_dev, ("mmbench_dev_20230712.tsv",)),
            "test": Split(
                partial(mmbench, file="mmbench_test_20230712.tsv"), ("mmbench_test_20230712.tsv",), scored=False
            ),
        },
        metrics.circular,
        {"accuracy": 60.0}, best=("LLaVA-v1.5-7B", 64.3), submit=submission.mmbench,
        url="https://github.com/open-compass/MMBench",
    ),
    Benchmark(
        "mmvet", "MMVet", "T1", "mm-vet",
        {"test": Split(mm_vet, ("mm-vet.json", "images"))},
        judge.judged(judge.MM_VET),
        {"GPT score": 29.1}, best=("LLaMA-Adapter v2", 31.4), submit=submission.mm_vet,
        url="https://github.com/yuweihao/MM-Vet",
    ),
    Benchmark(
        "seed", "SEED", "T1", "SEED-Bench",
        {
            split: Split(partial(seed_bench, split=split), ("SEED-Bench.json", f"SEED-Bench-{split}"))
            for split in ("image", "video")
        },
        metrics.per_question(accuracy=metrics.choice),
        {"accuracy": 61.2}, best=("LLaVA-v1.5-7B", 58.6),
        url="https://huggingface.co/datasets/AILab-CVC/SEED-Bench",
    ),
]  # fmt: skip
