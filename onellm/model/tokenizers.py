"""Tokenizers: from a modality's tensor to tokens of the encoder's width, one small module a way of cutting.

Every tokenizer has two steps. `extract` is fixed (a frozen backbone, or nothing), so training may keep its result;
`forward` is what trains. `count` is the largest number of tokens; tensors of one shape form a batch.
Source of the published forms: OneLLM (arXiv:2312.03700), section 3.1 and its released code's shapes.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from onellm.errors import ModelError


class Tokenizer(nn.Module):
    """What all have in common: the positional embedding of the tokens, the class token's first."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.count = count
        self.positions = nn.Parameter(0.02 * torch.randn(count + 1, width))

    def extract(self, values: torch.Tensor) -> torch.Tensor:
        """Do what never trains; here nothing."""
        return values


class ImagePatches(Tokenizer):
    """CLIP's patch layer, for everything that is a picture or several."""

    def __init__(self, width: int, size: int = 224, patch: int = 14, bias: bool = False):
        super().__init__(width, (size // patch) ** 2)
        self.conv = nn.Conv2d(3, width, patch, patch, bias=bias)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Cut [B, 3, H, W] into [B, N, D], or [B, T, 3, H, W] into [B, T, N, D]."""
        tokens = self.conv(pictures.flatten(0, -4)).flatten(2).transpose(1, 2)
        return tokens.unflatten(0, pictures.shape[:-3])


class VideoPatches(Tokenizer):
    """Patches in space and time: each reaches over `moments` frames; a single picture stands still for as long.

    Source: ImageBind (arXiv:2305.05665), section 3.2.
    """

    def __init__(self, width: int, size: int = 224, patch: int = 14, moments: int = 2):
        super().__init__(width, (size // patch) ** 2)
        self.moments = moments
        self.conv = nn.Conv3d(3, width, (moments, patch, patch), (moments, patch, patch), bias=False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Cut [B, 3, H, W] into [B, N, D], or [B, T, 3, H, W] into [B, T / moments, N, D].

        Raises:
            ModelError: the frames of a video cannot be divided.
        """
        if frames.dim() == 4:
            clips = frames.unsqueeze(2).expand(-1, -1, self.moments, -1, -1)
            return self.conv(clips).flatten(2).transpose(1, 2)
        if frames.shape[1] % self.moments:
            raise ModelError(
                f"{frames.shape[1]} frames cannot be taken {self.moments} by {self.moments}; ask for another number."
            )
        clips = frames.unflatten(1, (-1, self.moments))
        tokens = self.conv(clips.flatten(0, 1).transpose(1, 2)).flatten(2).transpose(1, 2)
        return tokens.unflatten(0, clips.shape[:2])


class SpectrogramPatches(Tokenizer):
    """Overlapping patches of a log-mel spectrogram."""

    def __init__(
        self,
        width: int,
        mels: int = 128,
        frames: int = 1024,
        patch: int = 16,
        stride: int = 10,
        bias: bool = True,
        norm: bool = False,
    ):
        super().__init__(width, ((mels - patch) // stride + 1) * ((frames - patch) // stride + 1))
        self.conv = nn.Conv2d(1, width, patch, stride, bias=bias)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, spectrogram: torch.Tensor) -> torch.Tensor:
        """Cut [B, 1, mels, frames] into [B, N, D], or several pieces, [B, T, 1, mels, frames], into [B, T, N, D]."""
        tokens = self.conv(spectrogram.flatten(0, -4)).flatten(2).transpose(1, 2)
        return self.norm(tokens).unflatten(0, spectrogram.shape[:-3])


def _preference(count: int) -> torch.Tensor:
    """Order points as the published CUDA code prefers them where they are equally far: [P] indices, the first is 0.

    Up to 1024 threads take every 1024th point each, then halves of the threads are compared, the lower thread winning.
    """
    points = torch.arange(count)
    rank = torch.zeros_like(points)
    for bit in range(min(count.bit_length() - 1, 10)):
        rank = 2 * rank + (points >> bit & 1)
    return rank.argsort(stable=True)


def farthest_points(xyz: torch.Tensor, count: int) -> torch.Tensor:
    """Choose points that lie far from each other, the first point first; equally far ones as the published code does.

    Args:
        xyz: [B, P, 3] float32.
        count: how many to choose.

    Returns:
        [B, count] indices.
    """
    order = _preference(xyz.shape[1]).to(xyz.device)
    xyz = xyz[:, order]
    chosen = torch.zeros(xyz.shape[0], count, dtype=torch.long, device=xyz.device)
    distance = torch.full(xyz.shape[:2], torch.inf, device=xyz.device)
    rows = torch.arange(xyz.shape[0], device=xyz.device)
    for step in range(1, count):
        last = xyz[rows, chosen[:, step - 1]].unsqueeze(1)
        distance = torch.minimum(distance, (xyz - last).square().sum(dim=-1))
        chosen[:, step] = distance.argmax(dim=-1)  # the first of several
    return order[chosen]


class PointGroups(Tokenizer):
    """Groups of neighbours around points that lie far apart, each summed up by its maximum.

    The published model groups by colour (`group_by`), takes raw channels (`relative` False) and one linear layer
    (`hidden` empty); a model trained anew should group by xyz, relative to the centre.
    """

    def __init__(
        self,
        width: int,
        groups: int = 1024,
        neighbours: int = 32,
        group_by: str = "xyz",
        relative: bool = True,
        hidden: tuple[int, ...] = (),
    ):
        super().__init__(width, groups)
        if group_by not in ("xyz", "colour"):
            raise ModelError(f"Points can be grouped by 'xyz' or 'colour', not by '{group_by}'.")
        self.neighbours, self.group_by, self.relative = neighbours, group_by, relative
        sizes = [9 if relative else 6, *hidden, width]
        layers = [nn.Linear(sizes[0], sizes[1])]
        for inputs, outputs in zip(sizes[1:], sizes[2:], strict=False):
            layers += [nn.GELU(), nn.Linear(inputs, outputs)]
        self.layers = nn.Sequential(*layers)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Group [B, P, 6] points (xyz, rgb) into [B, N, D]."""
        keys = points[..., :3] if self.group_by == "xyz" else points[..., 3:]
        keys = keys.float()
        rows = torch.arange(len(points), device=points.device)[:, None]
        centres = farthest_points(keys, self.count)
        distance = torch.cdist(keys[rows, centres], keys, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.topk(self.neighbours, dim=-1, largest=False).indices
        groups = points[rows[:, None], nearest]  # [B, N, neighbours, 6]
        if self.relative:
            middle = points[rows, centres][:, :, None, :3]
            radius = distance.gather(-1, nearest).amax(dim=-1).clamp_min(1e-6)[..., None, None]
            local = (groups[..., :3] - middle) / radius.to(groups)
            groups = torch.cat([local, groups[..., 3:], middle.expand_as(local)], dim=-1)
        return self.layers(groups).amax(dim=2)


class NounToken(nn.Module):
    """A token that says which of a list of nouns a linear classifier finds, and how surely.

    The classifier is solved from labelled files, not trained step by step: a few hundred files would be known by
    heart. While the rest trains, its place is taken by what it says of files that it was not solved on.
    """

    def __init__(self, width: int, features: int, nouns: list[str]):
        super().__init__()
        self.classifier = nn.Linear(features, len(nouns))
        self.linear = nn.Linear(len(nouns), width)

    def forward(self, features: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """Map [B, F] features, or `given` probabilities [B, nouns] where there are any, to [B, D]."""
        return self.linear(given if given.shape[-1] else self.classifier(features).softmax(dim=-1))


class Voxels(Tokenizer):
    """One linear layer from all voxels to a few tokens; or, with `nouns`, one token of what a classifier finds."""

    def __init__(self, width: int, voxels: int, count: int = 8, dropout: float = 0.0, nouns: list[str] | None = None):
        super().__init__(width, 1 if nouns else count)
        self.voxels = voxels
        self.nouns = NounToken(width, voxels, nouns) if nouns else None
        if not nouns:
            self.dropout = nn.Dropout(dropout)
            self.linear = nn.Linear(voxels, width * count)

    def pool(self, voxels: torch.Tensor) -> torch.Tensor:
        """Return what the noun classifier sees of one file: the voxels."""
        return voxels

    def forward(self, voxels: torch.Tensor) -> torch.Tensor:
        """Map [B, V] to [B, N, D]; channel c holds the outputs c*N..c*N+N-1, as in the published model."""
        if self.nouns is not None:
            return self.nouns(*voxels.tensor_split([self.voxels], dim=-1)).unsqueeze(1)
        return self.linear(self.dropout(voxels)).unflatten(-1, (-1, self.count)).transpose(1, 2)


class MotionWindows(Tokenizer):
    """A convolution over time."""

    def __init__(self, width: int, length: int = 400, kernel: int = 10, stride: int = 1):
        super().__init__(width, (length - kernel) // stride + 1)
        self.conv = nn.Conv1d(6, width, kernel, stride, bias=False)

    def forward(self, motion: torch.Tensor) -> torch.Tensor:
        """Cut [B, 6, S] into [B, N, D]."""
        return self.conv(motion).transpose(1, 2)


class BackboneTokens(Tokenizer):
    """What a frozen classifier says of a file's frames, as tokens.

    `tokens` lists them: "mixture" is the sum over classes of probability times the classifier's row, the
    probabilities averaged over the frames; "peak" the same with the largest probability over the frames; "pooled"
    the pooled features, averaged; "nouns" the `NounToken` of these, for `nouns`; while that list is empty (training
    fills it from its data) the token is left out. With `picture`, a file may have a frame before the views of its map
    (`looks` of them), a picture: the picture's mixture then follows the map's tokens. `weights` (weight -> classes)
    turns classes down or off that are too general to say anything.
    """

    def __init__(
        self,
        width: int,
        stem: nn.Module,
        tokens: list[str],
        picture: bool = False,
        looks: int = 0,
        nouns: list[str] | None = None,
        weights: dict[str, list[int]] | None = None,
        sharpness: float = 1.0,
    ):
        if "nouns" in tokens and nouns is None:
            raise ModelError("The token 'nouns' needs a list of nouns, and there is none; add 'nouns'.")
        tokens = [name for name in tokens if name != "nouns" or nouns]
        super().__init__(width, len(tokens) + picture)
        self.register_buffer("class_weights", torch.ones(stem.classes))
        for weight, classes in (weights or {}).items():
            self.class_weights[classes] = float(weight)
        self._stem = [stem]  # in a list: the frozen backbone's parameters are registered in the model alone
        self.names = tokens + ["picture"] * picture
        self.picture, self.looks, self.sharpness = picture, looks, sharpness
        self.nouns = NounToken(width, stem.features, nouns) if "nouns" in tokens else None
        direct = [name for name in self.names if name != "nouns"]
        self.norms = nn.ModuleDict({name: nn.LayerNorm(stem.features) for name in direct})
        self.linears = nn.ModuleDict({name: nn.Linear(stem.features, width) for name in direct})

    @torch.no_grad()
    def extract(self, values: torch.Tensor) -> torch.Tensor:
        """Run the backbone: [B, C, H, W] or [B, T, C, H, W] to [B, T, classes + features]."""
        frames = values if values.dim() == 5 else values.unsqueeze(1)
        probabilities, pooled = self._stem[0](frames.flatten(0, 1))
        return torch.cat([probabilities, pooled], dim=-1).unflatten(0, frames.shape[:2])

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the noun classifier sees of one file, [T, classes + features] to [features]."""
        return features[-self.looks :].mean(dim=0)[-self._stem[0].features :]

    def mix(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Sum the classifier's rows by [B, classes] probabilities, weighed and sharpened: [B, features]."""
        return (probabilities * self.class_weights).pow(self.sharpness) @ self._stem[0].head.detach()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Turn [B, T, classes + features] of `extract` into [B, N, D].

        Training appends the nouns' probabilities (see `NounToken`), the same to every frame.
        """
        stem = self._stem[0]
        picture = None
        if self.picture and features.shape[1] > max(self.looks, 1):
            picture, features = features[:, 0, : stem.classes], features[:, 1:]
        probabilities, pooled, nouns = features.tensor_split([stem.classes, stem.classes + stem.features], dim=-1)
        found = {"pooled": pooled.mean(dim=1)}
        found["mixture"] = self.mix(probabilities.mean(dim=1))
        found["peak"] = self.mix(probabilities.amax(dim=1))
        if picture is not None:
            found["picture"] = self.mix(picture)
        tokens = {name: self.linears[name](self.norms[name](found[name])) for name in self.norms if name in found}
        if self.nouns is not None:
            tokens["nouns"] = self.nouns(pooled.mean(dim=1), nouns[:, 0])
        return torch.stack([tokens[name] for name in self.names if name in tokens], dim=1)


def render_points(points: torch.Tensor, views: int, size: int = 224, grid: int = 112) -> torch.Tensor:
    """Draw point clouds from several sides, for a backbone that knows pictures.

    Every other view is grey, since many clouds have no colour. Points are splatted on a coarse grid, the nearest one
    wins, small holes are filled, and the slope of the surface shades it.

    Args:
        points: [B, P, 6], xyz inside the unit ball (z up), rgb in 0..1.
        views: how many, evenly around the z axis and seen from 20 degrees above.
        size: side of the pictures in pixels.
        grid: side of the grid the points are splatted on.

    Returns:
        [B, views, 3, size, size] in -1..1 on a light ground.
    """
    batch = points.shape[0]
    xyz, colour = points[..., :3].float(), points[..., 3:].float()
    pictures = []
    tilt = torch.tensor(math.radians(20))
    for view in range(views):
        turn = torch.tensor(2 * math.pi * (view + 0.1) / views)
        right = xyz[..., 0] * turn.cos() - xyz[..., 1] * turn.sin()
        away = xyz[..., 0] * turn.sin() + xyz[..., 1] * turn.cos()
        up = xyz[..., 2] * tilt.cos() + away * tilt.sin()
        near = (xyz[..., 2] * tilt.sin() - away * tilt.cos() + 1.5) / 2.5  # 0.2..1, larger is nearer
        flat = torch.stack([right, up], dim=-1)
        middle = (flat.amax(dim=1, keepdim=True) + flat.amin(dim=1, keepdim=True)) / 2
        reach = (flat - middle).abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)
        column, row = ((flat - middle) / reach * torch.tensor([0.88, -0.88]) + 1).mul(grid / 2).long().unbind(-1)
        pixel = row.clamp(0, grid - 1) * grid + column.clamp(0, grid - 1)
        depth = torch.zeros(batch, grid * grid).scatter_reduce(1, pixel, near, "amax")
        front = (near >= depth.gather(1, pixel) - 0.01).float()
        total = torch.zeros(batch, grid * grid).scatter_add(1, pixel, front)
        paint = colour if view % 2 == 0 else torch.full_like(colour, 0.6)
        index = pixel.unsqueeze(-1).expand(-1, -1, 3)
        painted = torch.zeros(batch, grid * grid, 3).scatter_add(1, index, paint * front.unsqueeze(-1))
        layers = torch.cat([painted / total.clamp_min(1).unsqueeze(-1), depth.unsqueeze(-1)], dim=-1)
        layers = layers.transpose(1, 2).unflatten(-1, (grid, grid))
        filled = (total > 0).float().unflatten(-1, (grid, grid)).unsqueeze(1)
        for _ in range(2):
            count = F.avg_pool2d(filled, 3, 1, 1)
            around = F.avg_pool2d(layers * filled, 3, 1, 1) / count.clamp_min(1e-6)
            layers = torch.where(filled > 0, layers, around)
            filled = (count > 0.3).float().maximum(filled)
        smooth = layers[:, 3:]
        for _ in range(3):
            smooth = F.avg_pool2d(smooth * filled, 3, 1, 1) / F.avg_pool2d(filled, 3, 1, 1).clamp_min(1e-6)
        down, across = torch.gradient(smooth, dim=(2, 3))
        lit = (1 + 12 * (down + across)).div((1 + 400 * (down**2 + across**2)).sqrt()).clamp(-0.5, 1.3)
        shaded = layers[:, :3] * (0.55 + 0.45 * lit)
        picture = shaded * filled + 0.92 * (1 - filled)
        pictures.append(F.interpolate(picture, size=(size, size), mode="bilinear", align_corners=False))
    return torch.stack(pictures, dim=1).clamp(0, 1) * 2 - 1


class PointViews(BackboneTokens):
    """Point clouds as a backbone for pictures sees them: drawn from several sides."""

    def __init__(self, width: int, stem: nn.Module, tokens: list[str], views: int = 6, nouns: list[str] | None = None):
        super().__init__(width, stem, tokens, nouns=nouns)
        self.views = views

    def extract(self, values: torch.Tensor) -> torch.Tensor:
        """Draw [B, P, 6] points and run the backbone: [B, views, classes + features]."""
        return super().extract(render_points(values.cpu(), self.views).to(values))


TOKENIZERS = {
    "image-patches": ImagePatches,
    "video-patches": VideoPatches,
    "spectrogram-patches": SpectrogramPatches,
    "point-groups": PointGroups,
    "voxels": Voxels,
    "motion-windows": MotionWindows,
    "stem": BackboneTokens,
    "point-views": PointViews,
}


def build_tokenizer(width: int, settings: dict, stems: nn.ModuleDict) -> Tokenizer:
    """Build the tokenizer that `settings` describe: `type` and its arguments.

    Raises:
        ModelError: the type is unknown; the message lists the valid ones.
    """
    arguments = dict(settings)
    name = arguments.pop("type")
    if name not in TOKENIZERS:
        raise ModelError(f"The tokenizer '{name}' is not known; choose one of {', '.join(TOKENIZERS)}.")
    if "stem" in arguments:
        arguments["stem"] = stems[arguments["stem"]]
    return TOKENIZERS[name](width, **arguments)
