import functools
import http.server
import io
import json
import pickle
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from onellm.errors import OneLLMError
from train.small.corpus import brain, class_names, lists, motion, packages, rcc, samples
from train.small.corpus.build import KINDS, build


def make_rcc(files: dict[str, bytes], packed: bool) -> bytes:
    """Build a bundle of version 2 that holds one folder, "sounds", with the given files."""
    names, offsets = b"", {}
    for name in ("sounds", *files):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    data, starts = b"", []
    for content in files.values():
        starts.append(len(data))
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if packed else content
        data += struct.pack(">I", len(stored)) + stored
    tree = struct.pack(">IHIIQ", 0, 2, 1, 1, 0) + struct.pack(">IHIIQ", offsets["sounds"], 2, len(files), 2, 0)
    for name, start in zip(files, starts, strict=True):
        tree += struct.pack(">IHHHIQ", offsets[name], 1 if packed else 0, 0, 0, start, 0)
    header = 20
    offsets = (header, header + len(tree), header + len(tree) + len(data))
    return b"qres" + struct.pack(">4I", 2, *offsets) + tree + data + names


@pytest.mark.parametrize("packed", [False, True])
def test_rcc_gives_back_files(tmp_path, packed):
    files = {"cow.ogg": b"moo" * 50, "README": "müh".encode()}
    path = tmp_path / "farm.rcc"
    path.write_bytes(make_rcc(files, packed))
    assert dict(rcc.read_rcc(path)) == {f"sounds/{name}": content for name, content in files.items()}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(40), b"qres" + struct.pack(">4I", 9, 0, 0, 0)])
def test_rcc_refuses_other_files(tmp_path, content):
    path = tmp_path / "other.rcc"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="other.rcc"):
        list(rcc.read_rcc(path))


def test_rcc_refuses_cut_files(tmp_path):
    path = tmp_path / "cut.rcc"
    path.write_bytes(make_rcc({"cow.ogg": b"moo"}, packed=False)[:60])
    with pytest.raises(ValueError, match="cut.rcc"):
        list(rcc.read_rcc(path))


class Evil:
    def __reduce__(self):
        return print, ("this must never run",)


def test_unpickler_refuses_code(capsys):
    with pytest.raises(pickle.UnpicklingError, match="print"):
        motion.read_tables(pickle.dumps({1: [Evil()]}, protocol=2))
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["os\nsystem", "builtins\neval", "numpy\nload", "pandas\nread_pickle"])
def test_unpickler_refuses_globals(name):
    with pytest.raises(pickle.UnpicklingError):
        motion.RestrictedUnpickler(io.BytesIO(f"c{name}\n.".encode())).load()


def test_unpickler_builds_nothing_but_tables():
    made = b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR."
    with pytest.raises(pickle.UnpicklingError):
        motion.RestrictedUnpickler(io.BytesIO(made)).load()


