"""Generators: diffusers pipelines that generate a picture, a video or a sound from a prompt, or from its embedding.

Which one is used is said by `--generator image=FOLDER`, by the environment (`ONELLM_GENERATORS`, the same, separated
by commas), by the model's own config, or is one of `KNOWN` if its weights are in the cache. Only what was named is
downloaded.
"""

import argparse
import inspect
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onellm.chat.outputs.media import Media
from onellm.errors import ModelError, OneLLMError
from onellm.utils import oom

NAMES = {"image": "pictures", "video": "videos", "audio": "sounds"}
KNOWN = {
    "image": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "video": "cerspense/zeroscope_v2_576w",
    "audio": "cvssp/audioldm-l-full",
}
FRAMES_A_SECOND = 8
VARIABLE = "ONELLM_GENERATORS"


class Interrupted(Exception):
    """Somebody stopped the answer while a generator ran."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which generators there are."""
    parser.add_argument(
        "--generator",
        action="append",
        type=_named,
        default=[],
        metavar="KIND=G",
        help="a diffusers pipeline, folder or hub name, that makes pictures, videos or sounds: image=FOLDER",
    )


def _named(text: str) -> tuple[str, str]:
    """Read KIND=SOURCE.

    Raises:
        argparse.ArgumentTypeError: it has another form.
    """
    modality, _, source = text.strip().partition("=")
    if modality not in NAMES or not source:
        raise argparse.ArgumentTypeError(
            f"'{text}' names no generator; expected KIND=FOLDER or KIND=NAME with one of {', '.join(NAMES)}, such as "
            "image=my-stable-diffusion"
        )
    return modality, source


def from_environment() -> dict[str, str]:
    """Return the generators that the environment names: modality -> source.

    Raises:
        OneLLMError: it has another form.
    """
    try:
        return dict(map(_named, filter(None, os.environ.get(VARIABLE, "").split(","))))
    except argparse.ArgumentTypeError as error:
        raise OneLLMError(f"{VARIABLE}: {error}.") from error


