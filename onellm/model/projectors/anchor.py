"""The vocabulary anchor: soft tokens as mixtures of the LLM's own token embeddings."""

import torch
import torch.nn.functional as F
from torch import nn

FILLER_WEIGHT = 0.2  # of the filler tokens behind a name, in the anchor's loss


class Anchor(nn.Module):
    """Pull every soft token onto the LLM's own token embeddings.

    A soft token becomes a mixture of the embeddings of a caption vocabulary, weighed by a sharpened cosine similarity,
    so that a frozen LLM meets nothing it has not seen, and the mixture's weights can be trained as a classifier
    without running the LLM.

    Args:
        size: tokens of the vocabulary.
        scale: of the similarity, before the softmax.
    """

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.scale = scale
        self.softmax = nn.Softmax(dim=-1)  # a module, so that a hook sees the weights
        self.register_buffer("token_ids", torch.zeros(size, dtype=torch.long))

    def logits(self, soft_tokens: torch.Tensor, vocabulary: torch.Tensor) -> torch.Tensor:
        """Score the vocabulary: [B, M, D_llm] soft tokens and [size, D_llm] embeddings of it to [B, M, size]."""
        return self.scale * F.normalize(soft_tokens.float(), dim=-1) @ F.normalize(vocabulary.float(), dim=-1).T

    def forward(self, soft_tokens: torch.Tensor, vocabulary: torch.Tensor) -> torch.Tensor:
        """Map [B, M, D_llm] to [B, M, D_llm] inside the span of the vocabulary."""
        weights = self.softmax(self.logits(soft_tokens, vocabulary)).to(vocabulary.dtype)
        return weights @ vocabulary

    def loss(self, soft_tokens: torch.Tensor, vocabulary: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of [B, M, D_llm] against indices [B, M]; the filler, 0, counts less."""
        loss = F.cross_entropy(self.logits(soft_tokens, vocabulary).flatten(0, 1), labels.flatten(), reduction="none")
        weight = torch.where(labels.flatten() == 0, FILLER_WEIGHT, 1.0)
        return (loss * weight).sum() / weight.sum()
