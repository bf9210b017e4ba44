"""Token rows: further rows of an LLM's vocabulary, parameters of their own beside a base LLM that stays as it is.

Their ids begin at `first_id`, behind the vocabulary and the placeholders. An id in between belongs to nobody who
writes: its logit is minus infinity.
Source: embedding alignment, as in AnyGPT (arXiv:2402.12226), section 3.1; initialised to the mean of what is known.
"""

import torch
import torch.nn.functional as F
from torch import nn

from onellm.model.runtime.offload import live

NOISE = 0.1  # of the spread of the known rows: enough to tell new rows apart


class AddedTokens(nn.Module):
    """Rows behind an LLM's input embedding and head.

    Args:
        count: n, number of rows.
        width: D of the LLM.
        first_id: id of the first of them.
    """

    def __init__(self, count: int, width: int, first_id: int):
        super().__init__()
        self.count, self.first_id = count, first_id
        self.input = nn.Parameter(torch.randn(count, width) * 0.02)
        self.head = nn.Parameter(torch.randn(count, width) * 0.02)

    @torch.no_grad()
    def start(self, embedding: torch.Tensor, head: torch.Tensor, apart: float = NOISE) -> None:
        """Start from the mean of the known rows and some noise.

        Args:
            embedding: [V, D], known rows.
            head: [V, D], known rows.
            apart: noise of the input rows, in spreads of the known ones; 1 where they stay as they are and frozen
                layers have to tell them apart.
        """
        for rows, known, noise in ((self.input, embedding, apart), (self.head, head, NOISE)):
            known = known.float()
            rows.copy_(known.mean(dim=0) + noise * known.std(dim=0) * torch.randn(rows.shape, device=rows.device))

    def own(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Tell which ids [B, L] are rows of this module: [B, L] bool."""
        return input_ids >= self.first_id

    def embed(self, input_ids: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """Put these rows into embeddings [B, L, D] at the places of their ids [B, L]."""
        own = self.own(input_ids).to(embeds.device)
        if not own.any():
            return embeds
        rows = F.embedding((input_ids - self.first_id).clamp_min(0), live(self, "input")).to(embeds)
        return torch.where(own.unsqueeze(-1), rows, embeds)

    def extend(self, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Append logits [B, L, V] by those of these rows for hidden states [B, L, D]: [B, L, first_id + n]."""
        head = live(self, "head")
        further = F.linear(hidden.to(head), head).to(logits)
        between = logits.new_full((*logits.shape[:-1], self.first_id - logits.shape[-1]), -torch.inf)
        return torch.cat([logits, between, further], dim=-1)
