"""A search with shared stages that trials take from each other, against the same search without.

    python benchmarks/tune_stages.py --out benchmarks/results/tune-stages-cpu.json
    python benchmarks/tune_stages.py --methods cope --trials 2 --rounds 1     # a quick look

Each method is tuned on held-out shared users of the mini suite (synthetic). Both sides make the same trials, one after
the other, alternating who begins; without the store, every trial has an output folder of its own. What a trial gives
must be the same on both sides. The space of `cope` is how it decodes, so all its trials share one stage; that of
`perfit` changes its first stage almost always. `oppu` is searched over what its users train.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import lampbench
from lampbench.api import ProgressReporter
from lampbench.core import RunContext, write_json
from lampbench.rows import Row, RunRow
from lampbench.runner import LocalExecutor, Plan, Planner, Settings, environment
from lampbench.tune import HeldOut, Search, Space, space_of

HELD_OUT = 0.2
# A space that is not the method's own.
SPACES = {"oppu": Space({"user_epochs": (1, 2, 4), "user_targets": (("q_proj", "v_proj"), ("v_proj",))})}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="cope,oppu,perfit", help="names, comma-separated")
    parser.add_argument("--task", default="lamp5")
    parser.add_argument("--trials", type=int, default=5, help="the preset is the first")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is measured")
    parser.add_argument("--users", type=int, help="held-out users; default: all")
    parser.add_argument("--out", type=Path, help="a JSON file")
    given = parser.parse_args()
    setting = {name: getattr(given, name) for name in ("task", "trials", "rounds", "users")}
    about = {"lampbench": lampbench.__version__, "data": "mini (synthetic)", "environment": environment("cpu")}
    found = {}
    for method in given.methods.split(","):
        found[method] = measured(method, given)
        print(method, {name: found[method][name] for name in ("trained", "median", "without_per_with")}, flush=True)
        if given.out:
            write_json(given.out, {**about, **setting, "held_out": HELD_OUT, "methods": found})


def measured(method: str, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a search on either side, and how many shared stages each trained."""
    search = search_of(method, given.task, given.users)
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    trained: dict[str, int] = {}
    metrics: dict[str, Any] = {}
    for number in range(given.rounds):
        for side in ("with", "without") if number % 2 else ("without", "with"):
            with tempfile.TemporaryDirectory() as folder:
                taken, trained[side], metrics[side] = searched(search, given.trials, Path(folder), side == "with")
            seconds[side].append(taken)
            print(f"  {method}, {side} the store: {taken:.1f} s", flush=True)
        if metrics["with"] != metrics["without"]:
            raise SystemExit(f"{method}: trials differ: {metrics}")
    middle = {side: median(values) for side, values in seconds.items()}
    return {
        "space": search.space.candidates,
        "seconds": seconds,
        "trained": trained,
        "median": middle,
        "without_per_with": median(
            without / own for own, without in zip(seconds["with"], seconds["without"], strict=True)
        ),
    }


def search_of(method: str, task: str, users: int | None) -> Search:
    """The search that ``lampbench tune METHOD`` makes."""
    held_out = HeldOut("mini", HELD_OUT, 0)
    planner = Planner(Settings(protocol=held_out.name, device="cpu", users=users), protocol=held_out)
    preset = planner.plan(method, task, {})
    if not isinstance(preset, Plan) or preset.backbone is None:
        raise SystemExit(f"{method} cannot be tuned on {task}")
    context = RunContext(held_out.origin, preset.backbone.shape)
    return Search(
        planner, preset, SPACES.get(method) or space_of(method, preset.method_type, preset.task, context, ()), {}
    )


def searched(search: Search, trials: int, out: Path, store: bool) -> tuple[float, int, Sequence[Any]]:
    """Seconds of the trials, how many of them trained a shared stage, and their metrics."""
    executor = LocalExecutor(ProgressReporter(quiet=True))
    rows: list[RunRow] = []

    def run(plan: Plan) -> RunRow:
        place = out if store else out / plan.run_id
        plan = replace(plan, settings=replace(plan.settings, out=place), folder=place / "runs" / plan.run_id)
        rows.append(executor.run(plan))
        return rows[-1]

    start = time.perf_counter()
    made = list(islice(search.trials(run, lambda text: None), trials))
    seconds = time.perf_counter() - start
    done = [row for row in rows if isinstance(row, Row)]
    return seconds, sum(row.cost.taken is None for row in done), [trial.metric for trial in made]


if __name__ == "__main__":
    main()
