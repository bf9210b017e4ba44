"""What a recipe will take, worked out from its configuration before anything is loaded: parameters, memory, work.

The formulas count what dominates. Memory a process: frozen weights in the recipe's precision (4bit and 8bit as in
`runtime.quantization`), 16 bytes a trained parameter (float32 weight, gradient, two moments), and activations: 32
numbers of two bytes a token, layer and unit of width (a transformer block with a gated FFN keeps about that many),
or one such layer and every layer's input where activations are recomputed. Work: 2 operations a parameter and token
forward, 2 for gradients to what lies before, 2 more for gradients of what trains.
Source of the rules: Kaplan et al., arXiv:2001.08361, section 2.1; Korthikanti et al., arXiv:2205.05198, section 4.1.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration
from onellm.model.configuration import frames_per_file, merge
from onellm.model.runtime.quantization import mode_for
from train.build import start_config
from train.data.streams import file_streams
from train.modules import freeze
from train.recipe import Recipe

ACTIVATIONS = 32  # kept numbers a token, layer and unit of width


@dataclass
class Plan:
    """What a recipe will take.

    Attributes:
        trained: trained parameters.
        total: all parameters.
        weights_bytes: of what is frozen, in every process unless it is sharded.
        state_bytes: of what trains, with gradients and moments, for all processes together if it is sharded.
        activations_bytes: of one micro-batch.
        work_flop: of the whole run.
    """

    trained: int
    total: int
    weights_bytes: float
    state_bytes: float
    activations_bytes: float
    work_flop: float

    def memory_bytes(self, shards: int = 1) -> float:
        """Return what a process needs if weights and state are spread over `shards` processes."""
        return (self.weights_bytes + self.state_bytes) / shards + self.activations_bytes

    def days(self, processes: int, flops: float) -> float:
        """Return how long the run takes on so many devices of so many operations a second each."""
        return self.work_flop / (processes * flops) / 86_400


def plan(recipe: Recipe, config: OneLLMConfig, micro_batch: int) -> Plan:
    """Work out what a recipe will take.

    Args:
        recipe: the recipe.
        config: of the model it trains.
        micro_batch: examples a process at once.
    """
    with torch.device("meta"):
        model = OneLLMForConditionalGeneration(config)
    trained = freeze(model, recipe.train)
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    size = 4 if recipe.precision == "float32" else 2
    quantised = {"none": size, "8bit": 1, "4bit": 0.53}[mode_for(recipe.quantize, "cpu")]
    weights = sum(
        p.numel() * (quantised if name.startswith(("language_model.model.layers", "projector.experts")) else size)
        for name, p in frozen.items()
    )
    text, tokens = config.text_config, recipe.max_tokens
    llm, projector = _count(model.language_model), _count(getattr(model.projector, "experts", model.projector))
    llm_trains = bool({"language_model", "adapter"} & set(recipe.train))
    sizes = {modality: model.tokenizer_for(modality).count + 1 for modality in config.modalities}
    views = {modality: frames_per_file(modality, settings) for modality, settings in config.modalities.items()}
    share = sum(source.weight for source in recipe.data)
    mix = [(source.weight / share, modality) for source in recipe.data for modality in source.modalities]
    longest = max((sizes[modality] + config.length_of(modality) for _, modality in mix), default=0)
    encoded = sum(weight * sizes[modality] * views[modality] for weight, modality in mix)
    projected = sum(weight * (sizes[modality] + config.length_of(modality)) for weight, modality in mix)
    reads_llm = recipe.objective not in ("anchor", "contrast")
    layers = config.projector.get("layers", 1) * config.projector.get("experts", 1)
    kept = _activations(longest, config.encoder.get("width", 0), layers)
    if reads_llm:
        width = text.hidden_size
        if recipe.gradient_checkpointing:
            kept += tokens * width * 2 * (text.num_hidden_layers + ACTIVATIONS)
        else:
            kept += _activations(tokens, width, text.num_hidden_layers)
        kept += tokens * text.vocab_size * 8  # logits and their gradient in float32
    projector_trains = any(name.startswith("projector") for name, p in model.named_parameters() if p.requires_grad)
    whole = "language_model" in recipe.train
    per_token = 2 + 2 * (llm_trains or projector_trains) + 2 * whole + 2 * recipe.gradient_checkpointing
    work = 2 * _count(model.encoder) * encoded + (6 if projector_trains else 2) * projector * projected
    work += per_token * llm * tokens * reads_llm
    return Plan(
        trained=trained,
        total=sum(p.numel() for p in model.parameters()),
        weights_bytes=weights,
        state_bytes=16 * trained,
        activations_bytes=kept * micro_batch,
        work_flop=work * recipe.batch * recipe.steps,
    )


def check(recipes: list[Recipe], runs: Path) -> list[str]:
    """Check what recipes need, without loading a model, and say in a line each what they will take.

    Args:
        recipes: to be run in this order.
        runs: folder of all stages.

    Raises:
        OneLLMError: data is missing, or a model to start from.
    """
    configs: dict[str, OneLLMConfig] = {}
    lines = []
    for recipe in recipes:
        file_streams([*recipe.data, *recipe.evaluation], recipe.seed)
        config = copy.deepcopy(configs.get(recipe.init)) or start_config(recipe, runs)
        if recipe.init:
            config = OneLLMConfig(**merge(config.to_dict(), recipe.config))
        config.adapter = config.adapter or recipe.adapter
        configs[recipe.name] = config
        lines.append(describe(recipe, plan(recipe, config, recipe.micro_batch or recipe.batch)))
    return lines


def _activations(tokens: int, width: int, layers: int) -> float:
    return tokens * width * layers * ACTIVATIONS * 2.0


def _count(module: torch.nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def describe(recipe: Recipe, found: Plan, shards: int = 1) -> str:
    """Say it in one line."""
    return (
        f"{recipe.name}: {recipe.steps:,} steps of {recipe.batch:,} samples; {found.trained / 1e6:,.1f} of "
        f"{found.total / 1e6:,.1f} million parameters train ({', '.join(recipe.train)}); about "
        f"{found.memory_bytes(shards) / 1e9:,.1f} GB a process, {found.work_flop / 1e15:,.1f} PFLOP at rows of "
        f"{recipe.max_tokens} tokens"
    )
