"""Caption metrics, by pycocoevalcap: what COCO's evaluation server computes; METEOR also by NLTK where Java is missing.

The tokenizer, METEOR and SPICE are Java programs. Without Java captions are split by NLTK's word tokenizer, which
differs from the official one in rare words only, METEOR is NLTK's (called so: its numbers are not the official ones)
and SPICE is left out.
"""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from onellm.utils.paths import cache_folder
from train.evaluation.benchmark import BenchmarkError
from train.evaluation.metrics import Answer, Scores

JAVA = "default-jre-headless"
NO_JAVA = f"Java was not found; install the Debian package {JAVA}"
NO_WORDNET = "WordNet was not found; install the Debian package wordnet-base"
TOKENIZER_SECONDS = 600
FETCH_SECONDS = 20.0  # to reach the server of SPICE's models
Tokens = dict[str, list[str]]


def captions(*extra: str) -> Callable[[Sequence[Answer]], Scores]:
    """Make a metric: CIDEr (-D, as in COCO's evaluation), BLEU-1 to 4, ROUGE-L, and any of METEOR, SPICE, SPIDEr."""

    def score(answers: Sequence[Answer]) -> Scores:
        return score_captions(answers, extra)

    return score


def score_captions(answers: Sequence[Answer], extra: Sequence[str] = ()) -> Scores:
    """Score captions against their references.

    Args:
        answers: captions; questions hold the references.
        extra: "METEOR", "SPICE" (with "SPIDEr", the mean of CIDEr and SPICE).

    Returns:
        The scores in percent. A metric that cannot be computed is in `missing`.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    scores = Scores()
    predicted = {str(index): [answer.text] for index, answer in enumerate(answers)}
    references = {str(index): answer.question.answers for index, answer in enumerate(answers)}
    if shutil.which("java"):
        predicted, references = java_tokens(predicted), java_tokens(references)
    else:
        predicted, references = python_tokens(predicted), python_tokens(references)
        scores.notes.append(f"captions were split by NLTK instead of the official tokenizer: {NO_JAVA}")
    with contextlib.redirect_stdout(io.StringIO()):
        bleu, _ = Bleu(4).compute_score(references, predicted, verbose=0)
    scores.add_mean("CIDEr", 100 * Cider().compute_score(references, predicted)[1])
    scores.values |= {f"BLEU-{order + 1}": 100 * float(value) for order, value in enumerate(bleu)}
    scores.add_mean("ROUGE-L", 100 * Rouge().compute_score(references, predicted)[1])
    if len(answers) < 2:
        scores.notes.append("CIDEr of one caption is 0: it weighs words by how rare they are among the references")
    if "METEOR" in extra:
        _add_meteor(scores, references, predicted)
    if "SPICE" in extra or "SPIDEr" in extra:
        _add_spice(scores, references, predicted)
    return scores


def java_tokens(texts: dict[str, Sequence[str]]) -> Tokens:
    """Split texts into lower-case words without punctuation, by the Penn Treebank tokenizer of Stanford CoreNLP.

    The library's own wrapper writes into the folder it is installed in; here the texts go through a pipe.

    Raises:
        BenchmarkError: the program fails.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    lines = [" ".join(text.split()) for group in texts.values() for text in group]
    try:
        done = subprocess.run(
            command, input="\n".join(lines) + "\n", capture_output=True, encoding="utf-8", timeout=TOKENIZER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"Java's tokenizer does not run ({error}); reinstall {JAVA}.") from error
    found = done.stdout.split("\n")[: len(lines)]
    if done.returncode or len(found) < len(lines):
        reason = done.stderr.strip().rpartition("\n")[2][:200]
        raise BenchmarkError(f"Java's tokenizer failed ({reason}); reinstall {JAVA}.")
    return _regroup(texts, [line.split() for line in found])


