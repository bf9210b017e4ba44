"""Writes two or three samples of every benchmark in the layout its publishers use, with small real media files."""

import base64
import csv
import importlib.util
import io
import json
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import soundfile
from PIL import Image

_spec = importlib.util.spec_from_file_location(
    "media_makers", Path(__file__).parents[1] / "modalities" / "file_makers.py"
)
makers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(makers)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(makers.picture()).save(path)


def video(path, sound=False, frames=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    makers.video(path, codec="mpeg4", frames=frames, sound=sound)


def wave(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, makers.tone(0.5), 16000)


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def table(path, rows, separator=",", header=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        if header:
            csv.writer(file, delimiter=separator).writerow(rows[0])
        csv.writer(file, delimiter=separator).writerows(row.values() for row in rows)


def gqa(root):
    content = {
        "201307251": {
            "imageId": "n1",
            "question": "Is it overcast?",
            "answer": "no",
            "types": {"structural": "verify"},
        },
        "201640614": {"imageId": "n2", "question": "Who is wearing the dress?", "answer": "woman"},
    }
    dump(root / "testdev_balanced_questions.json", content)
    for name in ("n1", "n2"):
        picture(root / "images" / f"{name}.jpg")


def _vqa(root, questions, annotations):
    asked = [
        (262148000, 262148, "Where is he looking?", ["down"] * 6 + ["at table"] * 4),
        (3930, 393, "How many?", ["2"] * 10),
    ]
    rows = [{"image_id": image, "question": text, "question_id": number} for number, image, text, _ in asked]
    dump(root / questions, {"questions": rows, "data_type": "mscoco"})
    rows = [
        {"question_id": number, "image_id": image, "answer_type": "other",
         "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": i + 1} for i, a in enumerate(answers)]}
        for number, image, _, answers in asked
    ]  # fmt: skip
    dump(root / annotations, {"annotations": rows})
    for _, image, _, _ in asked:
        picture(root / "val2014" / f"COCO_val2014_{image:012d}.jpg")


def vqav2(root):
    _vqa(root, "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json")
    rows = [{"image_id": 7, "question": "What is it?", "question_id": 70}]
    dump(root / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": rows})
    picture(root / "test2015" / "COCO_test2015_000000000007.jpg")


def okvqa(root):
    _vqa(root, "OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json")


def textvqa(root):
    rows = [
        {"question_id": 34602, "image_id": "003a8ae2", "question": "What is the brand?",
         "answers": ["nous"] * 8 + ["no"] * 2},
        {"question_id": 34603, "image_id": "057b", "question": "What number?", "answers": ["Dakota."] * 10},
    ]  # fmt: skip
    dump(root / "TextVQA_0.5.1_val.json", {"data": rows})
    for row in rows:
        picture(root / "train_images" / f"{row['image_id']}.jpg")


def sqa(root):
    problems = {
        "4": {"question": "Which is farthest north?", "choices": ["Maine", "Iowa"], "answer": 0, "hint": "",
              "image": "image.png", "subject": "social science", "split": "test"},
        "11": {"question": "What is the name?", "choices": ["a", "b", "c"], "answer": 2, "hint": "Look at the map.",
               "image": "image.png", "subject": "natural science", "split": "test"},
        "12": {"question": "Without a picture?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": None,
               "subject": "language science", "split": "test"},
    }  # fmt: skip
    dump(root / "problems.json", problems)
    dump(root / "pid_splits.json", {"test": list(problems), "val": []})
    for number in ("4", "11"):
        picture(root / "images" / "test" / number / "image.png")


def vizwiz(root):
    rows = [
        {"image": "VizWiz_val_00000000.jpg", "question": "What is this?", "answer_type": "unanswerable",
         "answers": [{"answer": "unanswerable", "answer_confidence": "yes"}] * 9 + [{"answer": "a can"}]},
        {"image": "VizWiz_val_00000001.jpg", "question": "Which colour?", "answer_type": "other",
         "answers": [{"answer": "red", "answer_confidence": "yes"}] * 10},
    ]  # fmt: skip
    dump(root / "Annotations" / "val.json", rows)
    for row in rows:
        picture(root / "val" / row["image"])
    dump(root / "Annotations" / "test.json", [{"image": "VizWiz_test_00000000.jpg", "question": "What is it?"}])
    picture(root / "test" / "VizWiz_test_00000000.jpg")


def nocaps(root):
    images = [
        {"id": n, "file_name": f"{n}abc.jpg", "open_images_id": f"{n}abc", "domain": "out-domain"} for n in (0, 1)
    ]
    said = ((0, "A dog runs."), (0, "The dog is running."), (1, "Two cats sleep."))
    notes = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(said)]
    dump(root / "nocaps_val_4500_captions.json", {"images": images, "annotations": notes, "info": {}})
    for image in images:
        picture(root / "val" / image["file_name"])


