"""The querying transformer: learnt queries that attend to the features, and may read the question beside them.

Sources: BLIP-2 (arXiv:2301.12597), section 3.1; InstructBLIP (arXiv:2305.06500), section 2.3, whose queries read the
question; ChatBridge (arXiv:2305.16103), whose modalities have queries of their own. The network is transformers' own.
"""

from typing import Any

import torch
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, InstructBlipQFormerConfig, InstructBlipQFormerModel

from onellm.errors import ModelError
from onellm.model.projectors.base import Instruction, Projector
from onellm.model.projectors.contrast import Contrast
from onellm.model.runtime.offload import live

QUERIES_OF = ("shared", "kind")


class QFormer(Projector):
    """A BERT-like transformer of queries with cross-attention to the features, then a linear layer.

    Args:
        modalities: of file.
        width: D.
        width_llm: D_llm.
        queries: M.
        hidden: its width.
        layers: its blocks.
        heads: of its attentions.
        intermediate: hidden width of its feed-forward layers.
        cross_every: blocks of which one attends to the features.
        queries_of: "shared" by all modalities, or one set a "kind".
        vocabulary: size of the vocabulary that it reads a question with; 0 where it reads none.
        places: longest question, in tokens.
        norm_eps: of the layer norms.
        dropout: of the attentions and of what they return.
        contrast: arguments of a `Contrast`, to be trained before any LLM; None for none.
        **common: of every projector.
    """

    outputs = "projection"

    def __init__(
        self,
        modalities: list[str],
        width: int,
        width_llm: int,
        queries: int = 32,
        hidden: int = 768,
        layers: int = 12,
        heads: int = 12,
        intermediate: int = 3072,
        cross_every: int = 2,
        queries_of: str = "shared",
        vocabulary: int = 0,
        places: int = 512,
        norm_eps: float = 1e-12,
        dropout: float = 0.1,
        contrast: dict | None = None,
        **common: Any,
    ):
        super().__init__(modalities, width_llm, **common)
        if queries_of not in QUERIES_OF:
            raise ModelError(f"Queries can be of {' or '.join(QUERIES_OF)}, not of '{queries_of}'; choose one.")
        self.shared, self.reads = queries_of == "shared", bool(vocabulary)
        sets = ["all"] if self.shared else modalities
        self.queries = nn.ParameterDict({name: 0.02 * torch.randn(queries, hidden) for name in sets})
        settings = {
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": intermediate,
            "cross_attention_frequency": cross_every,
            "encoder_hidden_size": width,
            "layer_norm_eps": norm_eps,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
            "max_position_embeddings": places,
        }
        if self.reads:
            self.qformer = InstructBlipQFormerModel(InstructBlipQFormerConfig(vocab_size=vocabulary, **settings))
        else:
            self.qformer = Blip2QFormerModel(Blip2QFormerConfig(**settings))
        self.contrast = None if contrast is None else Contrast(hidden, vocabulary, **contrast)
        self.projection = nn.Linear(hidden, width_llm)

    def soft_tokens(
        self, features: torch.Tensor, modality: str, instruction: Instruction | None = None
    ) -> torch.Tensor:
        """Project [B, N, D] features to [B, M, D_llm]; the question is optional even where it is read."""
        queries = self.queries_for(features, modality)
        asked = {}
        if self.reads:
            asked = {"input_ids": None}
            if instruction is not None:
                ids, mask = instruction
                asked = {"input_ids": ids, "attention_mask": torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1)}
        read = self.qformer(query_embeds=queries, encoder_hidden_states=features, **asked).last_hidden_state
        return self.projection(read[:, : queries.shape[1]])

    def queries_for(self, features: torch.Tensor, modality: str) -> torch.Tensor:
        """Return the queries [B, M, H] for [B, N, D] features of a modality."""
        return live(self.queries, "all" if self.shared else modality).expand(len(features), -1, -1)

    def contrast_loss(self, features: torch.Tensor, modality: str, texts: Instruction) -> torch.Tensor:
        """Return the loss of [B, N, D] features of a modality against B texts, see `Contrast`."""
        return self.contrast(self.qformer, self.queries_for(features, modality), features, texts)

    def count(self, features: int) -> int:
        """Return M: the queries, whatever the number of features."""
        return next(iter(self.queries.values())).shape[0]
