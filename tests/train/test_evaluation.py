"""Benchmarks on samples in their published layouts: what is asked, how answers are scored, resume, two processes."""

import json
import subprocess
import sys
from pathlib import Path

import benchmark_files
import numpy as np
import pytest

from onellm.chat.chat import Chat
from onellm.errors import OneLLMError
from train.evaluation import captions, media
from train.evaluation.benchmark import BenchmarkError, Question, spread
from train.evaluation.benchmarks import BENCHMARKS, find
from train.evaluation.commands import add_options, run
from train.evaluation.report import overview, read_results, table
from train.evaluation.runner import ModelAnswerer, Settings, into_batches, read_answers, run_benchmark

ROOT = Path(__file__).parents[2]
SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."

# name -> the first question's kinds, prompt and answers
FIRST = {
    "gqa": ("image", f"Is it overcast?\n{SHORT}", ["no"]),
    "vqav2": ("image", f"Where is he looking?\n{SHORT}", ["down"] * 6 + ["at table"] * 4),
    "okvqa": ("image", f"Where is he looking?\n{SHORT}", ["down"] * 6 + ["at table"] * 4),
    "textvqa": ("image", f"What is the brand?\n{SHORT}", ["nous"] * 8 + ["no"] * 2),
    "sqa": ("image", f"Which is farthest north?\nA. Maine\nB. Iowa\n{LETTER}", ["A"]),
    "vizwiz": (
        "image",
        f"What is this?\nWhen the provided information is insufficient, respond with 'Unanswerable'. {SHORT}",
        ["unanswerable"] * 9 + ["a can"],
    ),
    "nocaps": (
        "image",
        "Provide a one-sentence caption for the provided image.",
        ["A dog runs.", "The dog is running."],
    ),
    "flickr30k": (
        "image",
        "Provide a one-sentence caption for the provided image.",
        ["A man in a hat.", "A man wears a hat."],
    ),
    "mme": ("image", "Is there a cat? Please answer yes or no.", ["Yes"]),
    "mmbench": ("image", f"A hint.\nWhich one is it?\nA. cat\nB. dog\n{LETTER}", ["A"]),
    "mmvet": ("image", "What is x in the equation?", ["-1<AND>-5"]),
    "seed": ("image", f"How many?\nA. one\nB. two\nC. three\nD. four\n{LETTER}", ["A"]),
    "nextqa": (
        "video",
        "how do the two man play?\nA. option 0\nB. option 1\nC. option 2\nD. option 3\nE. option 4\n" + LETTER,
        ["A"],
    ),
    "how2qa": ("video", f"Which colour?\nA. red\nB. black\nC. green\nD. blue\n{LETTER}", ["B"]),
    "msvdqa": ("video", f"what do two boys do?\n{SHORT}", ["wrestle"]),
    "vatex": (
        "video",
        "Provide a one-sentence caption for the provided video.",
        ["A cat jumps.", "The cat leaps up."],
    ),
    "clotho-cap": (
        "audio",
        "Provide a one-sentence caption for the provided audio.",
        [f"a bell rings number {n}" for n in range(1, 6)],
    ),
    "clotho-aqa": ("audio", f"Is it raining?\n{SHORT}", ["yes", "yes", "no"]),
    "music-avqa": ("video audio", f"Is the violin in the left always playing?\n{SHORT}", ["yes"]),
    "valor32k": ("video audio", "Provide a one-sentence caption for the provided video.", ["A man sings."]),
    "avsd": (
        "video audio",
        "what now 0 ?\nAnswer the question and explain the reason in one sentence.",
        ["he leaves the room"],
    ),
    "objaverse-cap": (
        "point",
        "Provide a one-sentence caption for the provided point cloud.",
        ["a red car with wheels"],
    ),
    "objaverse-cls": ("point", "What is this?", ["a red car with wheels"]),
    "nyuv2-depth": ("depth", None, ["home office"]),
    "nyuv2-normal": ("normal", None, ["home office"]),
    "sunrgbd-depth": ("depth", None, ["dining room"]),
    "sunrgbd-normal": ("normal", None, ["dining room"]),
    "ego4d-imu": ("imu", "Describe the motion.", ["c walks along the road"]),
    "nsd-fmri": ("fmri", "Describe the scene based on fMRI data.", ["a scene with 1 people outside"]),
}
JUDGED = {"mmvet", "objaverse-cls"}


