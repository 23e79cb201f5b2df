"""Exact agreement with the official definitions, by scikit-learn and rouge-score themselves."""

import json
import math
import socket
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, mean_squared_error
from support import task

from lampbench.metrics import Estimate, LabelMetric, RatingMetric, RougeMetric, invalid_outputs, score

LABELS = task("lamp2m").labels
UGLY = [
    "",
    " ",
    "45",
    "nan",
    "inf",
    "-3",
    "1e3",
    "no label",
    "É coté à l'ñ",
    "word " * 5000,
    "a\nb",
    "comedy.",
    "4 stars",
]


def official_f1(predictions: list[str], golds: list[str]) -> float:
    """As LaMP's evaluator: labels to numbers, anything else to -1, macro over the full list."""
    number = {label: i for i, label in enumerate(LABELS)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(
            f1_score(
                [number[g.strip()] for g in golds],
                [number.get(p.strip(), -1) for p in predictions],
                labels=list(range(len(LABELS))),
                average="macro",
            )
        )


def official_ratings(predictions: list[str], golds: list[str]) -> list[float]:
    """As LaMP's evaluator reads them, but for numbers that are not finite: those are as unreadable as words."""

    def read(prediction: str, gold: str) -> float:
        try:
            if math.isfinite(value := float(prediction)):
                return value
        except ValueError:
            pass
        y = float(gold)
        return 1.0 if abs(1 - y) > abs(5 - y) else 5.0

    return [read(p.strip(), g.strip()) for p, g in zip(predictions, golds, strict=True)]


labels_or_noise = st.sampled_from([*LABELS, *UGLY, " comedy ", "Comedy"])
label_pairs = st.lists(st.tuples(labels_or_noise, st.sampled_from(LABELS)), min_size=1, max_size=40)
ratings = st.sampled_from(["1", "2", "3", "4", "5"])
rating_pairs = st.lists(st.tuples(ratings | st.sampled_from(UGLY) | st.floats(-10, 10).map(str), ratings), min_size=1)
text_pairs = st.lists(st.tuples(st.text() | st.sampled_from(UGLY), st.text(min_size=1)), min_size=1, max_size=6)


@given(label_pairs)
def test_labels_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predictions, golds = map(list, zip(*pairs, strict=True))
    scores = score(task("lamp2m"), predictions, golds)
    expected = accuracy_score([g.strip() for g in golds], [p.strip() for p in predictions])
    assert scores["accuracy"].value == pytest.approx(expected, abs=1e-15)
    assert scores["f1"].value == pytest.approx(official_f1(predictions, golds), abs=1e-12)


@given(rating_pairs)
def test_ratings_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predictions, golds = map(list, zip(*pairs, strict=True))
    read, truth = official_ratings(predictions, golds), [float(gold) for gold in golds]
    scores = score(task("lamp3"), predictions, golds)
    assert scores["MAE"].value == pytest.approx(mean_absolute_error(truth, read), rel=1e-12)
    assert scores["RMSE"].value == pytest.approx(math.sqrt(mean_squared_error(truth, read)), rel=1e-12)


@given(text_pairs)
def test_texts_agree_with_rouge_score(pairs: list[tuple[str, str]]) -> None:
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    expected = [scorer.score(gold.strip(), prediction.strip()) for prediction, gold in pairs]
    scores = score(task("lamp5"), [p for p, _ in pairs], [g for _, g in pairs])
    assert scores["rouge-1"].value == pytest.approx(np.mean([e["rouge1"].fmeasure for e in expected]), abs=1e-12)
    assert scores["rouge-L"].value == pytest.approx(np.mean([e["rougeL"].fmeasure for e in expected]), abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "gold", "error"),
    [
        ("45", "5", 40.0),
        ("", "1", 4.0),
        ("", "5", 4.0),
        ("", "3", 2.0),
        ("", "2", 3.0),
        (" 4 ", "4", 0.0),
        ("-1", "1", 2.0),
        ("nan", "4", 3.0),
        ("inf", "5", 4.0),
        ("-Infinity", "3", 2.0),
        ("1e999", "1", 4.0),
    ],
)
def test_an_unreadable_rating_counts_as_the_farthest_end(prediction: str, gold: str, error: float) -> None:
    assert score(task("lamp3"), [prediction], [gold])["MAE"].value == error


