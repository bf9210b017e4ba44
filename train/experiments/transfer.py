"""Move a trained projector to another LLM: `python -m train transfer --from MODEL --to LLM`.

A word converter is fitted between the word embeddings of the two LLMs, on the words that both know, and merged into the
projector's output; a warm-up of the output alone and direct tuning follow as ordinary recipes.

Source: VPGTrans (arXiv:2305.01278), sections 4.1 and 4.2.
"""

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from onellm.errors import ModelError
from onellm.hub import registry
from onellm.model import base_parts
from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration, OneLLMProcessor
from onellm.utils import atomic
from train.build import caption_texts, prepare_anchor
from train.modules import read_language_model
from train.small.features import Targets

# what a moved projector begins as; the others are there to be compared with
STARTS = {
    "converted": "the old projector and a word converter",
    "random": "the old projector and a random matrix in the converter's place",
    "new": "a new projector",
}
BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # spells letters that a vocabulary lacks
STEPS, BATCH, RATE = 1000, 1024, 3e-3
HELD_OUT = 0.05  # share of the shared words, with all their spellings, on which the converter is measured
# of an LLM that was not taught to chat
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Answer: ' + message['content'] + eos_token + '\n' }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)
PLAIN_STOP = "\n"  # an answer is a line: such an LLM would go on with another one


@dataclass
class Fit:
    """How well a converter finds words that it was not fitted on.

    Attributes:
        shared: words that both LLMs know.
        held_out: of these, the ones it is measured on.
        cosine: mean cosine between a held-out word, converted, and the other LLM's.
        constant: the same for the mean word, whichever is asked for: what a converter gets that learnt nothing.
        nearest: share of held-out words of which the nearest shared word of the other LLM is the right one.
        chance: the same by guessing.
    """

    shared: int
    held_out: int
    cosine: float
    constant: float
    nearest: float
    chance: float

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{self.shared:,} shared words; of {self.held_out:,} that were held out: cosine {self.cosine:.3f} "
            f"(the mean word: {self.constant:.3f}), the nearest word is right for {self.nearest:.3f} "
            f"(chance: {self.chance:.5f})"
        )


def read_words(tokenizer: Any) -> dict[str, int]:
    """List the words of a vocabulary as they stand within a text: " dog" -> token id.

    A token is read behind another, because some tokenizers drop the space before a text's first word. Special tokens,
    bytes and parts of a letter are left out.
    """
    first = tokenizer.convert_ids_to_tokens(tokenizer(".", add_special_tokens=False)["input_ids"][-1])
    start = len(tokenizer.convert_tokens_to_string([first]))
    left_out = {token for token in tokenizer.get_vocab() if BYTE.fullmatch(token)} | set(tokenizer.all_special_tokens)
    words: dict[str, int] = {}
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        word = "" if token in left_out else tokenizer.convert_tokens_to_string([first, token])[start:]
        if word and "\N{REPLACEMENT CHARACTER}" not in word:
            words.setdefault(word, number)
    return words


def shared_words(ours: Any, theirs: Any) -> dict[str, tuple[int, int]]:
    """Return the words of two tokenizers' vocabularies that are written alike: word -> its token id in each."""
    there = read_words(theirs)
    return {word: (number, there[word]) for word, number in read_words(ours).items() if word in there}


