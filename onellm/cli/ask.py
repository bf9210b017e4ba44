"""`python -m onellm ask`: print the answer, and nothing else, on standard output."""

import argparse
import sys
from pathlib import Path

from onellm.chat.outputs.diffusion import add_options as add_generators
from onellm.chat.sampling import add_options as add_settings
from onellm.chat.sampling import given
from onellm.hub.registry import add_options as add_model_options
from onellm.modalities import MODALITIES, WITH_PICTURE


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the question, its files, the model and the settings to a parser."""
    add_question(parser)
    add_model_options(parser)
    add_generators(parser)
    add_settings(parser)


def add_question(parser: argparse.ArgumentParser) -> None:
    """Add a question and its files to a parser."""
    parser.add_argument("question", nargs="?", default="", help='with files and without it: "What is this?"')
    for modality in MODALITIES:
        parser.add_argument(
            f"--{modality}", action="append", default=[], metavar="FILE", help="may be given several times"
        )
    for modality in WITH_PICTURE:
        parser.add_argument(
            f"--{modality}-picture",
            action="append",
            default=[],
            metavar="FILE",
            help=f"the picture beside the {modality} map; the first belongs to the first map",
        )
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where a picture, video or sound goes")
    parser.add_argument("--video-sound", action="store_true", help="hear the videos too, second by second")


def files_of(options: argparse.Namespace) -> dict[str, list]:
    """Return the files of a question as `Chat.stream` takes them, once their names and sizes have been checked."""
    files: dict[str, list] = {
        modality: [{"path": path} for path in getattr(options, modality)] for modality in MODALITIES
    }
    for modality in WITH_PICTURE:
        pictures = getattr(options, f"{modality}_picture")
        if len(pictures) > len(files[modality]):
            options.parser.error(f"--{modality}-picture needs a --{modality} it belongs to")
        for item, picture in zip(files[modality], pictures, strict=False):
            item["picture"] = picture
    if options.video_sound and not files["video"]:
        options.parser.error("--video-sound needs a --video to be heard")
    for item in files["video"] if options.video_sound else ():
        item["sound"] = True
    if not options.question.strip() and not any(files.values()):
        options.parser.error("a question or a file is needed")
    for modality, items in files.items():
        for item in items:
            MODALITIES[modality].check(item["path"])  # before seconds go into loading the model
    return {modality: items for modality, items in files.items() if items}


def run(options: argparse.Namespace) -> int:
    """Print the answer on standard output, and on standard error where generated media were saved."""
    files = files_of(options)
    from onellm.chat.load import load
    from onellm.chat.outputs.media import saved

    chat = load(
        options.model,
        llm=options.llm,
        quantize=options.quantize,
        device_map="auto" if options.offload else None,
        generators=dict(options.generator),
    )
    chat.output_path = lambda name, _: options.out / name
    for piece in chat.stream(options.question, **vars(given(options)), **files):
        print(piece, end="", flush=True)
    print(flush=True)
    for part in chat.generated:
        print(saved(part), file=sys.stderr, flush=True)
    return 0
