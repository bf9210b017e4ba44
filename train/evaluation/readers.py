"""Readers that several benchmarks share: VQA-style JSON, COCO-caption JSON, tables."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from train.evaluation import prompts
from train.evaluation.benchmark import Question


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_table(path: Path, separator: str = ",") -> Iterator[dict[str, str]]:
    """Read a table with a header, one dict a row."""
    csv.field_size_limit(sys.maxsize)  # pictures may lie in cells
    with open(path, newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file, delimiter=separator)


def vqa(
    root: Path,
    questions: str,
    images: str,
    annotations: str | None = None,
    prompt: Callable[[str], str] = prompts.short,
) -> Iterator[Question]:
    """Read questions and annotations as VQAv2 publishes them.

    Args:
        root: folder of the files.
        questions: file with `questions`: `question_id`, `image_id`, `question`.
        images: path of an image, to be formatted with `image_id`.
        annotations: file with `annotations`: `question_id`, `answers` of `answer`; None where there are none.
        prompt: question -> prompt.
    """
    listed = read_json(root / annotations)["annotations"] if annotations else []
    answers = {item["question_id"]: [a["answer"] for a in item["answers"]] for item in listed}
    types = {item["question_id"]: item.get("answer_type", "") for item in listed}
    for item in read_json(root / questions)["questions"]:
        number = item["question_id"]
        yield Question(
            id=str(number),
            files=[{"type": "image", "path": root / images.format(item["image_id"])}],
            text=prompt(item["question"]),
            answers=answers[number] if annotations else [],
            category=types.get(number, ""),
        )


def coco_captions(
    root: Path,
    annotations: str,
    file: Callable[[Path, dict], dict],
    prompt: str,
) -> Iterator[Question]:
    """Read captions as COCO publishes them: `images` of `id`, `file_name`; `annotations` of `image_id`, `caption`.

    Args:
        root: folder of the files.
        annotations: the JSON file; it may lack the annotations.
        file: root and an entry of `images` -> the content part.
        prompt: the prompt.
    """
    content = read_json(root / annotations)
    captions: dict[Any, list[str]] = {}
    for item in content.get("annotations", []):
        captions.setdefault(item["image_id"], []).append(item["caption"])
    for item in content["images"]:
        yield Question(
            id=str(item["id"]),
            files=[file(root, item)],
            text=prompt,
            answers=captions.get(item["id"], []),
            info={"id": item["id"]},
        )
