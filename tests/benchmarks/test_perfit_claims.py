"""The page of PerFit's claims is what the measured results give, and says so where they differ."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import perfit_claims  # type: ignore[import-not-found]

    module: object = perfit_claims
    return module


def test_the_committed_page_is_what_the_results_give() -> None:
    command = [sys.executable, str(BENCHMARKS / "perfit_claims.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_finding_follows_the_numbers(claims: object, tmp_path: Path) -> None:
    for path in (BENCHMARKS / "results").glob("perfit-claims-*.json"):
        shutil.copy(path, tmp_path)
    before = claims.page(tmp_path)  # type: ignore[attr-defined]
    assert "| all 12 agree |" in before
    counted = tmp_path / "perfit-claims-parameters.json"
    record = json.loads(counted.read_text(encoding="utf-8"))
    (shape,) = record["measured"].values()
    shape["lamp7"]["reductions"][1] = 0.5
    counted.write_text(json.dumps(record), encoding="utf-8")
    scored = tmp_path / "perfit-claims-accuracy.json"
    record = json.loads(scored.read_text(encoding="utf-8"))
    # MAE: less is better, so a PerFit that adds to it is the worse one.
    record["measured"]["mini"]["lamp3, mini"]["difference"] = {"value": 0.2, "ci95": [0.1, 0.3], "p": 0.0001}
    scored.write_text(json.dumps(record), encoding="utf-8")
    after = claims.page(tmp_path)  # type: ignore[attr-defined]
    assert "| 11 of 12 agree |" in after
    (line,) = [line for line in after.splitlines() if line.startswith("| mini | lamp3 |")]
    assert line.endswith("| OPPU is better |")


def test_an_ablation_is_worse_only_after_correction(claims: object, tmp_path: Path) -> None:
    def variant(score: float, p: float | None) -> dict[str, object]:
        against = {"zero-shot": {"value": score - 1.0, "ci95": [-0.5, 0.5], "p": 0.5}}
        if p is not None:
            against["recommended"] = {"value": score - 0.5, "ci95": [-0.5, 0.5], "p": p}
        return {"metric": "MAE", "score": score, "against": against, "per_user": 1}

    # Of three changes, p = 0.01 is 0.03 by Holm and p = 0.03 is 0.06; MAE: more is worse.
    variants = {"as recommended": variant(0.5, None), "a": variant(0.6, 0.01), "b": variant(0.7, 0.03)}
    variants["c"] = variant(0.4, 0.9)
    measured = {"mini": {"lamp3": {"users": 16, "zero-shot": 1.0, "variants": variants}}}
    (tmp_path / "perfit-claims-ablations.json").write_text(json.dumps({"measured": measured}), encoding="utf-8")
    text = claims.page(tmp_path)  # type: ignore[attr-defined]
    assert "| worse: 1 of 3 changes, better: 0 | no stage is shown to be needed |" in text
    assert "1 of 3\n(a (lamp3)); better: 0." in text
    assert "+0.200 [-0.500, +0.500] | 0.060 |" in text


def test_a_part_that_was_not_measured_is_left_out(claims: object, tmp_path: Path) -> None:
    shutil.copy(BENCHMARKS / "results" / "perfit-claims-time.json", tmp_path)
    text = claims.page(tmp_path)  # type: ignore[attr-defined]
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Less training time",
        "## How this page is made",
    ]
