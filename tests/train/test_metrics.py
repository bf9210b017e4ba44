"""Metrics against values worked out by hand, in the comments, or by another library, named there."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType, SimpleNamespace

import pytest

from train.evaluation import captions, judge, metrics
from train.evaluation.benchmark import Question
from train.evaluation.metrics import Answer


def answers(*pairs, **values):
    """Make answers of (said, accepted answers)."""
    return [
        Answer(Question(id=str(index), files=[], text="?", answers=list(accepted), **values), said)
        for index, (said, accepted) in enumerate(pairs)
    ]


# ---- short answers ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two dogs.", "2 dogs"),
        ("The man's hat", "man's hat"),
        ("a dog, an owl", "dog owl"),  # a mark beside a space is dropped
        ("red/white", "red white"),  # one between words parts them
        ("10,000", "10000"),  # a comma between digits is dropped
        ("1.5 m.", "1.5 m"),  # a full stop before a digit stays
        ("dont know", "don't know"),
        ("shouldntve", "shouldn't've"),
        ("NONE", "0"),
        ("  yes\n", "yes"),
        ("well", "well"),  # not "we'll"
    ],
)
def test_short_answers_are_normalised_as_vqa_does(text, expected):
    assert metrics.normalise(text) == expected


@pytest.mark.parametrize(("agreeing", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_leaves_each_person_out(agreeing, expected):
    # of 10 subsets of 9 people, `agreeing` lack one who agrees: k=3 gives (3 · 2/3 + 7 · 1) / 10
    people = ["cat"] * agreeing + [f"other {n}" for n in range(10 - agreeing)]
    assert metrics.vqa_accuracy("A cat.", people) == pytest.approx(expected)


def test_vqa_strips_peoples_punctuation_only_where_they_disagree_and_textvqa_normalises_all():
    assert metrics.vqa_accuracy("dakota", ["Dakota."] * 10) == 0
    assert metrics.vqa_accuracy("dakota", ["dakota."] * 9 + ["x"]) == 1
    assert metrics.vqa_accuracy("dakota", ["Dakota."] * 10, normalise_all=True) == 1


def test_exact_majority_and_containment():
    assert metrics.exact(answers(("The Violin.", ["violin"]))[0]) == 1
    assert metrics.exact(answers(("violins", ["violin"]))[0]) == 0
    assert metrics.majority(answers(("bell", ["bird", "bell", "bell"]))[0]) == 1
    assert metrics.majority(answers(("bird", ["bird", "bell", "bell"]))[0]) == 0
    assert metrics.contains(answers(("Men wrestle outside", ["wrestle"]))[0]) == 1
    assert metrics.contains(answers(("man", ["woman"]))[0]) == 1  # as the released script has it
    assert metrics.contains(answers(("dog", ["cat"]))[0]) == 0
    assert metrics.contains(answers((" ", ["cat"]))[0]) == 0


def test_means_come_with_categories_and_a_bootstrap_error():
    each = answers(*[("a", ["a"])] * 50, *[("b", ["a"])] * 50)
    for index, answer in enumerate(each):
        answer.question.category = "even" if index % 2 == 0 else "odd"
    scores = metrics.per_question(accuracy=metrics.exact)(each)
    assert scores.values == {"accuracy": 50}
    assert scores.groups == {"even": 50, "odd": 50}
    assert scores.errors()["accuracy"] == pytest.approx(5, rel=0.1)  # √(0.5 · 0.5 / 100), in percent


# ---- choices ----


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(C) the cow", "C"),
        ("A. cat", "A"),
        ("The answer is B", "B"),
        ("Answer: (A)", "A"),
        ("I would say (C)", "C"),
        ("dog", "B"),
        ("It is a dog.", "B"),
        ("A dog", "B"),  # an article, not the letter
        ("(A) or (B)", None),
        ("a cat or a dog", None),
        ("E", None),
        ("", None),
    ],
)
def test_letters_are_found(text, letter):
    assert metrics.chosen_letter(text, ["cat", "dog", "cow"]) == letter


def test_mmbench_wants_every_rotation_right():
    rows = [
        (said, [right], group, options)
        for said, right, group, options in (
            ("A", "A", "1", ["cat", "dog"]),
            ("A", "B", "1", ["dog", "cat"]),
            ("dog", "B", "2", ["cat", "dog"]),
            ("A", "A", "2", ["dog", "cat"]),
        )
    ]
    each = [
        Answer(Question(str(n), [], "?", right, group=group, category="c", info={"options": options}), said)
        for n, (said, right, group, options) in enumerate(rows)
    ]
    scores = metrics.circular(each)
    assert scores.values == {"accuracy": 50, "accuracy without rotation": 100}


def test_mme_sums_accuracy_and_accuracy_plus():
    def both(task, picture, first, second):
        return [
            Answer(Question(f"{task}{picture}{n}", [], "?", [right], group=f"{task}{picture}", category=task), said)
            for n, (said, right) in enumerate(((first, "Yes"), (second, "No")))
        ]

    each = both("OCR", 1, "Yes, it is.", "no") + both("OCR", 2, "yes", "Yes") + both("count", 1, "maybe", "No.")
    each += both("code_reasoning", 1, "Yes", "No")
    scores = metrics.mme(each)
    # OCR: 3 of 4 answers, 1 of 2 pictures: 75 + 50; count: 1 of 2, none: 50; code_reasoning: 100 + 100
    assert scores.groups == {"OCR": 125, "count": 50, "code_reasoning": 200}
    assert scores.values == {"perception": 175, "cognition": 200}
    assert scores.notes == ["only 2 of 10 perception tasks"]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("Home_office", 1),
        ("This is a home office.", 1),
        ("office", 0),
        ("a home office or a kitchen", 0),
        ("homely", 0),
    ],
)
def test_scene_classes(said, right):
    classes = {"classes": ["office", "home office", "kitchen"]}
    assert metrics.scene_class(answers((said, ["home office"]), info=classes)[0]) == right


# ---- captions ----

LONG = [
    ("the cat sat on the red mat today", ["the cat sat on the mat", "there is a cat on the red mat today"]),
    ("a man rides a brown horse in a field", ["a man is riding a horse in the field"]),
]


@pytest.fixture(params=["with Java", "without Java"])
def java(request, monkeypatch):
    """Run with Java where it is installed, and as if it were not."""
    if request.param == "without Java":
        monkeypatch.setattr(captions.shutil, "which", lambda name: None)
    return captions.shutil.which("java") is not None


def test_cider_by_hand(java):
    # N = 2, every n-gram is in one of two references: idf = log 2. The first caption equals its reference in 1- and
    # 2-grams and has no longer ones: 10 · (1 + 1 + 0 + 0) / 4 = 5; the second shares nothing: 0. In percent: 500, 0.
    scores = captions.score_captions(answers(("red cat", ["Red cat!"]), ("blue dog", ["green cow"])))
    assert scores.each["CIDEr"] == pytest.approx([500, 0])
    assert scores.values["CIDEr"] == pytest.approx(250)


def test_bleu(java):
    scores = captions.score_captions(answers(*LONG))
    # sacrebleu 2.6.0, BLEU(tokenize="none", smooth_method="none", max_ngram_order=n)
    expected = [77.64837655, 66.27785554, 57.60577450, 50.59756978]
    assert [scores.values[f"BLEU-{n}"] for n in range(1, 5)] == pytest.approx(expected, abs=1e-4)


def test_rouge_by_hand(java):
    # longest common subsequence "a b d" of 4 and 3 words: P = 3/4, R = 1, beta = 1.2:
    # (1 + 1.44) · 0.75 · 1 / (1 + 1.44 · 0.75) = 1.83 / 2.08
    scores = captions.score_captions(answers(("red big old dog", ["red big dog"]), ("x", ["y"])))
    assert scores.each["ROUGE-L"] == pytest.approx([100 * 1.83 / 2.08, 0])


def test_captions_are_split_as_the_penn_treebank_has_it(java):
    split = captions.java_tokens if java else captions.python_tokens
    found = split({"1": ["A man's riding, slowly!", ""], "2": ["Two\ndogs don't run"]})
    assert found == {"1": ["a man 's riding slowly", ""], "2": ["two dogs do n't run"]}


def test_an_empty_caption_scores_nothing(java):
    scores = captions.score_captions(answers(("", ["a cat sits"]), ("a dog runs", ["a dog runs"]), ("", ["x y"])))
    assert scores.each["ROUGE-L"] == pytest.approx([0, 100, 0])


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
    """Write a WordNet of one meaning: a dog is a hound."""
    for part in ("adj", "adv", "noun", "verb"):
        for name in (f"index.{part}", f"data.{part}", f"{part}.exc"):
            (tmp_path / name).write_text("")
    head = "  1 made for a test\n"
    offset = f"{len(head):08d}"
    (tmp_path / "data.noun").write_text(f"{head}{offset} 05 n 02 dog 0 hound 0 000 | an animal  \n")
    (tmp_path / "index.noun").write_text(f"{head}dog n 1 0 1 0 {offset}  \nhound n 1 0 1 0 {offset}  \n")
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))


def test_meteor_of_nltk_stands_in_without_java(wordnet, monkeypatch):
    monkeypatch.setattr(captions.shutil, "which", lambda name: None)
    scores = captions.score_captions(answers(("a man walks a hound", ["a man walks a dog"]), ("x", ["y"])), ["METEOR"])
    # all 5 words match in one run: 1 - 0.5 · (1/5)³ = 0.996 (Lavie and Agarwal 2007); the second caption: 0
    assert scores.each["METEOR (NLTK)"] == pytest.approx([99.6, 0])
    assert "METEOR" not in scores.values
    assert "default-jre-headless" in scores.missing["METEOR"]
    assert any("default-jre-headless" in note for note in scores.notes)


def test_meteor_without_java_and_wordnet_says_so(tmp_path, monkeypatch):
    import nltk.data

    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    monkeypatch.setenv("ONELLM_CACHE", str(tmp_path))
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(captions.shutil, "which", lambda name: None)
    scores = captions.score_captions(answers(*LONG), ["METEOR"])
    assert "wordnet-base" in scores.missing["METEOR (NLTK)"]
    assert scores.values["CIDEr"] > 0


def test_meteor_by_java():
    scores = captions.score_captions(answers(("a man rides a horse", ["a man rides a horse"])), ["METEOR"])
    if captions.shutil.which("java"):
        assert scores.values["METEOR"] == pytest.approx(100)  # METEOR 1.5 gives 1 to an equal sentence
    else:
        assert "METEOR" in scores.missing


def test_spice_says_what_it_needs_and_the_rest_is_reported(java, monkeypatch):
    import pycocoevalcap.spice.spice as module

    def unreachable():
        raise OSError("no route to nlp.stanford.edu")

    monkeypatch.setattr(module, "get_stanford_models", unreachable)
    scores = captions.score_captions(answers(*LONG), ["SPICE", "SPIDEr"])
    assert set(scores.missing) == {"SPICE", "SPIDEr"}
    assert ("Stanford CoreNLP" if java else "default-jre-headless") in scores.missing["SPICE"]
    assert scores.values["CIDEr"] > 0


def test_spider_is_the_mean_of_cider_and_spice(monkeypatch):
    import pycocoevalcap.spice.spice as module

    class Spice:
        def compute_score(self, references, predicted):
            keys = sorted(references)
            assert keys == sorted(predicted)
            return 0.3, [{"All": {"f": 0.2 + 0.2 * int(key)}} for key in keys]

    monkeypatch.setattr(module, "Spice", Spice)
    monkeypatch.setattr(captions.shutil, "which", lambda name: "/usr/bin/java")
    monkeypatch.setattr(captions, "java_tokens", captions.python_tokens)
    scores = captions.score_captions(answers(("red cat", ["red cat"]), ("blue dog", ["green cow"])), ["SPICE"])
    assert scores.each["SPICE"] == pytest.approx([20, 40])
    assert scores.each["SPIDEr"] == pytest.approx([260, 20])


# ---- judges ----


@pytest.mark.parametrize(
    ("reply", "grade"), [("0.7", 0.7), ("Grade: 1.0.", 1.0), ("1", 1), ("0", 0), ("10", None), ("good", None)]
)
def test_grades_are_read(reply, grade):
    assert judge.MM_VET.read(reply) == grade


@pytest.mark.parametrize(("reply", "grade"), [("T", 1), ("f.", 0), ("True", 1), ("Two", None)])
def test_verdicts_are_read(reply, grade):
    assert judge.OBJAVERSE.read(reply) == grade


def test_without_a_judge_the_score_is_missing(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    scores = judge.judged(judge.OBJAVERSE)(answers(("a car", ["a red car"])))
    assert "OPENAI_API_KEY" in scores.missing["GPT accuracy"] and not scores.values


@pytest.fixture
def endpoint(monkeypatch):
    """Serve what an OpenAI-compatible endpoint serves; and a client, as small as can be, that asks it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            same = "Second: a car" in body["messages"][0]["content"]
            reply = {"choices": [{"message": {"role": "assistant", "content": "T" if same else "F"}}]}
            content = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("ONELLM_JUDGE", "some-judge")
    yield asked
    server.shutdown()
    server.server_close()


def test_a_judge_is_asked_through_the_client(endpoint, monkeypatch):
    try:
        import openai  # noqa: F401
    except ImportError:
        monkeypatch.setitem(__import__("sys").modules, "openai", _client())
    scores = judge.judged(judge.OBJAVERSE)(answers(("a car", ["a red car"]), ("a dog", ["a chair"])))
    assert scores.values == {"GPT accuracy": 50}
    assert any("some-judge" in note for note in scores.notes)
    path, key, body = endpoint[0]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer key", "some-judge")


def _client():
    """Stand in for the client where it is not installed: the one call that is used."""
    import os

    import requests

    def create(**body):
        head = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
        url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
        content = requests.post(url, json=body, headers=head, timeout=10).json()["choices"][0]["message"]["content"]
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=content))])

    module = ModuleType("openai")
    module.OpenAIError = type("OpenAIError", (Exception,), {})
    module.OpenAI = lambda: SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    return module
