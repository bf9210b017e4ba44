"""A recipe: one YAML file a stage. It says what trains, on what, how; everything else stays frozen."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES
from onellm.model.output_heads import KINDS as OUTPUTS
from train.data.formats.sources import FORMATS
from train.modules import PARTS

SYNTHETIC = ("items", "classes", "drawings")  # sources that the small corpus generates; the others are files
BOOLEAN, FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    """Reads booleans and floats as YAML 1.2 has them: `on` and `no` are text, 1e-3 is a number."""

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != BOOLEAN]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(BOOLEAN, re.compile("^(?:true|false)$", re.IGNORECASE), list("tTfF"))
_Loader.add_implicit_resolver(FLOAT, re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)e[-+]?\d+$", re.I), list("-+.0123456789"))


class RecipeError(OneLLMError):
    """A recipe that cannot be followed, in words."""


def one_of(what: str, valid: Iterable[str], value: str) -> str:
    """Return a name that is known; raise ValueError with the nearest one for any other."""
    if value not in valid:
        near = get_close_matches(str(value), valid, 1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ValueError(f"the {what} '{value}' is not known{hint}; choose one of {', '.join(valid)}")
    return value


def _name(what: str, valid: Iterable[str]) -> Any:
    return Annotated[str, AfterValidator(partial(one_of, what, valid))]


Module, Modality = _name("module", PARTS), _name("kind", MODALITIES)
Precision = Literal["float32", "bfloat16", "float16"]


class _Checked(BaseModel):
    """Values of a recipe: of exactly these types (true is no number), finite, and under no other keys."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    ALIASES: ClassVar[dict[str, str]] = {}  # another spelling of a key -> the key

    @model_validator(mode="before")
    @classmethod
    def _know_keys(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {one_of("key", cls.model_fields, cls.ALIASES.get(key, key)): value for key, value in values.items()}

    def changed(self, **changes: Any) -> Self:
        """Return a checked copy with other values under some keys; raises like `build`."""
        return build(type(self), {**dict(self), **changes})


def _kinds(value: Any) -> str | list[str]:
    for kind in value if isinstance(value, list) and value else [value]:
        one_of("kind", [*MODALITIES, "text"], kind)
    return value


class Source(_Checked):
    """One ingredient of the data mix.

    Attributes:
        kind: modality of the files of every example; several for examples of several files, "text" for none.
        source: "items" (the small corpus), "classes" (the names a frozen backbone knows, mixed synthetically),
            "drawings" (requests for the small corpus's drawings, and talk without any), or a key of `FORMATS`.
        path: the file, folder, or shards.
        root: the folder that file names in a list are relative to; that of the list if None.
        weight: share in the mix, beside the others'.
        prompt: a question to ask of every caption; None asks none.
        request: such as "Draw {}.": every caption is asked for in these words, and its file is the answer.
        limit: take only so many examples.
        columns: what a table calls its columns: {"file": ..., "caption": ...}.
        split: of a corpus or a hub's data set.
        name: for logs; kind and path if None.
    """

    kind: Annotated[str | list[str], PlainValidator(_kinds)]
    source: _name("source", [*SYNTHETIC, *FORMATS])
    path: str | None = None
    root: str | None = None
    weight: PositiveFloat = 1.0
    prompt: str | None = None
    request: str | None = None
    limit: PositiveInt | None = None
    columns: dict[str, Any] = {}
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

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.source not in SYNTHETIC and not self.path:
            raise ValueError(f"the source {self.label} ({self.source}) has no path; say where its data lies")
        if self.request is not None and "{}" not in self.request:
            raise ValueError(f"the request '{self.request}' has no {{}} for the caption; write one: 'Draw {{}}.'")
        return self


class Samples(_Checked):
    """Answers generated while training, for people to look at.

    Attributes:
        every: optimiser steps between two evaluations.
        ask: {"kind": file, "question": text} each; a modality's default question if there is none.
        tokens: longest answer.
    """

    every: PositiveInt = 500
    ask: list[dict[str, str]] = []
    tokens: PositiveInt = 24


class Recipe(_Checked):
    """One stage of training.

    Attributes:
        name: of the stage; its checkpoints and result go to `<runs>/<name>`.
        objective: "anchor" (soft tokens against the tokens of the name, without the LLM), "contrast" (a Q-Former that
            reads captions against files, without the LLM), "caption" (the caption through the LLM, right behind the
            file, as in alignment), "prefix" (the same, cut at random: the encoder of an encoder-decoder LLM reads its
            first part), "chat" (the answers of a conversation), "codes" (a VQ model of the small corpus's
            drawings, see `train.drawing.vq`) or "draw" (an LLM that generates its tokens, see `train.drawing.train`).
        train: names of the modules that train, keys of `train.modules.PARTS`.
        data: the mix; one batch is of one source.
        steps: optimiser steps.
        batch: samples an optimiser step, over all processes.
        learning_rate: peak; warm-up over `warmup` steps, then `schedule` down to `min_learning_rate`.
        learning_rates: of modules that learn at another rate than the rest: `{projector: 2.0e-5}`.
        preset: a new model of this preset (or of its JSON file), or
        init: the model to go on from: an earlier stage's name, a model folder or a model's name.
        parts: where pretrained parts of a new model come from: `language_model` (a folder or a name on the hub),
            `encoder` ("ViT-L-14-quickgelu/openai": architecture and tag or file of open_clip; or a model as for
            `init`, whose tokenizers come along), `qformer` (a model as for `init`: its projector but for the last
            layer, which is made for the LLM; or a BERT for one that reads text: "google-bert/bert-base-uncased", or
            "minilm-l6", which a Python registry has) and `codes` (the name of the stage that trained the VQ model, or
            its folder).
        config: changes to the preset or to the folder's config, such as `{projector: {experts: 5}}`.
        generators: modality -> the diffusers pipeline, a folder or a name on the hub, whose text encoder
            gives the targets of the outputs of the type "representation".
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
        homogeneous_batches: (or `lockstep`) so many micro-batches in a row are of one source, at least as many as there
            are processes, so that all run the same modules at once; None: the number of processes. Fix it to resume on
            another number.
        workers: processes that load data, for each training process.
        evaluation: held-out data, a mean loss each.
    """

    ALIASES = {"lockstep": "homogeneous_batches"}

    name: str
    objective: Literal["anchor", "contrast", "caption", "prefix", "chat", "codes", "draw"]
    train: list[Module] = Field(min_length=1)
    data: list[Source] = Field(min_length=1)
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    preset: str | None = None
    init: str | None = None
    parts: dict[_name("part", ("language_model", "encoder", "qformer", "codes")), str] = {}
    config: dict[str, Any] = {}
    generators: dict[_name("output", OUTPUTS), Any] = {}
    denoise: bool = False
    from_image: list[Modality] = []
    adapter: dict[str, Any] | None = None
    quantize: Literal["none", "8bit", "4bit"] = "none"
    micro_batch: PositiveInt | None = None
    learning_rates: dict[Module, PositiveFloat] = {}
    warmup: NonNegativeInt = 50
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_learning_rate: NonNegativeFloat = 0.0
    weight_decay: NonNegativeFloat = 0.01
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field([0.9, 0.999], min_length=2, max_length=2)
    clip: NonNegativeFloat = 1.0
    optimizer: str = "adamw_torch_fused"
    precision: Precision = "float32"
    save_precision: Precision = "float16"
    gradient_checkpointing: bool = False
    max_tokens: PositiveInt = 2048
    augment: bool = False
    temperature: PositiveFloat | None = None
    homogeneous_batches: PositiveInt | None = None
    workers: NonNegativeInt = 0
    save_every: PositiveInt = 200
    keep: PositiveInt = 2
    log_every: PositiveInt = 10
    evaluation: list[Source] = []
    evaluate_every: PositiveInt = 500
    evaluation_batches: PositiveInt = 8
    samples: Samples | None = None
    report: list[Literal["tensorboard", "wandb"]] = []
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.preset is None) == (self.init is None):
            raise ValueError("give either 'preset' (a new model) or 'init' (one to go on from)")
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(
                f"'batch' ({self.batch}) is no multiple of 'micro_batch' ({self.micro_batch}); choose one that is"
            )
        if self.quantize != "none" and "language_model" in self.train:
            raise ValueError("a quantised LLM cannot train; train its 'adapter', or set 'quantize: none'")
        labels = [source.label for source in [*self.data, *self.evaluation] if source.path]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two sources are called '{label}'; give each a 'name'")
        return self


