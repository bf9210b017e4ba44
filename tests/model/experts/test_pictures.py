"""What experts find in pictures, videos, points and depth maps: real files, rendered text, hostile sizes."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from onellm.modalities import MODALITIES
from onellm.modalities.base import Sample
from onellm.model.experts import EXPERTS, find_all
from onellm.model.experts.colours import COLOURS, main_names, name_colours, shares, to_lab
from onellm.model.experts.measures import Measures
from onellm.model.experts.objects import Box, most, sentence
from onellm.model.experts.text import Text, in_reading_order
from onellm.model.experts.text import sentence as quoted

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SEEN = ("colours", "objects", "text", "measures")


def of(modality, path):
    return MODALITIES[modality].load(EXAMPLES / path)


def picture(array, modality="image"):
    return Sample(modality, "a.png", np.asarray(array, np.uint8), "")


def note(sample):
    """Return the sentences of all experts, joined as they stand in the prompt."""
    found, notes = find_all(SEEN, sample)
    assert not notes
    return " ".join(finding.text for finding in found)


def rendered(*lines, size=24, turn=0, ground="white", ink="black"):
    image = Image.new("RGB", (480, 40 + 50 * len(lines)), ground)
    for index, line in enumerate(lines):
        ImageDraw.Draw(image).text((30, 20 + 50 * index), line, fill=ink, font=ImageFont.load_default(size))
    return np.asarray(image.rotate(turn, Image.Resampling.BICUBIC, expand=True, fillcolor=ground))


def test_a_photograph_gives_the_whole_note():
    text = note(of("image", "image/cat.jpg"))
    assert re.fullmatch(
        r"Colours: the picture is mostly brown.*; the main thing is brown.*\. "
        r"Objects: one cat \(centre\)\. People: none\. Text: none; there is no sign to read\.",
        text,
    )


def test_a_video_tells_that_counts_are_of_one_frame():
    finding = EXPERTS["objects"].find(of("video", "video/animal.mp4"))
    assert re.match(r"Objects \(most in one frame\): .*\. People \(most in one frame\): none\.", finding.text)
    assert all(0 <= value <= 1 for detail in finding.details for value in detail["box"])


def test_counts_and_places():
    cup, left, right = (
        Box("cup", 0.9, 0.0, 0.4, 0.2, 0.6),
        Box("person", 0.8, 0.1, 0.0, 0.2, 1.0),
        Box("person", 0.7, 0.8, 0.7, 1.0, 1.0),
    )
    knives = [Box("knife", 0.5, x, 0.4, x + 0.1, 0.6) for x in (0.1, 0.45, 0.6, 0.8)]
    assert sentence([cup, left, right]) == "Objects: one cup (left). People: two (left, bottom right)."
    assert sentence([*knives, cup]) == "Objects: four knives, one cup (left). People: none."
    assert sentence([]) == "Objects: none that the detector knows. People: none."
    assert most([[cup], [cup, cup, left], [left, right]]) == [cup, cup, left, right]


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ("#ff0000", "red"),
        ("#8b0000", "red"),
        ("#ffa500", "orange"),
        ("#8b4513", "brown"),
        ("#ffff00", "yellow"),
        ("#008000", "green"),
        ("#40e0d0", "turquoise"),
        ("#0000ff", "blue"),
        ("#87ceeb", "blue"),
        ("#800080", "purple"),
        ("#ffc0cb", "pink"),
        ("#d2b48c", "beige"),
        ("#ffffff", "white"),
        ("#808080", "grey"),
        ("#000000", "black"),
    ],
)
def test_colours_have_their_names(colour, name):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    assert COLOURS[int(name_colours(to_lab(rgb)))] == name


def test_every_colour_has_a_name_and_shares_sum_to_one():
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), axis=-1).astype(np.uint8)
    share = shares(grid)
    assert share.sum() == pytest.approx(1) and (share > 0.005).all()
    assert main_names(shares(np.zeros((1, 1, 3), np.uint8))) == ["black"]


def test_a_plain_background_is_told_apart_from_the_thing():
    array = np.full((90, 120, 3), 255, np.uint8)
    array[30:60, 40:80] = (255, 0, 0)
    array[40:50, 50:70] = 255  # white within the thing is the thing's
    assert EXPERTS["colours"].find(picture(array)).text == (
        "Colours: the main thing is red and white, on a plain white background."
    )
    assert EXPERTS["colours"].find(picture(array[:20])).text == "Colours: the whole picture is white."


@pytest.mark.parametrize("turn", [0, 10, -10])
def test_printed_text_is_read_in_order(turn):
    finding = Text().find(picture(rendered("No parking", "on Sundays 9 to 12", turn=turn)))
    assert finding.text == 'Text: "No parking", "on Sundays 9 to 12".'
    assert finding.score > 0.9 and len(finding.details) == 2


def test_two_columns_of_one_row_are_read_from_left_to_right():
    corners = np.array([[0, 0], [0.3, 0], [0.3, 0.1], [0, 0.1]])
    lines = {"c": [0, 0.2], "b": [0.5, 0.01], "a": [0, 0.02]}
    lines = [{"text": text, "corners": corners + shift} for text, shift in lines.items()]
    assert [line["text"] for line in in_reading_order(lines, 1.5)] == ["a", "b", "c"]


def test_long_text_is_cut_and_that_is_said():
    assert quoted(['He said "no"']) == "Text: \"He said 'no'\"."
    text = quoted(["word " * 10 + str(index) for index in range(100)])
    assert len(text) < 800 and text.endswith("(There is more text; the rest is left out.)")


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3000, 3), (3000, 2, 3), (800, 1000, 3)])
def test_pictures_of_any_size(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert note(picture(array)).endswith("People: none. Text: none; there is no sign to read.")


def test_points_have_a_size_and_colours():
    text = note(of("point", "point/car.ply"))
    assert re.fullmatch(r"Size: 2\.07 wide, 4\.45 deep and 1\.21 high \(units unknown\)\. Colours: .*red.*\.", text)
    cloud = np.array([[0, 0, 0, 0.5, 0.5, 0.5], [1, 0.5, 2000, 0.5, 0.5, 0.5]], np.float32)
    assert Measures().find(Sample("point", "a.glb", cloud, "", coloured=False)).text == (
        "Size: 1 metres wide, 0.5 metres deep and 2000 metres high. Colours: none in the file."
    )


def test_depth_has_its_nearest_and_farthest_distance():
    assert note(of("depth", "depth/chair.png")) == (
        "Distance: the nearest point is 1.23 metres away, the farthest 2.02 metres."
    )
    depth_m = np.full((10, 10), np.nan, np.float32)
    depth_m[0] = 0.5
    assert Measures().find(Sample("depth", "a.npy", depth_m, "")).text == (
        "Distance: 0.5 metres everywhere. Only 10% of the pixels are known."
    )
    relative = Sample("depth", "a.png", np.linspace(0.1, 1, 10_000, dtype=np.float32)[None], "", relative=True)
    assert "not in metres; the farthest point is 9.9" in Measures().find(relative).text


def test_normals_say_something_only_where_most_are_unknown():
    assert Measures().find(of("normal", "normal/chair.png")) is None
    normals = np.zeros((10, 10, 3), np.float32)
    normals[0, 0, 2] = 1
    assert Measures().find(Sample("normal", "a.npy", normals, "")).text == "Only 1% of the pixels are known."


def test_an_expert_whose_package_is_missing_costs_its_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    monkeypatch.setitem(EXPERTS, "text", Text())
    found, notes = find_all(("colours", "text"), of("image", "image/cat.jpg"))
    assert [finding.expert for finding in found] == ["colours"]
    assert "text could not look at cat.jpg" in notes[0]
