"""What is done to the LLM: nothing, LoRA, routed adapters, as a table; and what becomes of answers without a file.

All models are one and the same but for the adapter: its start, data, steps and seeds are the recipe's. Text in the mix
is questions with the LLM's own answers, so that a model can learn to keep them.
Source: LaVIN (arXiv:2305.15023) compares accuracy by trained parameters, and shows the router's weights.
"""

import logging
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch

import onellm
from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES
from onellm.model.auto import OneLLMConfig, OneLLMForConditionalGeneration
from onellm.utils import atomic
from train.build import save, start_folder
from train.experiments.ablations import cell
from train.experiments.plots import routing
from train.experiments.results import claim, finished, read, slug
from train.modules import PARTS, matches
from train.recipe import Recipe, RecipeError
from train.small.ask import ask_all
from train.small.drift import Original
from train.small.following import ask_whether
from train.small.items import read_items
from train.small.naming import is_right, pick
from train.small.plain_questions import HELD_OUT, training_questions
from train.small.questions import WORDS
from train.small.soft_tokens import soft_tokens

logger = logging.getLogger(__name__)
RECIPE = Path(__file__).parents[1] / "recipes/tiny-4-routed.yaml"
QUESTIONS = 240  # that the LLM answers for the mix
AS_IT_IS, ALWAYS = "as it is", "always on"  # LoRA is off without a file, unless it is always on
ANSWER_TOKENS = 64  # an answer that is not finished by then is left out: its end would be learnt as one


@dataclass(frozen=True)
class Variant:
    """What is done to the LLM.

    Attributes:
        adapter: "lora", "routed", or None.
        text: whether questions without a file are in the mix.
    """

    adapter: str | None
    text: bool = False


NOTHING, SHIPPED = "nothing", "LoRA as shipped"
UNTRAINED = (NOTHING, SHIPPED)  # the recipe's start without its LoRA, and with it: trained before, on more steps
VARIANTS = {
    NOTHING: Variant(None),
    SHIPPED: Variant("lora"),
    "LoRA": Variant("lora"),
    "LoRA, text in the mix": Variant("lora", text=True),
    "routed adapters": Variant("routed"),
    "routed adapters, text in the mix": Variant("routed", text=True),
}


def recipe_of(name: str, recipe: Recipe, seed: int, runs: Path) -> Recipe:
    """Return the recipe of a variant.

    Args:
        name: a key of `VARIANTS` that is trained.
        recipe: of the routed adapters with text in the mix.
        seed: of the run.
        runs: where the recipe's model may be; LoRA is as that model has it.

    Raises:
        RecipeError: the model has no LoRA.
    """
    variant, adapter = VARIANTS[name], recipe.adapter
    if variant.adapter == "lora":
        adapter = OneLLMConfig.from_pretrained(start_folder(recipe, runs)).adapter
        if not adapter or adapter.get("type", "lora") != "lora":
            raise RecipeError(
                f"The model {recipe.init} has no LoRA to compare with; start from one such as onellm-tiny."
            )
    data = [source for source in recipe.data if source.modalities or variant.text]
    return recipe.changed(name=f"{slug(name)}-{seed}", adapter=adapter, data=data, seed=seed)


def train(name: str, recipe: Recipe, seed: int, runs: Path) -> Path:
    """Train a variant, if that is not done yet, and return its folder; those of `UNTRAINED` are the recipe's start."""
    if name == SHIPPED:
        return start_folder(recipe, runs)
    if name == NOTHING:
        folder = runs / NOTHING
        if not (folder / "config.json").exists():
            save(folder, recipe.changed(adapter=None), start_folder(recipe, runs), {})
        return folder
    return finished(recipe_of(name, recipe, seed, runs), runs)


