"""Measure how fast a model answers here, each figure beside the limit that this machine sets.

The limits are measured in the same run: a token cannot come faster than the weights and the cache are read from
memory once, and an encoder or a prompt cannot run faster than its multiplications do in one large matrix product.

`stream / bare step` is a ratio: tokens a second of an answer through `Chat.stream`, generation loop, text and hand-over
to the reader included, by tokens a second of the model's forward alone. Both run in turn, so that what else the machine
does meanwhile slows both; it is the median of the pairs, and 1 would mean that streaming costs nothing.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from onellm.chat.load import load
from onellm.hub.registry import add_options as add_model_options
from onellm.model.runtime.kv_cache import GrowingCache
from onellm.model.runtime.quantization import cache_bytes, dtype_for
from onellm.utils.paths import EXAMPLES

QUESTION = "What is in the picture?"
CONTEXTS = (32, 512)
NEW_TOKENS = 32
PAIRS = 7  # of a bare and a streamed answer


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the model and how it is measured to a parser."""
    add_model_options(parser)
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="measure a model without its weights: --model is a model, a preset or a config.json",
    )
    parser.add_argument("--plain", action="store_true", help="as transformers runs it, for comparing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")


def run(options: argparse.Namespace) -> int:
    """Print how fast the model answers on this machine."""
    chosen = {name: getattr(options, name) for name in ("quantize", "random_weights", "plain")}
    print(measure_and_report(options.json, name=options.model, **chosen))
    return 0


@dataclass(frozen=True)
class Figure:
    """One measured number, and the share of what the machine could do at most (None where no limit is known)."""

    name: str
    value: float
    unit: str
    share: float | None = None


def best_s(run: Callable[[], Any], times: int = 3) -> float:
    """Return the shortest time of several runs in seconds; a GPU is waited for."""
    shortest = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def bandwidth_bytes_s(device: torch.device) -> float:
    """Return how fast memory is read: a large array is summed."""
    data = torch.ones(2**26 if device.type == "cpu" else 2**30, device=device)
    return data.nbytes / best_s(data.sum, 8)


def rate_operations_s(device: torch.device, int8: bool) -> float:
    """Return how fast one large product of matrices runs, as the model multiplies there."""
    size = 2048 if device.type == "cpu" else 8192
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    if device.type == "cpu":
        from onellm.model.runtime.cpu import Int8ProductLinear, PackedLinear

        layer = (Int8ProductLinear if int8 else PackedLinear)(right)
    else:
        layer = right.matmul
    return 2 * size**3 / best_s(lambda: layer(left), 8)


def random_inputs(config: Any) -> dict[str, torch.Tensor]:
    """Return one random tensor a modality, of the shape the modality's files have."""
    shapes = {}
    for modality, settings in config.modalities.items():
        given = settings.get("input", {})
        tokenizer = settings["tokenizer"]
        tokenizer = config.modalities[tokenizer["share"]]["tokenizer"] if "share" in tokenizer else tokenizer
        frames = {"video": given.get("frames", 1) * given.get("crops", 1), "depth": 2, "normal": 2}.get(modality)
        match tokenizer["type"]:
            case "spectrogram-patches":
                shapes[modality] = (1, tokenizer["mels"], tokenizer["frames"])
            case "point-groups" | "point-views":
                shapes[modality] = (given["points"], 6)
            case "voxels":
                shapes[modality] = (tokenizer["voxels"],)
            case "motion-windows":
                shapes[modality] = (6, tokenizer["length"])
            case "stem" if tokenizer["stem"] == "yamnet":
                shapes[modality] = (given["patches"], 1, 96, 64)
            case _:
                shapes[modality] = (*([frames] if frames else []), 3, given["size"], given["size"])
    generator = torch.Generator().manual_seed(0)
    return {modality: torch.rand(shape, generator=generator) for modality, shape in shapes.items()}


def encode_operations(config: Any, inputs: dict[str, torch.Tensor]) -> dict[str, int]:
    """Count the operations of encoding and projecting a file of each modality, on a model without weights."""
    from torch.utils.flop_counter import FlopCounterMode

    from onellm.model.auto import OneLLMForConditionalGeneration

    with torch.device("meta"):
        model = OneLLMForConditionalGeneration(config).eval().requires_grad_(False)
    counts = {}
    for modality, value in inputs.items():
        tokenizer = config.modalities[modality]["tokenizer"]
        if tokenizer.get("type") == "point-views":  # drawn, which is no matter of products
            continue
        with FlopCounterMode(display=False) as counter:
            model.soft_tokens(modality, [value.to("meta")])
        counts[modality] = counter.get_total_flops()
    return counts


def stored_bytes(module: torch.nn.Module) -> int:
    """Return the bytes of a module's weights as they are kept."""
    packed = [layer.packed_bytes for layer in module.modules() if hasattr(layer, "packed_bytes")]
    return sum(packed) + sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory this process has held so far, on the device the model is on."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