@pytest.fixture(autouse=True)
def without_java(monkeypatch):
    """Score captions in Python alone: test_metrics.py runs the Java programs, which take seconds to start."""
    monkeypatch.setattr(captions.shutil, "which", lambda name: None)
    monkeypatch.setattr(captions, "_wordnet", lambda: None)


class Script:
    """Answers as told, after reading the files as the app does."""

    def __init__(self, processor, say, name="script"):
        self.processor, self.say, self.name = processor, say, name
        self.loaded, self.batches = {}, []

    def load(self, question):
        made = [part["make"]() if "make" in part else part for part in question.files]
        self.loaded[question.id] = [self.processor.to_tensor(part) for part in made if part is not None]
        return self.loaded[question.id]

    def answer(self, batch, number):
        self.batches.append([question.id for question, _ in batch])
        return [self.say(question) for question, _ in batch]


def best(question):
    """The answer most people gave."""
    return max(question.answers, key=question.answers.count)


def test_every_number_of_the_tables_has_a_declaration():
    tables = [benchmark.table for benchmark in BENCHMARKS.values()]
    assert {name: tables.count(name) for name in tables} == {
        "T1": 12,
        "T2": 4,
        "T3": 2,
        "T4": 3,
        "T5": 2,
        "T6": 4,
        "text": 2,
    }
    assert set(FIRST) == set(BENCHMARKS) == set(benchmark_files.LAYOUTS)
    assert (
        len({(b.folder, b.name.rpartition("-")[0] if b.table == "T6" else b.name) for b in BENCHMARKS.values()}) == 27
    )