def flickr30k(root):
    sentences = (
        ["A man in a hat.", "A man wears a hat."],
        ["Two girls jump.", "Girls jumping."],
        ["Not in this split."],
    )
    rows = [
        {"filename": f"{n}.jpg", "imgid": n, "split": "test" if n < 2 else "train",
         "sentences": [{"raw": s, "tokens": s.lower().strip(".").split()} for s in said]}
        for n, said in enumerate(sentences)
    ]  # fmt: skip
    dump(root / "dataset_flickr30k.json", {"images": rows, "dataset": "flickr30k"})
    for n in range(2):
        picture(root / "flickr30k-images" / f"{n}.jpg")


def mme(root):
    from train.evaluation.metrics import PERCEPTION

    for task in (*PERCEPTION, "code_reasoning"):
        apart = task in ("artwork", "celebrity", "landmark", "posters", "scene")
        texts = root / task / "questions_answers_YN" if apart else root / task
        picture((root / task / "images" if apart else root / task) / "0006.jpg")
        texts.mkdir(parents=True, exist_ok=True)
        lines = ["Is there a cat? Please answer yes or no.\tYes", "Is there a dog? Please answer yes or no.\tNo"]
        (texts / "0006.txt").write_text("\n".join(lines) + "\n")


def mmbench(root):
    buffer = io.BytesIO()
    Image.fromarray(makers.picture()).save(buffer, "JPEG")
    image = base64.b64encode(buffer.getvalue()).decode()
    row = {"index": 241, "question": "Which one is it?", "hint": "A hint.", "A": "cat", "B": "dog", "C": "", "D": "",
           "answer": "A", "category": "image_scene", "image": image,
           "source": "x", "l2-category": "coarse", "split": "dev"}  # fmt: skip
    rows = [
        row,
        {**row, "index": 1000241, "A": "dog", "B": "cat", "answer": "B"},
        {**row, "index": 252, "hint": "nan", "C": "cow", "answer": "C", "category": "ocr", "image": "241"},
    ]
    table(root / "mmbench_dev_20230712.tsv", rows, "\t")


def mmvet(root):
    content = {
        "v1_0": {"imagename": "v1_0.png", "question": "What is x in the equation?", "answer": "-1<AND>-5",
                 "imagesource": "u", "capability": ["ocr", "math"]},
        "v1_1": {"imagename": "v1_1.png", "question": "Who is it?", "answer": "a cook", "capability": ["rec"]},
    }  # fmt: skip
    dump(root / "mm-vet.json", content)
    for name in content:
        picture(root / "images" / f"{name}.png")


def seed(root):
    base = {"choice_a": "one", "choice_b": "two", "choice_c": "three", "choice_d": "four", "question": "How many?"}
    rows = [
        {**base, "answer": "A", "data_id": "454426_2591111986", "data_type": "image", "question_id": "101669",
         "question_type_id": 5},
        {**base, "answer": "C", "data_id": "2", "data_type": "image", "question_id": "2", "question_type_id": 1},
        {**base, "answer": "B", "data_id": "9.mp4", "data_type": "video", "question_id": "3", "question_type_id": 10,
         "segment": [0.5, 1.5]},
    ]  # fmt: skip
    types = {"Scene Understanding": 1, "Instances Counting": 5, "Action Recognition": 10}
    dump(root / "SEED-Bench.json", {"questions": rows, "question_type": types})
    for row in rows[:2]:  # the published files have no suffix
        picture(root / "SEED-Bench-image" / f"{row['data_id']}.jpg")
        path = root / "SEED-Bench-image" / f"{row['data_id']}.jpg"
        path.rename(path.with_suffix(""))
    video(root / "SEED-Bench-video" / "9.mp4")


def nextqa(root):
    row = {
        "video": "4010069381",
        "frame_count": 369,
        "width": 640,
        "height": 480,
        "question": "how do the two man play",
    }
    row |= {"answer": 0, "qid": 6, "type": "CH"} | {f"a{n}": f"option {n}" for n in range(5)}
    table(root / "test.csv", [row, {**row, "qid": 7, "answer": 3, "type": "TN", "question": "what is next"}])
    dump(root / "map_vid_vidorID.json", {"4010069381": "1164/4010069381"})
    video(root / "NExTVideo" / "1164" / "4010069381.mp4")