def fit(source: torch.Tensor, target: torch.Tensor, words: list[str], seed: int = 0) -> tuple[nn.Linear, Fit]:
    """Fit a converter to pairs of word embeddings by their cosine.

    The cosine leaves the length open; it is set so that converted words are as long as the other LLM's on average.

    Args:
        source: [n, D] embeddings of the words in one LLM.
        target: [n, D_next] in the other.
        words: [n] the words; spellings of a word (" Dog", "dog") are held out together.
        seed: of the start, the order and what is held out.

    Raises:
        ModelError: there are fewer words than a converter has weights for each of its outputs.
    """
    if len(words) <= source.shape[1]:
        raise ModelError(
            f"The two LLMs share {len(words)} words, but a converter between them needs more than {source.shape[1]}; "
            "choose an LLM whose tokenizer is of the same languages."
        )
    generator = torch.Generator().manual_seed(seed)
    spellings: dict[str, int] = {}
    families = torch.tensor([spellings.setdefault(word.strip().lower(), len(spellings)) for word in words])
    held = torch.rand(len(spellings), generator=generator)[families] < HELD_OUT
    known = (~held).nonzero()[:, 0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        converter = nn.Linear(source.shape[1], target.shape[1])
    optimizer = torch.optim.Adam(converter.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        batch = known[torch.randint(len(known), (min(BATCH, len(known)),), generator=generator)]
        loss = 1 - F.cosine_similarity(converter(source[batch]), target[batch]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    converter.requires_grad_(False)
    length = target[known].norm(dim=-1).mean() / converter(source[known]).norm(dim=-1).mean()
    converter.weight *= length
    converter.bias *= length
    return converter, _measure(converter, source, target, held)


@torch.no_grad()
def _measure(converter: nn.Linear, source: torch.Tensor, target: torch.Tensor, held: torch.Tensor) -> Fit:
    """Measure a converter on the held-out words."""
    found, target = F.normalize(converter(source[held]), dim=-1), F.normalize(target, dim=-1)
    mean = F.normalize(target[~held].mean(dim=0), dim=-1)
    nearest = torch.cat([(rows @ target.T).argmax(dim=-1) for rows in found.split(BATCH)])
    return Fit(
        shared=len(held),
        held_out=int(held.sum()),
        cosine=float((found * target[held]).sum(dim=-1).mean()),
        constant=float((target[held] @ mean).mean()),
        nearest=float((nearest == held.nonzero()[:, 0]).float().mean()),
        chance=1 / len(held),
    )


def transfer(source: str, target: str, out: Path, start: str = "converted", seed: int = 0) -> Fit | None:
    """Write a model: that of `source` with the LLM `target`; the adapter, made for the old LLM, stays behind.

    Args:
        source: a model's name or folder.
        target: the LLM: a base part, a folder with safetensors, or a name on the hub.
        out: the model folder to be made.
        start: one of `STARTS`.
        seed: of what is drawn at random.

    Returns:
        How good the converter is, where one was fitted.

    Raises:
        ModelError: a model cannot be had, its projector cannot be converted, or the LLMs share too few words.
        OneLLMError: the disk is full, or the anchor's vocabulary needs the corpus and there is none.
    """
    if start not in STARTS:
        raise ModelError(f"A moved projector cannot begin as '{start}'; choose one of {', '.join(STARTS)}.")
    if out.exists():
        raise ModelError(f"{out} exists already; remove it, or name another folder with --out.")
    folder = registry.folder_of(source)
    model = OneLLMForConditionalGeneration.from_pretrained(folder, dtype="auto")
    if model.projector is None or model.config.outputs:
        raise ModelError(f"{source} reads no files, or makes some; give a model that reads files and writes text.")
    processor = OneLLMProcessor.from_pretrained(folder)
    llm, tokenizer = load_llm(target)
    pairs = shared_words(processor.tokenizer, tokenizer)
    config = moved_config(model.config, llm.config, source, target)
    if not tokenizer.chat_template:
        config.chat_template, config.stop_strings = PLAIN_TEMPLATE, [PLAIN_STOP]
    torch.manual_seed(seed)
    found = None
    if start != "new":
        indices = torch.tensor(list(pairs.values()), dtype=torch.long).reshape(-1, 2)
        ours = model.get_input_embeddings()(indices[:, 0]).detach().float()
        theirs = llm.get_input_embeddings()(indices[:, 1]).detach().float()
        converter = nn.Linear(ours.shape[1], theirs.shape[1])
        if start == "converted":
            converter, found = fit(ours, theirs, list(pairs), seed)
        model.projector.float().convert(converter)
        config.projector.setdefault("converted", model.config.text_config.hidden_size)
    vocabulary = None
    if model.projector.anchor is not None:
        vocabulary = anchor_vocabulary(model, tokenizer, pairs)
        config.projector["anchor"] = {**config.projector["anchor"], "size": len(vocabulary)}
    moved = OneLLMForConditionalGeneration._from_config(config, dtype=torch.float32)
    moved.language_model = llm
    kept = model.state_dict()
    own = ("language_model.", "projector." if start == "new" else "projector.anchor.")
    with torch.no_grad():
        for name, tensor in moved.state_dict().items():
            if not name.startswith(own):
                tensor.copy_(kept[name])
    if vocabulary:
        prepare_anchor(moved, tokenizer, vocabulary)
    moved.generation_config = GenerationConfig.from_model_config(llm.config)
    moved.generation_config.stop_strings = config.stop_strings
    moved.to(model.dtype)
    with atomic.whole(out, moved.num_parameters() * model.dtype.itemsize) as part:
        moved.save_pretrained(part, max_shard_size="9MB" if config.base_parts else "5GB")
        OneLLMProcessor.from_config(tokenizer, config).save_pretrained(part)
    return found


def load_llm(target: str) -> tuple[PreTrainedModel, Any]:
    """Load an LLM, a base part or any, and its tokenizer.

    Raises:
        ModelError: there is no such LLM, or it has no tokenizer.
    """
    source = str(base_parts.fetch(target)) if target in base_parts.LLMS else target
    try:
        return read_language_model(source, "auto"), AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (ModelError, OSError, ValueError) as error:
        raise ModelError(
            f"'{target}' is no LLM that can be loaded ({str(error).splitlines()[0].rstrip(' .')}); choose one of "
            f"{', '.join(base_parts.LLMS)}, a folder with safetensors and a tokenizer, or a name on the hub."
        ) from error


def moved_config(config: OneLLMConfig, text_config: Any, source: str, target: str) -> OneLLMConfig:
    """Return a model's configuration with another LLM; placeholders lie behind that LLM's vocabulary."""
    values = copy.deepcopy(config.to_dict()) | {"text_config": text_config}
    values |= {"adapter": None, "chat_template": None, "stop_strings": None}
    values["base_parts"].pop("language_model", None)
    if target in base_parts.LLMS:
        values["base_parts"]["language_model"] = target
    for index, settings in enumerate(values["modalities"].values()):
        settings["token_id"] = text_config.vocab_size + index
    values["description"] = f"{Path(source).name} moved to the LLM {Path(target).name}: {config.description}"
    return OneLLMConfig(**values)


def anchor_vocabulary(
    model: OneLLMForConditionalGeneration, tokenizer: Any, pairs: dict[str, tuple[int, int]]
) -> list[int]:
    """Return the words of a moved anchor: the other tokenizer's of every caption, and those shared with the old one.

    The former are what is learnt from now on, the latter what the projector says before: a name that both tokenizers
    have, but cut elsewhere, can be spelt in both ways.
    """
    learnt = Targets(tokenizer, model.config.projector["queries"], caption_texts()).token_ids
    there = dict(pairs.values())
    said = [there[number] for number in model.projector.anchor.token_ids.tolist() if number in there]
    return list(dict.fromkeys(learnt + said))
