"""The model a recipe trains: a new one or one that exists, its frozen parts, its adapter."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoTokenizer

from onellm.errors import ModelError
from onellm.hub import registry
from onellm.hub.convert import generation_of
from onellm.hub.llm import with_llm
from onellm.model import base_parts
from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.model.configuration import merge
from onellm.model.output_heads import build_outputs
from onellm.model.processing import READER
from onellm.model.runtime.quantization import quantization_config
from onellm.utils import atomic
from train.drawing.trained_vq import load_codes_into
from train.modules import (
    copy_from_image,
    copy_part,
    freeze,
    load_encoder,
    load_language_model,
    load_qformer,
    remove_lora,
)
from train.recipe import Recipe, RecipeError
from train.small.features import Targets
from train.small.items import describe, read_items, read_lines
from train.small.nouns import noun_vocabulary

logger = logging.getLogger(__name__)
ANCHOR_SCALE = 30.0


def build_model(recipe: Recipe, runs: Path) -> tuple[OneLLMForConditionalGeneration, OneLLMProcessor]:
    """Build the recipe's model, ready to train: on the CPU, frozen but for the recipe's modules, which are in float32.

    Args:
        recipe: says what it starts from.
        runs: folder of all stages.

    Raises:
        OneLLMError: what it starts from, or a part of it, cannot be had.
    """
    folder = start_folder(recipe, runs)
    model = load(recipe, folder, precision(recipe), recipe.quantize)
    count = freeze(model, recipe.train)
    logger.info("%s: %s of %s parameters train", recipe.name, f"{count:,}", f"{model.num_parameters():,}")
    return model, load_processor(folder, model.config)


def load_processor(folder: Path, config: OneLLMConfig) -> OneLLMProcessor:
    """Load the processor of a folder, for outputs that a recipe may have added."""
    processor = OneLLMProcessor.from_pretrained(folder)
    processor.outputs = OneLLMProcessor.outputs_of(config)
    return processor


def precision(recipe: Recipe) -> torch.dtype:
    """Return the type of the frozen parts; where they are sharded with what trains, all are float32 between uses."""
    from accelerate.utils import DistributedType

    sharded = PartialState().distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    return torch.float32 if sharded else getattr(torch, recipe.precision)


def start_folder(recipe: Recipe, runs: Path) -> Path:
    """Return the model folder that the recipe starts from; that of a new model is made, once, by one process."""
    if recipe.init is not None:
        return _existing_folder(recipe, recipe.init, runs)
    folder = runs / recipe.name / "start"
    with PartialState().main_process_first():
        if not (folder / "config.json").exists():
            _build_new(recipe, folder, runs)
    return folder


def start_config(recipe: Recipe, runs: Path) -> OneLLMConfig:
    """Return the configuration of what the recipe starts from, without making or loading it."""
    if recipe.init is None:
        return new_config(recipe)
    from onellm.model.configuration import PRESETS

    if recipe.init in PRESETS and not (registry.PRETRAINED / recipe.init).exists():
        return OneLLMConfig.from_preset(recipe.init)  # what is not here yet need not be fetched to be looked at
    return OneLLMConfig.from_pretrained(_existing_folder(recipe, recipe.init, runs))


def new_config(recipe: Recipe) -> OneLLMConfig:
    """Return the configuration of a recipe's new model."""
    path = Path(recipe.preset)
    if path.suffix == ".json" and path.exists():
        config = OneLLMConfig(**merge(OneLLMConfig.from_json_file(path).to_dict(), recipe.config))
    else:
        config = OneLLMConfig.from_preset(recipe.preset, **recipe.config)
    config.adapter = recipe.adapter or config.adapter
    llm = recipe.parts.get("language_model")
    if llm in base_parts.PARTS:
        config, _ = with_llm(config, llm)
    for modality, settings in config.modalities.items():
        if settings["tokenizer"].get("nouns") == []:  # those of the corpus
            settings["tokenizer"]["nouns"] = noun_vocabulary(read_items(modality, "train"))
    return config