def how2qa(root):
    names = ("vid_id", "timesteps", "a2", "a3", "a4", "question", "a1")
    rows = [
        ("abc", "[0:1]", "red", "green", "blue", "Which colour?", "black"),
        ("abc", "[0.5:1.9]", "x", "y", "z", "Which letter?", "w"),
    ]
    rows = [dict(zip(names, row, strict=True)) for row in rows]
    table(root / "how2QA_val_release.csv", rows, header=False)
    video(root / "videos" / "abc.mp4")


def msvdqa(root):
    rows = [
        {"answer": "wrestle", "id": 34805, "question": "what do two boys do?", "video_id": 1},
        {"answer": "cat", "id": 34806, "question": "who is it?", "video_id": 2},
    ]
    dump(root / "test_qa.json", rows)
    (root / "youtube_mapping.txt").write_text("-4wsuPCjDBc_5_15 vid1\nxyz_0_4 vid2\n")
    for name in ("-4wsuPCjDBc_5_15", "xyz_0_4"):
        video(root / "YouTubeClips" / f"{name}.avi")


def vatex(root):
    rows = [
        {"videoID": "G9zN5TTuGO4_000179_000189", "enCap": ["A cat jumps.", "The cat leaps up."]},
        {"videoID": "b_000000_000010", "enCap": ["Men play drums."]},
    ]
    dump(root / "vatex_public_test_english_v1.1.json", rows)
    for row in rows:
        video(root / "videos" / f"{row['videoID']}.mp4")


def clotho(root):
    rows = [
        {"file_name": f"{n}.wav"} | {f"caption_{i}": f"{what} number {i}" for i in range(1, 6)}
        for n, what in enumerate(("a bell rings", "rain falls, softly"))
    ]
    table(root / "clotho_captions_evaluation.csv", rows)
    for row in rows:
        wave(root / "evaluation" / row["file_name"])


def clotho_aqa(root):
    rows = [
        {"file_name": "a.wav", "QuestionText": question, "answer": answer, "confidence": "yes"}
        for question, answers in (
            ("Is it raining?", ("yes", "yes", "no")),
            ("What is heard?", ("bell", "bird", "bell")),
        )
        for answer in answers
    ]
    table(root / "clotho_aqa_test.csv", rows)
    wave(root / "audio_files" / "a.wav")


def music_avqa(root):
    rows = [
        {"video_id": "00000272", "question_id": 1, "type": json.dumps(["Audio-Visual", "Existential"]),
         "question_content": "Is the <Object> in the <LR> always playing?",
         "templ_values": json.dumps(["violin", "left"]), "question_deleted": 0, "anser": "yes"},
        {"video_id": "sa0", "question_id": 2, "type": json.dumps(["Audio", "Counting"]), "templ_values": "[]",
         "question_content": "How many instruments are there?", "question_deleted": 0, "anser": "two"},
    ]  # fmt: skip
    dump(root / "avqa-test.json", rows)
    video(root / "MUSIC-AVQA-videos-Real" / "00000272.mp4", sound=True)
    video(root / "MUSIC-AVQA-videos-Synthetic" / "sa0.mp4")  # mute


def valor(root):
    rows = [
        {"video_id": "x6iCUDmRpKQ_30.000_40.000", "desc": "A man sings."},
        {"video_id": "b", "desc": "Cars pass by."},
    ]
    dump(root / "desc_test.json", rows)
    for row in rows:
        video(root / "videos" / f"{row['video_id']}.mp4", sound=True)


def avsd(root):
    names, said = ("MIHO3", "HSEJU"), ("he leaves the room", "yes, a dog barks")

    def dialogues(last):
        turns = [{"question": "is there sound ?", "answer": "no"}]
        return [{"image_id": name, "caption": "c", "dialog": [*turns, {"question": f"what now {n} ?", "answer": a}]}
                for n, (name, a) in enumerate(zip(names, last, strict=True))]  # fmt: skip

    dump(root / "test_set4DSTC7-AVSD.json", {"dialogs": dialogues(["__UNDISCLOSED__"] * 2)})
    dump(root / "lbl_test_set4DSTC7-AVSD.json", {"dialogs": dialogues(said)})
    for name in names:
        video(root / "videos" / f"{name}.mp4", sound=True)


def objaverse(root):
    rows = [
        {"object_id": name, "conversation_type": "simple_description",
         "conversations": [{"from": "human", "value": "<point>\nWhat is this?"}, {"from": "gpt", "value": text}]}
        for name, text in (("e85ebb72", "a red car with wheels"), ("0d7a2c", "a small wooden chair"))
    ]  # fmt: skip
    dump(root / "PointLLM_brief_description_val_200_GT.json", rows)
    xyz, rgb = makers.cloud()
    (root / "8192_npy").mkdir()
    for row in rows:
        np.save(root / "8192_npy" / f"{row['object_id']}_8192.npy", np.hstack([xyz, rgb / 255]).astype(np.float32))


