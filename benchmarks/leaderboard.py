"""Boards of many rows: reading, pooling, statistics and writing of 10,000 made-up results.

    python benchmarks/leaderboard.py                 # 10,000 rows: six tasks, three seeds, 48 users
    python benchmarks/leaderboard.py --rows 600
    python benchmarks/leaderboard.py --out benchmarks/results/leaderboard-cpu.json

The rows are those of `majority` on mini with other names, seeds and random sums; nothing about them is a
result. Reading (JSON and schema of every row) and building (intervals, ranks, gains, files) are timed apart, by the
clock and by the processor, which what else the machine does disturbs less.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from msgspec import convert

import lampbench
from lampbench.core import tasks
from lampbench.leaderboard import boards, read_results, result_path, write_boards
from lampbench.rows import Row, run_id
from lampbench.runner import LocalExecutor, Plan, Planner, Settings, environment

_SEEDS = 3
_T = TypeVar("_T")


class _Quiet:
    def phase(self, name: str, total: int) -> Any:
        from contextlib import nullcontext

        return nullcontext(self)

    def runs(self, total: int) -> Any:
        return self.phase("", total)

    def move(self, done: float, where: object) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""


def template(task: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A real row and its sums."""
    planner = Planner(Settings(out=folder))
    plan = planner.plan("majority", task, {})
    assert isinstance(plan, Plan)
    LocalExecutor(_Quiet()).run(plan)
    row, sums = (json.loads((plan.folder / name).read_text()) for name in ("row.json", "user_sums.json"))
    return row, sums


def write_results(root: Path, rows: int) -> int:
    """Made-up results; how many."""
    generator = np.random.default_rng(0)
    names = tasks().names()
    entries = rows // (len(names) * _SEEDS)
    for task in names:
        with tempfile.TemporaryDirectory() as folder:
            row, sums = template(task, Path(folder))
        for entry in range(entries):
            quality = generator.uniform(0.5, 1.0)
            for seed in range(_SEEDS):
                write_result(root, row, sums, entry, seed, quality, generator)
    return entries * len(names) * _SEEDS


def write_result(
    root: Path, row: dict[str, Any], sums: dict[str, Any], entry: int, seed: int, quality: float, generator: Any
) -> None:
    """One result: the first entry of a board is called zero-shot, the second oppu."""
    made = copy.deepcopy(row)
    method = ("zero-shot", "oppu")[entry] if entry < 2 else f"method-{entry}"
    backbone = {"id": "made-up", "revision": "r", "dtype": "float32", "device": "cpu"}
    made["identity"] |= {"method": method, "seed": seed, "backbone": backbone, "decoding": {"mode": "greedy"}}
    made["run_id"] = run_id(made["identity"])
    folder = root / result_path(convert(made, Row))
    folder.mkdir(parents=True)
    (folder / "row.json").write_text(json.dumps(made))
    own = {
        key: [[value * quality * generator.uniform(0.8, 1.2) for value in user[:-1]] + user[-1:] for user in users]
        for key, users in sums["sums"].items()
    }
    (folder / "user_sums.json").write_text(json.dumps({"users": sums["users"], "sums": own}))


def measured(part: Callable[[], _T]) -> tuple[_T, dict[str, float]]:
    """What a part gives, and its seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    made = part()
    return made, {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - processor}


def run(root: Path) -> dict[str, Any]:
    """Seconds of every part."""
    results, reading = measured(lambda: read_results(root))
    made, statistics = measured(lambda: boards(results))
    files, writing = measured(lambda: write_boards(made, root))
    return {
        "entries": sum(len(board.entries) for board in made),
        "boards": len(made),
        "files": len(files),
        "reading": reading,
        "statistics": statistics,
        "writing": writing,
        "together": {key: reading[key] + statistics[key] + writing[key] for key in reading},
    }


def main() -> None:
    """Write, read, build; print seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lampbench-boards-") as folder:
        rows = write_results(Path(folder), options.rows)
        found = run(Path(folder))
    if options.out:
        about = {"lampbench": lampbench.__version__, "rows": rows, "environment": environment("cpu")}
        options.out.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    print(f"{rows:,} rows, {found['entries']:,} entries, {found['boards']} boards, {found['files']} files")
    for part in ("reading", "statistics", "writing", "together"):
        print(f"{part}: {found[part]['seconds']:.1f} s, of the processor {found[part]['cpu_seconds']:.1f} s")


if __name__ == "__main__":
    main()
