"""Videos (table 2): NextQA, How2QA, MSVD-QA, VATEX."""

import csv
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from train.evaluation import media, metrics, prompts, readers
from train.evaluation.benchmark import Benchmark, Question, Split
from train.evaluation.captions import captions


def next_qa(root: Path, split: str) -> Iterator[Question]:
    """Read NextQA's multiple-choice questions: `video`, `question`, `answer` (0 to 4), `qid`, `type`, `a0` to `a4`."""
    names = readers.read_json(root / "map_vid_vidorID.json")
    for row in readers.read_table(root / f"{split}.csv"):
        options = [row[f"a{index}"] for index in range(5)]
        yield Question(
            id=f"{row['video']}_{row['qid']}",
            files=[{"type": "video", "path": root / "NExTVideo" / f"{names[row['video']]}.mp4"}],
            text=prompts.letter(f"{row['question'].rstrip('?')}?", options),
            answers=[prompts.LETTERS[int(row["answer"])]],
            category={"C": "causal", "T": "temporal", "D": "descriptive"}[row["type"][0]],
            info={"options": options},
        )


def how2_qa(root: Path) -> Iterator[Question]:
    """Read How2QA's validation rows: video, "[start:end]", three wrong answers, question, right answer.

    The file lists the right answer last; here it takes a index that depends on the row alone.
    """
    with open(root / "how2QA_val_release.csv", newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows[0][1].startswith("["):
        del rows[0]  # a header
    for number, (video, times, *wrong, question, right) in enumerate(rows):
        start_s, end_s = map(float, times.strip("[]").split(":"))
        index = zlib.crc32(f"{number} {question}".encode()) % (len(wrong) + 1)
        options = [option.strip() for option in (*wrong[:index], right, *wrong[index:])]
        clip = partial(media.video_clip, media.find_video(root / "videos", video), start_s, end_s)
        yield Question(
            id=str(number),
            files=[{"type": "video", "make": clip}],
            text=prompts.letter(question, options),
            answers=[prompts.LETTERS[index]],
            info={"options": options},
        )


def msvd_qa(root: Path, split: str) -> Iterator[Question]:
    """Read MSVD-QA: a list of `id`, `question`, `answer`, `video_id`; the map has a line "NAME vidN" a video."""
    lines = (root / "youtube_mapping.txt").read_text(encoding="utf-8").splitlines()
    names = {number: name for name, number in (line.split() for line in lines if line.strip())}
    for item in readers.read_json(root / f"{split}_qa.json"):
        name = names[f"vid{item['video_id']}"]
        yield Question(
            id=str(item["id"]),
            files=[{"type": "video", "path": root / "YouTubeClips" / f"{name}.avi"}],
            text=prompts.short(item["question"]),
            answers=[item["answer"]],
            category=item["question"].split()[0].lower(),
        )


def vatex(root: Path, file: str) -> Iterator[Question]:
    """Read VATEX: a list of `videoID` (YouTube id, first and last second) and `enCap`."""
    for item in readers.read_json(root / file):
        yield Question(
            id=item["videoID"],
            files=[{"type": "video", "path": media.find_video(root / "videos", item["videoID"])}],
            text=prompts.caption("video"),
            answers=item["enCap"],
        )


BENCHMARKS = [
    Benchmark(
        "nextqa", "NextQA", "T2", "nextqa",
        {
            split: Split(partial(next_qa, split=split), (f"{split}.csv", "map_vid_vidorID.json", "NExTVideo"))
            for split in ("test", "val")
        },
        metrics.per_question(accuracy=metrics.choice),
        {"accuracy": 57.3}, best=("InternVideo", 49.1), tuned=("SeViLA", 73.8),
        url="https://github.com/doc-doc/NExT-QA",
    ),
    Benchmark(
        "how2qa", "How2QA", "T2", "how2qa",
        {"val": Split(how2_qa, ("how2QA_val_release.csv", "videos"))},
        metrics.per_question(accuracy=metrics.choice),
        {"accuracy": 65.7}, best=("InternVideo", 62.2), tuned=("JustAsk", 84.4),
        url="https://github.com/ych133/How2R-and-How2QA",
    ),
    Benchmark(
        "msvdqa", "MSVD-QA", "T2", "msvd",
        {
            split: Split(
                partial(msvd_qa, split=split), (f"{split}_qa.json", "youtube_mapping.txt", "YouTubeClips")
            )
            for split in ("test", "val")
        },
        metrics.per_question(accuracy=metrics.contains, exact=metrics.exact),
        {"accuracy": 56.5}, best=("InternVideo", 55.5), tuned=("VALOR", 60.0),
        url="https://github.com/xudejing/video-question-answering",
    ),
    Benchmark(
        "vatex", "VATEX", "T2", "vatex",
        {
            split: Split(partial(vatex, file=file), (file, "videos"))
            for split, file in (
                ("test", "vatex_public_test_english_v1.1.json"), ("val", "vatex_validation_v1.0.json"),
            )
        },
        captions(),
        {"CIDEr": 43.8}, best=("ChatBridge-13B", 48.9), tuned=("VALOR", 95.1),
        url="https://eric-xw.github.io/vatex-website",
    ),
]  # fmt: skip
