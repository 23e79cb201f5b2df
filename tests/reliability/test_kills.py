"""A run killed anywhere and continued by the same command gives what an undisturbed one gives, to the byte."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("killed_runs.py")


def killed(out: Path, method: str, kills: int, seed: int) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, str(PROGRAM), str(out), method, str(kills), str(seed)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[1]), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


# Thirty moments in all: of a method with a shared stage and a state per user, and of one that only writes.
@pytest.mark.parametrize(
    ("method", "kills", "phases"),
    [
        ("perfit", 20, {"fit_shared", "adapt", "predict", "check"}),
        ("pag", 10, {"start", "adapt", "predict", "check"}),
    ],
)
def test_a_run_killed_at_random_moments_ends_as_if_undisturbed(
    method: str, kills: int, phases: set[str], tmp_path: Path
) -> None:
    told = killed(tmp_path, method, kills, seed=20261125)
    assert len(told["kills"]) == kills
    assert told["undisturbed"]["status"] == "success"
    # Every query once, every user once; predictions, sums and metrics to the byte.
    assert all(ended == told["undisturbed"] for ended in told["ended"])
    hit = Counter(phase for _, phase in told["kills"])
    # Moments are partly of the clock: on a busy machine one phase may be missed, not two.
    assert len(phases - set(hit)) <= len(phases) // 4, hit
