"""Outputs: how something other than text comes out of an LLM.

Three types, one a modality ("image", "video", "audio"), `OneLLMConfig.outputs`:

* "text": the LLM writes a prompt for a generator between two delimiters, `start` and `end`. It has no parameters;
  `instruction` tells an LLM that was not trained for it to do so.
* "representation": the LLM writes `tokens` signal tokens; their hidden states become `queries` vectors of `width`,
  which a generator takes in place of what its own text encoder says (`OutputProjector`).
* "tokens": the LLM writes VQ tokens, indices into a codebook, row by row, and the VQ model decodes the picture
  (`codes`, arguments of `VQModel`). It needs no generator.

Sources: NExT-GPT (arXiv:2309.05519), section 4.2; AnyGPT (arXiv:2402.12226), section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LogitsProcessor

from onellm.errors import ModelError
from onellm.model.vq import VQModel

KINDS = ("image", "video", "audio")
TYPES = ("text", "representation", "tokens")
NO_SIZES = ("type", "generator", "start", "end", "instruction")  # settings that are not the output projector's


@dataclass(frozen=True)
class Span:
    """The token ids of the outputs of one modality: delimiters in their order, each before as many VQ tokens.

    Signal tokens are delimiters without VQ tokens. Each row of a picture begins with its delimiter, so that the LLM
    knows where on the picture it is.

    Attributes:
        modality: of the output.
        first: id of the first delimiter, which begins it; the others follow, and the VQ tokens behind them.
        delimiters: how many there are.
        row_length: VQ tokens behind each.
        codebook_size: VQ tokens to choose from.
    """

    modality: str
    first: int
    delimiters: int
    row_length: int
    codebook_size: int

    @property
    def count(self) -> int:
        """Ids in all."""
        return self.delimiters + self.codebook_size

    @property
    def length(self) -> int:
        """Tokens of one output."""
        return self.delimiters * (1 + self.row_length)

    def allowed(self, index: int) -> range:
        """Return the ids that may stand at an index of an output."""
        delimiter, rest = divmod(index, 1 + self.row_length)
        if rest:
            return range(self.first + self.delimiters, self.first + self.count)
        return range(self.first + delimiter, self.first + delimiter + 1)

    def codebook_indices(self, tokens: list[int]) -> list[int]:
        """Return the codebook indices of the VQ tokens in an output."""
        return [token - self.first - self.delimiters for token in tokens if token >= self.first + self.delimiters]

    def tokens_of(self, indices: Sequence[int] = ()) -> list[int]:
        """Return the tokens of an output with these codebook indices; the inverse of `codebook_indices`."""
        tokens = []
        for row in range(self.delimiters):
            in_row = indices[row * self.row_length : (row + 1) * self.row_length]
            tokens += [self.first + row, *(self.first + self.delimiters + index for index in in_row)]
        return tokens


def spans(outputs: dict[str, dict], first_id: int) -> list[Span]:
    """Share out token ids from `first_id` on, modality by modality in alphabetical order.

    Args:
        outputs: `OneLLMConfig.outputs`.
        first_id: of all added tokens.
    """
    found = []
    for modality, settings in sorted(outputs.items()):
        if settings["type"] == "representation":
            found.append(Span(modality, first_id, settings["tokens"], 0, 0))
        elif settings["type"] == "tokens":
            size, grid = VQModel.sizes(**settings["codes"])
            found.append(Span(modality, first_id, grid, grid, size))
        else:
            continue
        first_id += found[-1].count
    return found


def check(outputs: dict[str, dict]) -> None:
    """Check `OneLLMConfig.outputs`.

    Raises:
        ModelError: a modality or a type is unknown; the message lists the valid ones.
    """
    for modality, settings in outputs.items():
        if modality not in KINDS:
            raise ModelError(f"'{modality}' is no kind of output; choose one of {', '.join(KINDS)}.")
        if settings.get("type") not in TYPES:
            raise ModelError(
                f"The output type '{settings.get('type')}' is not known; choose one of {', '.join(TYPES)}."
            )
        if settings["type"] == "tokens" and modality != "image":
            raise ModelError(f"There are codes for pictures alone; give the output '{modality}' another type.")


class OutputProjector(nn.Module):
    """Turn the signal tokens' states into a generator's text condition.

    Args:
        width_llm: D_llm.
        tokens: T, signal tokens.
        queries: Q, vectors of the condition: 77 for CLIP's prompts, 1 for CLAP's.
        width: D of the condition: 768 (Stable Diffusion 1), 1024 (2, ZeroScope), 512 (AudioLDM).
        hidden: D inside.
        layers: of the transformer's encoder, and of its decoder.
        heads: of attention.
        ffn: of the transformer.
    """

    def __init__(
        self,
        width_llm: int,
        tokens: int,
        queries: int,
        width: int,
        hidden: int = 512,
        layers: int = 4,
        heads: int = 4,
        ffn: int = 2048,
    ):
        super().__init__()
        self.input = nn.Linear(width_llm, hidden)
        layer = nn.TransformerEncoderLayer(hidden, heads, ffn, dropout=0.0, batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(hidden), enable_nested_tensor=False)
        self.transformer = nn.Transformer(
            hidden, heads, layers, layers, ffn, 0.0, custom_encoder=encoder, batch_first=True, norm_first=True
        )
        self.queries = nn.Parameter(torch.randn(queries, hidden) * 0.02)  # with zeros all outputs would stay the same
        self.output = nn.Linear(hidden, width)

    def forward(self, hidden: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """Map states [B, T, D_llm] of signal tokens and their embeddings [T, D_llm] to [B, Q, D]."""
        x = self.input((hidden + embeds).to(self.input.weight))
        return self.output(self.transformer(x, self.queries.expand(len(x), -1, -1)))


def alignment_loss(condition: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Compare conditions with a text encoder's, [B, Q, D] each: the mean Euclidean distance of a vector."""
    return torch.linalg.vector_norm(condition.float() - wanted.float(), dim=-1).mean()