@torch.no_grad()
def measure(
    name: str | None = None, quantize: str | None = None, random_weights: bool = False, plain: bool = False
) -> dict[str, Any]:
    """Measure a model on this machine.

    Args:
        name: of the model, its folder, or with random weights a preset or a config.json.
        quantize: as for `load`.
        random_weights: measure the model without its weights.
        plain: measure it as transformers runs it, without the layers and the cache that this project puts in.

    Returns:
        `model`, `machine`, and `figures`, a list of `Figure`.
    """
    start = time.perf_counter()
    chat = load(name, quantize=quantize, random_weights=random_weights, plain=plain)
    load_s = time.perf_counter() - start
    model, config = chat.model, chat.model.config
    device, text, llm = model.device, config.text_config, model.language_model
    bandwidth, rate = bandwidth_bytes_s(device), rate_operations_s(device, "int8" in chat.name)
    figures = [
        Figure("memory bandwidth", bandwidth / 1e9, "GB/s"),
        Figure("matrix products", rate / 1e9, "Gop/s"),
        Figure("load", load_s, "s"),
    ]

    inputs = random_inputs(config)
    with torch.enable_grad():  # which the counter needs
        operations = encode_operations(config, inputs)
    for modality, value in inputs.items():
        took = best_s(lambda modality=modality, value=value: model.soft_tokens(modality, [value]))
        share = operations[modality] / rate / took if modality in operations else None
        figures.append(Figure(f"encode {modality}", 1e3 * took, "ms", share))

    linears = sum(layer.in_features * layer.out_features for layer in llm.modules() if hasattr(layer, "in_features"))
    read = stored_bytes(llm) - llm.get_input_embeddings().weight.nbytes * (not _tied(llm))
    for context in CONTEXTS:
        ids = torch.randint(3, min(text.vocab_size, 9999), (1, context), generator=torch.Generator().manual_seed(0))

        def generate(count: int, ids: torch.Tensor = ids) -> None:
            cache = {} if plain else {"past_key_values": GrowingCache()}
            settings = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
            model.generate(ids.to(device), **settings, **cache)

        generate(2)
        one = best_s(lambda: generate(1))
        token_s = (best_s(lambda: generate(NEW_TOKENS + 1)) - one) / NEW_TOKENS
        work = 2 * linears * context + 2 * context**2 * text.hidden_size * text.num_hidden_layers
        figures.append(Figure(f"prefill at {context}", 1e3 * one, "ms", work / rate / one))
        share = (read + cache_bytes(text, context, dtype_for(device.type))) / bandwidth / token_s
        figures.append(Figure(f"decode at {context}", 1 / token_s, "tokens/s", share))

    if chat.processor is not None:
        figures.append(Figure("stream / bare step", stream_share(chat), "of the bare speed"))
        picture = min((EXAMPLES / "image").glob("*.*g"))

        def first() -> None:
            answer = chat.new().stream(QUESTION, image=picture)
            next(answer)
            answer.close()

        first()
        figures.append(Figure("first token of an image question", 1e3 * best_s(first), "ms"))
    figures.append(Figure("peak memory", peak_memory_bytes(device) / 1e9, "GB"))
    return {"model": chat.name, "plain": plain, "machine": machine(device), "figures": figures}


@torch.no_grad()
def stream_share(chat: Any, count: int = NEW_TOKENS, pairs: int = PAIRS) -> float:
    """Return the speed of answers through `Chat.stream`, divided by that of the model's forward alone.

    Args:
        chat: a conversation with the model.
        count: tokens of an answer; those that end one are not chosen.
        pairs: of a bare and a streamed answer.
    """
    model, shares = chat.model, []

    def bare(ids: list[int]) -> float:
        token, cache, times = torch.tensor([ids], device=model.device), GrowingCache(), []
        for _ in range(count):
            token = model(input_ids=token, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1, True)
            token.item()  # a GPU is waited for
            times.append(time.perf_counter())
        return (count - 1) / (times[-1] - times[0])

    ends, model.generation_config.min_new_tokens = model.generation_config.min_new_tokens, count
    try:
        for _ in range(pairs + 1):  # the first warms up
            streamed = chat.new()
            streamed.ask(QUESTION, max_new_tokens=count)
            shares.append(streamed.trace.tokens_per_s / bare(chat.processor.encode(streamed.messages[:1])[0]))
    finally:
        model.generation_config.min_new_tokens = ends
    return statistics.median(shares[1:])


def _tied(llm: Any) -> bool:
    """Whether the embedding is also the head, and so read with every token."""
    return getattr(llm.get_output_embeddings(), "weight", None) is llm.get_input_embeddings().weight


def machine(device: torch.device) -> str:
    """Name the machine."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}, torch {torch.__version__}"


def report(measured: dict[str, Any]) -> str:
    """Lay the figures out as a Markdown table."""
    title = measured["model"] + (", plain" if measured["plain"] else "")
    lines = [f"{title} on {measured['machine']}", "", "| what | measured | of the limit |", "|---|---|---|"]
    for figure in measured["figures"]:
        share = "" if figure.share is None else f"{figure.share:.0%}"
        lines.append(f"| {figure.name} | {figure.value:.3g} {figure.unit} | {share} |")
    return "\n".join(lines)


def measure_and_report(out: Path | None = None, **options: Any) -> str:
    """Measure (options as for `measure`), write JSON where asked, and return the figures for people."""
    measured = measure(**options)
    if out:
        content = {**measured, "figures": [asdict(figure) for figure in measured["figures"]]}
        out.write_text(json.dumps(content, indent=1))
    return report(measured)
