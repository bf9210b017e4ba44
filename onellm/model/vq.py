"""VQ model: a picture becomes a grid of VQ tokens, whole numbers, and these become a picture again.

An encoder and a decoder of convolutions stand around a codebook: every cell of a coarse grid keeps the index of the
codebook's vector that is most like it. An LLM can write such indices as it writes text.
Source: van den Oord et al., Neural Discrete Representation Learning (arXiv:1711.00937): section 3 and appendix A.1,
with the directions of the vectors alone compared (arXiv:2110.04627, section 3.2).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from onellm.model.runtime.offload import live

GROUPS = 8  # of the normalisation


class Residual(nn.Module):
    """Two convolutions beside which the input passes unchanged."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to [B, C, H, W]."""
        return x + self.layers(x)


class VQModel(nn.Module):
    """Turn pictures into VQ tokens and back.

    Args:
        size: H = W of a picture, in pixels.
        codes: K, vectors in the codebook.
        dim: D of a vector.
        encoder: channels of the encoder at a half, a quarter, ... of `size`.
        decoder: channels of the decoder at the same sizes; the last is that of the grid.
        blocks: residual blocks of the decoder at each size.

    Attributes:
        grid: H = W of the grid of VQ tokens.
    """

    def __init__(
        self,
        size: int = 64,
        codes: int = 512,
        dim: int = 16,
        encoder: Sequence[int] = (64, 96, 96),
        decoder: Sequence[int] = (64, 96, 128),
        blocks: int = 2,
    ):
        super().__init__()
        self.size, (_, self.grid) = size, self.sizes(size, codes, decoder)
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, encoder[0], 3, padding=1), Residual(encoder[0])]
        for width, wider in zip(encoder, encoder[1:], strict=False):
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), Residual(wider)]
        self.encoder = nn.Sequential(*layers, nn.GroupNorm(GROUPS, encoder[-1]), nn.Conv2d(encoder[-1], dim, 1))
        layers = [nn.Conv2d(dim, decoder[-1], 3, padding=1)]
        for width, narrower in zip(decoder[::-1], (*decoder[-2::-1], None), strict=True):
            layers += [Residual(width) for _ in range(blocks)]
            if narrower:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, narrower, 3, padding=1)]
        layers += [nn.GroupNorm(GROUPS, decoder[0]), nn.SiLU(), nn.Conv2d(decoder[0], 12, 3, padding=1)]
        self.decoder = nn.Sequential(*layers, nn.PixelShuffle(2))
        self.codebook = nn.Parameter(F.normalize(torch.randn(codes, dim), dim=-1))

    @staticmethod
    def sizes(size: int = 64, codes: int = 512, decoder: Sequence[int] = (64, 96, 128), **_: object) -> tuple[int, int]:
        """Return how many VQ tokens there are, and H = W of the grid, for arguments of this class."""
        return codes, size >> len(decoder)

    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """Map pictures [B, 3, H, W] float32 in 0..1 to unit vectors [B, N, D], row by row of the grid."""
        return F.normalize(self.encoder(pictures * 2 - 1).flatten(2).transpose(1, 2), dim=-1)

    def nearest(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the indices [B, N] int64 whose vectors are most like the given ones [B, N, D]."""
        return (vectors @ self.codebook.T).argmax(dim=-1)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Map pictures [B, 3, H, W] float32 in 0..1 to VQ tokens [B, N] int64, N = grid²."""
        return self.nearest(self.embed(pictures))

    def decode_vectors(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map vectors [B, N, D] to pictures [B, 3, H, W] about 0..1."""
        return self.decoder(vectors.transpose(1, 2).unflatten(2, (self.grid, self.grid))) / 2 + 0.5

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Map VQ tokens [B, N] int64 to pictures [B, 3, H, W] float32 in 0..1."""
        return self.decode_vectors(live(self, "codebook")[codes]).float().clamp(0, 1)