def write_own_answers(chat: onellm.Chat, questions: list[str], out: Path) -> int:
    """Write a model's finished greedy answers as a list of instructions, and return how many there are.

    Raises:
        OneLLMError: no answer came to an end.
    """
    answers = ask_all(chat, [([], question) for question in questions], ANSWER_TOKENS)
    encode = chat.processor.tokenizer.encode
    talks = [
        {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
        for question, answer in zip(questions, answers, strict=True)
        if answer and len(encode(answer, add_special_tokens=False)) < ANSWER_TOKENS - 1
    ]
    if not talks:
        raise OneLLMError(
            f"None of {len(questions)} answers of {chat.name} ended within {ANSWER_TOKENS} tokens, so there is no text "
            "to train on; take a model that follows instructions."
        )
    atomic.write_json(out, talks)
    return len(talks)


def adapter_parameters(config: OneLLMConfig) -> int:
    """Count the parameters of a model's adapter."""
    with torch.device("meta"):
        model = OneLLMForConditionalGeneration(config)
    return sum(value.numel() for name, value in model.named_parameters() if matches(name, PARTS["adapter"]))


def measure(chat: onellm.Chat, original: Original, modalities: list[str], split: str, limit: int) -> dict:
    """Measure a model on held-out files and on questions without a file.

    Args:
        chat: the model.
        original: its LLM without an adapter.
        modalities: of the files.
        split: "test", or "dev" while tuning.
        limit: at most so many items a modality.

    Returns:
        `parameters` of the adapter, `accuracy` a modality and `n`, `yes_no` and its `n`, `text` (without a file:
        figures of `Drift`; of LoRA also "always", when it is not switched off there), and `weights` of a router:
        [layers, 2, 2], text alone and with files, each change's.
    """
    items = {modality: pick(read_items(modality, split), limit) for modality in modalities}
    media_embeds: dict = {}
    for found in items.values():
        media_embeds |= soft_tokens(chat, found, split)
    accuracy = {}
    for modality, found in items.items():
        answers = ask_all(chat, [([item], WORDS[modality][2]) for item in found], media_embeds=media_embeds)
        accuracy[modality] = mean(is_right(answer, item) for answer, item in zip(answers, found, strict=True))
    yes_no, asked = ask_whether(chat, items, random.Random(0), media_embeds=media_embeds)
    adapter = chat.model.config.adapter
    result = {
        "parameters": adapter_parameters(chat.model.config),
        "accuracy": accuracy,
        "n": {modality: len(found) for modality, found in items.items()},
        "yes_no": yes_no,
        "yes_no_n": asked,
        "text": {AS_IT_IS: asdict(original.compare(chat))},
    }
    if adapter and adapter.get("type") == "routed":
        chat.model(input_ids=torch.zeros(2, 1, dtype=torch.long), use_adapter=torch.tensor([False, True]))
        result["weights"] = [weights.view(2, 2).tolist() for weights in chat.model.adapters.weights]
    elif adapter:
        chat.model.config.adapter = {**adapter, "on": "always"}
        result["text"][ALWAYS] = asdict(original.compare(chat))
    return result


def compare(
    recipe: Recipe,
    out: Path,
    runs: Path,
    seeds: list[int],
    split: str = "test",
    limit: int = 40,
    names: list[str] | None = None,
) -> str:
    """Train and measure variants, those that `out` does not hold yet, and lay out all it holds.

    Args:
        recipe: of the routed adapters with text in the mix; its source without files is written to `runs`, as the LLM
            itself answers.
        out: JSON file of results, written after every variant; the routers' weights are drawn beside it (.svg).
        runs: folder of the models.
        seeds: one run each.
        split: "test", or "dev" while tuning.
        limit: at most so many items a modality.
        names: keys of `VARIANTS`; None: all.

    Returns:
        Two Markdown tables.

    Raises:
        OneLLMError: something the recipe needs is missing.
    """
    text = str(runs / "text.json")
    recipe = recipe.changed(data=[s if s.modalities else s.changed(path=text) for s in recipe.data])
    claim(runs, recipe=recipe.model_dump())
    kept = read(out, recipe=recipe.model_dump(), split=split, limit=limit)
    results = kept["found"]
    modalities = [modality for modality in MODALITIES if any(modality in source.modalities for source in recipe.data)]
    nothing = train(NOTHING, recipe, 0, runs)
    for source in recipe.data:
        if not source.modalities and not Path(source.path).exists():
            count = write_own_answers(_load(nothing), training_questions(QUESTIONS), Path(source.path))
            logger.info("%s: %d questions with the LLM's own answers", source.path, count)
    wanted = [
        (name, seed)
        for seed in seeds
        for name in names or VARIANTS
        if str(seed) not in results.get(name, {})
        and not (name in UNTRAINED and (name in results or seed != seeds[0]))  # they have no seed
    ]
    folders = [train(name, recipe, seed, runs) for name, seed in wanted]  # before a second model takes memory
    original = Original(_load(nothing), list(HELD_OUT)) if wanted else None
    for (name, seed), folder in zip(wanted, folders, strict=True):
        found = measure(_load(folder), original, modalities, split, limit)
        results.setdefault(name, {})[str(seed)] = found
        logger.info("%s, seed %d: %s", name, seed, found)
        atomic.write_json(out, kept, indent=None)
    routed = {
        name: [found["weights"] for found in done.values()]
        for name, done in _in_order(results)
        if VARIANTS[name].adapter == "routed"
    }
    if routed:
        atomic.write(out.with_suffix(".svg"), routing(routed))
    return f"{files_table(results)}\n\n{text_table(results)}"


def _load(folder: Path) -> onellm.Chat:
    return onellm.load(str(folder), quantize="none")


def _in_order(results: dict[str, dict]) -> list[tuple[str, dict]]:
    return [(name, results[name]) for name in VARIANTS if name in results]


def files_table(results: dict[str, dict[str, dict]]) -> str:
    """Lay out variant -> seed -> figures: accuracy with files, as means and, of several seeds, standard deviations."""
    counts = next(iter(next(iter(results.values())).values()))["n"]
    rows = [
        f"| the LLM has | parameters | {' | '.join(f'{name} ({count})' for name, count in counts.items())} | mean | "
        "yes or no |",
        "|---" * (len(counts) + 4) + "|",
    ]
    for name, seeds in _in_order(results):
        runs = list(seeds.values())
        columns = [[found["accuracy"][modality] for found in runs] for modality in counts]
        columns += [[mean(found["accuracy"].values()) for found in runs], [found["yes_no"] for found in runs]]
        rows.append(f"| {name} | {runs[0]['parameters']:,} | {' | '.join(map(cell, columns))} |")
    return "\n".join(rows)


def text_table(results: dict[str, dict[str, dict]]) -> str:
    """Lay out variant -> seed -> figures: answers without a file."""
    rows = ["| the LLM has | same answers | divergence | perplexity |", "|---|---|---|---|"]
    for name, seeds in _in_order(results):
        for state in next(iter(seeds.values()))["text"]:
            found = [run["text"][state] for run in seeds.values()]
            columns = [[figures[key] for figures in found] for key in ("identical", "divergence", "perplexity")]
            rows.append(f"| {name if state == AS_IT_IS else f'{name}, {state}'} | {' | '.join(map(cell, columns))} |")
    return "\n".join(rows)
