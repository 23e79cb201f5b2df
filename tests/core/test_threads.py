"""How many cores there are, and that torch computes with as many threads, which sleep while they wait."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lampbench.core import available_cores, load_per_core

OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "MKL_NUM_THREADS")
PROGRAM = """
import json, os, sys
from lampbench.core import use_threads
use_threads({count})
import torch
print(json.dumps({{"threads": torch.get_num_threads(), **{{name: os.environ.get(name) for name in {names}}}}}))
"""


def used(count: int | None = None, **given: str) -> dict[str, str | int | None]:
    """What a new process computes with."""
    environment = {name: value for name, value in os.environ.items() if name not in OPENMP} | given
    program = PROGRAM.format(count=count, names=OPENMP)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, str | int | None] = json.loads(done.stdout)
    return found


def test_torch_uses_the_available_cores_and_its_threads_sleep() -> None:
    found = used()
    assert found["threads"] == min(available_cores(), 8)
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["GOMP_SPINCOUNT"] == "3000"


def test_what_the_user_chose_is_kept_and_a_count_wins() -> None:
    found = used(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="ACTIVE")
    assert found["threads"] == 1
    assert found["OMP_WAIT_POLICY"] == "ACTIVE"
    assert found["GOMP_SPINCOUNT"] is None
    assert used(1, OMP_NUM_THREADS="2")["threads"] == 1


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/box\n", {"box/cpu.max": "150000 100000\n"}, 1),
        ("0::/box/inner\n", {"box/cpu.max": "300000 100000\n", "box/inner/cpu.max": "max 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ("4:cpu:/gone\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ("0::/box\n", {"box/cpu.max": "900000 100000\n"}, 6),
        ("0::/\n", {}, 6),
    ],
)
def test_cores_are_those_of_the_affinity_within_the_quota_of_all_groups_around(
    groups: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "self").write_text(groups)
    for name, content in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(content)
    monkeypatch.setattr("lampbench.core._threads._OWN_GROUPS", tmp_path / "self")
    monkeypatch.setattr("lampbench.core._threads._GROUPS", tmp_path / "fs")
    monkeypatch.setattr("lampbench.core._threads._CORES", tmp_path / "cpu{}" / "siblings")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert available_cores() == cores
    # Two of the processors share a core.
    for processor in (0, 3):
        (tmp_path / f"cpu{processor}").mkdir()
        (tmp_path / f"cpu{processor}" / "siblings").write_text("0,3\n")
    assert available_cores() == min(cores, 5)


def test_the_load_is_counted_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (6.0, 1.0, 1.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert load_per_core() == 1.5
