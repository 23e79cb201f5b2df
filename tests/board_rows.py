"""Made-up results: real rows of a method without a model, with other names, answers and costs."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lampbench.core import Task, tasks
from lampbench.data.mini.protocol import MiniProtocol
from lampbench.metrics import additive, invalid_outputs, official_values, score_sums, sums_to_json
from lampbench.rows import run_id
from lampbench.runner import LocalExecutor, Plan, Planner, Settings


class _Silence:
    def phase(self, name: str, total: int) -> Any:
        from contextlib import nullcontext

        return nullcontext(self)

    def runs(self, total: int) -> Any:
        return self.phase("", total)

    def move(self, done: float, where: object) -> None: ...

    def say(self, text: str) -> None: ...


@cache
def majority_row(task: str) -> str:
    """The row of ``majority`` on mini, as JSON."""
    with TemporaryDirectory() as folder:
        planner = Planner(Settings(out=Path(folder)))
        plan = planner.plan("majority", task, {})
        assert isinstance(plan, Plan)
        LocalExecutor(_Silence()).run(plan)
        return (plan.folder / "row.json").read_text()


@cache
def mini_data(task: str) -> Any:
    """mini's data of a task."""
    return MiniProtocol().load(tasks().load(task), None)


def answers(task: str, quality: float, seed: int = 0) -> list[str]:
    """One output a query: the gold for this share of queries, else something valid and wrong."""
    data, the_task = mini_data(task), tasks().load(task)
    wrong = (the_task.labels or ("nothing alike",))[0]
    outputs = []
    for query in data.queries:
        draw = int(hashlib.sha256(f"{query.id} {seed}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
        outputs.append(data.golds[query.id] if draw < quality else wrong)
    return outputs


BACKBONE = {"id": "made-up", "revision": "r", "dtype": "float32", "device": "cpu"}


def made_row(
    task: str, method: str, outputs: Sequence[str], change: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """A row whose numbers follow from ``outputs``; ``change`` edits identity and costs before the id is taken."""
    row: dict[str, Any] = json.loads(majority_row(task))
    identity = row["identity"] | {"method": method}
    if method != "majority":
        identity |= {"backbone": dict(BACKBONE), "decoding": {"mode": "greedy", "max_new_tokens": 8}, "config": {}}
    row = copy.deepcopy(row) | {"identity": identity}
    if change:
        change(row)
    the_task: Task = tasks().load(task)
    queries = mini_data(task).queries
    golds = [mini_data(task).golds[query.id] for query in queries]
    users = [query.user_id for query in queries]
    sums = additive(the_task, outputs, golds, users)
    official = official_values(the_task, outputs, golds)
    row["metrics"] = metrics_json(score_sums(the_task, sums, len(queries), official=official))
    row["data"]["invalid_outputs"] = invalid_outputs(the_task, outputs)
    row["run_id"] = run_id(row["identity"])
    return row


def metrics_json(scores: Mapping[str, Any]) -> dict[str, Any]:
    def estimate(own: Any) -> dict[str, Any]:
        return {"value": own.value, "ci95": own.ci95 and list(own.ci95), "stderr": own.stderr}

    return {
        key: {
            **estimate(own.micro),
            "n": own.n,
            "n_users": own.n_users,
            "macro": own.macro and estimate(own.macro),
            "higher_is_better": own.higher_is_better,
            "primary": own.primary,
            **({} if own.official is None else {"official": str(own.official)}),
        }
        for key, own in scores.items()
    }


def write_run(folder: Path, row: dict[str, Any], outputs: Sequence[str]) -> Path:
    """A run folder of a made-up row, as the runner leaves one."""
    task = row["identity"]["task"]
    folder = folder / row["identity"]["protocol"] / task / row["identity"]["method"] / row["run_id"]
    folder.mkdir(parents=True)
    queries = mini_data(task).queries
    users = [query.user_id for query in queries]
    golds = [mini_data(task).golds[query.id] for query in queries]
    lines = [{"id": q.id, "user": q.user_id, "output": o} for q, o in zip(queries, outputs, strict=True)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sums = sums_to_json(users, additive(tasks().load(task), outputs, golds, users))
    (folder / "user_sums.json").write_text(json.dumps(sums))
    names = ("predictions.jsonl", "user_sums.json")
    row["artifacts"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "row.json").write_text(json.dumps(row))
    return folder


def made_run(
    folder: Path,
    task: str,
    method: str,
    quality: float,
    seed: int = 0,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """The run folder of a method that answers this share of queries with the gold."""
    outputs = answers(task, quality, seed)

    def with_seed(row: dict[str, Any]) -> None:
        row["identity"]["seed"] = seed
        if change:
            change(row)

    return write_run(folder, made_row(task, method, outputs, with_seed), outputs)
