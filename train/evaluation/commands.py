"""The command `evaluate`: the small corpus's naming benchmark, or the paper's benchmarks."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from onellm.errors import OneLLMError
from onellm.utils import atomic

NAMING_SPLITS = ("dev", "test")
LANGUAGE_MODEL = "qwen2.5-coder-1.5b-instruct"  # of the conversations' ceiling


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m train evaluate`."""
    parser.add_argument("--model", default="onellm-tiny", help="name or model folder")
    parser.add_argument("--quantize", help="none, 8bit, 4bit or int8; by default what suits the model and machine")
    parser.add_argument("--split", help="naming: test (default) or dev; benchmarks: each one's own")
    parser.add_argument("--limit", type=int, help="at most this many items a kind, or about so many a benchmark")
    parser.add_argument("--json", type=Path, help="write every figure there, and the naming benchmark's answers")
    naming = parser.add_argument_group("the naming benchmark (without --benchmark)")
    naming.add_argument("--kinds", nargs="*", help="only these kinds")
    naming.add_argument(
        "--following", action="store_true", help="instead of naming: two files at once, yes or no, one word, a sentence"
    )
    naming.add_argument(
        "--timeline", action="store_true", help="instead of naming: long sounds, and videos with their sound"
    )
    naming.add_argument(
        "--bias", action="store_true", help="instead of naming: which of two files that agree or not an answer follows"
    )
    naming.add_argument(
        "--drawing", action="store_true", help="instead of naming: what a model that draws does; pictures go to --out"
    )
    talk = parser.add_argument_group("the conversation benchmark")
    talk.add_argument(
        "--conversation", action="store_true", help="instead of naming: conversations of many families about files"
    )
    talk.add_argument("--llm", help="the language model behind the perception; with --ceiling, the one that is alone")
    talk.add_argument("--families", help="only these, with commas between them")
    alone = talk.add_mutually_exclusive_group()
    alone.add_argument(
        "--ceiling", action="store_true", help="the language model alone, given what the files show as a written note"
    )
    alone.add_argument("--blind", action="store_true", help="the language model alone, told nothing of the files")
    paper = parser.add_argument_group("the paper's benchmarks")
    paper.add_argument("--benchmark", metavar="B,B", help="names, or all; see --list")
    paper.add_argument("--data", type=Path, default=Path("data"), help="folder of the benchmarks' files (data)")
    paper.add_argument("--out", type=Path, default=Path("results"), help="folder of results (results)")
    paper.add_argument("--batch-size", type=int, default=16, help="questions that are answered together (16)")
    paper.add_argument("--decode", choices=("greedy", "paper"), default="greedy",
                       help="paper: temperature 0.1, top-p 0.75, seed 1")  # fmt: skip
    paper.add_argument("--new-tokens", type=int, default=128, help="longest answer, in tokens (128)")
    paper.add_argument("--list", action="store_true", help="list the benchmarks, what they need and what is found")
    paper.add_argument("--table", nargs="+", type=Path, metavar="JSON", help="print results as one table")


def run(options: argparse.Namespace) -> int:
    """Follow the options.

    Returns:
        0 when all is done, 1 where a benchmark could not be run and the others were.

    Raises:
        OneLLMError: something is missing or wrong.
    """
    if options.table:
        from train.evaluation.report import read_results, table

        print(table(read_results(options.table)))
    elif options.list:
        from train.evaluation.benchmarks import find
        from train.evaluation.report import overview

        print(overview(find(options.benchmark or "all"), options.data))
    elif options.benchmark:
        return _run_benchmarks(options)
    elif options.conversation:
        print(_run_conversation(options))
    elif options.drawing:
        from train.drawing.evaluate import evaluate as evaluate_drawing

        print(evaluate_drawing(options.model, options.quantize, options.out / "drawings", options.json))
    else:
        split = options.split or "test"
        if split not in NAMING_SPLITS:
            raise OneLLMError(f"There is no split '{split}' of the naming benchmark; choose one of test, dev.")
        if options.following or options.timeline or options.bias:
            _run_questions(options, split)
        else:
            from train.small.naming import evaluate

            print(evaluate(options.model, options.kinds, split, options.limit, options.json, options.quantize))
    return 0