def test_windows_stay_within_an_activity():
    label = np.repeat([-1, 1, 5, 7, 4, 8, 4], [10, 300, 128, 80, 127, 20, 400])
    cut = list(motion.windows(np.zeros((len(label), 6)), label))
    change = [first for first, activity in cut if activity == 7]
    assert change == [(438 + 518 - 128) // 2]
    assert 8 not in [activity for _, activity in cut]
    for first, activity in cut:
        if activity != 7:
            assert (label[first : first + motion.LENGTH] == activity).all()


def test_standardise_removes_drift():
    random = np.random.default_rng(0)
    run = 900 + np.arange(121)[:, None] * 2.0 + random.normal(0, 3, (121, 5))
    run[:, 4] = 700
    done = brain.standardise(run)
    assert done.dtype == np.float32
    np.testing.assert_allclose(done.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(done.std(0), [1, 1, 1, 1, 0], atol=1e-5)
    slope = np.polyfit(np.arange(121), done, 1)[0]
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_stimuli_follow_the_clock(tmp_path):
    (tmp_path / "cond002.txt").write_text("5.0 5.0 1\n")
    (tmp_path / "cond001.txt").write_text("15.0\t7.5\t1\n")
    shown = brain.stimuli(tmp_path, {"cond001": "cat", "cond002": "house"}, volumes=8)
    assert shown == [("house", 2), ("house", 3), ("cat", 6), ("cat", 7)]


def test_shift_is_found():
    random = np.random.default_rng(1)
    patterns = random.normal(size=(len(brain.NAMES), 30))
    runs, shown = {}, {}
    for run in range(4):
        runs[run] = random.normal(0, 0.1, (60, 30))
        shown[run] = [(c, 4 + 6 * k + i) for k, c in enumerate(sorted(brain.NAMES)) for i in range(2)]
        for category, volume in shown[run]:
            runs[run][volume + 2] += patterns[sorted(brain.NAMES).index(category)]
    assert brain.best_shift(runs, shown) == 2


@pytest.mark.parametrize("table", ["photos.txt", "sounds.txt"])
def test_tables_are_sound(table):
    rows = lists.read_table(samples.HERE / table)
    assert len({row[0] for row in rows}) == len(rows) > 100
    for file, name, noun, accept in rows:
        assert file[:2] in ("t:", "g:")
        assert name in accept and noun in accept and all(word == word.lower() for word in accept)


def test_table_errors_name_the_line(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("# comment\nt:a|b|c\n")
    with pytest.raises(ValueError, match="line 2 has 3 columns"):
        lists.read_table(path)


def test_same_object_stays_on_one_side():
    rows = lists.read_table(samples.HERE / "photos.txt")
    sides = {lists.dev_or_test(f"image:{name.rstrip('s')}") for _, name, _, _ in rows}
    assert sides == {"dev", "test"}
    assert lists.dev_or_test("image:hammer") == lists.dev_or_test("image:hammer")


def test_items_survive_the_disk(tmp_path):
    lines = [{"id": "é", "accept": ["a"]}, {"id": "b", "index": 3}]
    assert lists.write_items(tmp_path / "x" / "image.jsonl", iter(lines)) == 2
    assert lists.read_items(tmp_path / "x" / "image.jsonl") == lines
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["image.jsonl"]


def test_cut_out_is_centred_on_white():
    picture = Image.new("RGBA", (300, 200))
    picture.paste((255, 0, 0, 255), (100, 50, 200, 70))
    page = np.asarray(samples.cut_out(picture))
    assert page.shape == (116, 116, 3) and (page[0, 0] == 255).all()
    red = np.argwhere(page[..., 1] < 100)
    np.testing.assert_allclose(red.mean(0), 57.5, atol=1)


def test_whole_photographs_stay_whole():
    assert samples.cut_out(Image.new("RGB", (1024, 512), "blue")).size == (512, 256)


def test_licences_are_read_per_file():
    text = "Copyright: Ann\nLicense: CC0-1.0\nFiles:\ncow.webp\npig.webp\n\nLicense: GPL\nFiles: a.ogg"
    assert samples.licences(text) == {
        "cow.webp": "CC0-1.0, by Ann",
        "pig.webp": "CC0-1.0, by Ann",
        "a.ogg": "GPL",
    }


def test_gerunds():
    assert samples.with_gerunds(["dog", "bark", "gobble"]) == ["dog", "bark", "gobble", "barking", "gobbling"]


def test_hypernyms_come_from_wordnet(tmp_path):
    (tmp_path / "imagenet1k_clean_names.json").write_text(json.dumps(["Beagle (dog)", "coral fungus"]))
    (tmp_path / "imagenet1k_to_21k.json").write_text(json.dumps({"0": "n00000001", "1": "n00000004"}))
    wordnet = tmp_path / "data.noun"
    wordnet.write_text(
        "  1 licence text\n"
        "00000001 05 n 01 beagle 0 001 @ 00000002 n 0000 | a hound\n"
        "00000002 05 n 01 hound 0 001 @ 00000003 n 0000 | a dog\n"
        "00000003 05 n 02 dog 0 domestic_dog 0 000 | an animal\n"
        "00000004 05 n 01 coral_fungus 0 000 | no parent\n"
    )
    lines = class_names.image_classes(tmp_path, wordnet)
    assert [(line["name"], line["basic"]) for line in lines] == [
        ("beagle", "dog"),
        ("coral fungus", "coral fungus"),
    ]


def test_pinned_files_are_checked(tmp_path):
    package = packages.PYPI["pymvpa2"]
    path = tmp_path / "pypi" / package.file
    path.parent.mkdir()
    path.write_bytes(b"not the file")
    with pytest.raises(packages.FetchError, match="SHA-256"):
        packages.pypi("pymvpa2", tmp_path)


def test_a_package_with_another_content_is_not_kept(tmp_path, monkeypatch):
    """An index serves something else under the pinned name."""
    package = packages.PYPI["pymvpa2"]
    page = tmp_path / "index" / package.name
    page.mkdir(parents=True)
    (page / package.file).write_bytes(b"something else")
    (page / "index.html").write_text(f'<a href="../{package.name}/{package.file}">{package.file}</a>')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "index")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(packages, "INDEX", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(packages.FetchError, match=f"SHA-256 .* instead of {package.sha256}"):
            packages.pypi(package.name, tmp_path)
        server.shutdown()
    assert not list((tmp_path / "pypi").iterdir())


def test_unknown_kind_is_named(tmp_path):
    with pytest.raises(OneLLMError, match="smell") as caught:
        build(tmp_path, ["smell"])
    assert all(modality in str(caught.value) for modality in KINDS)