def _existing_folder(recipe: Recipe, name: str, runs: Path) -> Path:
    """Return the model folder that a recipe names: an earlier stage's, or any."""
    folder = runs / name
    if (folder / "config.json").exists():
        return folder
    try:
        return registry.folder_of(name)
    except ModelError as error:
        raise RecipeError(
            f"The stage {recipe.name} goes on from '{name}', which is no finished stage in {runs}, and no "
            f"model: {error}"
        ) from error


def load(recipe: Recipe, folder: Path, dtype: torch.dtype, quantize: str = "none") -> OneLLMForConditionalGeneration:
    """Load what the recipe starts from, with the recipe's changes.

    Args:
        recipe: its `config`, `adapter` and `from_image` count.
        folder: a model folder.
        dtype: of the weights.
        quantize: "8bit" or "4bit" for the frozen linear layers of LLM and experts.
    """
    torch.manual_seed(recipe.seed)  # of what the stage adds: an adapter, added tokens
    config = OneLLMConfig.from_pretrained(folder)
    changes = recipe.config if recipe.preset is None else {}
    own = config.adapter
    config = OneLLMConfig(**merge(config.to_dict(), changes))
    left_out = own is not None and config.adapter is None
    if left_out:
        config.adapter = own  # until the weights below it are loaded
    elif recipe.adapter and config.adapter and recipe.adapter != config.adapter:
        raise RecipeError(f"The model {folder} has another adapter already ({config.adapter}); leave 'adapter' out.")
    device = "cpu" if not torch.cuda.is_available() else f"cuda:{PartialState().local_process_index}"
    model, report = OneLLMForConditionalGeneration.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        quantization_config=quantization_config(quantize, device),
        device_map={"": device} if quantize != "none" else None,
        output_loading_info=True,
    )
    if report["missing_keys"] and not changes:
        missing = sorted(report["missing_keys"])[0]
        raise ModelError(f"The weights in {folder} lack {missing}; copy or convert the model again.")
    if any(name.startswith(("rows.", "outputs.")) for name in report["missing_keys"]):
        start_outputs(model, recipe.seed)
    if left_out:
        remove_lora(model)
    if recipe.adapter and not model.config.adapter:
        model.insert_adapter(recipe.adapter)
    if "language_model" in recipe.train:  # what changes can't be referred to
        model.config.base_parts.pop("language_model", None)
    for modality in recipe.from_image:
        copy_from_image(model, modality)
    if quantize != "none":
        model._hf_peft_config_loaded = True  # the Trainer asks: what trains is not quantised
    return model


