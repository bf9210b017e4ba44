"""The part of the model behind the LLM: rows for new tokens, what is made of them, and the losses of it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.loss.loss_utils import ForCausalLMLoss

from onellm.model.offload import live
from onellm.model.outputs import alignment_loss, build_outputs, find
from onellm.model.rows import TokenRows

IGNORED = -100  # the label where there is no loss


def _say_rows(rows: TokenRows, _: nn.Module, inputs: tuple, logits: torch.Tensor) -> torch.Tensor:
    """Append what the rows say to what the LLM's head does."""
    return rows.extend(inputs[0], logits)


class Making:
    """Methods of `OneLLMForConditionalGeneration` for `config.outputs`.

    Attributes:
        rows: further tokens; None where the outputs have none.
        outputs: kind -> output projector or picture codes.
        denoisers: kind -> loss of latents under conditions, where a trainer gives one.
    """

    def init_outputs(self, config: Any) -> None:
        """Build the parts; the LLM is there already."""
        spans, width = config.spans, config.text_config.hidden_size
        self.rows, self._head_hook = None, None
        if spans:
            self.rows = TokenRows(sum(span.count for span in spans), width, spans[0].first)
            self.extend_head()
        self.outputs = build_outputs(config.outputs, width)
        self.denoisers: dict[str, Callable] = {}

    def extend_head(self) -> None:
        """Let the LLM's head say the rows too; to be called again when the head was replaced."""
        if self.rows is not None:
            if self._head_hook is not None:
                self._head_hook.remove()
            self._head_hook = self.get_output_embeddings().register_forward_hook(partial(_say_rows, self.rows))

    def embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed tokens, the rows of outputs among them: [B, L] to [B, L, D_llm]; a placeholder is like token 0."""
        embedding = self.get_input_embeddings()
        embeds = embedding(input_ids.masked_fill(input_ids >= embedding.num_embeddings, 0))
        return embeds if self.rows is None else self.rows.embed(input_ids, embeds)

    @staticmethod
    def answered(labels: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Cut labels [B, L] to where there are some, and say how many positions that is: wide logits cost most."""
        first = int(labels.ne(IGNORED).any(dim=0).int().argmax())
        kept = labels.shape[1] - max(first - 1, 0)
        return labels[:, -kept:], kept

    def output_loss(
        self,
        output: Any,
        labels: torch.Tensor,
        input_ids: torch.Tensor,
        condition: dict[str, torch.Tensor] | None,
        latents: dict[str, torch.Tensor] | None,
        items: torch.Tensor | int | None,
    ) -> torch.Tensor:
        """Compute the loss of tokens, rows among them, and of the conditions that signal tokens become.

        Args:
            output: of the LLM, with logits [B, L', V + n], and hidden states where there are conditions.
            labels: [B, L'].
            input_ids: [B, L].
            condition: as for `forward`.
            latents: as for `forward`.
            items: labels in all batches of the step; None for the mean of this one.
        """
        loss = ForCausalLMLoss(output.logits, labels, output.logits.shape[-1], items)
        for kind, wanted in (condition or {}).items():
            made = self.condition(kind, output.hidden_states[-1], input_ids)
            error = alignment_loss(made, wanted.to(made))
            if latents:
                error = error + self.denoisers[kind](latents[kind].to(made), made)
            # of several batches that make a step, each has a share of its labels, as in the words' loss
            loss = loss + error * (1 if items is None else labels.ne(IGNORED).sum() / items)
        return loss

    def condition(self, kind: str, hidden: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """Turn the signal tokens of a kind in a batch into conditions of its generator.

        Args:
            kind: of output, of the type "representation".
            hidden: [B, L, D_llm], the LLM's last states.
            input_ids: [B, L].

        Returns:
            [n, Q, D], one for each output in the batch, row by row.
        """
        (span,) = (span for span in self.config.spans if span.kind == kind)
        states = [
            hidden[row, place : place + span.length]
            for row, ids in enumerate(input_ids.tolist())
            for _, place in find(ids, [span])
        ]
        first = span.first - self.rows.first_id
        return self.outputs[kind](torch.stack(states), live(self.rows, "input")[first : first + span.marks])

    @torch.no_grad()
    def make(
        self,
        input_ids: torch.Tensor,
        prompt: int,
        media: dict[str, Sequence[torch.Tensor]] | None = None,
        words: bool = False,
    ) -> list[tuple[str, list[int], torch.Tensor]]:
        """Make what an answer holds besides text.

        Args:
            input_ids: [1, L], a prompt and its answer.
            prompt: length of the prompt.
            media: as for `embed`.
            words: as for `embed`.

        Returns:
            Kind, tokens, and a picture [3, H, W] float32 in 0..1 (of codes) or a condition [Q, D] (of signals), for
            each output in the answer, in order.
        """
        answer = input_ids[0, prompt:].tolist()
        found = find(answer, self.config.spans)
        hidden = None
        if any(not span.codes for span, _ in found):
            embeds = self.embed(input_ids, media, words=words)
            places = self.adapted(input_ids) if self.config.adapter else None
            hidden = self(inputs_embeds=embeds, use_adapter=places, output_hidden_states=True, logits_to_keep=1)
            hidden = hidden.hidden_states[-1]
        made = []
        for span, place in found:
            tokens = answer[place : place + span.length]
            if span.codes:
                codes = torch.tensor([span.codes_of(tokens)], device=self.device)
                result = self.outputs[span.kind].decode(codes)
            else:
                here = slice(prompt + place, prompt + place + span.length)
                result = self.condition(span.kind, hidden[:, here], input_ids[:, here])
            made.append((span.kind, tokens, result[0]))
        return made
