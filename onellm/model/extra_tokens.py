"""Added tokens: an LLM's vocabulary grows by tokens whose embeddings and logits are parameters beside the base LLM.

Their ids begin at `first_id`, behind the vocabulary and the placeholders. No answer holds an id in between: its logit
is minus infinity.
Source: embedding alignment, as in AnyGPT (arXiv:2402.12226), section 3.1; initialised to the mean of what is known.
"""

import torch
import torch.nn.functional as F
from torch import nn

from onellm.model.runtime.offload import live

NOISE = 0.1  # of the spread of the known embeddings: enough to tell the new ones apart


class AddedTokens(nn.Module):
    """Tokens behind an LLM's input embedding and head.

    Args:
        count: n, number of tokens.
        width: D of the LLM.
        first_id: id of the first of them.
    """

    def __init__(self, count: int, width: int, first_id: int):
        super().__init__()
        self.count, self.first_id = count, first_id
        self.input = nn.Parameter(torch.randn(count, width) * 0.02)
        self.head = nn.Parameter(torch.randn(count, width) * 0.02)

    @torch.no_grad()
    def start(self, embedding: torch.Tensor, head: torch.Tensor, noise: float = NOISE) -> None:
        """Start from the mean of the known tokens and some noise.

        Args:
            embedding: [V, D], of the known tokens.
            head: [V, D], of the known tokens.
            noise: of the input embeddings, in spreads of the known ones; 1 where they stay as they are and frozen
                layers have to tell them apart.
        """
        for new, known, spread in ((self.input, embedding, noise), (self.head, head, NOISE)):
            known = known.float()
            new.copy_(known.mean(dim=0) + spread * known.std(dim=0) * torch.randn(new.shape, device=new.device))

    def is_output_token(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Tell which ids [B, L] are added tokens: [B, L] bool."""
        return input_ids >= self.first_id

    def embed(self, input_ids: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """Put the added tokens' embeddings into [B, L, D] where their ids [B, L] stand."""
        added = self.is_output_token(input_ids).to(embeds.device)
        if not added.any():
            return embeds
        values = F.embedding((input_ids - self.first_id).clamp_min(0), live(self, "input")).to(embeds)
        return torch.where(added.unsqueeze(-1), values, embeds)

    def extend(self, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Append to logits [B, L, V] those of the added tokens for hidden states [B, L, D]: [B, L, first_id + n]."""
        head = live(self, "head")
        further = F.linear(hidden.to(head), head).to(logits)
        between = logits.new_full((*logits.shape[:-1], self.first_id - logits.shape[-1]), -torch.inf)
        return torch.cat([logits, between, further], dim=-1)
