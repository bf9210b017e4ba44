"""Judge what a model draws: which of all drawings is it most like, does it begin where it should, and nowhere else.

A picture counts as right if, among all drawings of the corpus, the one most like it in the features of the frozen
EfficientNet-Lite2 is the one that was asked for. "by hand" is the same for the real drawings after a way through the
VQ model, which is the most that can be had.
"""

import random
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from onellm.chat.chat import Chat
from onellm.errors import OneLLMError
from onellm.model import base_parts
from onellm.model.backbones import EfficientNetLite2
from onellm.utils import atomic
from train.drawing.data import ASKED, ASKED_HELD_OUT, CHAT_HELD_OUT, TALK, named
from train.drawing.vq import read_picture
from train.small.items import corpus_folder, read_lines
from train.small.questions import with_article

SIDE, BATCH = 224, 32
UNKNOWN = ("cello", "kangaroo", "teapot", "bridge", "lamp", "shirt", "wolf", "train", "spoon", "drum")
TOKENS = 80  # of an answer: a picture takes 72


@dataclass
class Figures:
    """What was measured; shares of 0..1.

    Attributes:
        drawings: n, how many pictures the nearest is sought among; chance is 1 / n.
        by_hand: real drawings through the VQ model whose nearest is themselves.
        asked: group of requests -> how many, how many began a picture, and whose nearest is the one asked for.
        agreement: of colours and shapes never seen together: picture's colour right, shape right, by its nearest.
        false_starts: texts after which a picture began although nothing was to be drawn.
        false_starts_about: of these, in sentences of a form that was taught, about things that were not.
        texts: how many these were.
        same_text: of them, answered word for word as by the LLM alone.
        seen: request -> file of what was drawn.
    """

    drawings: int = 0
    by_hand: float = 0.0
    asked: dict = field(default_factory=dict)
    agreement: dict = field(default_factory=dict)
    false_starts: int = 0
    false_starts_about: int = 0
    texts: int = 0
    same_text: int = 0
    seen: dict = field(default_factory=dict)


