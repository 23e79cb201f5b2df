"""Metrics as plug-ins: what a task names is what its answers are scored by."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import task

from lampbench.core import InputError, Metric, Plugin, metrics
from lampbench.metrics import additive, metrics_of, per_query, score, sums_from_json, sums_to_json

Register = Callable[[str, Any], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers an object of this file as a plug-in would."""

    def add(name: str, target: Any) -> None:
        point: Any = SimpleNamespace(load=lambda: target)
        monkeypatch.setitem(metrics()._claims, name, [Plugin(name, "tests 1.0", f"tests:{name}", point)])

    return add


def errors(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> list[float]:
    return [abs(len(p) - len(g)) for p, g in zip(predictions, golds, strict=True)]


LENGTH = per_query("length", errors, about="length", higher_is_better=False, kinds=("text",), bounds=(0.0, math.inf))


def spans(predictions: Sequence[str], golds: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
    return [[len(p), len(g), 1] for p, g in zip(predictions, golds, strict=True)]


RATIO = Metric(
    "ratio", "total length by total length", True, frozenset({"text"}),
    terms=spans, value=lambda sums: sums[..., 0] / sums[..., 1], width=lambda labels: 3, per_user=False,
)  # fmt: skip


def test_a_tasks_metrics_are_those_it_names_the_primary_one_first(register: Register) -> None:
    register("length", LENGTH)
    own = replace(task("lamp5"), scored_by=("length", "rouge-1"))
    assert metrics_of(own) == own.metrics == (LENGTH, metrics().load("rouge-1"))
    assert own.primary is LENGTH
    scores = score(own, ["abc", "a"], ["a", "ab"], ["u", "v"])
    assert [(key, found.primary, found.higher_is_better) for key, found in scores.items()] == [
        ("length", True, False),
        ("rouge-1", False, True),
    ]
    assert scores["length"].value == 1.5
    assert scores["length"].macro is not None


def test_a_metric_of_sums_is_not_a_mean_over_queries(register: Register) -> None:
    register("ratio", RATIO)
    own = replace(task("lamp5"), scored_by=("ratio",))
    found = score(own, ["aaa", "a"], ["a", "aa"], ["u", "v"])["ratio"]
    assert found.value == pytest.approx(4 / 3)
    assert found.macro is None
    users, sums = sums_from_json(own, sums_to_json(["u", "v"], additive(own, ["aaa", "a"], ["a", "aa"], ["u", "v"])))
    assert users == ["u", "v"]
    assert np.array_equal(sums["ratio"].sums, [[3, 1, 1], [1, 2, 1]])
    assert sums["ratio"].micro == found.value


def test_terms_of_another_shape_than_declared_are_refused(register: Register) -> None:
    register("ratio", replace(RATIO, width=lambda labels: 2))
    with pytest.raises(ValueError, match=r"'ratio' gives terms of shape \(1, 3\); expected \(1, 2\)"):
        score(replace(task("lamp5"), scored_by=("ratio",)), ["a"], ["b"])


@pytest.mark.parametrize(
    ("scored_by", "said"),
    [
        ((), "its metrics are none; expected one or more, each once"),
        (("rouge-1", "rouge-1"), "its metrics are rouge-1, rouge-1"),
        (("rouge-l",), "the task 'lamp5': unknown metric 'rouge-l'; did you mean 'rouge-L'"),
        (("f1",), "its metric 'f1' scores labels, but the task's answers are text"),
        (("no metric",), "the metric plug-in 'no metric' is a dict; expected an instance of Metric"),
        (("alias",), "the metric plug-in 'alias' calls itself 'length'"),
    ],
)
def test_metrics_that_cannot_score_a_task_are_refused(
    scored_by: tuple[str, ...], said: str, register: Register
) -> None:
    register("no metric", {})
    register("alias", LENGTH)
    with pytest.raises(InputError) as raised:
        metrics_of(replace(task("lamp5"), scored_by=scored_by))
    assert said in str(raised.value)


def test_an_unreadable_rating_counts_as_the_farthest_end_of_the_tasks_own_scale() -> None:
    ten = replace(task("lamp3"), labels=tuple(str(n) for n in range(1, 11)))
    assert score(ten, ["x", "x"], ["9", "2"])["MAE"].value == 8.0
