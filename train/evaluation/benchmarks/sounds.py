"""Sounds (table 3) and videos with their sound (table 4): Clotho, Clotho-AQA, MUSIC-AVQA, VALOR-32K, AVSD."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from train.evaluation import media, metrics, prompts, readers
from train.evaluation.benchmark import Benchmark, BenchmarkError, Question, Split
from train.evaluation.captions import captions

AVSD = "test_set4DSTC7-AVSD.json"
AVSD_MULTI = "test_set4DSTC7-AVSD_multiref.json"
AVSD_LABELLED = "lbl_test_set4DSTC7-AVSD.json"


def video_with_sound(path: Path) -> list[dict]:
    """Return the video and its sound, in the order the paper gives them to the model; a mute video stays alone."""
    return [{"type": "video", "path": path}, {"type": "audio", "make": partial(media.sound_track, path)}]


def clotho(root: Path, split: str) -> Iterator[Question]:
    """Read Clotho: `file_name` and `caption_1` to `caption_5`."""
    for row in readers.read_table(root / f"clotho_captions_{split}.csv"):
        yield Question(
            id=row["file_name"],
            files=[{"type": "audio", "path": root / split / row["file_name"]}],
            text=prompts.caption("audio"),
            answers=[row[f"caption_{number}"] for number in range(1, 6)],
        )


def clotho_aqa(root: Path, split: str) -> Iterator[Question]:
    """Read Clotho-AQA: a row an annotator, `file_name`, `QuestionText`, `answer`; three answered each question."""
    asked: dict[tuple[str, str], list[str]] = {}
    for row in readers.read_table(root / f"clotho_aqa_{split}.csv"):
        asked.setdefault((row["file_name"], row["QuestionText"]), []).append(row["answer"])
    for number, ((name, question), answers) in enumerate(asked.items()):
        yield Question(
            id=str(number),
            files=[{"type": "audio", "path": root / "audio_files" / name}],
            text=prompts.short(question),
            answers=answers,
            category="yes or no" if {answer.lower() for answer in answers} <= {"yes", "no"} else "one word",
        )


def music_avqa(root: Path, split: str) -> Iterator[Question]:
    """Read MUSIC-AVQA: templates with <slots>, `templ_values` as JSON text, and the answer under `anser`."""
    for item in readers.read_json(root / f"avqa-{split}.json"):
        question = item["question_content"]
        for value in json.loads(item["templ_values"]):
            start, end = question.index("<"), question.index(">")
            question = question[:start] + value + question[end + 1 :]
        folders = [root / name for name in ("MUSIC-AVQA-videos-Real", "MUSIC-AVQA-videos-Synthetic")]
        paths = [folder / f"{item['video_id']}.mp4" for folder in folders]
        yield Question(
            id=str(item["question_id"]),
            files=video_with_sound(next((path for path in paths if path.exists()), paths[0])),
            text=prompts.short(question),
            answers=[item["anser"]],
            category=json.loads(item["type"])[0],
        )


def valor(root: Path, split: str) -> Iterator[Question]:
    """Read VALOR-32K: a list of `video_id` and `desc`, one description or several."""
    for item in readers.read_json(root / f"desc_{split}.json"):
        described = item["desc"]
        yield Question(
            id=item["video_id"],
            files=video_with_sound(media.find_video(root / "videos", item["video_id"])),
            text=prompts.caption("video"),
            answers=[described] if isinstance(described, str) else described,
        )


def avsd(root: Path) -> Iterator[Question]:
    """Read the last, undisclosed turn of every dialogue of the DSTC7 test set.

    References are the six of the challenge's evaluation package where it is there (its images are the dialogues,
    counted from 1), else the one of the labelled set.
    """
    dialogues = readers.read_json(root / AVSD)["dialogs"]
    answers = _avsd_answers(root, len(dialogues))
    for number, dialogue in enumerate(dialogues):
        yield Question(
            id=f"{dialogue['image_id']}_{number + 1}",
            files=video_with_sound(media.find_video(root / "videos", dialogue["image_id"])),
            text=f"{dialogue['dialog'][-1]['question'].strip()}\n{prompts.REASON}",
            answers=answers[number],
        )


def _avsd_answers(root: Path, count: int) -> list[list[str]]:
    if (root / AVSD_MULTI).exists():
        found: dict[int, list[str]] = {}
        for item in readers.read_json(root / AVSD_MULTI)["annotations"]:
            found.setdefault(int(item["image_id"]), []).append(item["caption"])
        answers = [found[number] for number in sorted(found)]
    else:
        labelled = readers.read_json(root / AVSD_LABELLED)["dialogs"]
        answers = [[dialogue["dialog"][-1]["answer"]] for dialogue in labelled]
    if len(answers) != count:
        raise BenchmarkError(f"avsd: {count} dialogues came with answers to {len(answers)}; fetch the files again.")
    return answers


BENCHMARKS = [
    Benchmark(
        "clotho-cap", "Clotho Cap", "T3", "clotho",
        {
            split: Split(partial(clotho, split=split), (f"clotho_captions_{split}.csv", split))
            for split in ("evaluation", "validation")
        },
        captions("SPICE", "SPIDEr"),
        {"CIDEr": 29.1, "SPIDEr": 19.5}, best=("ChatBridge-13B", 26.2), tuned=("WavCaps", 48.8),
        url="https://zenodo.org/records/4783391",
    ),
    Benchmark(
        "clotho-aqa", "Clotho AQA", "T3", "clotho-aqa",
        {
            split: Split(partial(clotho_aqa, split=split), (f"clotho_aqa_{split}.csv", "audio_files"))
            for split in ("test", "val")
        },
        metrics.per_question(accuracy=metrics.majority, any=metrics.exact),
        {"accuracy": 57.9}, tuned=("Pengi", 64.5),
        url="https://zenodo.org/records/6473207",
    ),
    Benchmark(
        "music-avqa", "MUSIC-AVQA", "T4", "music-avqa",
        {
            split: Split(partial(music_avqa, split=split), (f"avqa-{split}.json", "MUSIC-AVQA-videos-Real"))
            for split in ("test", "val")
        },
        metrics.per_question(accuracy=metrics.exact, contains=metrics.contains),
        {"accuracy": 47.6}, best=("ChatBridge-13B", 43.0), tuned=("VAST", 80.7),
        url="https://gewu-lab.github.io/MUSIC-AVQA",
    ),
    Benchmark(
        "valor32k", "VALOR-32K", "T4", "valor32k",
        {
            split: Split(partial(valor, split=split), (f"desc_{split}.json", "videos"))
            for split in ("test", "val")
        },
        captions(),
        {"CIDEr": 29.2}, best=("ChatBridge-13B", 24.7), tuned=("VAST", 62.2),
        url="https://casia-iva-group.github.io/projects/VALOR",
    ),
    Benchmark(
        "avsd", "AVSD", "T4", "avsd",
        {"test": Split(avsd, (AVSD, "videos"))},
        captions(),
        {"CIDEr": 74.5}, best=("ChatBridge-13B", 75.4), tuned=("COST", 108.5),
        url="https://github.com/hudaAlamri/DSTC7-Audio-Visual-Scene-Aware-Dialog-AVSD-Challenge",
    ),
]  # fmt: skip