@pytest.mark.parametrize("name", FIRST)
def test_benchmark_from_files_to_scores(name, tmp_path, processor, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    benchmark, data = BENCHMARKS[name], benchmark_files.write(name, tmp_path / "data")
    modalities, text, accepted = FIRST[name]
    questions = benchmark.questions(data, benchmark.split(None))
    assert (" ".join(questions[0].modalities), questions[0].answers) == (modalities, accepted)
    if text is None:
        assert questions[0].text.startswith("Class list: ") and "home office, " in questions[0].text
        assert questions[0].text.endswith("What is the category of this scene? Choose one class from the list.")
    else:
        assert questions[0].text == text
    script = Script(processor, best)
    result = run_benchmark(benchmark, script, data, tmp_path / "out")
    assert result["n"] == len(questions) >= 2 and result["skipped"]["count"] == 0
    assert len(script.loaded[questions[0].id]) == len(modalities.split())
    if name in JUDGED:
        assert benchmark.headline in result["missing"] and result["files"]
        assert "need a judge" in table([result]) and "not measured" in table([result])
        return
    right = result["metrics"][benchmark.headline]
    assert right == {"mme": 2000, "objaverse-cap": 100}.get(name, right if benchmark.headline == "CIDEr" else 100)
    wrong = run_benchmark(benchmark, Script(processor, lambda question: "zebra", "wrong"), data, tmp_path / "out")
    assert wrong["metrics"][benchmark.headline] == 0 < right
    assert f"{benchmark.paper[benchmark.headline]:.1f}" in table([result])
    stored = json.loads((tmp_path / "out" / f"script.{name}.{benchmark.split(None)}.json").read_text())
    assert stored["metrics"] == result["metrics"] and stored["versions"]["torch"]


@pytest.mark.parametrize("name", FIRST)
def test_missing_files_are_named(name, tmp_path):
    benchmark = BENCHMARKS[name]
    for need in benchmark.splits[benchmark.split(None)].needs:
        data = tmp_path / need.replace("/", "-")
        benchmark_files.write(name, data)
        path = data / benchmark.folder / need
        path.rename(path.with_name("elsewhere"))
        with pytest.raises(BenchmarkError) as caught:
            benchmark.questions(data, benchmark.split(None))
        assert str(path) in str(caught.value) and "--data" in str(caught.value)


@pytest.mark.parametrize("name", [name for name in FIRST if not name.startswith(("mme", "nyu", "sun"))])
def test_another_layout_is_told_with_the_file(name, tmp_path):
    benchmark, data = BENCHMARKS[name], benchmark_files.write(name, tmp_path)
    file = benchmark.splits[benchmark.split(None)].needs[0]
    path = data / benchmark.folder / file
    path.write_text('{"other": [1, 2]}' if path.suffix == ".json" else "other\n1,2\n")
    with pytest.raises(BenchmarkError, match=file.replace("(", r"\(")) as caught:
        benchmark.questions(data, benchmark.split(None))
    assert "\n" not in str(caught.value)


# ---- media that the app does not open as published ----


def test_a_mute_video_stays_alone_and_a_loud_one_brings_its_sound(tmp_path, processor):
    data = benchmark_files.write("music-avqa", tmp_path / "data")
    script = Script(processor, best)
    run_benchmark(BENCHMARKS["music-avqa"], script, data, tmp_path / "out")
    assert [len(script.loaded[number]) for number in ("1", "2")] == [2, 1]


def test_a_clip_holds_the_frames_between_two_times(tmp_path):
    benchmark_files.video(tmp_path / "a.mp4", frames=40)  # 4 s, ever brighter
    levels = [media.video_clip(tmp_path / "a.mp4", *times)["video"].mean() for times in ((0, 1), (1.5, 2.5), (3, 4))]
    # brightness of frame i is 20 + 200 i / 39; a clip's mean is that of the frame in its middle
    assert levels == pytest.approx([20 + 200 * frame / 39 for frame in (5, 20, 35)], abs=8)
    with pytest.raises(OneLLMError, match="no frames from 9 s"):
        media.video_clip(tmp_path / "a.mp4", 9, 10)


def test_depth_of_sun_and_nyu_is_in_metres(tmp_path):
    data = benchmark_files.write("sunrgbd-depth", tmp_path / "sun")
    depth_m = media.kinect_depth(data / "sunrgbd/SUNRGBD/kv1/NYUdata/NYU0001/depth_bfx/x_abs.png")["depth"]
    assert np.isnan(depth_m[0, 0]) and depth_m[1, 1] == pytest.approx(2.5)
    data = benchmark_files.write("nyuv2-depth", tmp_path / "nyu")
    depth_m = media.nyu_depth(data / "nyuv2/nyu_depth_v2_labeled.mat", 2)["depth"]
    assert depth_m.shape == (30, 40) and depth_m[-1, -1] == pytest.approx(4)


def test_seed_asks_about_parts_of_videos(tmp_path, processor):
    data = benchmark_files.write("seed", tmp_path / "data")
    script = Script(processor, best)
    result = run_benchmark(BENCHMARKS["seed"], script, data, tmp_path / "out", split="video")
    assert result["metrics"]["accuracy"] == 100 and result["by_category"] == {"Action Recognition": 100}


def test_avsd_prefers_the_six_references(tmp_path):
    data = benchmark_files.write("avsd", tmp_path)
    notes = [{"image_id": 1 + n // 6, "id": n, "caption": f"answer {n}"} for n in range(12)]
    benchmark_files.dump(data / "avsd/test_set4DSTC7-AVSD_multiref.json", {"images": [], "annotations": notes})
    questions = BENCHMARKS["avsd"].questions(data, "test")
    assert questions[1].answers == [f"answer {n}" for n in range(6, 12)]
    benchmark_files.dump(data / "avsd/test_set4DSTC7-AVSD_multiref.json", {"annotations": notes[:6]})
    with pytest.raises(BenchmarkError, match="2 dialogues came with answers to 1"):
        BENCHMARKS["avsd"].questions(data, "test")


# ---- official files ----


def test_splits_that_a_server_scores_give_its_file_alone(tmp_path, processor):
    data = benchmark_files.write("vqav2", tmp_path / "data")
    script = Script(processor, lambda question: "a hat")
    result = run_benchmark(BENCHMARKS["vqav2"], script, data, tmp_path / "out", split="test-dev")
    assert result["metrics"] == {} and "official server" in result["missing"]["accuracy"]
    assert json.loads(Path(result["files"][0]).read_text()) == [{"question_id": 70, "answer": "a hat"}]
    data = benchmark_files.write("vizwiz", tmp_path / "data")
    result = run_benchmark(BENCHMARKS["vizwiz"], script, data, tmp_path / "out", split="test")
    assert json.loads(Path(result["files"][0]).read_text()) == [
        {"image": "VizWiz_test_00000000.jpg", "answer": "a hat"}
    ]


def test_official_files_have_their_forms(tmp_path, processor, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def written(name):
        data = benchmark_files.write(name, tmp_path / name)
        files = run_benchmark(BENCHMARKS[name], Script(processor, best), data, tmp_path / "out")["files"]
        return {Path(file).name: Path(file).read_text() for file in files}

    assert written("mme")["OCR.txt"].splitlines()[1] == "0006.jpg\tIs there a dog? Please answer yes or no.\tNo\tNo"
    assert written("mmbench")["mmbench_results.tsv"].splitlines()[2].split("\t")[0::11] == ["1000241", "B"]
    assert json.loads(written("mmvet")["mm-vet_results.json"])["v1_1"] == "a cook"
    assert json.loads(written("nocaps")["captions_results.json"])[0] == {"image_id": 0, "caption": "A dog runs."}
    content = json.loads(written("objaverse-cls")["objaverse_results.json"])
    assert content["results"][0] == {
        "object_id": "e85ebb72",
        "ground_truth": "a red car with wheels",
        "model_output": "a red car with wheels",
    }


# ---- running ----


def test_batches_have_one_combination_of_kinds_and_like_lengths():
    modalities = ["image", "video"]
    questions = [Question(str(n), [{"type": modalities[n % 2]}], "x" * (50 - n)) for n in range(10)]
    batches = into_batches(questions, 3)
    assert [len(batch) for batch in batches] == [3, 2, 3, 2]
    assert all(len({question.modalities for question in batch}) == 1 for batch in batches)
    assert [len(question.text) for question in batches[0]] == [42, 44, 46]


def test_a_limit_spreads_over_whole_groups():
    questions = [Question(str(n), [], "?", group=str(n // 2)) for n in range(20)]
    assert [question.id for question in spread(questions, 6)] == ["0", "1", "8", "9", "18", "19"]
    assert spread(questions, None) == questions


def test_broken_files_are_left_out_and_named_and_tried_again(tmp_path, processor):
    data = benchmark_files.write("gqa", tmp_path / "data")
    picture = data / "gqa/images/n2.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:100])
    result = run_benchmark(BENCHMARKS["gqa"], Script(processor, best), data, tmp_path / "out")
    assert result["n"] == 1 and result["skipped"]["count"] == 1
    assert "n2.jpg" in result["skipped"]["named"]["201640614"] and "n2.jpg" in table([result])
    picture.write_bytes(whole)
    again = Script(processor, best)
    assert run_benchmark(BENCHMARKS["gqa"], again, data, tmp_path / "out")["n"] == 2
    assert again.batches == [["201640614"]]  # the other one had its answer
    for file in (data / "gqa/images").iterdir():
        file.unlink()
    with pytest.raises(BenchmarkError, match="none of 2 questions could be asked.*n1.jpg"):
        run_benchmark(BENCHMARKS["gqa"], Script(processor, best, "other"), data, tmp_path / "out")


def test_a_stopped_run_goes_on_and_other_settings_are_refused(tmp_path, processor):
    data, benchmark = benchmark_files.write("nsd-fmri", tmp_path / "data"), BENCHMARKS["nsd-fmri"]
    whole = run_benchmark(benchmark, Script(processor, best), data, tmp_path / "whole", batch=2)

    class Stopping(Script):
        def answer(self, batch, number):
            if number == 2:
                raise KeyboardInterrupt
            return super().answer(batch, number)

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(benchmark, Stopping(processor, best), data, tmp_path / "out", batch=2)
    lines = tmp_path / "out" / "script.nsd-fmri.test" / "answers.0.jsonl"
    lines.write_text(lines.read_text() + '{"id": "4", "ans')  # cut short by the stop
    rest = Script(processor, best)
    result = run_benchmark(benchmark, rest, data, tmp_path / "out", batch=2)
    assert sum(map(len, rest.batches)) == 1
    assert result["metrics"] == whole["metrics"] and result["n"] == 5
    with pytest.raises(BenchmarkError, match="made with decode 'greedy' instead of 'paper'"):
        run_benchmark(benchmark, rest, data, tmp_path / "out", settings=Settings(decode="paper"))


# ---- a real model ----


@pytest.fixture
def answerer(model, processor):
    for settings in processor.modalities.values():
        settings["input"] = {"size": 28}
    processor.modalities["fmri"]["input"] = {}
    return ModelAnswerer(Chat(model, processor, "toy"), Settings(new_tokens=5))


@pytest.fixture
def saved(answerer, tmp_path):
    answerer.chat.model.save_pretrained(tmp_path / "toy")
    answerer.chat.processor.save_pretrained(tmp_path / "toy")
    return str(tmp_path / "toy")


def test_the_model_answers_in_batches_as_alone(answerer, tmp_path):
    data = benchmark_files.write("nsd-fmri", tmp_path / "data")
    together = run_benchmark(BENCHMARKS["nsd-fmri"], answerer, data, tmp_path / "a", batch=5)
    alone = run_benchmark(BENCHMARKS["nsd-fmri"], answerer, data, tmp_path / "b", batch=1)
    read = [(tmp_path / name / "toy.nsd-fmri.test" / "answers.0.jsonl").read_text() for name in "ab"]
    assert sorted(read[0].splitlines()) == sorted(read[1].splitlines())
    assert together["metrics"] == alone["metrics"]
    question = BENCHMARKS["nsd-fmri"].questions(data, "test")[3]
    chat = answerer.chat.new()
    said = chat.ask(question.text, fmri=question.files[0]["path"], max_new_tokens=5)
    assert json.dumps({"id": "3", "answer": said}) in read[0]


def test_the_paper_settings_draw_repeatably(answerer, tmp_path):
    data = benchmark_files.write("gqa", tmp_path / "data")
    sampled = ModelAnswerer(answerer.chat, Settings("paper", 5))
    read = []
    for name in "ab":
        run_benchmark(BENCHMARKS["gqa"], sampled, data, tmp_path / name, settings=sampled.settings)
        read.append((tmp_path / name / "toy.gqa.testdev" / "answers.0.jsonl").read_text())
    assert read[0] == read[1]


def test_answers_end_at_the_stop_string(answerer, tmp_path, monkeypatch):
    data = benchmark_files.write("gqa", tmp_path / "data")
    model, tokenizer = answerer.chat.model, answerer.chat.processor.tokenizer
    model.generation_config.stop_strings = ["###"]
    asked = []
    monkeypatch.setattr(model, "generate", lambda **inputs: asked.append(inputs) or inputs["input_ids"])
    monkeypatch.setattr(tokenizer, "batch_decode", lambda tokens, **_: [" yes\n###Human: and"] * len(tokens))
    run_benchmark(BENCHMARKS["gqa"], answerer, data, tmp_path / "out")
    rows = map(json.loads, (tmp_path / "out/toy.gqa.testdev/answers.0.jsonl").read_text().splitlines())
    assert {row["answer"] for row in rows} == {"yes"}
    assert asked[0]["tokenizer"] is tokenizer and asked[0]["max_new_tokens"] == 5  # it stops by itself, too


@pytest.mark.slow
def test_two_processes_give_what_one_gives(saved, tmp_path, capsys):
    data = benchmark_files.write("gqa", benchmark_files.write("nsd-fmri", tmp_path / "data"))
    (data / "gqa/images/n1.jpg").write_bytes(b"broken")
    arguments = ["--benchmark", "nsd-fmri,gqa", "--model", saved, "--data", str(data)]
    arguments += ["--batch-size", "1", "--new-tokens", "4", "--quantize", "none", "--out"]
    assert run(options(*arguments, str(tmp_path / "one"))) == 0
    capsys.readouterr()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "train"]
    command += ["evaluate", *arguments, str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| NSD fMRI caption | test | 5 |") == 2  # two metrics, printed by one process
    assert "1 questions were left out" in done.stdout
    for name in ("nsd-fmri.test", "gqa.testdev"):
        one, two = (read_answers(tmp_path / folder / f"toy.{name}") for folder in ("one", "two"))
        assert one == two and one
        one, two = (json.loads((tmp_path / folder / f"toy.{name}.json").read_text()) for folder in ("one", "two"))
        assert all(one[key] == two[key] for key in ("n", "skipped", "standard_errors")) and two["metrics"]
    parts = sorted((tmp_path / "two/toy.nsd-fmri.test").glob("answers.*.jsonl"))
    assert [len(part.read_text().splitlines()) for part in parts] == [3, 2]


def test_a_benchmark_that_fails_does_not_stop_the_others(saved, tmp_path, capsys):
    data = benchmark_files.write("gqa", benchmark_files.write("nsd-fmri", tmp_path / "data"))
    for file in (data / "gqa/images").iterdir():
        file.unlink()
    arguments = ("--data", str(data), "--out", str(tmp_path / "out"), "--json", str(tmp_path / "all.json"))
    assert run(options("--benchmark", "all", "--model", saved, "--new-tokens", "2", *arguments)) == 1
    said = capsys.readouterr()
    assert "error: gqa: none of 2 questions could be asked" in said.err
    assert "| NSD fMRI caption | test | 5 |" in said.out
    assert [result["benchmark"] for result in json.loads((tmp_path / "all.json").read_text())] == ["nsd-fmri"]


# ---- the command ----


def options(*arguments):
    import argparse

    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


def test_the_list_says_what_is_there(tmp_path, capsys):
    benchmark_files.write("gqa", tmp_path)
    assert run(options("--list", "--data", str(tmp_path))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| gqa | T1 | testdev |") and "| yes |" in line for line in lines)
    assert any(line.startswith("| nsd-fmri |") and "no: nsd/fmri_eval_cococap.json" in line for line in lines)
    assert all(any(line.startswith(f"| {name} |") for line in lines) for name in BENCHMARKS)


def test_tables_of_results(tmp_path, processor, capsys):
    for name in ("gqa", "clotho-aqa"):
        data = benchmark_files.write(name, tmp_path / "data")
        run_benchmark(BENCHMARKS[name], Script(processor, best), data, tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.json"))
    assert run(options("--table", *map(str, files))) == 0
    out = capsys.readouterr().out
    assert "| GQA | testdev | 2 | accuracy | 100.0 ± 0.0 | 59.5 | 62.0 (LLaVA-v1.5-7B) | – |" in out
    assert "| Clotho AQA | test | 2 | accuracy | 100.0 ± 0.0 | 57.9 | – | 64.5 (Pengi) |" in out
    with pytest.raises(BenchmarkError, match="is no result"):
        read_results([tmp_path / "data/gqa/testdev_balanced_questions.json"])


def test_wrong_names_are_told_before_a_model_loads(tmp_path):
    for arguments, words in (
        (("--benchmark", "gqa,vqa"), "no benchmark 'vqa'; choose of gqa, vqav2"),
        (("--benchmark", "gqa", "--data", str(tmp_path)), "testdev_balanced_questions.json was not found"),
        (("--benchmark", "gqa", "--split", "train"), "gqa has no split 'train'; choose one of testdev, val"),
        (("--benchmark", "all", "--data", str(tmp_path)), "holds no benchmark"),
        (("--split", "val"), "no split 'val' of the naming benchmark"),
    ):
        with pytest.raises(OneLLMError, match=words):
            run(options(*arguments))
    assert [benchmark.name for benchmark in find("gqa, mme,gqa")] == ["gqa", "mme"]


def test_documentation_lists_every_benchmark_and_file():
    text = (ROOT / "docs" / "evaluation.md").read_text()
    for benchmark in BENCHMARKS.values():
        assert f"`{benchmark.name}`" in text
        assert benchmark.url in text
        for split in benchmark.splits.values():
            missing = [need for need in split.needs if need.rpartition("/")[2] not in text]
            assert not missing, (benchmark.name, missing)


def test_overview_is_relative_to_the_data_folder(tmp_path):
    assert str(tmp_path) not in overview(list(BENCHMARKS.values()), tmp_path)
