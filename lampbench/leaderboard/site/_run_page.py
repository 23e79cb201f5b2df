"""A run's page: everything its row says, nothing of the data but ids."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import to_builtins

from lampbench.core import Task
from lampbench.data import LEAKS
from lampbench.leaderboard._results import Result
from lampbench.leaderboard.site import _numbers as numbers
from lampbench.leaderboard.site._board_page import RunLink
from lampbench.leaderboard.site._columns import direction
from lampbench.leaderboard.site._numbers import ABSENT
from lampbench.leaderboard.site._places import RunPlace, method_path, run_path
from lampbench.leaderboard.site._sheets import Fact, Sheet, facts, pairs, text_of
from lampbench.rows import Check, Cost, Interval, LeakCount, Row

_LOWEST = 10


@dataclass(frozen=True)
class RunView:
    """What a run's page shows.

    Attributes:
        seeds: Runs of the same entry, this one among them.
        failed: Names of failed checks.
    """

    place: RunPlace
    method: str
    method_path: str
    seed: str
    label: str | None
    facts: tuple[Fact, ...]
    seeds: tuple[RunLink, ...]
    failed: tuple[str, ...]
    command: str
    notes: tuple[str, ...]
    metrics: Sheet
    sheets: tuple[Sheet, ...]


def run_view(place: RunPlace) -> RunView:
    """The page of a run."""
    result, listing = place.result, place.listings[0]
    row, identity = result.row, result.identity
    return RunView(
        place=place,
        method=identity.method,
        method_path=method_path(identity.method),
        seed=str(identity.seed),
        label=row.data.label,
        facts=_facts(row),
        seeds=tuple(RunLink(str(own.identity.seed), run_path(own)) for own in listing.entry.results),
        failed=tuple(row.failed_checks),
        command=shlex.join(row.provenance.argv),
        notes=row.data.notes,
        metrics=_metrics(row, listing.place.board.task),
        sheets=tuple(sheet for sheet in _sheets(result, listing.place.board.task) if sheet.rows),
    )


def _facts(row: Row) -> tuple[Fact, ...]:
    identity, made = row.identity, row.provenance
    commit = f"{made.commit}{' (with local changes)' if made.dirty else ''}" if made.commit else None
    backbone = identity.backbone
    return facts(
        [
            ("method", f"{identity.method}, version {identity.method_version}"),
            ("task", f"{identity.task}, version {identity.task_version}"),
            ("protocol", identity.protocol),
            ("seed", identity.seed),
            ("backbone", f"{backbone.id}, {backbone.dtype}" if backbone else None),
            ("revision", backbone and backbone.revision),
            ("decoding", _settings(identity.decoding)),
            ("engine", identity.engine),
            ("hardware", row.environment.hardware_class),
            ("LampBench", made.version),
            ("plug-in", f"{made.plugin.distribution}, {made.plugin.entry_point}"),
            ("started", made.started),
            ("finished", made.finished),
            ("resumed", f"{made.resumed} times" if made.resumed else "never"),
            ("commit", commit),
            ("protocol hash", identity.protocol_hash),
        ],
        frozenset({"revision", "commit", "protocol hash", "plug-in"}),
    )


def _settings(values: Mapping[str, Any] | None) -> str | None:
    return ", ".join(f"{name} {text_of(value)}" for name, value in values.items()) if values else None


def _sheets(result: Result, task: Task) -> Iterator[Sheet]:
    row = result.row
    yield Sheet("Settings", ("setting", "value"), pairs(row.identity.config), 2, "As the run used them.")
    yield _phases(row.cost)
    yield _costs(row)
    yield _lowest(result, task)
    yield _checks(row.checks)
    yield _leaks(row.data.leaks)
    environment = {key: value for key, value in to_builtins(row.environment).items() if key != "packages"}
    yield Sheet("Environment", ("", ""), (*pairs(environment), *pairs(row.environment.packages)), 2)
    yield _files("Source files", row.data.source_hashes)
    yield _files("Artifacts", row.artifacts)


def _metrics(row: Row, task: Task) -> Sheet:
    goods = {metric.key: direction(metric) for metric in task.metrics}
    swapped = row.swap or {}
    rows = tuple(
        (
            f"{key}, {goods.get(key, '')}",
            *_estimate(metric),
            *_estimate(metric.macro),
            numbers.score(swapped.get(key)),
            numbers.count(metric.n),
            numbers.count(metric.n_users),
        )
        for key, metric in row.metrics.items()
    )
    headers = ("metric", "score", "95% interval", "over users", "95% interval", "with another's state", "n", "users")
    about = "Over queries, and the mean of users' own scores; intervals from a bootstrap over users."
    return Sheet("Metrics", headers, rows, 1, about)


def _estimate(metric: Interval | None) -> tuple[str, str]:
    if metric is None:
        return ABSENT, ABSENT
    interval = metric.ci95
    return numbers.score(metric.value), f"[{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ABSENT


def _phases(cost: Cost) -> Sheet:
    places = sorted({name for memory in cost.memory.values() for name in memory})
    seconds = cost.seconds.by_phase
    rows = tuple(
        (
            name.replace("_", " "),
            numbers.seconds(value),
            *(_megabytes(cost.memory.get(name, {}).get(place)) for place in places),
        )
        for name, value in seconds.items()
    )
    return Sheet("Cost by phase", ("phase", "seconds", *(f"peak {place} MB" for place in places)), rows)


def _costs(row: Row) -> Sheet:
    cost, data = row.cost, row.data
    spread, tokens = to_builtins(cost.seconds_per_user) or {}, to_builtins(cost.tokens)
    values = [
        ("trainable parameters, shared", numbers.count(cost.parameters.shared)),
        ("trainable parameters a user", numbers.count(cost.parameters.per_user)),
        ("bytes on disk, shared", numbers.count(cost.bytes.shared)),
        ("bytes on disk a user", numbers.count(cost.bytes.per_user)),
        *([("seconds by the clock", numbers.seconds(cost.elapsed))] if cost.elapsed is not None else []),
        *((f"seconds a user, {name}", numbers.seconds(value)) for name, value in spread.items()),
        *((f"tokens, {name.replace('_', ' ')}", numbers.count(value)) for name, value in tokens.items()),
        ("history items", numbers.count(data.history_items)),
        ("shared users", numbers.count(data.shared_users)),
        ("shared queries", numbers.count(data.shared_queries)),
        ("answers that are no valid answer", numbers.count(data.invalid_outputs)),
        ("prompts whose context was cut", numbers.count(data.cut_contexts)),
        ("prompts whose text was cut", numbers.count(data.cut_sources)),
        ("prompts cut while adapting", numbers.count(data.cut_while_adapting)),
    ]
    return Sheet("Size and counts", ("", ""), tuple(values))


def _lowest(result: Result, task: Task) -> Sheet:
    metric, own = task.primary, result.sums[task.primary.key]
    if not own.per_user:
        return Sheet("Users with the lowest own score", (), ())
    values = own.own
    known = [int(i) for i in np.argsort(values if metric.higher_is_better else -values, kind="stable")]
    lowest = [i for i in known if np.isfinite(values[i])][:_LOWEST]
    rows = tuple((result.users[i], numbers.score(float(values[i]))) for i in lowest)
    title = "Users with the lowest own score" if metric.higher_is_better else "Users with the largest own error"
    return Sheet(title, ("user", metric.key), rows, 1, "Ids only; texts stay with the data.")


def _checks(checks: Mapping[str, Check]) -> Sheet:
    words = {True: "passed", False: "failed", None: "not checked"}
    rows = tuple((name, words[check.passed], _details(check)) for name, check in checks.items())
    return Sheet("Checks", ("check", "outcome", "found"), rows, 3)


def _details(check: Check) -> str:
    return "; ".join(f"{name.replace('_', ' ')}: {text_of(value)}" for name, value in check.found.items())


def _leaks(leaks: Mapping[str, LeakCount]) -> Sheet:
    rows = tuple(
        (LEAKS.get(name, name), _found(leak.count), numbers.count(leak.of), ", ".join(leak.examples) or ABSENT)
        for name, leak in leaks.items()
    )
    about = "What could let a score stand for something else than personalization."
    return Sheet("Leak checks", ("what", "found", "of", "first ids"), rows, 1, about)


def _found(count: int | None) -> str:
    return "cannot tell" if count is None else numbers.count(count)


def _files(title: str, hashes: Mapping[str, str]) -> Sheet:
    return Sheet(title, ("file", "SHA-256"), pairs(hashes), 2)


def _megabytes(value: float | None) -> str:
    return numbers.count(None if value is None else value / 1e6)
