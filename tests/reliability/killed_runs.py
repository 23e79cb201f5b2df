"""Runs a run again and again, killing it; a program of its own, so that forked runs begin with torch imported.

Prints JSON: for every kill the phase that it hit and how; for every run that came to its end, its files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lampbench_methods.perfit import PerFit
from runs import plan
from support import Silence

from lampbench import adapters
from lampbench.adapters import Snapshots
from lampbench.runner import LocalExecutor, RunFolder, Worker

OVERRIDES = {"perfit": {"learning_rate": 3e-2, "shared_epochs": 10, "user_epochs": 10}, "pag": {}}
FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "shutil.rmtree"}


def tell_phases(path: Path) -> None:
    """From now on the phase that a worker is in is written where its parent can read it."""

    def tell(worker: Worker, name: str, value: Any) -> None:
        object.__setattr__(worker, name, value)
        if name == "phase":
            path.write_text(value)

    Worker.__setattr__ = tell  # type: ignore[method-assign, assignment]


def worker(method: str, out: Path, phases: Path) -> Callable[[Path], None]:
    """One session of the run in a folder; data and model are read here, once."""
    # Threads do not survive a fork.
    torch.set_num_threads(1)
    # As many stages to be killed in as there can be: a user a shard, few answers a write, a snapshot a step.
    PerFit.users_at_once = 1
    Worker.batches_per_chunk = 1
    tell_phases(phases)
    adapters.Snapshots = partial(Snapshots, seconds=0.0)  # type: ignore[misc, assignment]
    made = plan(out, method, overrides=OVERRIDES[method], batch_size=2)
    session = LocalExecutor(Silence())
    session.run(dataclasses.replace(made, folder=out / "first"))

    def work(folder: Path) -> None:
        session.run(dataclasses.replace(made, folder=folder))

    return work


def forked(task: Callable[[], None]) -> int:
    """The process id of a child that does ``task``."""
    child = os.fork()
    if child == 0:
        try:
            task()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def die_at_file_operation(number: int, folder: Path) -> list[int]:
    """Kill this process just before its ``number``-th operation on files of ``folder``; the count so far is given."""
    count = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and arguments and str(folder) in str(arguments[0]):
            count[0] += 1
            if count[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def session(work: Callable[[Path], None], folder: Path, number: int) -> None:
    """Work until the end, or the ``number``-th file operation (0: none)."""
    die_at_file_operation(number, folder)
    work(folder)


def count_operations(work: Callable[[Path], None], folder: Path) -> int:
    """File operations of an undisturbed session, which runs in a child as all others do."""

    def counted() -> None:
        count = die_at_file_operation(0, folder)
        work(folder)
        (folder / "operations").write_text(str(count[0]))

    os.waitpid(forked(counted), 0)
    return int((folder / "operations").read_text())


def tear(path: Path, draw: random.Random) -> None:
    """Cut the last line of a file as a torn write would."""
    raw = path.read_bytes() if path.exists() else b""
    last = raw[:-1].rfind(b"\n") + 1
    if len(raw) > last:
        path.write_bytes(raw[: draw.randrange(last, len(raw))])


def result(folder: Path) -> dict[str, Any]:
    """What must be the same whatever happened on the way."""
    row = json.loads((folder / "row.json").read_text())
    assert row["status"] == "success", (row["error"], (folder / "run.log").read_text())
    events = RunFolder(folder).journal()
    answers = [json.loads(line)["id"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
    files = ("predictions.json", "user_sums.json")
    return {
        "status": row["status"],
        "metrics": row["metrics"],
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files},
        "answered": sorted(answers),
        "adapted": sorted(user for event in events if event["event"] == "adapt" for user in event["users"]),
        "failed_checks": [name for name, check in row["checks"].items() if check["passed"] is False],
    }


def main(out: Path, method: str, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    phases, whole = out / "phase", out / "whole"
    work = worker(method, out, phases)
    start = time.monotonic()
    operations = count_operations(work, whole)
    seconds = time.monotonic() - start
    hit: list[list[str]] = []
    ended: list[dict[str, Any]] = []
    while len(hit) < kills or not ended:
        folder = out / f"broken{len(ended)}"
        how = draw.choice(["time", "file operation", "file operation", "torn line"])
        phases.write_text("start")
        number = draw.randrange(1, operations) if how == "file operation" and len(hit) < kills else 0
        child = forked(partial(session, work, folder, number))
        if not number and len(hit) < kills:
            time.sleep(draw.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            hit.append([how, phases.read_text()])
            if how == "torn line":
                for path in folder.rglob("*.jsonl"):
                    tear(path, draw)
            continue
        assert os.WEXITSTATUS(status) == 0, (how, hit)
        ended.append(result(folder))
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps({"undisturbed": result(whole), "kills": hit, "ended": ended}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
