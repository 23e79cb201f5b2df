"""Is a results folder what it claims? Every fault in a line of its own."""

from __future__ import annotations

import hashlib
import math
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from lampbench.core import (
    KEPT_TASK,
    InputError,
    Method,
    Parameters,
    Task,
    config_from,
    find_kept_task,
    methods,
    tasks,
)
from lampbench.leaderboard._results import PREDICTIONS, ROW, SUMS, read_predictions, read_sums, result_path, unpacked
from lampbench.metrics import Additive, additive, invalid_outputs, official_values, score_sums
from lampbench.rows import Answer, Identity, MetricValue, Row, RowError, one_line, read_row

_TOLERANCE = 1e-9
_DRAWN = ("ci95", "stderr")

# Golds of a row's queries, by id; None if they are not at hand.
Golds = Callable[[Row], Mapping[str, str] | None]
# What the method of an identity trains; None if that cannot be counted here.
Count = Callable[[Identity], Parameters | None]


def validate(root: Path, golds: Golds, count: Count, since: str | None = None) -> Iterator[str]:
    """Every fault of the results below ``root``.

    Args:
        root: The leaderboards' folder, or the folder of one result or of some.
        golds: Gives the golds of a row's queries.
        count: Counts what a row's method trains.
        since: A git revision: results that it has must be there, unchanged.
    """
    rows = sorted(root.rglob(ROW))
    if not rows:
        yield f"{root}: no {ROW} in it"
    seen: dict[str, Path] = {}
    for path in rows:
        for fault in result_faults(path.parent, golds, count):
            yield f"{path.parent}: {fault}"
        name = path.parent.name
        if name in seen:
            yield f"{path.parent}: the run id is also that of {seen[name]}"
        seen[name] = path.parent
    for folder in sorted({p.parent for p in root.rglob(PREDICTIONS)} | {p.parent for p in root.rglob(SUMS)}):
        if not (folder / ROW).exists():
            yield f"{folder}: no {ROW}"
    if since is not None:
        yield from _changed(root, since)


def result_faults(folder: Path, golds: Golds, count: Count) -> Iterator[str]:
    """What is wrong with one result, a line each."""
    yield from map(one_line, _result_faults(folder, golds, count))


def _result_faults(folder: Path, golds: Golds, count: Count) -> Iterator[str]:
    if (folder / "journal.jsonl").exists():
        yield f"the folder of a run, and no result; lampbench leaderboard add {folder} makes a result of it"
        return
    try:
        row = read_row(folder / ROW)
    except RowError as error:
        yield from error.faults
        return
    yield from _place_faults(folder, row)
    task = _known_task(folder, row.identity)
    if isinstance(task, str):
        yield task
        return
    yield from _method_faults(row, count)
    yield from _extra_files(folder)
    yield from _answer_faults(folder, row, task, golds)


def _place_faults(folder: Path, row: Row) -> Iterator[str]:
    expected = result_path(row).parts[1:]
    found = folder.resolve().parts[-len(expected) :]
    if found != expected:
        yield f"lies in {'/'.join(found)}, but its identity belongs into {'/'.join(expected)}"


def _known_task(folder: Path, identity: Identity) -> Task | str:
    try:
        find_kept_task(folder, identity.task)
        task: Task = tasks().load(identity.task)
    except InputError as error:
        return str(error)
    if task.version != identity.task_version:
        return f"task_version {identity.task_version}, this LampBench has {task.version} of {task.name}"
    if task.definition is not None and task.prompt_hash() != identity.prompt_hash:
        return f"{KEPT_TASK}: not the task that the row is about (another prompt_hash)"
    return task


def _method_faults(row: Row, count: Count) -> Iterator[str]:
    identity = row.identity
    try:
        known = methods().load(identity.method)
    except InputError as error:
        yield str(error)
        return
    if known.version != identity.method_version:
        yield f"method_version {identity.method_version}, this LampBench has {known.version} of {identity.method}"
        return
    yield from _joint_faults(identity, known)
    try:
        counted = count(identity)
    except InputError as error:
        yield str(error)
        return
    found = Parameters(row.cost.parameters.shared, row.cost.parameters.per_user)
    if counted is not None and found != counted:
        yield f"cost.parameters: {asdict(found)}, counted again from the config {asdict(counted)}"


def _joint_faults(identity: Identity, method: type[Method]) -> Iterator[str]:
    """Joint training that is not declared, or is and was not done."""
    try:
        joint = method.joint(config_from(method.Config, identity.config, identity.method))
    except InputError:  # what is wrong with the config is found when parameters are counted
        return
    if joint != identity.joint:
        yield f"identity.joint: {identity.joint}, but {identity.method} with this config declares {joint}"


def _extra_files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.name not in (ROW, PREDICTIONS, SUMS, KEPT_TASK):
            yield f"{path.name} does not belong here"


