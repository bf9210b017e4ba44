"""Vocabulary anchors: soft tokens as mixtures of the LLM's own token embeddings."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from onellm.errors import ModelError

FILLER = "."  # stands in the soft tokens behind a name
FILLER_WEIGHT = 0.2  # of the filler, in the loss of `Anchor`
LIKELIEST = 32  # words that a mixture is made of

Embed = Callable[[torch.Tensor], torch.Tensor]
"""An LLM's embedding: token ids [...] to [..., D_llm]."""


class Anchor(nn.Module):
    """Pull every soft token onto the token embeddings of one LLM.

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

    def logits(self, soft_tokens: torch.Tensor, embed: Embed) -> torch.Tensor:
        """Score the vocabulary: [B, M, D_llm] soft tokens, by the LLM's embedding, to [B, M, size]."""
        vocabulary = embed(self.token_ids)
        return self.scale * F.normalize(soft_tokens.float(), dim=-1) @ F.normalize(vocabulary.float(), dim=-1).T

    def forward(self, soft_tokens: torch.Tensor, embed: Embed) -> torch.Tensor:
        """Map [B, M, D_llm] to [B, M, D_llm] inside the span of the vocabulary."""
        vocabulary = embed(self.token_ids)
        weights = self.softmax(self.logits(soft_tokens, embed)).to(vocabulary.dtype)
        return weights @ vocabulary

    def loss(self, soft_tokens: torch.Tensor, embed: Embed, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of [B, M, D_llm] against indices [B, M]; the filler, 0, counts less."""
        logits = self.logits(soft_tokens, embed)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        weight = torch.where(labels.flatten() == 0, FILLER_WEIGHT, 1.0)
        return (loss * weight).sum() / weight.sum()

    def name(self, index: int, tokenizer: Any) -> str:
        """Return an entry of the vocabulary for people."""
        return tokenizer.decode([int(self.token_ids[index])]).strip()

    def text(self, indices: torch.Tensor, tokenizer: Any) -> str:
        """Return what [M] indices, the likeliest of each soft token, say together."""
        return tokenizer.decode(self.token_ids[indices]).replace(FILLER, "").strip()


class WordAnchor(nn.Module):
    """Say of every soft token how much of each word of a fixed list it is; any LLM's embeddings then make it.

    Nothing here has the LLM's width, so that what was learnt serves any LLM whose tokenizer can spell the words: a word
    of several tokens is mixed position by position, its first token into the first soft token and so on.

    Args:
        words: the list, names of things in English; some have several words.
        width: D of the soft tokens before they are anchored.
        length: M, the soft tokens of a file.
        scale: of the similarity, before the softmax.

    Attributes:
        token_ids: [size, M] int64, every word's tokens for the LLM in use, see `spell`.
        keys: [size, D], what a soft token is compared with.
    """

    def __init__(self, words: list[str], width: int, length: int, scale: float):
        super().__init__()
        self.words, self.scale = words, scale
        self.softmax = nn.Softmax(dim=-1)
        self.keys = nn.Parameter(torch.randn(len(words), width))
        self.register_buffer("token_ids", torch.zeros(len(words), length, dtype=torch.long))

    def spell(self, tokenizer: Any) -> None:
        """Work out the tokens of every word for an LLM; the filler stands behind them.

        Raises:
            ModelError: the tokenizer has no tokens for a word.
        """
        length = self.token_ids.shape[1]
        filler = tokenizer(FILLER, add_special_tokens=False)["input_ids"][:1]
        rows = tokenizer([f" {word}" for word in self.words], add_special_tokens=False)["input_ids"]
        for word, row in zip(self.words, rows, strict=True):
            if not row or not filler:
                raise ModelError(
                    found=f"The LLM's tokenizer has no tokens for '{word}'",
                    advice="give an LLM that knows English, with the tokenizer it was trained with",
                )
        self.token_ids.copy_(torch.tensor([(row + filler * length)[:length] for row in rows]))

    def logits(self, soft_tokens: torch.Tensor, embed: Embed | None = None) -> torch.Tensor:
        """Score the words: [B, M, D] soft tokens to [B, M, size]; no LLM is needed."""
        return self.scale * F.normalize(soft_tokens.float(), dim=-1) @ F.normalize(self.keys.float(), dim=-1).T

    def forward(self, soft_tokens: torch.Tensor, embed: Embed) -> torch.Tensor:
        """Map [B, M, D] to [B, M, D_llm] inside the span of the LLM's embeddings."""
        weights = self.softmax(self.logits(soft_tokens))
        best = weights.topk(min(LIKELIEST, weights.shape[-1]), dim=-1)
        positions = torch.arange(soft_tokens.shape[1], device=best.indices.device)[None, :, None]
        embeds = embed(self.token_ids[best.indices, positions])  # [B, M, n, D_llm]
        shares = best.values / best.values.sum(dim=-1, keepdim=True)
        return (shares[..., None].to(embeds.dtype) * embeds).sum(dim=2)

    def loss(self, soft_tokens: torch.Tensor, embed: Embed | None, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of [B, M, D] against indices [B, M]."""
        return F.cross_entropy(self.logits(soft_tokens).flatten(0, 1), labels.flatten())

    def name(self, index: int, tokenizer: Any = None) -> str:
        """Return a word of the list."""
        return self.words[int(index)]

    def text(self, indices: torch.Tensor, tokenizer: Any = None) -> str:
        """Return the word that most of [M] soft tokens are likeliest to be."""
        return self.words[int(indices.mode().values)]
