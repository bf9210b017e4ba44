"""Train the VQ model: an encoder, a codebook and a decoder that give pictures back; see `onellm/model/vq.py`.

The codebook follows the vectors that fall on its codes, as a running mean; a code that nothing falls on is moved to a
vector of the batch. What the encoder learns passes the codebook straight through.
"""

import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from onellm.model.vq import VQModel
from onellm.utils import atomic
from train.build import new_config
from train.recipe import Recipe
from train.small.items import corpus_folder, read_lines

logger = logging.getLogger(__name__)
DECAY = 0.98  # of the running means
COMMITMENT = 0.25  # arXiv:1711.00937, equation 3
EDGES = 1.0  # weight of the differences between neighbouring pixels: without it edges are soft
IDLE = 0.05  # vectors a batch below which a code is moved


def read_pictures(*splits: str) -> torch.Tensor:
    """Read the corpus's drawings of some splits: [B, 3, H, W] float32 in 0..1."""
    lines = [line for line in read_lines("drawings") if line["split"] in splits]
    return torch.stack([read_picture(corpus_folder() / line["file"]) for line in lines])


def read_picture(path: Path) -> torch.Tensor:
    """Read a picture: [3, H, W] float32 in 0..1."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) / 255


class Codebook:
    """The running means behind a codebook.

    Args:
        model: whose codebook it moves.
    """

    def __init__(self, model: VQModel):
        self.model = model
        self.counts = torch.ones(len(model.codebook))
        self.sums = model.codebook.detach().clone()

    @torch.no_grad()
    def follow(self, vectors: torch.Tensor, codes: torch.Tensor, generator: torch.Generator) -> None:
        """Move the codebook towards vectors [B, N, D] that fell on codes [B, N]."""
        vectors, codes = vectors.flatten(0, 1), codes.flatten()
        hot = F.one_hot(codes, len(self.counts)).float()
        self.counts.mul_(DECAY).add_(hot.sum(dim=0), alpha=1 - DECAY)
        self.sums.mul_(DECAY).add_(hot.T @ vectors, alpha=1 - DECAY)
        idle = self.counts < IDLE
        if idle.any():
            chosen = torch.randint(len(vectors), (int(idle.sum()),), generator=generator)
            self.sums[idle], self.counts[idle] = vectors[chosen], 1.0
        self.model.codebook.copy_(F.normalize(self.sums, dim=-1))


def loss_of(model: VQModel, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss of a batch [B, 3, H, W], the vectors [B, N, D] and their codes [B, N]."""
    vectors = model.embed(pictures)
    codes = model.nearest(vectors.detach())
    chosen = model.codebook.detach()[codes]
    drawn = model.decode_vectors(vectors + (chosen - vectors).detach())
    error = difference(drawn, pictures) + COMMITMENT * F.mse_loss(vectors, chosen)
    return error, vectors.detach(), codes


def difference(drawn: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Compare pictures [B, 3, H, W] pixel by pixel and edge by edge."""
    error = F.l1_loss(drawn, pictures) + F.mse_loss(drawn, pictures)
    for dim in (-1, -2):
        error = error + EDGES * F.l1_loss(drawn.diff(dim=dim), pictures.diff(dim=dim))
    return error


def vary(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the pictures, and shift all by up to three pixels on white."""
    mirrored = torch.rand(len(pictures), generator=generator) < 0.5
    pictures = torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures)
    right, down = torch.randint(-3, 4, (2,), generator=generator).tolist()
    padded = F.pad(pictures, (3, 3, 3, 3), value=1.0)
    return padded[..., 3 + down : padded.shape[-2] - 3 + down, 3 + right : padded.shape[-1] - 3 + right]


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, warmup: int, steps: int) -> None:
    """Set the learning rate of a step: up to its peak, then down to 0 along a cosine."""
    down = 0.5 + 0.5 * math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup))
    for group in optimizer.param_groups:
        group["lr"] = peak * min(1.0, (step + 1) / max(1, warmup)) * down


