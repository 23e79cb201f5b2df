"""The benchmark of data runs from end to end at a small size."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "data.py"


def test_converting_and_opening_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), "--users", "120", "--out", str(out)]
    # 1,500 queries from the latest items of 18 users; 100 users apart from the others.
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    record = json.loads(out.read_text())
    assert record["converting"]["train"]["mb"] > 5
    assert record["converting"]["train"]["result"] == 120
    assert all(split["mb_per_second"] > 0 and split["peak_mb"] > 20 for split in record["converting"].values())
    opened = {name: entry["again"]["result"][:3] for name, entry in record["opening"].items()}
    assert opened["lamp-time"] == [18, 18, 120]
    assert opened["cold-k,k=8"] == [18, 18, 114]
    assert opened["powered"][0] == 18
    assert opened["powered"][1] >= 1500
    # Six users are in both splits: not shared where they are evaluated, and one person where splits are pooled.
    assert opened["powered"][2] == 114
    assert opened["oppu100-rebuilt"][2] == 32
    assert all(entry["first"]["result"] == entry["again"]["result"] for entry in record["opening"].values())