# what pydantic found wrong -> what was expected, with its limits
EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "too_short": "at least {min_length} in the list",
    "too_long": "at most {max_length} in the list",
    "literal_error": "one of {expected}",
}


def build(cls: type[_Checked], values: Any) -> Any:
    """Build a recipe or a part of one from YAML values.

    Raises:
        RecipeError: a key is unknown or missing, or a value is of another type, out of range or does not fit.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise RecipeError(" ".join(map(_sentence, error.errors(include_url=False)))) from None


def _sentence(error: Any) -> str:
    """Say one of pydantic's errors as "data.0.weight: found -1; expected a number above 0; correct it."."""
    path = ".".join(str(step) for step in error["loc"] if step != "[key]")
    start, context = f"{path}: " if path else "", error.get("ctx", {})
    if error["type"] == "missing":
        return f"{start}the key is missing; add it."
    if error["type"] == "value_error":
        return f"{start}{context['error']}."
    expected = EXPECTED.get(error["type"])
    expected = expected.format(**context) if expected else error["msg"]
    return f"{start}found {error['input']!r:.80}; expected {expected}; correct it."


def read_mapping(path: str | Path) -> dict:
    """Read a YAML file of keys and values.

    Raises:
        RecipeError: it is missing, no YAML, or holds something else.
    """
    try:
        values = _Loader(Path(path).read_text(encoding="utf-8")).get_single_data()
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"The recipe {path} cannot be read ({reason}); expected a YAML file; check it.") from error
    if not isinstance(values, dict):
        raise RecipeError(f"The recipe {path} holds {values!r:.40}; expected keys and values; see train/recipes.")
    return values


def load_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the file.
        changes: keys set to other values: "steps=50", "config={projector: {experts: 5}}".

    Raises:
        RecipeError: the file or a change is no YAML, or what it says cannot be followed.
    """
    values = read_mapping(path)
    try:
        values |= {
            key: _Loader(value).get_single_data() for key, _, value in (change.partition("=") for change in changes)
        }
        return build(Recipe, values)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set: {' '.join(str(error).split())}; expected KEY=VALUE; correct it.") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
