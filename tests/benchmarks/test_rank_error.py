"""The simulation of rank groups: it runs from end to end, and what it found keeps what the docs promise."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_kind_of_board_is_simulated(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options = ["--boards", "20", "--methods", "2", "5", "--users", "12", "--out", str(out)]
    script = str(ROOT / "benchmarks" / "rank_error.py")
    result = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    cells = json.loads(out.read_text())["cells"]
    assert {(own["metric"], own["truth"]) for own in cells} == {
        (metric, truth)
        for metric in ("accuracy", "error", "macro-F1")
        for truth in ("equal", "unlike", "one", "several", "ladder")
    }
    for own in cells:
        assert own["boards"] == own["unadjusted_boards"] == 20
        assert 0 <= own["wrong"] <= 0.25
        assert (own["power"] is None) == (own["truth"] in ("equal", "unlike"))


def test_no_more_than_six_boards_in_a_hundred_are_split_wrongly() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "rank-error.json").read_text())
    found = {(own["metric"], own["truth"], own["methods"], own["users"]): own for own in record["cells"]}
    assert {(methods, users) for _, _, methods, users in found} == {(m, u) for m in (2, 5, 9, 20) for u in (12, 48)}
    assert all(own["boards"] >= 1000 for own in found.values())
    assert max(own["wrong"] for own in found.values()) <= 0.06
    assert max(own["unadjusted_wrong"] for own in found.values()) > 0.8
