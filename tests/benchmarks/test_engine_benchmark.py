"""The benchmark of the engine runs from end to end at a small shape; on a GPU it is the same command."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "engine.py"


def test_every_rung_of_every_case_is_measured_against_its_floor(tmp_path: Path) -> None:
    options = [
        "--shape",
        "tiny",
        "--users",
        "2",
        "--items",
        "2",
        "--prompt",
        "20",
        "--target",
        "3",
        "--epochs",
        "1",
        "--rounds",
        "1",
    ]
    out = tmp_path / "result.json"
    result = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    record = json.loads(out.read_text())
    assert set(record["cases"]) == {"oppu", "perfit all", "perfit l4"}
    for case in record["cases"].values():
        assert set(case["rungs"]) == {"library", "solo", "hygiene", "caching", "stacking", "batched"}
        assert all(rung["training_seconds"] > 0 for rung in case["rungs"].values())
        assert all(rung["training_over_floor"] > 1 for rung in case["rungs"].values())
        assert case["product_rate"] > 1e8
        flops = [rung["training_flops"] for rung in case["rungs"].values()]
        assert flops == sorted(flops, reverse=True)
    # Edits on the last tokens alone need less than edits everywhere, and both less than LoRA on every layer.
    least = [
        record["cases"][name]["rungs"]["batched"]["training_flops"] for name in ("perfit l4", "perfit all", "oppu")
    ]
    assert least == sorted(least)
    assert record["environment"]["packages"]["torch"]
    assert record["environment"]["hardware_class"]
