"""Running a recipe: build or continue the model, freeze, train with transformers' Trainer, save a model folder."""

import json
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoTokenizer, Trainer, TrainingArguments

from onellm.auto import OneLLMConfig, OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.errors import OneLLMError
from onellm.model import base_parts
from train.data.batches import AnchorBatches, Targets, build_sources
from train.data.items import describe, read_items, read_lines
from train.data.questions import LanguageBatches
from train.recipe import Recipe

logger = logging.getLogger(__name__)


class AnchorObjective(nn.Module):
    """Cross-entropy of the soft words' mixture weights against the words of the name; the LLM does not run."""

    FILLER_WEIGHT = 0.2

    def __init__(self, model: OneLLMForConditionalGeneration):
        super().__init__()
        self.model = model

    def forward(self, kind: str, features: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {"loss": scalar} for features [B, ...] of one kind and targets [B, M]."""
        projector = self.model.projector
        words = projector.words(self.model.encode(kind, features), kind)
        logits = projector.anchor.logits(words, self.model.get_input_embeddings().weight)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        weight = torch.where(targets.flatten() == 0, self.FILLER_WEIGHT, 1.0)
        return {"loss": (loss * weight).sum() / weight.sum()}


class LanguageObjective(nn.Module):
    """Cross-entropy of the answer's tokens through the LLM."""

    def __init__(self, model: OneLLMForConditionalGeneration):
        super().__init__()
        self.model = model

    def forward(self, labels: torch.Tensor, **inputs) -> dict[str, torch.Tensor]:
        """Return {"loss": scalar}; the head runs only from the first answer on, which is near the end of a row."""
        first = int((labels != -100).any(dim=0).nonzero()[0]) - 1
        kept = labels.shape[1] - first
        labels = labels[:, first:]
        output = self.model(**inputs, labels=labels, logits_to_keep=kept, extracted=True, use_cache=False)
        return {"loss": output.loss}


class StageTrainer(Trainer):
    """transformers' Trainer; a checkpoint holds a model folder without the frozen base parts."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        self.model.model.save_pretrained(output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trained(self.model.model, Path(resume_from_checkpoint))


def load_trained(model: OneLLMForConditionalGeneration, folder: Path) -> None:
    """Copy the trained tensors of a model folder into a model of the same preset."""
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(shard))
    unexpected = model.load_state_dict(tensors, strict=False).unexpected_keys
    if unexpected:
        raise OneLLMError(f"{folder} holds '{unexpected[0]}', which this model does not have; use its own preset.")


def caption_texts() -> list[str]:
    """List every name the corpus knows, for the anchor's vocabulary."""
    texts = [describe(line["name"], line["basic"]) for line in read_lines("imagenet")]
    texts += [line["name"] for line in read_lines("audioset")]
    for kind in ("point", "imu", "fmri"):
        texts += [item.text for item in read_items(kind, "train")]
    return sorted(set(texts))


def build_model(recipe: Recipe, runs: Path) -> tuple[OneLLMForConditionalGeneration, OneLLMProcessor]:
    """Build the recipe's model: the preset with its base parts, or the result of the stage it continues."""
    if recipe.start is not None:
        folder = runs / recipe.start
        if not (folder / "config.json").exists():
            raise OneLLMError(
                f"The stage {recipe.name} continues {recipe.start}, which is not in {runs}; run it first."
            )
        processor = OneLLMProcessor.from_pretrained(folder)
        model = OneLLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    else:
        torch.manual_seed(recipe.seed)
        config = OneLLMConfig.from_preset(recipe.model)
        tokenizer = AutoTokenizer.from_pretrained(base_parts.fetch(config.base_parts["language_model"]))
        processor = OneLLMProcessor.from_config(tokenizer, config)
        targets = Targets(tokenizer, config.projector["queries"], caption_texts())
        config.projector["anchor"] = {"size": len(targets.token_ids), "scale": 30.0}
        model = OneLLMForConditionalGeneration(config)
        model.load_base_parts()
        with torch.no_grad():
            model.projector.anchor.token_ids.copy_(torch.tensor(targets.token_ids))
            # a file's words stand in quotes, which the LLM understands without learning
            quote = model.get_input_embeddings().weight[processor.tokenizer.convert_tokens_to_ids('"')]
            for tag in [*model.projector.start_tags.values(), *model.projector.end_tags.values()]:
                tag.copy_(quote)
    for kind in recipe.copy_image:
        copy_image_projection(model, kind)
    freeze(model, recipe)
    return model, processor


def freeze(model: OneLLMForConditionalGeneration, recipe: Recipe) -> None:
    """Let the recipe's parts train and nothing else; of the LLM only its adapter ever does."""
    for name, parameter in model.named_parameters():
        base = name.startswith("stems") or (name.startswith("language_model") and "lora_" not in name)
        parameter.requires_grad = name.startswith(tuple(recipe.train)) and not base


@torch.no_grad()
def copy_image_projection(model: OneLLMForConditionalGeneration, kind: str) -> None:
    """Start a kind's queries, projections and tags from the image's, as the paper does."""
    projector = model.projector
    projector.input_proj[kind].load_state_dict(projector.input_proj["image"].state_dict())
    projector.output_proj[kind].load_state_dict(projector.output_proj["image"].state_dict())
    for parameters in (projector.queries, projector.start_tags, projector.end_tags):
        parameters[kind].copy_(parameters["image"])


def run_stage(recipe: Recipe, runs: Path, resume: bool = True) -> Path:
    """Train one stage.

    Args:
        recipe: what to do.
        runs: folder of all stages; the stage's own is `runs / recipe.name`.
        resume: continue from the newest checkpoint where there is one.

    Returns:
        The model folder.
    """
    out = runs / recipe.name
    model, processor = build_model(recipe, runs)
    model.train()
    sources = build_sources(recipe, model, processor)
    if recipe.objective == "anchor":
        token_ids = model.projector.anchor.token_ids.tolist()
        targets = Targets(processor.tokenizer, model.config.projector["queries"], token_ids=token_ids)
        objective, batches = AnchorObjective(model), AnchorBatches(recipe, sources, targets)
    else:
        objective, batches = LanguageObjective(model), LanguageBatches(recipe, sources, processor)
    arguments = TrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=recipe.steps,
        per_device_train_batch_size=1,  # the dataset's items are whole batches
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        lr_scheduler_type="cosine",
        weight_decay=recipe.weight_decay,
        logging_steps=max(1, recipe.steps // 20),
        save_steps=recipe.save_every,
        save_total_limit=1,
        seed=recipe.seed,
        remove_unused_columns=False,
        report_to=[],
        dataloader_pin_memory=False,
        # the order must not be shuffled away from the numbered batches
        train_sampling_strategy="sequential",
    )
    trainer = StageTrainer(objective, arguments, train_dataset=batches, data_collator=lambda batch: batch[0])
    checkpoints = sorted((out / "checkpoints").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=bool(resume and checkpoints))
    model.eval()
    model.to(torch.float16).save_pretrained(out, max_shard_size="9MB")
    processor.save_pretrained(out)
    (out / "losses.json").write_text(json.dumps(trainer.state.log_history, indent=1))
    logger.info("saved %s", out)
    return out
