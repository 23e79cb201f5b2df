"""The curve over history lengths: what a point of gain costs, by hand, and the committed results."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def curve(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import history_curve  # type: ignore[import-not-found]

    return history_curve


def test_a_point_costs_the_shared_stage_and_a_thousand_users(curve: Any) -> None:
    # 10 users adapted and answered in 36 s are 1,000 in 3,600 s; with 1,800 s of the shared stage, for 30 points.
    point = {"gain": 0.3, "low": 0.1, "adapt": 35.0, "predict": 1.0}
    assert curve.cost({"shared": 1800.0}, point, 10) == pytest.approx(5400 / 30)


def test_what_is_not_shown_to_gain_has_no_cost_per_point(curve: Any) -> None:
    assert curve.cost({"shared": 1.0}, {"gain": 0.1, "low": -0.01, "adapt": 1.0, "predict": 1.0}, 10) is None
    assert curve.cost({"shared": 1.0}, {"gain": None, "low": None, "adapt": 1.0, "predict": 1.0}, 10) is None


def test_the_committed_results_hold_every_length_of_every_method() -> None:
    record = json.loads((BENCHMARKS / "results" / "history-curve-cpu.json").read_text(encoding="utf-8"))
    assert record["users"] >= 12
    for methods in record["tasks"].values():
        base = methods["zero-shot"]["points"][-1]["score"]
        for name, own in methods.items():
            if name == "zero-shot":
                continue
            assert [point["items"] for point in own["points"]] == [2, 4, 8, 16, None]
            # lamp5 and lamp2m: larger is better, so a gain is a plain difference.
            assert all(math.isclose(p["gain"], p["score"] - base, abs_tol=1e-9) for p in own["points"])
            assert all(p["low"] <= p["gain"] <= p["high"] for p in own["points"])


def test_the_page_has_the_numbers_of_the_plots(curve: Any) -> None:
    record = json.loads((BENCHMARKS / "results" / "history-curve-cpu.json").read_text(encoding="utf-8"))
    page = (BENCHMARKS.parent / "docs" / "history.md").read_text(encoding="utf-8")
    assert curve.tables(record) in page
