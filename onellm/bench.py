"""Measure how fast a model answers here: load, memory, encode, first token, tokens a second, beside the limit."""

import json
import os
import time
from pathlib import Path
from typing import Any

QUESTION = "What is in the picture?"


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bandwidth_bytes_s() -> float:
    """Read speed of main memory, measured by summing a large array: the limit of decoding."""
    import torch

    data = torch.ones(64 * 1024 * 1024)
    data.sum()
    start = time.perf_counter()
    for _ in range(5):
        data.sum()
    return 5 * data.nbytes / (time.perf_counter() - start)


def measure(name: str = "onellm-tiny", picture: str | None = None, new_tokens: int = 64) -> dict[str, Any]:
    """Measure a model on this machine.

    Args:
        name: of the model, or its folder.
        picture: an image to ask about; by default the first one of the examples.
        new_tokens: tokens to generate when measuring the speed of decoding.

    Returns:
        Figures with their units in their names; `decode_share` is the speed as a share of the limit that reading
        all the LLM's weights once a token sets.
    """
    import torch

    import onellm

    picture = picture or str(next((Path(__file__).parent.parent / "examples" / "image").glob("*.*g")))
    start = time.perf_counter()
    chat = onellm.load(name)
    figures: dict[str, Any] = {"model": name, "load_s": time.perf_counter() - start}
    figures["threads"], figures["cores"] = torch.get_num_threads(), os.cpu_count()

    list(chat.stream(QUESTION, image=picture, max_new_tokens=2))  # the first call also warms up
    fresh = chat.new()
    start = time.perf_counter()
    first, pieces = None, 0
    for _ in fresh.stream(QUESTION, image=picture):
        first = first or time.perf_counter() - start
        pieces += 1
    figures["first_token_of_an_image_question_s"] = first

    part = {"type": "image", "path": picture}
    start = time.perf_counter()
    tensor = fresh.processor.to_tensor(part)
    middle = time.perf_counter()
    with torch.no_grad():
        chat.model.soft_words("image", [tensor])
    figures["load_image_ms"] = 1e3 * (middle - start)
    figures["encode_image_ms"] = 1e3 * (time.perf_counter() - middle)

    inputs = fresh.processor.apply_chat_template(
        [{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}]
    )
    settings = {"do_sample": False, "pad_token_id": 0}
    start = time.perf_counter()
    chat.model.generate(**inputs, max_new_tokens=1, **settings)
    one = time.perf_counter() - start
    start = time.perf_counter()
    chat.model.generate(**inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, eos_token_id=2, **settings)
    rate = (new_tokens - 1) / (time.perf_counter() - start - one)
    weights = sum(parameter.nbytes for parameter in chat.model.language_model.parameters())
    figures["prompt_tokens"] = int(inputs["input_ids"].shape[1])
    figures["decode_tokens_s"] = rate
    figures["weights_read_a_token_bytes"] = weights
    figures["memory_bandwidth_bytes_s"] = bandwidth_bytes_s()
    figures["decode_share"] = rate * weights / figures["memory_bandwidth_bytes_s"]
    figures["peak_memory_bytes"] = peak_memory_bytes()
    return figures


def report(figures: dict[str, Any]) -> str:
    """Lay the figures out, one a line."""
    return "\n".join(
        f"{key:36} {value:.3g}" if isinstance(value, float) else f"{key:36} {value}" for key, value in figures.items()
    )


def run(name: str, out: Path | None = None) -> str:
    """Measure, write JSON where asked, and return the figures for people."""
    figures = measure(name)
    if out:
        out.write_text(json.dumps(figures, indent=1))
    return report(figures)
