"""A querying transformer that learns, before any LLM, what a text can say of a file.

Source: BLIP-2 (arXiv:2301.12597), section 3.2, with the sizes of its released code. Three losses share one network: the
contrast of files and texts, whether a file and a text belong together, and writing the text from the file.
"""

import torch
import torch.nn.functional as F
from torch import nn

from onellm.model.projectors.base import Instruction

SMOOTHING = 0.1  # of the labels of contrast and writing
LEAST_TEMPERATURE = 1e-3  # it is learnt, and must not reach zero


class Contrast(nn.Module):
    """Heads on a querying transformer that reads text, and their losses.

    Args:
        hidden: H, of the transformer.
        vocabulary: V, its tokens; the last one begins a text that is to be written.
        width: W, of the common space of files and texts.
        temperature: of their likeness, at first.
    """

    def __init__(self, hidden: int, vocabulary: int, width: int = 256, temperature: float = 0.07):
        super().__init__()
        self.media_proj = nn.Linear(hidden, width)
        self.text_proj = nn.Linear(hidden, width)
        self.temperature = nn.Parameter(torch.tensor(temperature))
        self.match = nn.Linear(hidden, 2)
        self.transform = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.LayerNorm(hidden))
        self.word_bias = nn.Parameter(torch.zeros(vocabulary))

    def likeness(
        self, qformer: nn.Module, queries: torch.Tensor, features: torch.Tensor, texts: Instruction
    ) -> torch.Tensor:
        """Compare files with texts, which do not see each other.

        Args:
            qformer: the transformer.
            queries: [B, M, H].
            features: [B, N, D] of B files.
            texts: C of them.

        Returns:
            [B, C]: the cosine of a text and the query that is most like it, over the temperature.
        """
        ids, mask = texts
        seen = qformer(input_ids=None, query_embeds=queries, encoder_hidden_states=features).last_hidden_state
        read = qformer(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        media = F.normalize(self.media_proj(seen), dim=-1)
        said = F.normalize(self.text_proj(read), dim=-1)
        best = torch.einsum("bmw,cw->bcm", media, said).amax(dim=-1)
        return best / self.temperature.clamp_min(LEAST_TEMPERATURE)

    def forward(
        self, qformer: nn.Module, queries: torch.Tensor, features: torch.Tensor, texts: Instruction
    ) -> torch.Tensor:
        """Return the sum of the three losses of a batch of pairs.

        What is compared are the files and texts of the batch; equal texts count as one.

        Args:
            qformer: the transformer.
            queries: [B, M, H].
            features: [B, N, D].
            texts: B of them.
        """
        likeness = self.likeness(qformer, queries, features, texts)
        same = (texts[0].unsqueeze(0) == texts[0].unsqueeze(1)).all(dim=-1)
        wanted = same / same.sum(dim=1, keepdim=True)
        contrast = sum(F.cross_entropy(way, wanted, label_smoothing=SMOOTHING) for way in (likeness, likeness.T)) / 2
        matching = self._matching_loss(qformer, queries, features, texts, likeness.detach(), same)
        return contrast + matching + self._writing_loss(qformer, queries, features, texts)

    def _matching_loss(
        self,
        qformer: nn.Module,
        queries: torch.Tensor,
        features: torch.Tensor,
        texts: Instruction,
        likeness: torch.Tensor,
        same: torch.Tensor,
    ) -> torch.Tensor:
        """Tell pairs from others: every file with a text, and every text with a file, that are hard to tell from it."""
        rows = (~same).any(dim=1).nonzero()[:, 0]  # a batch of one text has nothing to compare
        odds = [way.masked_fill(same, -torch.inf)[rows].softmax(dim=1) for way in (likeness, likeness.T)]
        text, media = (torch.multinomial(found, 1)[:, 0] for found in odds) if len(rows) else (rows, rows)
        every = torch.arange(len(features), device=rows.device)
        shown, said = torch.cat([every, rows, media]), torch.cat([every, text, rows])
        ids, mask = (part[said] for part in texts)
        read = qformer(
            input_ids=ids,
            attention_mask=torch.cat([mask.new_ones(len(said), queries.shape[1]), mask], dim=1),
            query_embeds=queries[shown],
            encoder_hidden_states=features[shown],
        ).last_hidden_state
        belongs = torch.zeros_like(shown)
        belongs[: len(every)] = 1
        return F.cross_entropy(self.match(read[:, : queries.shape[1]]).mean(dim=1), belongs)

    def _writing_loss(
        self, qformer: nn.Module, queries: torch.Tensor, features: torch.Tensor, texts: Instruction
    ) -> torch.Tensor:
        """Write the texts: every token attends to the queries and the tokens before it, and no query to a token."""
        ids, mask = texts
        count, length = queries.shape[1], ids.shape[1]
        begun = torch.cat([torch.full_like(ids[:, :1], len(self.word_bias) - 1), ids[:, 1:]], dim=1)
        sees = torch.ones(count + length, count + length, dtype=torch.bool, device=ids.device).tril()
        sees[:, :count] = True
        sees = sees & torch.cat([mask.new_ones(len(mask), count), mask], dim=1).bool().unsqueeze(1)
        hidden = features.new_zeros(sees.shape).masked_fill(~sees, torch.finfo(features.dtype).min)
        read = qformer(
            input_ids=begun,
            attention_mask=hidden.unsqueeze(1),
            query_embeds=queries,
            encoder_hidden_states=features,
        ).last_hidden_state[:, count:-1]
        logits = F.linear(self.transform(read), qformer.embeddings.word_embeddings.weight, self.word_bias)
        following = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        return F.cross_entropy(logits.flatten(0, 1), following.flatten(), label_smoothing=SMOOTHING)
