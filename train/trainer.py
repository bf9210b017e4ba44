"""Running a recipe: transformers' Trainer on accelerate, on one process or many."""

import importlib
import logging
import pickle
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from safetensors import SafetensorError
from torch import nn
from transformers import TrainingArguments

from onellm.errors import OneLLMError
from onellm.model.projectors import WordAnchor
from onellm.utils import atomic
from train.build import build_model, save, start_folder
from train.callbacks import Watch, forget_skipped
from train.checkpoints import CheckpointingTrainer, check_shards, last_checkpoint
from train.data.collate import Collator
from train.data.mixture import Mixture
from train.data.streams import all_streams, file_streams
from train.modules import PARTS, matches
from train.output_loss import Answers, answers_of
from train.recipe import Recipe, RecipeError, Source
from train.small.features import Targets, WordTargets

logger = logging.getLogger(__name__)
SCHEDULES = {"cosine": "cosine_with_min_lr", "linear": "linear", "constant": "constant_with_warmup"}
EVALUATION_SEED = 1_000_003  # held-out batches are the same at every evaluation, and another draw than training's
OWN_LOOPS = {"codes": "train.drawing.vq", "draw": "train.drawing.train"}  # objective -> module


class StageTrainer(CheckpointingTrainer):
    """transformers' Trainer with batches that are whole items, checkpoints of what trains, and losses a source.

    A checkpoint appears when it is whole, so a run that is killed, or whose disk is full, always finds the last whole
    one, and a log line ends with it, so that no figure is of steps on both sides of a stop.

    Args:
        recipe: what is trained.
        watch: notes what the log has beside the loss.
        done: steps that an earlier start has finished; TensorBoard forgets later ones.
        **kwargs: the Trainer's own.
    """

    def __init__(self, recipe: Recipe, watch: Watch, done: int, **kwargs):
        super().__init__(callbacks=[watch], data_collator=lambda batch: batch[0], **kwargs)
        self.recipe, self.watch, self.keep = recipe, watch, recipe.keep
        if "tensorboard" in recipe.report and self.args.should_log:
            from torch.utils.tensorboard import SummaryWriter
            from transformers.integrations import TensorBoardCallback

            self.add_callback(TensorBoardCallback(SummaryWriter(watch.out / "logs", purge_step=done + 1)))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Let the modules that have a learning rate of their own learn at it."""
        optimizer = super().create_optimizer(model)
        names = {value: name for name, value in (self.model if model is None else model).named_parameters()}
        for group in list(optimizer.param_groups):
            for part, rate in self.recipe.learning_rates.items():
                own = {value for value in group["params"] if matches(names[value], PARTS[part])}
                group["params"] = [value for value in group["params"] if value not in own]
                optimizer.add_param_group({**group, "params": [p for p in names if p in own], "lr": rate})
        return optimizer

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        """Return the loss of a batch, and note what it was of."""
        inputs = dict(inputs)
        source, keys, skipped = inputs.pop("source"), inputs.pop("keys"), inputs.pop("skipped")
        try:
            loss = super().compute_loss(model, inputs, False, num_items_in_batch)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise RecipeError(_too_large(source, keys, inputs)) from error
        self.watch.note_skipped(source, skipped, self.state.global_step + model.training)
        if model.training:
            items = num_items_in_batch
            if items is not None:  # the Trainer multiplies by the number of processes, which all add to `items`
                items = items / self.args.world_size
            self.watch.saw(source, loss, inputs, len(keys), items)
        return (loss, {}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Return a held-out batch's loss."""
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach().mean(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was watched; the last line, of the whole run, goes to `losses.json` alone."""
        if "train_loss" in logs:  # of this start's steps; a stop behind it would have it drawn twice
            lines = [line for line in self.state.log_history if "loss" in line]
            steps = np.diff([0, *(line["step"] for line in lines)])
            mean = float(np.average([line["loss"] for line in lines], weights=steps))
            self.state.log_history.append({**logs, "train_loss": mean, "step": self.state.global_step})
            return
        super().log({**logs, **(self.watch.figures() if "loss" in logs else self.watch.counts())}, start_time)


def _goes_on(out: Path) -> str:
    step = last_checkpoint(out)[1]
    return f"it goes on from step {step}" if step else "it begins anew"


def _too_large(source: str, keys: list[str], inputs: dict) -> str:
    """Say which batch did not fit, and what to change."""
    files = {
        modality: tuple(max(tuple(value.shape) for value in values)) for modality, values in inputs["media"].items()
    }
    shapes = ", ".join(f"{modality} {list(shape)}" for modality, shape in files.items())
    longest = keys[0]
    if "attention_mask" in inputs:
        lengths = inputs["attention_mask"].sum(dim=1)
        longest = f"{keys[int(lengths.argmax())]}, the longest of {len(keys)} with {int(lengths.max())} tokens"
    return (
        f"A batch of {len(keys)} examples of {source} does not fit into memory (files: {shapes or 'none'}; {longest}); "
        "lower 'micro_batch' or 'max_tokens', or set 'gradient_checkpointing: true'."
    )


def run(recipe: Recipe, runs: Path, resume: bool = True) -> Path:
    """Train one stage, on every process that was launched.

    Args:
        recipe: what to do.
        runs: folder of all stages; the stage's own is `runs / recipe.name`.
        resume: go on from the newest checkpoint where there is one.

    Returns:
        The model folder.

    Raises:
        OneLLMError: something the recipe needs is missing, does not fit, or the disk is full.
    """
    out = runs / recipe.name
    if recipe.objective in OWN_LOOPS:
        own = importlib.import_module(OWN_LOOPS[recipe.objective])
        with atomic.as_user_error(out):
            return own.run(recipe, runs, resume)
    with atomic.as_user_error(out, then=lambda: _goes_on(out)):
        return _run(recipe, runs, out, resume)


def _run(recipe: Recipe, runs: Path, out: Path, resume: bool) -> Path:
    arguments = training_arguments(recipe, out)  # first: it brings the processes together
    micro_batch, accumulated = split_batch(recipe, arguments.world_size)
    arguments.gradient_accumulation_steps = accumulated
    files = file_streams([*recipe.data, *recipe.evaluation], recipe.seed)
    if PartialState().is_main_process:
        if not resume:
            atomic.discard(out)
        for folder in (out, out / "checkpoints"):
            atomic.clear(folder)
        forget_skipped(out, last_checkpoint(out)[1])
    PartialState().wait_for_everyone()
    last, done = last_checkpoint(out)
    model, processor = build_model(recipe, runs)
    answers = answers_of(recipe, model, processor, str(arguments.device))
    collator, held_out = (_collator(recipe, processor, model, augment, answers) for augment in (recipe.augment, False))

    def mixture(sources: list[Source], batches: int, collator: Collator, seed: int) -> Mixture:
        with PartialState().main_process_first():  # which extracts the features that the others then find
            streams = all_streams(sources, files, recipe.objective, seed, model, processor)
        group = recipe.homogeneous_batches or arguments.world_size
        return Mixture(recipe, streams, collator, batches, micro_batch, group, recipe.workers)

    total = recipe.steps * accumulated * arguments.world_size
    held_out_batches = recipe.evaluation_batches * arguments.world_size
    trainer = StageTrainer(
        recipe,
        Watch(recipe, processor, out, model.config.is_encoder_decoder),
        done,
        model=model,
        args=arguments,
        train_dataset=mixture(recipe.data, total, collator, recipe.seed),
        eval_dataset={
            source.label: mixture([source], held_out_batches, held_out, recipe.seed + EVALUATION_SEED)
            for source in recipe.evaluation
        }
        or None,
    )
    try:
        if last:
            check_shards(last)
        trainer.train(resume_from_checkpoint=last)
    except (pickle.UnpicklingError, SafetensorError) as error:
        raise OneLLMError(
            f"The checkpoint {last} holds something else than was written there, maybe code, and was not read "
            f"({str(error).splitlines()[0]}); remove it and start again: it goes on from the one before."
        ) from error
    trained, start = trainer.trained_state(), start_folder(recipe, runs)
    if PartialState().is_main_process:
        atomic.write_json(out / "losses.json", trainer.state.log_history)
        save(out, recipe, start, trained)
        logger.info("saved %s", out)
    PartialState().wait_for_everyone()
    return out


def _collator(recipe: Recipe, processor, model, augment: bool, answers: Answers | None) -> Collator:
    targets = None
    if recipe.objective == "contrast" and getattr(model.projector, "contrast", None) is None:
        raise RecipeError(
            "The objective 'contrast' needs a Q-Former with 'contrast' in its settings: config: {projector: "
            "{vocabulary: 30523, contrast: {}}}."
        )
    if recipe.objective == "anchor":
        if model.projector.anchor is None:
            raise RecipeError("The objective 'anchor' needs a model with an anchor, such as the preset onellm-tiny.")
        anchor, queries = model.projector.anchor, model.config.projector["queries"]
        if isinstance(anchor, WordAnchor):
            targets = WordTargets(anchor.words, queries)
        else:
            targets = Targets(processor.tokenizer, queries, token_ids=anchor.token_ids.tolist())
    is_encoder_decoder = model.config.is_encoder_decoder
    if recipe.objective == "prefix" and not is_encoder_decoder:
        raise RecipeError("The objective 'prefix' needs an encoder-decoder LLM, such as FlanT5; use 'caption'.")
    return Collator(processor, recipe.objective, recipe.max_tokens, targets, augment, is_encoder_decoder, answers)


def split_batch(recipe: Recipe, processes: int) -> tuple[int, int]:
    """Return how many examples a process takes at once, and how many such batches make its share of a step.

    Raises:
        RecipeError: the batch cannot be shared out evenly.
    """
    if recipe.batch % processes:
        raise RecipeError(f"'batch' ({recipe.batch}) cannot be shared by {processes} processes; choose a multiple.")
    share = recipe.batch // processes
    micro_batch = min(recipe.micro_batch or share, share)
    if share % micro_batch:
        raise RecipeError(
            f"A process's share of the batch ({share}) is no multiple of 'micro_batch' ({micro_batch}); change one."
        )
    group = recipe.homogeneous_batches or processes
    if group % processes:
        raise RecipeError(
            f"'homogeneous_batches' ({group}) is no multiple of the {processes} processes; choose one that is."
        )
    return micro_batch, share // micro_batch


def training_arguments(recipe: Recipe, out: Path) -> TrainingArguments:
    """Put a recipe in the Trainer's terms; accelerate's launcher adds how processes share the work."""
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=recipe.steps,
        per_device_train_batch_size=1,  # the dataset's items are whole batches
        per_device_eval_batch_size=1,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        lr_scheduler_type=SCHEDULES[recipe.schedule],
        lr_scheduler_kwargs={"min_lr": recipe.min_learning_rate} if recipe.schedule == "cosine" else None,
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        max_grad_norm=recipe.clip,
        optim=recipe.optimizer,
        bf16=recipe.precision == "bfloat16",
        fp16=recipe.precision == "float16",
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=min(recipe.log_every, recipe.steps),
        eval_strategy="steps" if recipe.evaluation else "no",
        eval_steps=recipe.evaluate_every,
        save_steps=recipe.save_every,
        report_to=[report for report in recipe.report if report != "tensorboard"] or "none",
        run_name=recipe.name,
        seed=recipe.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=recipe.workers,
        dataloader_prefetch_factor=4 if recipe.workers else None,
        dataloader_persistent_workers=recipe.workers > 0,
        dataloader_pin_memory=cuda,
        use_cpu=not cuda,
        ddp_find_unused_parameters=True,  # a batch of one modality leaves the other modalities' modules out
        # the order must not be shuffled away from the numbered batches
        train_sampling_strategy="sequential",
    )
