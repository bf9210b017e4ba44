"""Drift: how far a model's answers to questions without a file have gone from those of the LLM it was made of."""

import math
from dataclasses import dataclass

import torch

import onellm
from train.small.ask import ask_all


@dataclass
class Drift:
    """Figures of one model.

    Attributes:
        identical: share of greedy answers that are the LLM's, word for word.
        divergence: mean Kullback-Leibler divergence of the model's next-token distribution from the LLM's, in nats a
            token, along the LLM's own answers.
        perplexity: of the LLM's own answers, to the model.
    """

    identical: float
    divergence: float
    perplexity: float


class Original:
    """The LLM as it was, and its greedy answers.

    Args:
        chat: a OneLLM without an adapter.
        questions: texts.
    """

    def __init__(self, chat: onellm.Chat, questions: list[str]):
        self.chat, self.questions = chat, questions
        self.answers = _answers(chat, questions)

    @torch.no_grad()
    def compare(self, chat: onellm.Chat) -> Drift:
        """Measure a model against the LLM."""
        same = [ours == theirs for ours, theirs in zip(_answers(chat, self.questions), self.answers, strict=True)]
        divergence = surprise = 0.0
        tokens = 0
        for question, answer in zip(self.questions, self.answers, strict=True):
            prompt, ids = self._encode(question, answer)
            theirs, ours = (_log_probabilities(model, prompt, ids) for model in (self.chat.model, chat.model))
            divergence += float((theirs.exp() * (theirs - ours)).sum())
            surprise -= float(ours.gather(1, torch.tensor(ids, dtype=torch.long)[:, None]).sum())
            tokens += len(ids)
        tokens = max(tokens, 1)  # all answers may be empty
        return Drift(sum(same) / len(same), divergence / tokens, math.exp(surprise / tokens))

    def _encode(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        prompt, _ = self.chat.processor.encode([{"role": "user", "content": question}])
        return prompt, self.chat.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]


def _answers(chat: onellm.Chat, questions: list[str]) -> list[str]:
    return ask_all(chat, [([], question) for question in questions])


def _log_probabilities(model, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Return what a model expects at every position of an answer: [L, V] log-probabilities."""
    logits = model(input_ids=torch.tensor([prompt + answer], device=model.device)).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(dim=-1).cpu()
