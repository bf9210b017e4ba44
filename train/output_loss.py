"""Output tokens and targets of answers that hold generated media beside text.

Source: NExT-GPT (arXiv:2309.05519), section 5.1: the caption's embedding by the generator's own text encoder, and
optionally the generator's denoising error; weighed by the signal-to-noise ratio as in arXiv:2303.09556, section 3.3.
"""

import copy
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from onellm.chat.outputs.diffusion import Generators, caption_condition
from onellm.errors import ModelError
from onellm.modalities import load
from onellm.model.output_heads import find
from train.recipe import Recipe, RecipeError

SNR_MOST = 5.0  # of the weights by signal-to-noise ratio
CAPTIONS = 4096  # whose embeddings are kept


@dataclass
class Target:
    """What is to come of one output.

    Attributes:
        modality: of the output.
        condition: [Q, D], the caption's embedding by the generator's text encoder.
        latents: of what the file shows; None without denoising.
    """

    modality: str
    condition: torch.Tensor
    latents: torch.Tensor | None = None


@dataclass
class CompletedMessages:
    """Messages whose outputs have tokens, and the targets of those that a generator is to make, in order."""

    messages: list[dict]
    targets: list[Target] = field(default_factory=list)


class Answers:
    """Completes the answers of examples.

    Args:
        model: whose outputs they are.
        processor: its processor.
        generators: those of the recipe.
        denoise: whether the generator's denoising error counts too.
    """

    def __init__(self, model: Any, processor: Any, generators: Generators, denoise: bool = False):
        self.processor, self.generators, self.denoise = processor, generators, denoise
        self.settings = model.config.outputs
        self.spans = {span.modality: span for span in model.config.spans}
        self.vq_models = {
            modality: copy.deepcopy(model.outputs[modality])
            for modality, span in self.spans.items()
            if span.codebook_size
        }
        self._condition = lru_cache(CAPTIONS)(
            lambda modality, text: caption_condition(self.pipeline(modality), text).float().cpu()
        )

    def pipeline(self, modality: str) -> Any:
        """Return the generator of a modality."""
        return self.generators.pipeline(modality, self.settings[modality].get("generator"))

    def complete(self, messages: list[dict]) -> CompletedMessages:
        """Give the files in answers their tokens and targets."""
        done = CompletedMessages([])
        for message in messages:
            content = message["content"]
            if message["role"] == "assistant" and not isinstance(content, str):
                content = [part if part["type"] == "text" else self._part(part, done) for part in content]
            done.messages.append({**message, "content": content})
        return done

    def are_whole(self, ids: list[int], targets: list[Target]) -> bool:
        """Whether tokens hold an output for each target."""
        modalities = [span.modality for span, _ in find(ids, list(self.spans.values()))]
        return all(
            modalities.count(target.modality) == sum(t.modality == target.modality for t in targets)
            for target in targets
        )

    def _part(self, part: dict, done: CompletedMessages) -> dict:
        if "tokens" in part:
            return part
        modality = part["type"]
        if modality not in self.settings:
            raise ModelError(f"An answer holds a file of kind {modality}, which this model does not make.")
        settings = self.settings[modality]
        if settings["type"] == "text":
            text = f"{settings['start']}{part['prompt']}{settings['end']}"
            tokens = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        elif modality in self.vq_models:
            tokens = self.spans[modality].tokens_of(encode_picture(self.vq_models[modality], part["path"]))
        else:
            tokens = self.spans[modality].tokens_of()
            latents = encode_latents(self.pipeline(modality), modality, part["path"]) if self.denoise else None
            done.targets.append(Target(modality, self._condition(modality, part["prompt"]), latents))
        return {"type": modality, "tokens": tokens}


def answers_of(recipe: Recipe, model: Any, processor: Any, device: str) -> Answers | None:
    """Return what completes a recipe's answers, and give the model its denoisers; None where a model only writes text.

    Args:
        recipe: of the stage.
        model: whose outputs they are.
        processor: its processor.
        device: that the model trains on; the generators run there too.

    Raises:
        RecipeError: loading processes cannot run a generator.
    """
    if not model.config.outputs:
        return None
    answers = Answers(model, processor, Generators(recipe.generators, device), recipe.denoise)
    signalled = [modality for modality, span in answers.spans.items() if not span.codebook_size]
    if signalled and recipe.workers:
        raise RecipeError("The generators' text encoders run while batches are made; set 'workers: 0'.")
    for modality in signalled if recipe.denoise else ():
        pipeline = answers.pipeline(modality)
        pipeline.unet.requires_grad_(False)
        model.denoisers[modality] = partial(denoising_loss, pipeline)
    return answers


@torch.no_grad()
def encode_picture(vq_model: Any, path: str) -> list[int]:
    """Return the VQ tokens of a picture file."""
    picture = _pixels(load("image", path).array[None], vq_model.size)
    return vq_model.encode(picture.to(vq_model.codebook))[0].tolist()


@torch.no_grad()
def encode_latents(pipeline: Any, modality: str, path: str) -> torch.Tensor:
    """Encode a file as a generator's autoencoder does: [4, h, w] of a picture, [4, T, h, w] of a video.

    Raises:
        RecipeError: a sound's, whose spectrogram the pipelines do not make.
    """
    if modality == "audio":
        raise RecipeError("The denoising loss takes pictures and videos; set 'denoise: false' for sounds.")
    array = load(modality, path).array
    vae = pipeline.vae
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    frames = _pixels(array if modality == "video" else array[None], side) * 2 - 1
    latents = vae.encode(frames.to(vae.device, vae.dtype)).latent_dist.mode() * vae.config.scaling_factor
    return (latents.transpose(0, 1) if modality == "video" else latents[0]).float().cpu()


def _pixels(frames: np.ndarray, side: int) -> torch.Tensor:
    """Turn frames [T, H, W, 3] uint8 into [T, 3, side, side] float32 in 0..1, whole, on white."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2) / 255
    height, width = pixels.shape[-2:]
    scale = side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    down, right = side - size[0], side - size[1]
    return F.pad(pixels, (right // 2, right - right // 2, down // 2, down - down // 2), value=1.0)


def denoising_loss(pipeline: Any, latents: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    """Compute a frozen generator's denoising error under conditions [B, Q, D].

    Args:
        pipeline: with `unet` and `scheduler`.
        latents: [B, ...].
        condition: what the gradient goes to.
    """
    from diffusers.training_utils import compute_snr

    unet, scheduler = pipeline.unet, pipeline.scheduler
    noise = torch.randn_like(latents)
    times = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
    guess = unet(
        scheduler.add_noise(latents, noise, times).to(unet.dtype),
        times,
        encoder_hidden_states=condition.to(unet.dtype),
    ).sample
    snr = compute_snr(scheduler, times)
    velocity = scheduler.config.prediction_type == "v_prediction"
    wanted = scheduler.get_velocity(latents, noise, times) if velocity else noise
    weights = snr.clamp(max=SNR_MOST) / (snr + 1 if velocity else snr)
    errors = (guess.float() - wanted.float()).square().flatten(1).mean(dim=1)
    return (errors * weights).mean()
