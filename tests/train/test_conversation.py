"""The conversation benchmark: right and wrong answers of every family, constant answers, made files, and the report."""

import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES, load
from train.small import items as corpus
from train.small.conversation import files, measure
from train.small.conversation.items import FAMILIES, File, Turn, read_files, read_items
from train.small.conversation.scoring import Expected, first_number, is_right, yes_or_no

COUNTED = [(item.id, turn) for item in read_items() for turn in item.turns if turn.expected]
# family and number -> answers that people would call right, and wrong ones
ANSWERS = {
    "unrelated 1": (["paris.", "It's Paris!"], ["The picture shows a penguin.", "London"]),
    "naming 1": (["PENGUINS", "This is an emperor penguin standing up."], ["A duck.", "A bird-like thing."]),
    "naming 16": (["They climb the stairs.", "Walking up the steps."], ["Walking downstairs.", "Sitting."]),
    "yes or no 1": (["yes", "It is a dog.", "Yes! A husky."], ["No.", "It is not a dog.", "A wolf."]),
    "yes or no 2": (["No", "It is not a giraffe but a zebra.", "This isn't a giraffe."], ["Yes.", "It is a giraffe."]),
    "follow-up 3": (["Violins have 4 strings."], ["It has six.", "The picture shows a violin."]),
    "knowledge 1": (["Mostly krill, squids and small fishes."], ["Bananas.", "It is a penguin."]),
    "writing 1": (["A cat so small\nfound a ball\nit ran and ran\nthrough the hall"], ["A cat.", "Cat\nCat\nCat\nCat"]),
    "writing 5": (["Pip the penguin was cold. He found a hat. He was happy."], ["The picture shows a penguin."]),
    "writing 8": (["**Feel the road. Own it.**"], ["It is red.", "A banana a day."]),
    "Chinese 1": (["企鹅", "这是一只帝企鹅。"], ["A penguin.", "图片里是一只鸟。", "The picture shows 企鹅."]),
    "languages 1": (["En la imagen hay un pingüino."], ["The picture shows a pingüino.", "Una imagen."]),
    "languages 9": (["Ein rotes Feuerwehrfahrzeug."], ["A fire truck.", "Ein Auto."]),
    "format 1": (["kangaroo.", "A kangaroo"], ["The picture shows a kangaroo.", "Dog"]),
    "format 6": (['```json\n{"Animal": "Gorilla", "legs": "2"}\n```'], ["A gorilla, two legs", '{"animal": "ape"}']),
    "format 9": (["AN OWL ON A BRANCH"], ["An owl", "A DOG", "12"]),
    "format 11": (["Sure:\n1. Jam\n2. Pie\n3. Juice"], ["Jam, pie, cake", "1. Jam\n2. Pie", "1. Hat\n2. Bag\n3. Box"]),
    "colour 6": (["It is white with black stripes."], ["Black.", "Brown and white"]),
    "count 1": (["3", "Three yellow ducks.", "I can see 3 of them."], ["2", "Two or three", "Ducks.", "Many"]),
    "count 10": (["There is one cup.", "1"], ["Two", "A lot"]),
    "people 5": (["Many people", "A group of musicians"], ["Only one person.", "One"]),
    "people 12": (["0", "None.", "There are no people, only two dogs."], ["Two", "There is one."]),
    "place 1": (["Left.", "The ball is left of the mug.", "On the left side"], ["Right", "The ball is on the right."]),
    "place 3": (["A car", "car."], ["The dog", "The car is left of the dog."]),
    "reading 2": (["OPEN\nMonday to Friday\n9 to 17"], ["OPEN", "I cannot read it."]),
    "reading 5": (["Call 5550142.", "The number is 555-0142."], ["555 0143", "The owner's."]),
    "speech 1": (["She says: “A penguin, a zebra, a gorilla.”"], ["A penguin and a zebra.", "Somebody speaks."]),
    "two files 1": (["A penguin, and a dog barking"], ["A penguin.", "A dog"]),
    "two files 6": (["Yes, they match.", "The sound fits the video."], ["No", "It doesn't fit."]),
    "new file 2": (["A thunderstorm", "A storm", "thunder"], ["A dog", "Thunder and a dog"]),
    "absence 1": (["no", "I don't see a dog.", "There is not any dog."], ["Yes, a dog.", "There is a dog.", "A bird."]),
    "absence 9": (
        ["I can't see any sign.", "No sign is visible.", 'There is no sign that says "STOP".', "It says nothing."],
        ['The sign says "No parking".', "The sign says STOP.", "Violin", "STOP"],
    ),
    "absence 14": (["0", "No people", "None are in it."], ["One.", "Many people"]),
}  # fmt: skip