def load_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> tuple[int, list, dict]:
    """Return the steps done, the log and all else that a checkpoint holds; (0, [], {}) where there is none yet."""
    if not path.exists():
        return 0, [], {}
    state = torch.load(path, weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["losses"], state


def save_checkpoint(path: Path, optimizer: torch.optim.Optimizer, step: int, losses: list, **tensors: Any) -> None:
    """Write a checkpoint after `step` steps, with the named tensors or state dicts."""
    with atomic.whole(path) as part:
        torch.save({"optimizer": optimizer.state_dict(), "step": step, "losses": losses, **tensors}, part)


def run(recipe: Recipe, runs: Path, resume: bool = True) -> Path:
    """Train the VQ model on the corpus's drawings; goes on from its newest checkpoint.

    Args:
        recipe: how; the sizes are those of its preset's output.
        runs: folder of all stages.
        resume: False begins anew.

    Returns:
        The folder with `codes.json`, `codes.safetensors` and `losses.json`.
    """
    out, checkpoint = runs / recipe.name, runs / recipe.name / "checkpoint.pt"
    if not resume:
        atomic.discard(out)
    if (out / "codes.json").exists():
        return out
    sizes = new_config(recipe).outputs["image"]["codes"]
    torch.manual_seed(recipe.seed)
    model, pictures, held_out = VQModel(**sizes), read_pictures("train"), read_pictures("dev")
    model.to(memory_format=torch.channels_last)
    codebook = Codebook(model)
    trained = [value for name, value in model.named_parameters() if name != "codebook"]
    optimizer = torch.optim.AdamW(
        trained, recipe.learning_rate, betas=tuple(recipe.betas), weight_decay=recipe.weight_decay
    )
    done, losses, state = load_checkpoint(checkpoint, optimizer)
    if state:
        model.load_state_dict(state["model"])
        codebook.counts, codebook.sums = state["counts"], state["sums"]
    begun_s, mean = time.perf_counter(), []
    for step in range(done, recipe.steps):
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        chosen = torch.randint(len(pictures), (recipe.batch,), generator=generator)
        batch = vary(pictures[chosen], generator).contiguous(memory_format=torch.channels_last)
        set_rate(optimizer, recipe.learning_rate, step, recipe.warmup, recipe.steps)
        loss, vectors, codes = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, recipe.clip or math.inf)
        optimizer.step()
        codebook.follow(vectors, codes, generator)
        mean.append(float(loss.detach()))
        if (step + 1) % recipe.log_every == 0 or step + 1 == recipe.steps:
            rate = (step + 1 - done) * recipe.batch / (time.perf_counter() - begun_s)
            line = {"step": step + 1, "loss": sum(mean) / len(mean), "held_out": measure(model, held_out)}
            logger.info("%s, %.0f pictures/s", line, rate)
            losses.append(line)
            mean = []
        if (step + 1) % recipe.save_every == 0 and step + 1 < recipe.steps:
            tensors = {"model": model.state_dict(), "counts": codebook.counts, "sums": codebook.sums}
            save_checkpoint(checkpoint, optimizer, step + 1, losses, **tensors)
    atomic.write_json(out / "losses.json", losses)
    with atomic.whole(out / "codes.safetensors") as part:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, part)
    atomic.write_json(out / "codes.json", sizes)
    atomic.discard(checkpoint)
    return out


@torch.no_grad()
def measure(model: VQModel, pictures: torch.Tensor) -> dict[str, float]:
    """Measure how well pictures [B, 3, H, W] come back: peak signal-to-noise ratio in dB, and codes in use."""
    codes = torch.cat([model.encode(group) for group in pictures.split(64)])
    drawn = torch.cat([model.decode(group) for group in codes.split(64)])
    errors = (drawn - pictures).square().flatten(1).mean(dim=1)
    return {"psnr_db": float(-10 * errors.log10().mean()), "codes": float(codes.unique().numel())}