def build_outputs(outputs: dict[str, dict], width_llm: int) -> nn.ModuleDict:
    """Build the modules behind the LLM: modality -> output projector or VQ model."""
    heads: dict[str, nn.Module] = {}
    for modality, settings in sorted(outputs.items()):
        arguments = {key: value for key, value in settings.items() if key not in NO_SIZES}
        if settings["type"] == "representation":
            heads[modality] = OutputProjector(width_llm, **arguments)
        elif settings["type"] == "tokens":
            heads[modality] = VQModel(**settings["codes"])
    return nn.ModuleDict(heads)


class Grammar(LogitsProcessor):
    """Let outputs be whole: what was begun goes on to its end, and nothing of it stands elsewhere.

    Args:
        known: spans of the model's outputs.
        prompt: tokens that are not the answer's.
    """

    def __init__(self, known: list[Span], prompt: int = 0):
        self.known, self.prompt = known, prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Set the scores [B, V] of what cannot come next to minus infinity."""
        first = min(span.first for span in self.known)
        for row, ids in enumerate(input_ids[:, self.prompt :].tolist()):
            scores[row] = self._masked(ids, scores[row], first)
        return scores

    def _masked(self, ids: list[int], scores: torch.Tensor, first: int) -> torch.Tensor:
        open_span = unfinished(ids, self.known)
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        if open_span is None:
            allowed[:first] = True
            for span in self.known:
                allowed[span.first] = True
        else:
            span, written = open_span
            allowed[span.allowed(written)] = True
        return scores.masked_fill(~allowed, -torch.inf)


def unfinished(ids: list[int], known: list[Span]) -> tuple[Span, int] | None:
    """Return the output that tokens end in the middle of, and how many of its tokens are there; None if none is."""
    for back in range(1, min(len(ids), max(span.length for span in known)) + 1):
        for span in known:
            if ids[-back] == span.first:
                return (span, back) if back < span.length else None
    return None


def find(ids: list[int], known: list[Span]) -> list[tuple[Span, int]]:
    """Find the whole outputs in tokens: their spans and start positions, in order."""
    starts = {span.first: span for span in known}
    found, position = [], 0
    while position < len(ids):
        span = starts.get(ids[position])
        if span is None:
            position += 1
            continue
        if position + span.length <= len(ids):
            found.append((span, position))
        position += span.length
    return found
