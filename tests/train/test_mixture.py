"""The mix: a function of the batch's number, shared out over readers, weighted, grouped by length."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from onellm.errors import OneLLMError
from train.data.collate import Collator, cut_caption, encode_conversation
from train.data.example import Example, caption_messages
from train.data.mixture import WINDOW, BatchPosition, FileStream, Mixture
from train.recipe import Recipe, RecipeError, Source


class Numbers:
    """Examples 0, 1, 2 ... in blocks; one knows which were read."""

    modalities = ()

    def __init__(self, blocks, bad=()):
        self.blocks, self.bad = blocks, set(bad)

    def number(self, block, index):
        return sum(self.blocks[:block]) + index

    def read(self, block, index):
        number = self.number(block, index)
        if number in self.bad:
            raise OneLLMError(f"number {number}: bad")
        return Example(str(number), caption_messages([], " ".join(["w3"] * self.length(block, index)), "w4"))

    def length(self, block, index):
        return 1 + self.number(block, index) * 7 % 30


def keys(stream, reader, readers, turns, count=4):
    return [
        [example.key for example in islice(stream.examples(BatchPosition(turn, reader, readers, turn), count), count)]
        for turn in range(turns)
    ]


@pytest.mark.parametrize("blocks", [[10, 20, 2], [32], [1] * 32, [5] * 40])
@pytest.mark.parametrize("readers", [1, 2, 8])
def test_an_epoch_of_all_readers_is_every_example_once(blocks, readers):
    stream = FileStream(Numbers(blocks), seed=0)
    seen = []
    for reader in range(readers):
        share = sum(stop - start for _, start, stop in stream._share(reader, readers))
        seen += [stream.at(reader, readers, position) for position in range(share)]
    assert sorted(stream.source.number(*where) for where in seen) == list(range(sum(blocks)))


def test_the_order_is_shuffled_and_another_one_each_epoch():
    stream = FileStream(Numbers([16, 16]), seed=0)
    first = [stream.at(0, 1, position) for position in range(32)]
    second = [stream.at(0, 1, position) for position in range(32, 64)]
    assert sorted(first) == sorted(second)
    assert first != sorted(first)
    assert first != second
    assert first == [FileStream(Numbers([16, 16]), seed=0).at(0, 1, position) for position in range(32)]
    assert first != [FileStream(Numbers([16, 16]), seed=1).at(0, 1, position) for position in range(32)]


def test_a_window_is_read_whole_and_batches_are_alike_in_length():
    source = Numbers([1000])
    batches = keys(FileStream(source, seed=0), 0, 1, WINDOW, count=8)
    assert len({key for batch in batches for key in batch}) == WINDOW * 8
    spread = np.mean([np.ptp([source.length(0, int(key)) for key in batch]) for batch in batches])
    assert spread < 5  # lengths go from 1 to 30
    lengths = [np.mean([source.length(0, int(key)) for key in batch]) for batch in batches]
    assert lengths != sorted(lengths)  # short and long batches in turns


def test_a_limit_takes_the_first_examples_once_an_epoch():
    stream = FileStream(Numbers([10, 10, 10]), seed=0, limit=13)
    assert stream.size == 13
    numbers = [stream.source.number(*stream.at(0, 1, position)) for position in range(26)]
    assert sorted(numbers[:13]) == sorted(numbers[13:]) == list(range(13))


def test_an_empty_source_is_refused():
    with pytest.raises(RecipeError, match="no examples"):
        FileStream(Numbers([]), seed=0)


def recipe(**values):
    settings = {
        "name": "toy",
        "objective": "chat",
        "train": ["projector"],
        "data": [Source(kind="text", source="hub", path="a")],
    }
    return Recipe(**settings | {"steps": 8, "batch": 4, "learning_rate": 1.0, "preset": "toy"} | values)


@pytest.fixture
def collator(processor):
    return Collator(processor, "chat", 2048)


def mixture(collator, sources, batches=400, settings=None, **options):
    streams = [(name, weight, FileStream(source, seed=0)) for name, weight, source in sources]
    return Mixture(settings or recipe(), streams, collator, batches, micro_batch=4, **options)


def test_sources_come_by_their_weights_and_one_a_batch(collator):
    sources = [("a", 3.0, Numbers([50])), ("b", 1.0, Numbers([50]))]
    found = mixture(collator, sources)
    seen = Counter(found.names[choice] for choice in found.choices)
    assert 0.68 < seen["a"] / 400 < 0.82
    assert {found[index]["source"] for index in range(8)} == {"a", "b"}


def test_temperature_flattens_sizes(collator):
    sources = [("large", 1.0, Numbers([810])), ("small", 1.0, Numbers([10]))]
    shares = {
        temperature: mixture(collator, sources, settings=recipe(temperature=temperature)).shares.tolist()
        for temperature in (None, 1.0, 2.0, 4.0)
    }
    assert shares[None] == [0.5, 0.5]
    assert shares[1.0] == pytest.approx([81 / 82, 1 / 82])
    assert shares[2.0] == pytest.approx([9 / 10, 1 / 10])
    assert shares[4.0] == pytest.approx([3 / 4, 1 / 4])


def test_homogeneous_batches_are_neighbours_batches_of_one_source(collator):
    found = mixture(collator, [("a", 1.0, Numbers([64] * 8)), ("b", 1.0, Numbers([64] * 8))], homogeneous=4)
    for group in range(10):
        batches = [found[group * 4 + lane] for lane in range(4)]
        assert len({batch["source"] for batch in batches}) == 1
        assert len({key for batch in batches for key in batch["keys"]}) == 16  # readers share nothing


def test_a_batch_depends_on_its_number_alone(collator):
    sources = [("a", 1.0, Numbers([20, 20])), ("b", 1.0, Numbers([30]))]
    forward = [mixture(collator, sources, workers=2)[index]["keys"] for index in range(12)]
    again = mixture(collator, sources, workers=2)
    assert [again[index]["keys"] for index in reversed(range(12))] == forward[::-1]


def test_loading_workers_give_the_batches_in_order(collator):
    found = mixture(collator, [("a", 1.0, Numbers([64] * 4))], batches=10, workers=2)
    loader = torch.utils.data.DataLoader(found, batch_size=None, num_workers=2)
    assert [batch["keys"] for batch in loader] == [found[index]["keys"] for index in range(10)]


def test_bad_examples_are_replaced_and_named(collator):
    found = mixture(collator, [("a", 1.0, Numbers([40], bad=range(0, 40, 2)))], batches=6)
    for index in range(6):
        batch = found[index]
        assert len(batch["keys"]) == 4
        assert all(int(key) % 2 for key in batch["keys"])
    assert any("bad" in line for index in range(6) for line in found[index]["skipped"])


def test_a_source_of_bad_examples_alone_is_an_error(collator):
    found = mixture(collator, [("a", 1.0, Numbers([40], bad=range(40)))], batches=6)
    with pytest.raises(RecipeError, match="None of 20 examples of a can be used; the first: number .*: bad"):
        found[0]


def conversation(*turns, files=()):
    roles = ("user", "assistant")
    parts = [[*files, {"type": "text", "text": turns[0]}], *([{"type": "text", "text": text}] for text in turns[1:])]
    return [{"role": roles[index % 2], "content": content} for index, content in enumerate(parts)]


def test_labels_are_on_the_answers_alone(processor):
    part = {"type": "imu", "features": torch.zeros(3)}
    end = processor.tokenizer.eos_token_id
    ids, labels, files = encode_conversation(processor, conversation("w3", "w4 w5", "w6", "w7", files=[part]))
    assert [label for label in labels if label != -100] == [4, 5, end, 7, end]
    assert len(ids) == len(labels)
    assert files == [part]


def test_a_caption_stands_right_behind_the_file(processor):
    part = {"type": "imu", "features": torch.zeros(3)}
    tokenizer = processor.tokenizer
    ids, labels, _ = encode_conversation(processor, caption_messages([part], "w7 w8 w9"), "caption")
    run = [processor.modalities["imu"]["token_id"]] * processor.media_length
    assert ids == [tokenizer.bos_token_id, 5, *run, 6, 7, 8, 9, tokenizer.eos_token_id]
    assert [label for label in labels if label != -100] == [7, 8, 9, tokenizer.eos_token_id]


def test_a_caption_cut_at_random_has_both_parts(processor):
    part = {"type": "imu", "features": torch.zeros(3)}
    seen = set()
    for _ in range(40):
        asked, answer = cut_caption(caption_messages([part], "w7 w8 w9"))
        file, *before = asked["content"]
        words = [piece["text"] for piece in (*before, *answer["content"])]
        assert file == part and " ".join(words) == "w7 w8 w9" and answer["content"][0]["text"]
        seen.add(len(before) and len(words[0].split()))
    assert seen == {0, 1, 2}
    collator = Collator(processor, "prefix", 60, is_encoder_decoder=True)
    row = collator.encode(Example("x", caption_messages([part], "w7")))
    assert row.labels == [7, processor.tokenizer.eos_token_id]


def test_long_rows_are_cut_and_rows_without_an_answer_refused(processor):
    ids, labels, _ = encode_conversation(processor, conversation("w3", " ".join(["w4"] * 50)), limit=20)
    assert len(ids) == len(labels) == 20
    with pytest.raises(OneLLMError, match="first 20 tokens hold no answer; raise 'max_tokens'"):
        encode_conversation(processor, conversation(" ".join(["w3"] * 50), "w4"), limit=20)
    with pytest.raises(OneLLMError, match="no answer in it"):
        encode_conversation(processor, conversation("w3", " "))
