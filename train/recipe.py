"""A recipe: one YAML file a stage. It says what trains, on what, how; everything else stays frozen."""

import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES
from onellm.model.output_heads import KINDS as OUTPUTS
from train.modules import PARTS

OBJECTIVES = ("anchor", "contrast", "caption", "prefix", "chat", "codes", "draw")
PRECISIONS = ("float32", "bfloat16", "float16")
QUANTIZATIONS = ("none", "8bit", "4bit")
SCHEDULES = ("cosine", "linear", "constant")
REPORTS = ("tensorboard", "wandb")
BOOLEAN = "tag:yaml.org,2002:bool"
MADE = ("items", "classes", "drawings")  # sources that the small corpus makes up; the others are files


class _Loader(yaml.SafeLoader):
    """Reads booleans as YAML 1.2 has them: `on` and `no` are words."""

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != BOOLEAN]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(BOOLEAN, re.compile("^(?:true|false)$", re.IGNORECASE), list("tTfF"))


def _read(text: str) -> Any:
    """Read YAML."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class RecipeError(OneLLMError):
    """A recipe that cannot be followed, in words."""


@dataclass
class Source:
    """One ingredient of the data mix.

    Attributes:
        modality: of the files of every example; several for examples of several files, "text" for none.
        source: "items" (the small corpus), "classes" (the names a frozen stem knows, mixed synthetically), "drawings"
            (requests for the small corpus's drawings, and talk without any), or a format
            of `train.data.formats`.
        path: the file, folder, or shards.
        root: the folder that file names in a list are relative to; that of the list if None.
        weight: share in the mix, beside the others'.
        prompt: a question to ask of every caption; None asks none.
        request: such as "Draw {}.": every caption is asked for in these words, and its file is the answer.
        limit: take only so many examples.
        columns: what a table calls its columns: {"file": ..., "caption": ...}.
        split: of a corpus or a hub's data set.
        name: for logs; made of kind and path if None.
    """

    kind: str | list[str]
    source: str
    path: str | None = None
    root: str | None = None
    weight: float = 1.0
    prompt: str | None = None
    request: str | None = None
    limit: int | None = None
    columns: dict = field(default_factory=dict)
    split: str = "train"
    name: str | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The files' modalities; none for text alone."""
        modalities = [self.kind] if isinstance(self.kind, str) else self.kind
        return () if modalities == ["text"] else tuple(modalities)

    @property
    def label(self) -> str:
        """What logs call it."""
        return (
            self.name
            or " ".join(["+".join(self.modalities) or "text", Path(self.path).name if self.path else ""]).strip()
        )

    def check(self) -> None:
        """Check what can be checked without opening anything.

        Raises:
            RecipeError: a modality or a source is unknown, or a path is missing.
        """
        from train.data.formats import FORMATS

        for modality in self.modalities:
            _one_of("kind", modality, [*MODALITIES, "text"])
        _one_of("source", self.source, [*MADE, *FORMATS])
        if self.source not in MADE and not self.path:
            raise RecipeError(f"The source {self.label} ({self.source}) has no path; say where its data lies.")
        if self.request is not None and "{}" not in self.request:
            raise RecipeError(
                f"The request '{self.request}' has no {{}} for the caption; write one, as in 'Draw {{}}.'."
            )
        if self.weight <= 0:
            raise RecipeError(f"The source {self.label} has the weight {self.weight}; give a positive one, or drop it.")


@dataclass
class Samples:
    """Answers generated while training, for people to look at.

    Attributes:
        every: optimiser steps between two looks.
        ask: {"kind": file, "question": text} each; a modality's default question if there is none.
        tokens: longest answer.
    """

    every: int = 500
    ask: list[dict] = field(default_factory=list)
    tokens: int = 24


@dataclass
class Recipe:
    """One stage of training.

    Attributes:
        name: of the stage; its checkpoints and result go to `<runs>/<name>`.
        objective: "anchor" (soft tokens against the words of the name, without the LLM), "contrast" (a Q-Former that
            reads captions against files, without the LLM), "caption" (the caption through the LLM, right behind the
            file, as in alignment), "prefix" (the same, cut at random: the encoder of an encoder-decoder LLM reads its
            first part), "chat" (the answers of a conversation), "codes" (picture codes of the small corpus's
            drawings, see `train.drawing.vq`) or "draw" (an LLM that writes these, see `train.drawing.train`).
        train: names of the parts that train, keys of `train.modules.PARTS`.
        data: the mix; one batch is of one source.
        steps: optimiser steps.
        batch: samples an optimiser step, over all processes.
        learning_rate: peak; warm-up over `warmup` steps, then `schedule` down to `min_learning_rate`.
        learning_rates: of parts that learn at another rate than the rest: `{projector: 2.0e-5}`.
        preset: a new model of this preset (or of its JSON file), or
        init: the model to go on from: an earlier stage's name, a model folder or a model's name.
        parts: where pretrained parts of a new model come from: `language_model` (a folder or a name on the hub),
            `encoder` ("ViT-L-14-quickgelu/openai": architecture and tag or file of open_clip; or a model as for
            `init`, whose tokenizers come along), `qformer` (a model as for `init`: its projector but for the last
            layer, which is made for the LLM; or a BERT for one that reads text: "google-bert/bert-base-uncased", or
            "minilm-l6", which a Python registry has) and `codes` (the name of the stage that trained picture codes, or
            its folder).
        config: changes to the preset or to the folder's config, such as `{projector: {experts: 5}}`.
        generators: modality -> the diffusers pipeline, a folder or a name on the hub, whose text encoder says what the
            outputs of the type "representation" are to be.
        denoise: let that pipeline's denoising error count too.
        from_image: modalities whose queries, projections and tags start as copies of the image's (the paper's stage II
            and III).
        adapter: on the LLM: LoRA (PEFT's settings, such as `r`, `lora_alpha` and `target_modules`), or
            `{type: routed, ...}`, see `OneLLMConfig.adapter`.
        quantize: "8bit" or "4bit" keeps the frozen LLM and experts in bitsandbytes' formats (QLoRA).
        micro_batch: samples a process at once; the rest of `batch` is accumulated. None: as many as there are.
        precision: of the arithmetic; what trains is kept in float32.
        save_precision: of the saved model.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        max_tokens: longest row; captions are cut there.
        augment: vary pictures and spectrograms as the paper's alignment does.
        temperature: weigh every source by its number of examples to the power of 1 / temperature as well; None: by
            its weight alone.
        lockstep: so many micro-batches in a row are of one source, at least as many as there are processes, so that
            all run the same modules at once; None: the number of processes. Fix it to resume on another number.
        workers: processes that load data, for each training process.
        evaluation: held-out data, a mean loss each.
    """

    name: str
    objective: str
    train: list[str]
    data: list[Source]
    steps: int
    batch: int
    learning_rate: float
    preset: str | None = None
    init: str | None = None
    parts: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    generators: dict = field(default_factory=dict)
    denoise: bool = False
    from_image: list[str] = field(default_factory=list)
    adapter: dict | None = None
    quantize: str = "none"
    micro_batch: int | None = None
    learning_rates: dict = field(default_factory=dict)
    warmup: int = 50
    schedule: str = "cosine"
    min_learning_rate: float = 0.0
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    clip: float = 1.0
    optimizer: str = "adamw_torch_fused"
    precision: str = "float32"
    save_precision: str = "float16"
    gradient_checkpointing: bool = False
    max_tokens: int = 2048
    augment: bool = False
    temperature: float | None = None
    lockstep: int | None = None
    workers: int = 0
    save_every: int = 200
    keep: int = 2
    log_every: int = 10
    evaluation: list[Source] = field(default_factory=list)
    evaluate_every: int = 500
    evaluation_batches: int = 8
    samples: Samples | None = None
    report: list[str] = field(default_factory=list)
    seed: int = 0

    def check(self) -> None:
        """Check what can be checked before anything loads.

        Raises:
            RecipeError: something does not fit.
        """
        _one_of("objective", self.objective, OBJECTIVES)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("save_precision", self.save_precision, PRECISIONS)
        _one_of("quantize", self.quantize, QUANTIZATIONS)
        _one_of("schedule", self.schedule, SCHEDULES)
        for key, values, valid in (
            ("train", self.train, PARTS),
            ("part", self.learning_rates, PARTS),
            ("parts", self.parts, ("language_model", "encoder", "qformer", "codes")),
            ("from_image", self.from_image, MODALITIES),
            ("generators", self.generators, OUTPUTS),
            ("report", self.report, REPORTS),
        ):
            for value in values:
                _one_of(key, value, valid)
        if (self.preset is None) == (self.init is None):
            raise RecipeError("Give either 'preset' (a new model) or 'init' (one to go on from).")
        if not self.train:
            raise RecipeError(f"Nothing trains; 'train' takes {', '.join(PARTS)}.")
        if not self.data:
            raise RecipeError("There is no data; list at least one source.")
        positive = ("steps", "batch", "learning_rate", "micro_batch", "save_every", "log_every", "max_tokens", "keep")
        positive += ("temperature", "lockstep", "evaluate_every", "evaluation_batches")
        for key in positive:
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise RecipeError(f"'{key}' is {value}; give a positive number.")
        if self.micro_batch and self.batch % self.micro_batch:
            raise RecipeError(
                f"'batch' ({self.batch}) is no multiple of 'micro_batch' ({self.micro_batch}); choose one that is."
            )
        if self.quantize != "none" and "language_model" in self.train:
            raise RecipeError("A quantised LLM cannot train; train its 'adapter', or set 'quantize: none'.")
        labels = set()
        for source in [*self.data, *self.evaluation]:
            source.check()
            if source.path and source.label in labels:
                raise RecipeError(f"Two sources are called '{source.label}'; give each a 'name'.")
            labels.add(source.label)


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the file.
        changes: keys set to other values: "steps=50", "config={projector: {experts: 5}}".

    Raises:
        RecipeError: the file is missing or no YAML mapping, has unknown, missing or mistyped keys, or asks for
            something that does not exist.
    """
    try:
        values = _read(Path(path).read_text())
        changed = {key: _read(value) for key, _, value in (change.partition("=") for change in changes)}
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"The recipe {path} cannot be read ({error}); give a YAML file.") from error
    if not isinstance(values, dict):
        raise RecipeError(f"The recipe {path} holds no mapping of keys to values; see train/recipes.")
    try:
        recipe = build(Recipe, values | changed)
        recipe.check()
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    return recipe


def build(cls: type, values: dict) -> Any:
    """Build a dataclass of YAML values, nested ones too.

    Raises:
        RecipeError: a key is unknown, missing, or of another type.
    """
    valid = [item.name for item in fields(cls)]
    for key in values:
        _one_of("key", key, valid)
    for item in fields(cls):
        if item.default is MISSING and item.default_factory is MISSING and item.name not in values:
            raise RecipeError(f"The key '{item.name}' is missing.")
    hints = get_type_hints(cls)
    return cls(**{key: _typed(key, value, hints[key]) for key, value in values.items()})


def _typed(key: str, value: Any, hint: Any) -> Any:
    """Check a YAML value against a type hint, and build what it describes."""
    if get_origin(hint) is UnionType:
        choices = get_args(hint)
        if value is None and type(None) in choices:
            return None
        fitting = [choice for choice in choices if isinstance(value, get_origin(choice) or choice)]
        return _typed(key, value, fitting[0] if fitting else choices[0])
    if is_dataclass(hint) and isinstance(value, dict):
        return build(hint, value)
    if hint is float and isinstance(value, int | float | str):  # YAML 1.1 takes 1e-3 for a text
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, get_origin(hint) or hint) and not (hint is int and isinstance(value, bool)):
        inner = get_args(hint)
        return [_typed(key, item, inner[0]) for item in value] if get_origin(hint) is list else value
    wanted = getattr(get_origin(hint) or hint, "__name__", str(hint))
    raise RecipeError(f"'{key}' is {value!r}; expected {wanted}.")


def _one_of(what: str, value: Any, valid: Any) -> None:
    if value not in valid:
        raise RecipeError(f"The {what} '{value}' is not known; choose one of {', '.join(valid)}.")