@pytest.mark.parametrize("prediction", ["nan", "inf", "-inf"])
def test_an_answer_that_is_not_a_finite_number_is_scored_as_unreadable_and_the_official_value_is_reported_as_well(
    prediction: str,
) -> None:
    golds, users = ["4", "5", "2"], ["a", "b", "b"]
    unreadable = score(task("lamp3"), ["five", "5", "2"], golds, users)
    scores = score(task("lamp3"), [prediction, "5", "2"], golds, users)
    for key, own in scores.items():
        assert own.official is not None
        assert not math.isfinite(own.official)
        assert own == replace(unreadable[key], official=own.official)
        assert unreadable[key].official is None
    assert invalid_outputs(task("lamp3"), [prediction]) == 1


def test_errors_too_large_to_add_up_have_no_score_and_no_nan_in_json() -> None:
    scores = score(task("lamp3"), ["1e308", "1e308"], ["4", "5"], ["a", "b"])
    assert scores["MAE"].value is None
    assert scores["RMSE"].macro == Estimate(None)
    json.dumps({key: result.value for key, result in scores.items()}, allow_nan=False)


def test_f1_averages_over_labels_that_occur_nowhere() -> None:
    assert score(task("lamp2m"), ["comedy"], ["comedy"])["f1"].value == pytest.approx(1 / 15)


def test_macro_is_the_mean_over_users() -> None:
    scores = score(task("lamp2m"), ["comedy"] * 4, ["comedy", "comedy", "comedy", "action"], ["a", "a", "a", "b"])
    assert scores["accuracy"].value == 0.75
    assert scores["accuracy"].macro is not None
    assert scores["accuracy"].macro.value == 0.5
    assert scores["accuracy"].n_users == 2
    assert scores["f1"].macro is None


def test_the_primary_metric_comes_first() -> None:
    for name, keys in (("lamp2n", ["accuracy", "f1"]), ("lamp3", ["MAE", "RMSE"]), ("lamp7", ["rouge-L", "rouge-1"])):
        scores = score(task(name), ["1"], ["sports" if name == "lamp2n" else "1"])
        assert list(scores) == keys
        assert [result.primary for result in scores.values()] == [True, False]


def test_invalid_outputs_are_counted() -> None:
    assert invalid_outputs(task("lamp2m"), [*UGLY, " comedy "]) == len(UGLY)
    assert invalid_outputs(task("lamp3"), ["1", "5.0", "45", "nan", "", "good"]) == 4
    assert invalid_outputs(task("lamp5"), ["title", "", "  "]) == 2


def test_evaluate_metrics_give_the_same_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a metric reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    golds = ["comedy", "action", "romance"]
    predictions = ["comedy", "romance", ""]
    expected = {key: result.value for key, result in score(task("lamp2m"), predictions, golds).items()}
    assert LabelMetric(LABELS).compute(predictions=predictions, references=golds) == expected
    expected = {key: result.value for key, result in score(task("lamp3"), ["1", "x"], ["2", "5"]).items()}
    assert RatingMetric().compute(predictions=["1", "x"], references=["2", "5"]) == expected
    expected = {key: result.value for key, result in score(task("lamp5"), predictions, golds).items()}
    assert RougeMetric().compute(predictions=predictions, references=golds) == expected


def test_evaluate_metrics_take_batches() -> None:
    metric = LabelMetric(LABELS)
    metric.add_batch(predictions=["comedy"], references=["comedy"])
    metric.add(prediction="action", reference="comedy")
    assert metric.compute()["accuracy"] == 0.5