def nyu(root):
    """As MATLAB writes it: columns first, cells as references to numbers of characters."""
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        depth_m = np.linspace(1, 4, 3 * 40 * 30, dtype=np.float32).reshape(3, 40, 30)  # [n, W, H]
        file["depths"] = depth_m
        types = file.create_dataset("sceneTypes", (1, 3), h5py.ref_dtype)
        for number, name in enumerate(("kitchen", "home_office", "foyer")):
            file[f"#refs#/{number}"] = np.array([[ord(c)] for c in name], np.uint16)
            types[0, number] = file[f"#refs#/{number}"].ref
    scipy.io.savemat(root / "splits.mat", {"testNdxs": np.array([[2], [3]]), "trainNdxs": np.array([[1]])})
    (root / "normal").mkdir()
    for number in (2, 3):
        makers.normal_png(root / "normal" / f"{number:04d}.png", 32)


def sun(root):
    names = ("kv1/NYUdata/NYU0001", "xtion/sun3ddata/b", "kv2/kinect2data/c")
    paths = np.empty((1, 3), object)
    paths[0] = [f"/n/fs/sun3d/data/SUNRGBD/{name}" for name in names]
    (root / "SUNRGBDtoolbox/traintestSUNRGBD").mkdir(parents=True)
    scipy.io.savemat(
        root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", {"alltest": paths, "alltrain": paths[:, :1]}
    )
    for name, scene in zip(names, ("dining_room", "rest_space", "gym"), strict=True):
        folder = root / "SUNRGBD" / name
        (folder / "depth_bfx").mkdir(parents=True)
        (folder / "scene.txt").write_text(scene)
        millimetres = np.full((30, 40), 2500, np.uint16)
        millimetres[0, 0] = 0
        Image.fromarray((millimetres << 3) | (millimetres >> 13)).save(folder / "depth_bfx" / "x_abs.png")
        makers.normal_png(folder / "normal.png", 32)


def ego4d(root):
    images = [
        {"id": n, "file_name": f"{n}", "video_uid": "uid", "window_start": 1.0 + n, "window_end": 3.0 + n}
        for n in range(2)
    ]
    notes = [{"id": n, "image_id": n, "caption": c} for n, c in enumerate(("c walks along the road", "c opens a door"))]
    dump(root / "imu_2000_cococap.json", {"images": images, "annotations": notes})
    (root / "processed_imu").mkdir()
    np.save(root / "processed_imu" / "uid.npy", makers.motion(1200, 200.0).T)
    np.save(root / "processed_imu" / "uid_timestamps.npy", np.arange(1200) * 5.0)


def nsd(root):
    images = [{"id": n, "file_name": f"datasets/Eval/fmri/test_{n}.npy"} for n in range(5)]
    notes = [{"id": n, "image_id": n, "caption": f"a scene with {n + 1} people outside"} for n in range(5)]
    dump(root / "fmri_eval_cococap.json", {"images": images, "annotations": notes})
    (root / "fmri").mkdir()
    for n in range(5):
        np.save(root / "fmri" / f"test_{n}.npy", np.random.default_rng(n).normal(size=(3, 20)).astype(np.float32))


LAYOUTS = {
    "gqa": gqa, "vqav2": vqav2, "okvqa": okvqa, "textvqa": textvqa, "sqa": sqa, "vizwiz": vizwiz, "nocaps": nocaps,
    "flickr30k": flickr30k, "mme": mme, "mmbench": mmbench, "mmvet": mmvet, "seed": seed, "nextqa": nextqa,
    "how2qa": how2qa, "msvdqa": msvdqa, "vatex": vatex, "clotho-cap": clotho, "clotho-aqa": clotho_aqa,
    "music-avqa": music_avqa, "valor32k": valor, "avsd": avsd, "objaverse-cap": objaverse, "objaverse-cls": objaverse,
    "nyuv2-depth": nyu, "nyuv2-normal": nyu, "sunrgbd-depth": sun, "sunrgbd-normal": sun, "ego4d-imu": ego4d,
    "nsd-fmri": nsd,
}  # fmt: skip


def write(name, data):
    """Write a benchmark's samples below a data folder; return the folder."""
    from train.evaluation.benchmarks import BENCHMARKS

    LAYOUTS[name](data / BENCHMARKS[name].folder)
    return data
