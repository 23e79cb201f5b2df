"""Workers on Ray against one process: efficiency on the mini suite, and what the executor adds to a shard.

    python benchmarks/scale.py                                 # all six tasks, PerFit and zero-shot; ten minutes
    python benchmarks/scale.py --task lamp5 --workers 1,2
    python benchmarks/scale.py --out benchmarks/results/scale-cpu.json

Every worker, and the one process, has one thread. Seconds are those of the command's queue by the clock: Ray is up
and every worker has imported torch; loading the backbone, the shared stages and scoring are in it. Efficiency at n
workers is seconds of one process / (n x seconds of n workers). Overhead is measured on a method that does next to
nothing, a user a shard: seconds on one worker less those that the worker itself counts, a shard.

Beside each measurement is what `scale_plan.py` predicts from the units of the one-worker run: the check of the model
behind the plan for larger clusters in docs/scale.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from lampbench_methods.majority import Majority
from scale_plan import scheduled

import lampbench
from lampbench.core import tasks
from lampbench.runner import Executor, LocalExecutor, Plan, Planner, RunFolder, Settings, environment
from lampbench.runner.scale import ClusterSettings, RayExecutor


class EachAlone(Majority):
    """Next to no work, and a shard a user."""

    users_at_once = 1


class Quiet:
    """Tells of nothing, and when the queue began."""

    began = 0.0

    def phase(self, name: str, total: int) -> Any:
        """Workers are ready when their one bar begins."""
        self.began = self.began or time.perf_counter()
        return nullcontext(self)

    def runs(self, total: int) -> Any:
        """Nothing of the whole command, either."""
        return nullcontext(self)

    def move(self, done: float, where: object) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""


def plans(planner: Planner, names: Sequence[str], chosen: Sequence[str]) -> list[Plan]:
    """The runs."""
    made = [planner.plan(method, task, {}) for task in names for method in chosen]
    return [plan for plan in made if isinstance(plan, Plan)]


def timed(made: Sequence[Plan], planner: Planner, workers: int) -> float:
    """Seconds of the runs on so many workers; 0: in this process."""
    quiet = Quiet()
    executor: Executor = RayExecutor(quiet, ClusterSettings(workers=workers)) if workers else LocalExecutor(quiet)
    rows = executor.run_all(made)
    ended = time.perf_counter()
    assert all(row.status == "success" for row in rows), [row.error for row in rows]
    return ended - quiet.began


def units(made: Sequence[Plan]) -> list[tuple[float, list[float]]]:
    """Of every run: seconds of its shared stage, and of its shards in the order in which they were done."""
    found = []
    for plan in made:
        stage, shard, shards = 0.0, 0.0, []
        for event in RunFolder(plan.folder).journal():
            if event["event"] == "fit_shared":
                stage += event["seconds"]
            elif event["event"] in ("adapt", "predict", "check"):
                shard += event["seconds"]
            elif event["event"] == "shard":
                shards.append(shard)
                shard = 0.0
        found.append((stage, shards))
    return found


def same(first: Sequence[Plan], second: Sequence[Plan]) -> bool:
    """Whether two executors gave the same bytes."""
    pairs = zip(first, second, strict=True)
    return all(
        (a.folder / "predictions.jsonl").read_bytes() == (b.folder / "predictions.jsonl").read_bytes() for a, b in pairs
    )


def efficiency(folder: Path, names: Sequence[str], chosen: Sequence[str], counts: Sequence[int]) -> dict[str, Any]:
    """Seconds of one process and of every number of workers."""
    one = Planner(Settings(out=folder / "one"))
    reference = plans(one, names, chosen)
    found: dict[str, Any] = {"one_process": timed(reference, one, 0), "workers": {}}
    print(f"one process: {found['one_process']:.1f} s", flush=True)
    known: list[tuple[float, list[float]]] = []
    for count in counts:
        planner = Planner(Settings(out=folder / str(count)))
        made = plans(planner, names, chosen)
        seconds = timed(made, planner, count)
        ratio = found["one_process"] / (count * seconds)
        if count == 1:
            known = units(made)
        expected, equal = scheduled(known, count) if known else None, same(reference, made)
        found["workers"][count] = {
            "seconds": seconds,
            "predicted": expected and round(expected, 1),
            "efficiency": ratio,
            "same_bytes": equal,
        }
        print(
            f"{count} workers: {seconds:.1f} s (model: {expected or 0:.1f}), efficiency {ratio:.2f}, same: {equal}",
            flush=True,
        )
    return found


def overhead(folder: Path) -> dict[str, Any]:
    """Milliseconds that the executor adds to a shard."""
    planner = Planner(Settings(out=folder / "overhead"))
    plan = planner.plan("majority", "lamp3", {})
    assert isinstance(plan, Plan)
    # The shared stage would be a unit of its own.
    plan = dataclasses.replace(plan, method_type=EachAlone)
    seconds = timed([plan], planner, 1)
    events = RunFolder(plan.folder).journal()
    shards = sum(event["event"] == "shard" for event in events)
    counted = sum(event.get("seconds", 0.0) + event.get("untracked", 0.0) for event in events)
    return {"shards": shards, "milliseconds_per_shard": 1000 * (seconds - counted) / shards}


def main() -> None:
    """Measure; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default=",".join(tasks().names()))
    parser.add_argument("--method", default="perfit,zero-shot")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    counts = [int(count) for count in options.workers.split(",")]
    with tempfile.TemporaryDirectory(prefix="lampbench-scale-") as folder:
        cost = overhead(Path(folder))
        print(f"overhead: {cost['milliseconds_per_shard']:.1f} ms a shard, of {cost['shards']} shards", flush=True)
        found = efficiency(Path(folder), options.task.split(","), options.method.split(","), counts)
    if options.out:
        about = {"lampbench": lampbench.__version__, "environment": environment("cpu"), "task": options.task}
        options.out.write_text(
            json.dumps({**about, "method": options.method, "overhead": cost, **found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
