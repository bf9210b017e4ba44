"""Motion and brain scans (numbers of the paper's text): Ego4D, the Natural Scenes Dataset."""

from functools import partial
from pathlib import Path

from train.evaluation import media, readers
from train.evaluation.benchmark import Benchmark, Split
from train.evaluation.captions import captions

EGO4D = "imu_2000_cococap.json"
NSD = "fmri_eval_cococap.json"


def ego4d_window(root: Path, item: dict) -> dict:
    """Return the part of a window: `video_uid`, `window_start`, `window_end` in seconds."""
    times_s = float(item["window_start"]), float(item["window_end"])
    return {"type": "imu", "make": partial(media.imu_window, root / "processed_imu", item["video_uid"], *times_s)}


def nsd_scan(root: Path, item: dict) -> dict:
    """Return the part of a scan; of the published path only the file's name counts."""
    return {"type": "fmri", "path": root / "fmri" / Path(item["file_name"]).name}


BENCHMARKS = [
    Benchmark(
        "ego4d-imu", "Ego4D motion caption", "text", "ego4d",
        {
            "test": Split(
                partial(readers.coco_captions, annotations=EGO4D, file=ego4d_window, prompt="Describe the motion."),
                (EGO4D, "processed_imu"),
            )
        },
        captions(),
        {"CIDEr": 24.9, "ROUGE-L": 19.5},
        url="https://huggingface.co/datasets/csuhan/OneLLM_Eval",
    ),
    Benchmark(
        "nsd-fmri", "NSD fMRI caption", "text", "nsd",
        {
            "test": Split(
                partial(
                    readers.coco_captions, annotations=NSD, file=nsd_scan,
                    prompt="Describe the scene based on fMRI data.",
                ),
                (NSD, "fmri"),
            )
        },
        captions(),
        {"CIDEr": 31.7, "ROUGE-L": 25.1},
        url="https://huggingface.co/datasets/csuhan/OneLLM_Eval",
    ),
]  # fmt: skip