class Judge:
    """Finds the drawing that a picture is most like."""

    def __init__(self):
        from safetensors.torch import load_file

        self.backbone = EfficientNetLite2().eval()
        self.backbone.load_state_dict(load_file(base_parts.fetch("efficientnet-lite2") / "model.safetensors"))
        self.lines = read_lines("drawings")
        self.pictures = torch.stack([read_picture(corpus_folder() / line["file"]) for line in self.lines])
        self.features = self.embed(self.pictures)

    @torch.no_grad()
    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return unit features [B, F] of pictures [B, 3, H, W] in 0..1."""
        large = F.interpolate(pictures, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        large = (large * 255 - 127) / 128
        return F.normalize(torch.cat([self.backbone(group)[1] for group in large.split(BATCH)]), dim=-1)

    def nearest(self, pictures: torch.Tensor) -> list[str]:
        """Return the name of the drawing most like each picture; "#" and the label of one that has none."""
        indices = (self.embed(pictures) @ self.features.T).argmax(dim=-1).tolist()
        return [self.lines[index]["name"] or f"#{self.lines[index]['label']}" for index in indices]


def measure_drawing(chat: Chat, out: Path, seed: int = 0) -> Figures:
    """Let a model draw everything it was taught, in known and in other words, and what it was not taught.

    Args:
        chat: with a model that draws.
        out: folder for the pictures.
        seed: of the wordings.

    Raises:
        OneLLMError: the model does not draw.
    """
    if "image" not in chat.model.outputs:
        raise OneLLMError(f"{chat.name} does not draw; give a model with 'outputs', such as onellm-tiny-draw.")
    judge, choose, found = Judge(), random.Random(seed), Figures()
    found.drawings = len(judge.lines)
    taught, held_out = list(named("train")), list(named("test"))
    files = named("train")
    real = torch.stack([read_picture(corpus_folder() / file) for file in files.values()])
    with torch.no_grad():
        vq = chat.model.outputs["image"]
        copies = vq.decode(vq.encode(real))
    found.by_hand = _share(judge.nearest(copies), taught)
    groups = {
        "taught, in known words": [(name, choose.choice(ASKED)) for name in taught],
        "taught, in other words": [(name, choose.choice(ASKED_HELD_OUT)) for name in taught],
        "colour and shape never together": [(name, form) for name in held_out for form in (ASKED[0], *ASKED_HELD_OUT)],
        "never taught": [(name, choose.choice(ASKED)) for name in UNKNOWN],
    }
    for group, asked in groups.items():
        drawn = [_draw(chat, form.format(with_article(name, "image")), out, found) for name, form in asked]
        pairs = [(picture, name) for picture, (name, _) in zip(drawn, asked, strict=True) if picture is not None]
        like = judge.nearest(torch.stack([picture for picture, _ in pairs])) if pairs else []
        names = [name for _, name in pairs]
        found.asked[group] = {
            "n": len(asked),
            "begun": len(pairs),
            "right": sum(map(str.__eq__, like, names)),
            "like": dict(zip([f"{name} #{index}" for index, name in enumerate(names)], like, strict=True)),
        }
        if names and set(names) <= set(held_out):
            pairs = [(one.split(), other.split()) for one, other in zip(like, names, strict=True)]
            found.agreement["colour"] = sum(one[0] == other[0] for one, other in pairs)
            found.agreement["shape"] = sum(one[-1] == other[-1] for one, other in pairs)
    _talk(chat, found, choose)
    return found


def _draw(chat: Chat, request: str, out: Path, found: Figures) -> torch.Tensor | None:
    """Ask for a picture; return it, [3, H, W] in 0..1, or None where none came."""
    fresh = chat.new()
    fresh.output_path = lambda name, _: out / name
    fresh.ask(request, max_new_tokens=TOKENS)
    paths = [part["path"] for part in fresh.generated if "path" in part]
    if not paths:
        return None
    found.seen[f"{request} #{len(found.seen)}"] = paths[0]
    with Image.open(paths[0]) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def _talk(chat: Chat, found: Figures, choose: random.Random) -> None:
    """Ask what is not to be answered by a picture, of the model and of its LLM alone."""
    about = [form.format(with_article(choose.choice(UNKNOWN), "image")) for form in TALK]
    first = chat.model.config.spans[0].first
    for text in (*CHAT_HELD_OUT, *about):
        fresh = chat.new()
        answer = fresh.ask(text, max_new_tokens=12)
        found.texts += 1
        found.false_starts += bool(fresh.generated)
        found.false_starts_about += bool(fresh.generated) and text in about
        ids = fresh.processor.pad([fresh.processor.encode(fresh.messages[:1])[0]])
        alone = chat.model.generate(
            **ids, max_new_tokens=12, do_sample=False, suppress_tokens=[first], tokenizer=fresh.processor.tokenizer
        )
        alone = fresh.processor.tokenizer.decode(alone[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        found.same_text += alone.strip() == answer.strip()


def write_sheet(found: Figures, path: Path) -> None:
    """Write one picture of all that was drawn, each with its request."""
    from PIL import ImageDraw, ImageFont

    columns, width, height = 10, 112, 140
    rows = -(-len(found.seen) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, (request, file) in enumerate(found.seen.items()):
        left, top = index % columns * width, index // columns * height
        with Image.open(file) as picture:
            sheet.paste(picture.resize((96, 96), Image.Resampling.BICUBIC), (left + 8, top + 4))
        words = textwrap.wrap(request.partition(" #")[0], 19)[:2]
        pen.multiline_text((left + 6, top + 104), "\n".join(words), "black", font, spacing=2)
    with atomic.whole(path) as part:
        sheet.save(part, quality=60)


def _share(found: list[str], wanted: list[str]) -> float:
    return sum(map(str.__eq__, found, wanted)) / len(wanted)


def evaluate(model: str, quantize: str | None, out: Path, json: Path | None) -> str:
    """Measure a model that draws, and return its figures for people."""
    import onellm

    figures = measure_drawing(onellm.load(model, quantize=quantize), out)
    write_sheet(figures, out / "sheet.webp")
    if json:
        atomic.write_json(json, asdict(figures))
    lines = [f"{'requests':34} {'n':>4} {'begun':>6} {'right':>6}   (chance {1 / figures.drawings:.4f})"]
    for group, row in figures.asked.items():
        lines.append(f"{group:34} {row['n']:4} {row['begun']:6} {row['right']:6}")
    lines += [
        f"real drawings through the VQ model: {figures.by_hand:.2f} right",
        f"never together: colour right {figures.agreement.get('colour')}, shape right {figures.agreement.get('shape')}",
        f"pictures after {figures.texts} texts that ask for none: {figures.false_starts} (of taught forms: "
        f"{figures.false_starts_about}); answered word for word as "
        f"without: {figures.same_text}",
    ]
    return "\n".join(lines)
