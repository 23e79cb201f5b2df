"""BLEU, chrF, METEOR and the style distance, against the libraries themselves and against sums by hand."""

import math
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support import task

from lampbench.core import InputError, metrics
from lampbench.metrics import metrics_of, score

ANSWERS = ["the cat sat on the mat", "a study of very long names", "", "no match", "Sure, one is fine. Ann"]
GOLDS = ["the cat sat on a mat today", "a study of names", "an answer", "other words here", "Sure, one is fine. Ann"]
USERS = ["u", "u", "v", "v", "w"]


def value(key: str, answers: list[str], golds: list[str]) -> float:
    found = score(replace(task("lamp5"), scored_by=(key,)), answers, golds, USERS[: len(golds)])[key]
    assert found.value is not None
    return found.value


@pytest.mark.skipif(find_spec("sacrebleu") is None, reason="sacrebleu is not installed")
@pytest.mark.parametrize("rows", [slice(0, 2), slice(0, 5), slice(3, 5), slice(2, 4), slice(0, 1)])
def test_bleu_is_sacrebleus_over_the_whole_corpus(rows: slice) -> None:
    from sacrebleu import corpus_bleu

    expected = corpus_bleu(ANSWERS[rows], [GOLDS[rows]]).score
    assert value("BLEU", ANSWERS[rows], GOLDS[rows]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.skipif(find_spec("sacrebleu") is None, reason="sacrebleu is not installed")
def test_chrf_is_the_mean_of_sacrebleus() -> None:
    from sacrebleu import sentence_chrf

    expected = np.mean([sentence_chrf(own, [gold]).score for own, gold in zip(ANSWERS, GOLDS, strict=True)])
    assert value("chrF", ANSWERS, GOLDS) == pytest.approx(expected)


@pytest.fixture
def no_synonyms(tmp_path: Path) -> Iterator[None]:
    """A WordNet without a word, so that METEOR is what exact words and stems make of it."""
    nltk = pytest.importorskip("nltk")
    from nltk.corpus import wordnet

    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    parts = [f"{kind}.{part}" for kind in ("index", "data") for part in ("adj", "adv", "noun", "verb")]
    for name in (*parts, *(f"{part}.exc" for part in ("adj", "adv", "noun", "verb")), "index.sense", "lexnames"):
        (folder / name).write_text("")
    before = list(nltk.data.path)
    nltk.data.path[:] = [str(tmp_path)]
    yield
    nltk.data.path[:] = before
    wordnet._unload() if hasattr(wordnet, "_unload") else None


def test_meteor_follows_its_formula(no_synonyms: None) -> None:
    # Six words in one chunk: the penalty is half of (1 / 6) cubed. Two of three words, of four in the gold, in one chunk:
    # the mean of precision and recall with recall weighed nine times, less half of (1 / 2) cubed.
    assert value("METEOR", ["the cats sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(1 - 0.5 / 6**3)
    precision, recall = 2 / 3, 2 / 4
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    assert value("METEOR", ["quick brown mice"], ["quick brown foxes jumped"]) == pytest.approx(mean * (1 - 0.5 / 8))
    assert value("METEOR", [""], ["nothing"]) == 0.0


def test_without_word_lists_a_run_by_meteor_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")
    if metrics().load("METEOR").missing() == "":
        pytest.skip("WordNet is installed here")
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(InputError, match=r"its metric 'METEOR' cannot be computed here: WordNet's word lists.*nltk"):
        metrics_of(replace(task("lamp5"), scored_by=("rouge-L", "METEOR")))


def test_style_is_the_mean_distance_of_four_habits() -> None:
    # Two words to four; one full stop and one comma in two words to one full stop in four; one capital of ten letters and
    # of two words to one of twelve and of four; "the" once in two words to once in four, and "of" to nothing.
    answer, gold = "The, abcdefg.", "the abc xyzq abc."
    length = abs(2 - 4) / (2 + 4)
    punctuation = (abs(1 / 2 - 1 / 4) + 1 / 2) / (1 / 2 + 1 / 4 + 1 / 2)
    casing = 1.0
    function = abs(1 / 2 - 1 / 4) / (1 / 2 + 1 / 4)
    assert value("style", [answer], [gold]) == pytest.approx(np.mean([length, punctuation, casing, function]))


def test_style_is_of_a_users_texts_together_and_knows_no_topic() -> None:
    golds = ["I like the red car.", "WE WENT TO THE SEA!", "ok then"]
    assert value("style", golds, golds) == 0.0
    swapped = [golds[1], golds[0], golds[2]]
    own = score(replace(task("lamp5"), scored_by=("style",)), swapped, golds, ["u", "u", "v"])["style"]
    assert own.macro is not None
    assert own.macro.value == 0.0
    other_topic = ["I hate the blue hat.", "HE CAME TO THE INN!", "ok then"]
    assert value("style", other_topic, golds) < 0.1 < value("style", ["", "", ""], golds) <= 1.0


@pytest.mark.parametrize("key", ["style", "chrF", "BLEU"])
def test_what_a_user_adds_does_not_depend_on_others(key: str) -> None:
    if metrics().load(key).missing():
        pytest.skip("a library is not installed")
    metric = metrics().load(key)
    together = np.asarray(metric.terms(ANSWERS, GOLDS, ()))
    alone = [metric.terms([own], [gold], ())[0] for own, gold in zip(ANSWERS, GOLDS, strict=True)]
    np.testing.assert_allclose(together, alone)
    low, high = metric.bounds
    assert all(low <= number <= high and math.isfinite(number) for number in metric.value(together))