def _answer_faults(folder: Path, row: Row, task: Task, golds: Golds) -> Iterator[str]:
    """Faults of predictions and sums: hashes, counts, and every number that follows from them."""
    try:
        yield from _hash_faults(folder, row.artifacts)
        answers = read_predictions(folder)
        users, sums = read_sums(folder / SUMS, task)
    except InputError as error:
        yield str(error)
        return
    data = row.data
    ids = [answer.id for answer in answers]
    if len(set(ids)) != len(ids):
        yield f"{PREDICTIONS}: a query is answered twice"
    if len(answers) != data.queries:
        yield f"{PREDICTIONS}: {len(answers)} answers, data.queries is {data.queries}"
    if users != list(dict.fromkeys(answer.user for answer in answers)) or len(users) != data.users:
        yield f"{SUMS}: not the users of {PREDICTIONS} in their order, or not data.users"
        return
    invalid = invalid_outputs(task, [answer.output for answer in answers])
    if invalid != data.invalid_outputs:
        yield f"data.invalid_outputs: {data.invalid_outputs}, recomputed {invalid}"
    yield from _metric_faults(row.metrics, task, sums, len(answers))
    try:
        known = golds(row)
    except InputError as error:
        yield str(error)
        return
    if known is not None:
        yield from _gold_faults(row, task, answers, known, sums)


def _gold_faults(
    row: Row,
    task: Task,
    answers: Sequence[Answer],
    golds: Mapping[str, str],
    sums: Mapping[str, Additive],
) -> Iterator[str]:
    """What does not follow from predictions and golds."""
    different = {answer.id for answer in answers} ^ set(golds)
    if different:
        yield f"{PREDICTIONS}: answers and golds are of different queries, one is {min(different)!r}"
        return
    outputs, users = [answer.output for answer in answers], [answer.user for answer in answers]
    fresh = additive(task, outputs, [golds[answer.id] for answer in answers], users)
    official = {
        key: str(own) for key, own in official_values(task, outputs, [golds[own.id] for own in answers]).items()
    }
    stated = {key: own.official for key, own in row.metrics.items() if own.official is not UNSET}
    if stated != official:
        yield f"metrics: official values {stated}, recomputed from predictions and golds {official}"
    for key, metric in fresh.items():
        # Both are in the order of the users' first answers.
        if not np.allclose(metric.sums, sums[key].sums, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            yield f"{SUMS}: {key} does not follow from predictions and golds"
    yield from _metric_faults(row.metrics, task, fresh, len(answers), "predictions and golds")


def _hash_faults(folder: Path, artifacts: Mapping[str, str]) -> Iterator[str]:
    try:
        found = {"predictions.jsonl": unpacked(folder / PREDICTIONS), SUMS: (folder / SUMS).read_bytes()}
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from None
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != artifacts[name]:
            yield f"{name}: not the file that the row's artifacts name (another SHA-256)"


def _metric_faults(
    metrics: Mapping[str, MetricValue], task: Task, sums: Mapping[str, Any], queries: int, source: str = SUMS
) -> Iterator[str]:
    """Numbers of the row that do not follow from the sums."""
    expected = score_sums(task, sums, queries)
    if set(metrics) != set(expected):
        yield f"metrics: {', '.join(sorted(metrics))}; {task.name} has {', '.join(sorted(expected))}"
        return
    for key, own in expected.items():
        stated = metrics[key]
        pairs = {
            "value": (stated.value, own.micro.value),
            "stderr": (stated.stderr, own.micro.stderr),
            "ci95": (stated.ci95, own.micro.ci95),
            "macro": (stated.macro and stated.macro.value, own.macro and own.macro.value),
            "n": (stated.n, own.n),
            "n_users": (stated.n_users, own.n_users),
            "higher_is_better": (stated.higher_is_better, own.higher_is_better),
            "primary": (stated.primary, own.primary),
        }
        for name, (found, wanted) in pairs.items():
            # Intervals are drawn: another version of the generator may move them by a little.
            slack = 0.1 * (own.micro.stderr or 0) if name in _DRAWN else _TOLERANCE
            # Rows from before intervals were recorded have none.
            if not _close(found, wanted, slack) and not (found is None and name in _DRAWN):
                yield f"metrics.{key}.{name}: {found}, recomputed from {source} {wanted}"


def _close(found: Any, wanted: Any, slack: float) -> bool:
    if isinstance(found, tuple) and isinstance(wanted, tuple):
        return len(found) == len(wanted) and all(_close(a, b, slack) for a, b in zip(found, wanted, strict=True))
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=_TOLERANCE, abs_tol=slack)
    return bool(found == wanted)


def _changed(root: Path, since: str) -> Iterator[str]:
    """Results of a git revision that are gone or differ now."""
    try:
        top = Path(_git(root, "rev-parse", "--show-toplevel").strip())
        below = root.resolve().relative_to(top.resolve())
        lines = _git(top, "diff", "--name-status", "--no-renames", since, "--", str(below)).splitlines()
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        cause = getattr(error, "stderr", "") or str(error)
        yield f"{root}: cannot be compared with {since}: {cause.strip().splitlines()[0]}"
        return
    for line in lines:
        status, _, name = line.partition("\t")
        if status != "A" and Path(name).name in (ROW, PREDICTIONS, SUMS):
            yield f"{name}: {'removed' if status == 'D' else 'changed'} since {since}; results are only added"


def _git(folder: Path, *arguments: str) -> str:
    command: Sequence[str] = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