def test_there_are_enough_items_of_every_family_and_modality():
    items = read_items()
    assert len(items) >= 150 and len({item.id for item in items}) == len(items)
    assert {item.family for item in items} == set(FAMILIES)
    assert min(sum(item.family == family for item in items) for family in FAMILIES) >= 8
    shown = {file.modality for item in items for file in item.files}
    assert shown == set(MODALITIES)
    said = [turn.expected.said for name, turn in COUNTED if name.startswith("yes or no")]
    assert sum(said) * 2 == len(said)


def test_every_file_is_asked_about_and_its_note_says_what_it_is():
    asked = {file.name for item in read_items() for file in item.files}
    for name, file in read_files().items():
        assert name in asked and ":" in file.note and file.note.startswith("The ")


@pytest.mark.parametrize(("name", "turn"), COUNTED, ids=[name for name, _ in COUNTED])
def test_the_written_answer_is_right_and_silence_and_parroting_are_wrong(name, turn):
    assert is_right(turn.answer, turn.expected)
    for wrong in ("", " \n", "?", turn.ask, f"{turn.ask} {turn.ask}"):
        assert not is_right(wrong, turn.expected)


@pytest.mark.parametrize("name", ANSWERS)
def test_right_and_wrong_answers(name):
    expected = dict(COUNTED)[name].expected  # of its last turn
    right, wrong = ANSWERS[name]
    assert [answer for answer in right if not is_right(answer, expected)] == []
    assert [answer for answer in wrong if is_right(answer, expected)] == []


def test_every_family_has_right_and_wrong_answers_here():
    assert {name.rsplit(" ", 1)[0] for name in ANSWERS} == set(FAMILIES)


@pytest.mark.parametrize("answer", [*measure.CONSTANT, "Yes, there is.", "A person.", "1. a\n2. b\n3. c", "YES"])
def test_a_constant_answer_fails(answer):
    right = [all(is_right(answer, turn.expected) for turn in item.turns if turn.expected) for item in read_items()]
    assert np.mean(right) < 0.2


def test_other_items_answers_fail():
    assert 0 < measure.chance_of(read_items()) < 0.2
    assert measure.chance_of(read_items(["yes or no"])) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("There are three.", 3),
        ("12 eggs", 12),
        ("有三只企鹅", 3),
        ("有两只", 2),
        ("many", None),
        ("one or two", None),
        ("There are no dogs but 4 cats.", 4),
        ("One can see two.", 2),
        ("One", 1),
        ("一", 1),
    ],  # fmt: skip
)
def test_numbers(answer, number):
    assert first_number(answer) == number


def test_no_is_a_number_where_none_is_right():
    assert first_number("There are no people, only two dogs.", none=True) == 0
    assert first_number("Two, and no dogs.", none=True) == 2


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("Yes.", True), ("*No*, …", False), ("Non, c'est", False), ("Nothing", None), ("Yesterday", None), ("是的", True)],
)
def test_verdicts(answer, verdict):
    assert yes_or_no(answer) is verdict


def test_an_unknown_key_of_an_item_is_refused():
    with pytest.raises(ValueError, match="acept"):
        Expected.of({"acept": "cat"})


def test_an_unknown_family_is_told_which_there_are():
    with pytest.raises(OneLLMError, match="no family smell; expected some of unrelated, naming"):
        read_items(["naming", "smell"])


def test_a_limit_takes_items_of_every_family():
    items = read_items(limit=2)
    assert len(items) == 2 * len(FAMILIES) and {item.family for item in items} == set(FAMILIES)


