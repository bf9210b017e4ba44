"""Files in the forms that official servers and judges take: answers -> file name -> content."""

import csv
import io
import json
from collections.abc import Sequence

from train.evaluation.metrics import Answer, chosen_letter

MMBENCH_COLUMNS = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "split")


def vqa(answers: Sequence[Answer]) -> dict[str, str]:
    """Write VQAv2's results: `question_id` as a number, `answer`."""
    rows = [{"question_id": int(answer.question.id), "answer": answer.text} for answer in answers]
    return {"vqav2_results.json": json.dumps(rows)}


def vizwiz(answers: Sequence[Answer]) -> dict[str, str]:
    """Write VizWiz's results: `image`, `answer`."""
    rows = [{"image": answer.question.id, "answer": answer.text} for answer in answers]
    return {"vizwiz_results.json": json.dumps(rows)}


def captions(answers: Sequence[Answer]) -> dict[str, str]:
    """Write captions in COCO's result form: `image_id`, `caption`."""
    rows = [{"image_id": answer.question.info["id"], "caption": answer.text} for answer in answers]
    return {"captions_results.json": json.dumps(rows)}


def mme(answers: Sequence[Answer]) -> dict[str, str]:
    """Write what MME's calculation script reads: a file a task, a line "picture, question, truth, answer" with tabs."""
    files: dict[str, str] = {}
    for answer in answers:
        question = answer.question
        cells = (question.info["file"], question.text, question.answers[0], " ".join(answer.text.split()))
        name = f"{question.category}.txt"
        files[name] = files.get(name, "") + "\t".join(cells) + "\n"
    return files


def mmbench(answers: Sequence[Answer]) -> dict[str, str]:
    """Write MMBench's table with a column `prediction`; the server takes it saved as xlsx."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (*MMBENCH_COLUMNS, "prediction"), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        letter = chosen_letter(answer.text, answer.question.info["options"])
        writer.writerow({**answer.question.info["row"], "prediction": letter or answer.text})
    return {"mmbench_results.tsv": text.getvalue()}


def mm_vet(answers: Sequence[Answer]) -> dict[str, str]:
    """Write what MM-Vet's evaluator reads: id -> answer."""
    return {"mm-vet_results.json": json.dumps({answer.question.id: answer.text for answer in answers}, indent=1)}


def objaverse(answers: Sequence[Answer]) -> dict[str, str]:
    """Write what PointLLM's evaluator reads: `prompt`, and `results` of object, ground truth and answer."""
    rows = [
        {"object_id": a.question.id, "ground_truth": a.question.answers[0], "model_output": a.text} for a in answers
    ]
    return {"objaverse_results.json": json.dumps({"prompt": answers[0].question.text, "results": rows}, indent=1)}