def _run_questions(options: argparse.Namespace, split: str) -> None:
    """Ask the small corpus's other questions: following, files in time, modality bias."""
    import onellm

    chat = onellm.load(options.model, quantize=options.quantize)
    about = {"model": options.model, "split": split}
    if options.following:
        from train.small.following import measure_following, table

        figures = measure_following(chat, split, options.kinds)
        if options.json:
            atomic.write_json(options.json, {**about, **asdict(figures)})
        print(table(figures))
        return
    if options.timeline:
        from train.small.timelines import measure_timelines, table

        rows = measure_timelines(chat, split, options.limit)
    else:
        from train.small.bias import COUNT, measure_bias, table

        rows = measure_bias(chat, split, count=options.limit or COUNT)
    found = []
    for title, row in rows:
        found.append((title, row))
        if options.json:  # after every row, as they take their time
            atomic.write_json(options.json, {**about, "rows": [{"of": of, **asdict(one)} for of, one in found]})
    print(table(found))


def _run_conversation(options: argparse.Namespace) -> str:
    """Hold the conversations with a model, or with a language model alone."""
    from train.small.conversation.measure import ModelAnswerer, NotedLLM, measure, table

    alone = options.ceiling or options.blind
    about = {"model": None if alone else options.model, "llm": options.llm, "noted": options.ceiling if alone else None}

    def load() -> ModelAnswerer | NotedLLM:
        import onellm
        from onellm.model import base_parts

        if alone:
            return NotedLLM(base_parts.fetch(options.llm or LANGUAGE_MODEL), noted=options.ceiling)
        return ModelAnswerer(onellm.load(options.model, llm=options.llm, quantize=options.quantize))

    families = [one.strip() for one in options.families.split(",")] if options.families else None
    return table(measure(load, about, families, options.limit, options.json)[0])


def _run_benchmarks(options: argparse.Namespace) -> int:
    """Run benchmarks and print their table; "all" takes those whose files are there.

    A benchmark that fails after its questions were read (no file could be used, say) does not stop the others.
    """
    import onellm
    from train.evaluation.benchmark import BenchmarkError
    from train.evaluation.benchmarks import find
    from train.evaluation.report import table
    from train.evaluation.runner import ModelAnswerer, Settings, processes, run_benchmark

    benchmarks = find(options.benchmark)
    if options.benchmark == "all":
        benchmarks = [b for b in benchmarks if not b.missing(options.data, b.split(None))]
        if not benchmarks:
            raise OneLLMError(f"The folder {options.data} holds no benchmark; see what each needs with --list.")
    for benchmark in benchmarks:  # a wrong folder or split is told before a model is loaded
        benchmark.questions(options.data, benchmark.split(options.split), options.limit)
    state = processes()
    spread = state.num_processes > 1 and state.device.type == "cuda"
    chat = onellm.load(options.model, quantize=options.quantize, device_map={"": str(state.device)} if spread else None)
    settings = Settings(options.decode, options.new_tokens, weights=weights_of(options.model))
    results, failed = [], 0
    for benchmark in benchmarks:
        try:
            result = run_benchmark(
                benchmark, ModelAnswerer(chat, settings), options.data, options.out, options.split, options.limit,
                options.batch_size, settings,
            )  # fmt: skip
        except BenchmarkError as error:
            failed = 1
            if state.is_main_process:
                print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        if result:
            results.append(result)
    if results:
        print(table(results))
        if options.json:
            atomic.write_json(options.json, results)
    if state.num_processes > 1:
        state.destroy_process_group()
    return failed


def weights_of(model: str) -> str:
    """Name a model's weights: its name, or its folder with the time and size of what is in it."""
    files = [file.stat() for file in sorted(Path(model).glob("*.safetensors"))]
    if not files:
        return model
    return f"{Path(model).resolve()}, {sum(f.st_size for f in files)} bytes, {max(int(f.st_mtime) for f in files)}"