@pytest.fixture
def tiny_corpus(tmp_path, monkeypatch):
    """Make a corpus of a red square that is a stamp, a motion recording and a film, all of the test split."""
    root = tmp_path / "corpus"
    monkeypatch.setenv("ONELLM_CORPUS", str(root))
    files._test_items.cache_clear()
    stamps = tmp_path / "packages/unpacked/tuxpaint-stamps-default"
    (stamps / files.STAMPS).mkdir(parents=True)
    (stamps / ".done").touch()
    square = Image.new("RGBA", (40, 40))
    square.paste((255, 0, 0, 255), (10, 10, 30, 30))
    square.save(stamps / files.STAMPS / "square.png")
    tone = np.sin(np.arange(8_000) / 10).astype(np.float32)
    soundfile.write(stamps / files.STAMPS / "square_desc_fr.ogg", tone, 22_050)
    root.mkdir()
    Image.new("RGB", (32, 32), "red").save(root / "0.png")
    Image.new("RGB", (32, 32), "blue").save(root / "1.png")
    motion = np.linspace(-9, 9, 128 * 6, dtype=np.float32).reshape(1, 6, 128)
    np.savez(root / "person.npz", array=motion)
    source = {"source": "Debian tuxpaint-stamps-default: square"}
    for kind, more in {
        "image": {"file": "0.png", **source},
        "video": {"file": None, "frames": ["0.png", "1.png"]},
        "imu": {"file": "person.npz", "index": 0},
    }.items():
        fields = {"id": kind, "kind": kind, "name": "x", "noun": "x", "accept": ["x"], "group": "x"}
        lines = [{**fields, **more, "split": "test"}, {**fields, **more, "id": "learnt", "split": "train"}]
        (root / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    yield root
    files._test_items.cache_clear()


def test_a_scene_shows_its_things_at_their_places(tiny_corpus):
    square = {"thing": "image", "at": [0.25, 0.5], "height": 0.2}
    sign = {"sign": {"lines": ["HI"]}, "at": [0.75, 0.5], "height": 0.2}
    scene = File("scene", "image", {"scene": {"ground": "meadow", "things": [square, sign]}}, "")
    made = files.prepare(scene)
    picture = Image.open(made)
    assert picture.getpixel((160, 240)) == (255, 0, 0) and picture.getpixel((320, 10)) == (169, 211, 245)
    assert picture.getpixel((480, 200)) == (255, 255, 255) and picture.getpixel((320, 470)) == (106, 168, 79)
    assert files.prepare(scene) == made


def test_recorded_words_stand_one_after_the_other(tiny_corpus):
    made = files.prepare(File("said", "audio", {"spoken": {"stamps": ["square", "square"], "language": "fr"}}, ""))
    samples, rate_hz = soundfile.read(made)
    loud = np.abs(samples) > 0.1
    assert rate_hz == 16_000 and len(samples) == pytest.approx((3 * 0.5 + 2 * 8_000 / 22_050) * rate_hz, abs=20)
    assert loud[: rate_hz // 4].sum() == 0 and loud.any()


def test_rows_and_frames_of_the_corpus_become_files_that_the_app_reads(tiny_corpus):
    motion = load("imu", files.prepare(File("m", "imu", {"corpus": "imu"}, "")))
    item = corpus.read_items("imu", "test")[0]
    assert motion.rate_hz == 50 and np.allclose(motion.array, corpus.load_sample(item).array, atol=1e-3)
    film = load("video", files.prepare(File("v", "video", {"corpus": "video"}, "")), frames=2)
    assert film.array[0, 16, 16, 0] > 200 and film.array[1, 16, 16, 2] > 200


@pytest.mark.parametrize("name", ["learnt", "gone"])
def test_only_the_test_split_is_asked_about(tiny_corpus, name):
    with pytest.raises(OneLLMError, match=f"test split has no image {name}"):
        files.prepare(File("f", "image", {"corpus": name}, ""))


def test_two_files_of_a_modality_are_numbered_in_the_notes():
    cat, dog = (File(name, "image", {}, f"The picture shows: a {name}.") for name in ("cat", "dog"))
    bark = File("bark", "audio", {}, "The sound is: a dog.")
    found = measure.notes(Turn("What is this?", [cat, bark, dog]))
    assert found == ["The first picture shows: a cat.", "The sound is: a dog.", "The second picture shows: a dog."]


class Knowing:
    """Gives the written answers, until it is to fail."""

    batch = 1

    def __init__(self, left: int = 10_000):
        self.left = left

    def answer(self, items):
        return [[self._one(turn) for turn in item.turns] for item in items]

    def _one(self, turn):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return OneLLMError("No pictures here.") if turn.ask.startswith("Is this a dog") else turn.answer


def test_a_stopped_run_goes_on_and_a_finished_one_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "prepare", lambda file: None)
    out, about, families = tmp_path / "a.json", {"model": "x"}, ["naming", "yes or no"]
    with pytest.raises(KeyboardInterrupt):
        measure.measure(lambda: Knowing(5), about, families, out=out)
    assert len(json.loads(out.read_text())["answers"]) == 5
    assert measure.kept(out, {"model": "y"}) == []
    answerer = Knowing()
    found, records = measure.measure(lambda: answerer, about, families, out=out)
    names = [item.id for item in read_items(families)]
    assert answerer.left == 10_000 - (len(names) - 5) and [record["id"] for record in records] == names
    assert [share.family for share in found] == [*families, "all"] and found[0].right == 1
    assert found[1].right == pytest.approx(17 / 18) and found[2].n == len(names)
    written = json.loads(out.read_text())
    failed = next(one for one in written["answers"] if not one["right"])
    assert written["finished"] and failed["turns"][0]["error"] == "No pictures here."
    assert measure.kept(out, about) == []
    assert "| yes or no | 18 | 0.94 | 0.50 |" in measure.table(found)