def python_tokens(texts: dict[str, Sequence[str]]) -> Tokens:
    """Split texts as `java_tokens` does, by NLTK."""
    from nltk.tokenize import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    return _regroup(texts, [tokenizer.tokenize(text.lower()) for group in texts.values() for text in group])


def _regroup(texts: dict[str, Sequence[str]], words: list[list[str]]) -> Tokens:
    """Drop punctuation and give every text its words back, joined by spaces."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    every = iter(words)
    return {
        key: [" ".join(word for word in next(every) if word not in PUNCTUATIONS) for _ in group]
        for key, group in texts.items()
    }


def _add_meteor(scores: Scores, references: Tokens, predicted: Tokens) -> None:
    """Add METEOR 1.5, or NLTK's under its own name."""
    from pycocoevalcap.meteor.meteor import Meteor

    if shutil.which("java"):
        try:
            value, _ = Meteor().compute_score(references, predicted)
            scores.values["METEOR"] = 100 * value
            return
        except (OSError, ValueError) as error:
            scores.missing["METEOR"] = f"the Java program failed ({error}); reinstall {JAVA}, it needs 2 GB of memory"
    else:
        scores.missing["METEOR"] = NO_JAVA
    wordnet = _wordnet()
    if wordnet is None:
        scores.missing["METEOR (NLTK)"] = NO_WORDNET
        return
    from nltk.translate.meteor_score import meteor_score

    each = [
        meteor_score([reference.split() for reference in references[key]], predicted[key][0].split(), wordnet=wordnet)
        for key in references
    ]
    scores.add_mean("METEOR (NLTK)", 100 * np.asarray(each))


def _wordnet():
    """Return NLTK's reader of WordNet where its files are, or None.

    They are looked for in WNSEARCHDIR, or else where Debian puts them; in the corpus's packages; in NLTK's data.
    """
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):
        def open(self, file: str):
            """Do without the names of lexicographer files, which Debian leaves out and METEOR does not ask for."""
            if file == "lexnames" and not (Path(str(self.root)) / file).exists():
                return io.StringIO("\n".join(f"{number}\tunknown\t1" for number in range(45)))
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """Do without a mapping to NLTK's own copy."""

    folders = [Path(os.environ.get("WNSEARCHDIR", "/usr/share/wordnet"))]
    folders += [cache_folder() / "packages/unpacked/wordnet-base/usr/share/wordnet"]
    folders += [Path(path) / "corpora" / "wordnet" for path in nltk.data.path]
    folder = next((folder for folder in folders if (folder / "data.noun").exists()), None)
    if folder is None:
        return None
    nltk.data.path.append(str(folder))  # NLTK reads nothing outside of these
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about other languages
        return Reader(str(folder), None)


def _add_spice(scores: Scores, references: Tokens, predicted: Tokens) -> None:
    """Add SPICE and SPIDEr; SPICE fetches the models of Stanford CoreNLP once."""
    reason = NO_JAVA if not shutil.which("java") else None
    if reason is None:
        from pycocoevalcap.spice.spice import Spice

        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(FETCH_SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                _, each = Spice().compute_score(references, predicted)
        except (OSError, ValueError) as error:
            reason = (
                f"the models of Stanford CoreNLP 3.6.0 could not be fetched ({error}); put its jar and models jar into "
                "the folder spice/lib of pycocoevalcap"
            )
        except subprocess.CalledProcessError as error:
            reason = f"the Java program failed (exit code {error.returncode}); it needs 8 GB of memory and Java 8 to 11"
        finally:
            socket.setdefaulttimeout(patience)
    if reason is not None:
        scores.missing |= {"SPICE": reason, "SPIDEr": "it needs SPICE"}
        return
    by_key = dict(zip(sorted(references), each, strict=True))  # SPICE sorts the keys
    spice = 100 * np.array([by_key[key]["All"]["f"] for key in references])
    scores.add_mean("SPICE", spice)
    scores.add_mean("SPIDEr", (np.asarray(scores.each["CIDEr"]) + spice) / 2)