def start_outputs(model: OneLLMForConditionalGeneration, seed: int) -> None:
    """Give the outputs that a recipe adds to a model the weights that they start from."""
    torch.manual_seed(seed)
    if model.rows is not None:
        model.rows.start(model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    fresh = build_outputs(model.config.outputs, model.config.text_config.hidden_size)
    model.outputs.load_state_dict(fresh.state_dict())


def _build_new(recipe: Recipe, folder: Path, runs: Path) -> None:
    """Write the folder of a new model: the preset, its base parts, the recipe's pretrained parts, the rest random."""
    torch.manual_seed(recipe.seed)
    config = new_config(recipe)
    source = recipe.parts.get("language_model")
    if source in base_parts.PARTS:
        source = None  # `new_config` has put it in
    base = config.base_parts.get("language_model")
    if source is None and base is None:
        raise RecipeError(f"{recipe.preset} has no LLM of its own; name one: 'parts: {{language_model: FOLDER}}'.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source or base_parts.fetch(base), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The LLM '{source}' has no tokenizer that loads; give a model folder or a hub name."
        ) from error
    processor = OneLLMProcessor.from_config(tokenizer, config)
    if config.instructed:
        processor.reader = _reader(recipe, runs)
    words = (config.projector.get("anchor") or {}).get("words")
    if words == []:  # those of the corpus
        config.projector["anchor"]["words"] = caption_texts()
    elif recipe.objective == "anchor":
        if "queries" not in config.projector:
            raise RecipeError("The objective 'anchor' needs a projector with queries, such as onellm-tiny's.")
        targets = Targets(tokenizer, config.projector["queries"], caption_texts())
        config.projector["anchor"] = {"size": len(targets.token_ids), "scale": ANCHOR_SCALE}
    model = OneLLMForConditionalGeneration._from_config(config, dtype=getattr(torch, recipe.precision))
    model.generation_config = generation_of(config)
    model.load_base_parts()
    if recipe.parts.get("codes"):
        load_codes_into(model, runs, recipe.parts["codes"])
    if source:
        load_language_model(model, source)
    if model.rows is not None:
        model.rows.start(model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    for part in ("encoder", "qformer"):
        if part in recipe.parts:
            _take(model, part, recipe, runs)
    if words is not None:
        model.projector.anchor.spell(processor.tokenizer)
    elif recipe.objective == "anchor":
        prepare_anchor(model, processor.tokenizer, targets.token_ids)
    with atomic.whole(folder, model.num_parameters() * model.dtype.itemsize) as part:
        model.save_pretrained(part)
        processor.save_pretrained(part)


def _take(model: OneLLMForConditionalGeneration, part: str, recipe: Recipe, runs: Path) -> None:
    """Take the encoder or the Q-Former of a recipe's new model from another model, from open_clip or a BERT."""
    source = recipe.parts[part]
    if _is_foreign(source):
        {"encoder": load_encoder, "qformer": load_qformer}[part](model, _fetched(source))
    else:
        copy_part(model, part, _existing_folder(recipe, source, runs))


def _is_foreign(source: str) -> bool:
    """Tell a base part, and a name or a folder of somewhere else, from a stage, a model and a model folder."""
    if source in base_parts.PARTS:
        return True
    try:
        settings = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "/" in source
    return settings.get("model_type") != OneLLMConfig.model_type


def _fetched(source: str) -> str:
    """Return the folder of a base part, or what is none as it is."""
    return str(base_parts.fetch(source)) if source in base_parts.PARTS else source


def _reader(recipe: Recipe, runs: Path) -> Any:
    """Return the tokenizer of a projector that reads text, from where its weights come."""
    source = recipe.parts.get("qformer")
    if source is None:
        raise RecipeError("The projector reads the question; name a BERT or a model: 'parts: {qformer: NAME}'.")
    if not _is_foreign(source):
        return AutoTokenizer.from_pretrained(_existing_folder(recipe, source, runs) / READER, trust_remote_code=False)
    try:
        reader = AutoTokenizer.from_pretrained(_fetched(source), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"The BERT '{source}' has no tokenizer that loads; give a folder or a hub name.") from error
    reader.add_special_tokens({"bos_token": "[DEC]"})
    return reader


@torch.no_grad()
def prepare_anchor(model: OneLLMForConditionalGeneration, tokenizer: Any, token_ids: list[int]) -> None:
    """Give the anchor its vocabulary, and files quotes around their words, which the LLM knows how to read."""
    model.projector.anchor.token_ids.copy_(torch.tensor(token_ids))
    quote = model.get_input_embeddings()(torch.tensor(tokenizer.convert_tokens_to_ids('"')))
    for name in model.projector.tags:
        for tag in getattr(model.projector, f"{name}_tags").values():
            tag.copy_(quote)


def caption_texts() -> list[str]:
    """List every name the corpus knows, for the anchor's vocabulary."""
    texts = [describe(line["name"], line["basic"]) for line in read_lines("imagenet")]
    texts += [line["name"] for line in read_lines("audioset")]
    for modality in ("point", "imu", "fmri"):
        texts += [text for item in read_items(modality, "train") for text in (item.text, item.noun) if text]
    return sorted(set(texts))


def save(model_folder: Path, recipe: Recipe, start: Path, trained: dict[str, torch.Tensor]) -> None:
    """Write the finished model: what the stage started from, with what it trained put in.

    Its folder may hold more; `config.json`, which makes it a model's, comes last.

    Args:
        model_folder: where to.
        recipe: of the stage.
        start: the folder it started from.
        trained: name -> tensor of every parameter that changed.

    Raises:
        OneLLMError: the disk is full.
    """
    dtype = getattr(torch, recipe.save_precision)
    model = load(recipe, start, dtype)
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        for name, tensor in trained.items():
            parameters[name].copy_(tensor)
    with atomic.filled(
        model_folder, "config.json", "model*.safetensors*", model.num_parameters() * dtype.itemsize
    ) as part:
        model.save_pretrained(part, max_shard_size="9MB" if model.config.base_parts else "5GB")
        load_processor(start, model.config).save_pretrained(part)