class Generators:
    """The generators of a process; each is loaded when it is first needed, and kept.

    Args:
        given: modality -> folder or name on the hub; these may be downloaded.
        device: where they run; by default the first GPU, or the CPU.
        settings: modality -> further arguments of the pipeline's call, such as `num_inference_steps`.
    """

    def __init__(
        self, given: dict[str, str] | None = None, device: str | None = None, settings: dict[str, dict] | None = None
    ):
        self.given, self.device, self.settings = dict(given or {}), device, settings or {}
        self._loaded: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def pipeline(self, modality: str, trained: str | None = None) -> Any:
        """Return a modality's pipeline, loaded.

        Args:
            modality: "image", "video" or "audio".
            trained: the one that the model was trained for.

        Raises:
            ModelError: there is none, or it cannot be loaded.
        """
        source = self.given.get(modality) or trained or KNOWN[modality]
        with self._lock:
            if (modality, source) not in self._loaded:
                self._loaded[modality, source] = _load(
                    modality, source, modality in self.given, self.device or _device()
                )
            return self._loaded[modality, source]

    def make(
        self,
        modality: str,
        prompt: str | None = None,
        condition: Any = None,
        trained: str | None = None,
        seed: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Media:
        """Make something.

        Args:
            modality: "image", "video" or "audio".
            prompt: what it shows, as text; or
            condition: [Q, D] tensor in place of the pipeline's text embedding of a prompt.
            trained: as for `pipeline`.
            seed: makes it repeatable.
            stopped: is asked at every step.

        Raises:
            ModelError: there is no generator, or it takes another condition.
            Interrupted: it was stopped.
        """
        pipeline = self.pipeline(modality, trained)
        try:
            return self._run(pipeline, modality, prompt, condition, seed, stopped)
        except (Interrupted, ModelError):
            raise
        except Exception as error:  # whatever a pipeline that was not meant for this raises
            if oom.ran_out(error):
                raise
            raise ModelError(
                f"The generator of {NAMES[modality]} failed ({type(error).__name__}: {error}); name another one: "
                f"--generator {modality}=FOLDER."
            ) from error

    def _run(
        self,
        pipeline: Any,
        modality: str,
        prompt: str | None,
        condition: Any,
        seed: int | None,
        stopped: Callable[[], bool],
    ) -> Media:
        """Run a pipeline; as for `make`."""
        import torch

        device = pipeline.device
        given: dict[str, Any] = {"prompt": prompt}
        if condition is not None:
            wanted = caption_condition(pipeline, "").shape
            if condition.shape != wanted:
                raise ModelError(
                    f"The generator of {NAMES[modality]} takes conditions of {list(wanted)} and the model makes "
                    f"{list(condition.shape)}; give the one that it was trained for: --generator {modality}=FOLDER."
                )
            embeds = condition[None].to(device, pipeline.text_encoder.dtype)
            given = {"prompt_embeds": embeds if _is_sequence(pipeline) else embeds[:, 0]}
        if seed is not None:
            given["generator"] = torch.Generator(device).manual_seed(seed)
        with torch.no_grad():
            output = pipeline(
                **given, **_watched(pipeline, stopped), output_type="np", **self.settings.get(modality, {})
            )
        return _media(modality, output, pipeline)


def caption_condition(pipeline: Any, text: str) -> Any:
    """Return what a pipeline's text encoder says of a caption, [Q, D]: a vector a word, or one in all."""
    import torch

    with torch.no_grad():
        if _is_sequence(pipeline):
            return pipeline.encode_prompt(text, pipeline.device, 1, False)[0][0]
        return pipeline._encode_prompt(text, pipeline.device, 1, False)


def _is_sequence(pipeline: Any) -> bool:
    """Whether a pipeline's condition is a sequence; AudioLDM's is one vector."""
    return hasattr(pipeline, "encode_prompt")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _load(modality: str, source: str, named: bool, device: str) -> Any:
    """Load a pipeline; one that nobody named only from the cache.

    Raises:
        ModelError: it is not there, or cannot be used.
    """
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if named and Path(source).is_dir():
        _check_folder(modality, Path(source))
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            source,
            dtype=torch.float16 if device.startswith("cuda") else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=not named,
        )
    except Exception as error:  # diffusers, the hub and torch raise a dozen kinds of errors
        if not named:
            raise ModelError(
                f"There is no generator for {NAMES[modality]} here; start the program with "
                f"--generator {modality}=FOLDER, a "
                f"folder or a hub name of a diffusers pipeline, such as {source}."
            ) from error
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")
        raise ModelError(
            f"The generator {source} cannot be loaded ({reason}); give a folder or a hub name of a diffusers pipeline "
            "whose weights are safetensors."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _check_folder(modality: str, folder: Path) -> None:
    """Refuse a folder that is no pipeline, or whose classes are not diffusers' or transformers' own.

    Raises:
        ModelError: it is one of these.
    """
    import diffusers

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        name = index["_class_name"]
        libraries = {str(value[0]) for value in index.values() if isinstance(value, list) and value and value[0]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} is no folder of a diffusers pipeline (it has no readable model_index.json); give --generator "
            f"{modality}= another one."
        ) from error
    if not isinstance(name, str) or list(folder.rglob("*.py")):
        raise ModelError(f"The generator {folder} brings code of its own, which is not run; give one without.")
    foreign = {
        library for library in libraries - {"diffusers", "transformers"} if not hasattr(diffusers.pipelines, library)
    }
    if foreign or not hasattr(diffusers, name):
        named = ", ".join(sorted(foreign) or [name])
        raise ModelError(
            f"The generator {folder} is made of classes of {named}, which are not run; give one of diffusers' and "
            "transformers' own classes."
        )


def _watched(pipeline: Any, stopped: Callable[[], bool]) -> dict[str, Any]:
    """Return the arguments with which a pipeline asks at every step whether it is to go on."""

    def check(*arguments: Any) -> Any:
        if stopped():
            raise Interrupted
        return arguments[-1]

    known = inspect.signature(pipeline.__call__).parameters
    return {name: check for name in ("callback_on_step_end", "callback") if name in known}


def _media(modality: str, output: Any, pipeline: Any) -> Media:
    """Take the first of what a pipeline generated.

    Raises:
        ModelError: it generated something else.
    """
    values = getattr(output, {"image": "images", "video": "frames", "audio": "audios"}[modality], None)
    if values is None:
        raise ModelError(
            f"The generator of {NAMES[modality]} ({type(pipeline).__name__}) makes something else; give another one: "
            f"--generator {modality}=FOLDER."
        )
    if modality == "image":
        return Media.of_floats(modality, np.asarray(values[0]))
    if modality == "video":
        return Media.of_floats(modality, np.asarray(values[0]), FRAMES_A_SECOND)
    rate_hz = pipeline.vocoder.config.sampling_rate if hasattr(pipeline, "vocoder") else pipeline.vae.sampling_rate
    sound = np.asarray(values[0])
    return Media.of_floats(modality, sound if sound.ndim == 1 else sound.mean(axis=0), rate_hz)
