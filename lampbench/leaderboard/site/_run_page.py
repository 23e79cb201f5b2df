"""A run's page: everything its row says; of the data ids alone, and of mini a few texts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from lampbench.core import Task
from lampbench.data import LEAKS
from lampbench.leaderboard._cells import ABSENT, count, interval, megabytes, score, seconds, share
from lampbench.leaderboard._columns import good_end
from lampbench.leaderboard._results import Result, code_remark
from lampbench.leaderboard.site._places import Fact, RunPlace, Sheet, facts, pairs, text_of
from lampbench.leaderboard.site._samples import Samples
from lampbench.metrics import Estimate
from lampbench.rows import JOINT, Cost, Interval, Lengths, Row

_LOWEST = 10
_OUTCOMES = {True: "passed", False: "failed", None: "not checked"}


def run_page(run: RunPlace, samples: Samples) -> dict[str, Any]:
    """What the template of a run's page shows."""
    result, first = run.result, run.listings[0]
    row, task = result.row, first.place.board.task
    return {
        "run": run,
        "row": row,
        "first": first,
        "facts": _facts(row),
        "provenance": _provenance(row),
        "remark": code_remark(row),
        "failed": row.failed_checks,
        "joint": JOINT if row.identity.joint else "",
        "command": shlex.join(row.provenance.argv),
        "metrics": _metrics(row, task),
        "samples": samples(result),
        "primary": task.primary.key,
        "sheets": [sheet for sheet in _sheets(result, task) if sheet.rows],
    }


def _facts(row: Row) -> tuple[Fact, ...]:
    identity, backbone = row.identity, row.identity.backbone
    values = {
        "method": f"{identity.method}, version {identity.method_version}",
        "task": f"{identity.task}, version {identity.task_version}",
        "protocol": identity.protocol,
        "seed": identity.seed,
        "backbone": backbone and f"{backbone.id}, {backbone.precision}",
        "decoding": ", ".join(f"{name} {text_of(value)}" for name, value in (identity.decoding or {}).items()) or None,
        "engine": identity.engine,
        "joint training": "yes" if identity.joint else "no",
        "hardware": row.environment.hardware_class,
        "LampBench": row.provenance.version,
        "finished": str(row.provenance.finished)[:10],
    }
    return facts(values)


def _provenance(row: Row) -> tuple[Fact, ...]:
    """Where exactly the run comes from, hashes among it."""
    identity, made = row.identity, row.provenance
    values = {
        "plug-in": f"{made.plugin.distribution}, {made.plugin.entry_point}",
        "started": made.started,
        "finished": made.finished,
        "resumed": f"{made.resumed} times" if made.resumed else "never",
        "commit": made.commit,
        "revision": identity.backbone and identity.backbone.revision,
        "protocol hash": identity.protocol_hash,
        "prompt hash": identity.prompt_hash,
    }
    return facts(values, code=("revision", "commit", "protocol hash", "prompt hash", "plug-in"))


def _sheets(result: Result, task: Task) -> Iterator[Sheet]:
    row = result.row
    yield Sheet("Settings", ("setting", "value"), pairs(row.identity.config), 2, "As the run used them.")
    yield _phases(row.cost)
    yield _costs(row)
    yield _lowest(result, task)
    yield _checks(row)
    yield _leaks(row)
    environment = msgspec.to_builtins(row.environment)
    packages = environment.pop("packages")
    yield Sheet("Environment", ("", ""), (*pairs(environment), *pairs(packages)), 2)
    yield Sheet("Source files", ("file", "SHA-256"), pairs(row.data.source_hashes), 2)
    yield Sheet("Artifacts", ("file", "SHA-256"), pairs(row.artifacts), 2)


def _metrics(row: Row, task: Task) -> Sheet:
    goods = {metric.key: good_end(metric) for metric in task.metrics}
    rows = tuple(
        (
            f"{key}, {goods.get(key, '')}",
            *_estimate(metric),
            *_estimate(metric.macro),
            score((row.swap or {}).get(key)),
            count(metric.n),
            count(metric.n_users),
        )
        for key, metric in row.metrics.items()
    )
    headers = ("metric", "score", "95% interval", "over users", "95% interval", "with another's state", "n", "users")
    about = "Over queries, and the mean of users' own scores; intervals from a bootstrap over users."
    return Sheet("Metrics", headers, rows, 1, about)


def _estimate(own: Interval | None) -> tuple[str, str]:
    known = Estimate(own.value, own.ci95, own.stderr) if own else Estimate(None)
    return score(known.value), interval(known) or ABSENT


def _phases(cost: Cost) -> Sheet:
    places = sorted({name for memory in cost.memory.values() for name in memory})
    rows = tuple(
        (
            name.replace("_", " "),
            seconds(value),
            *(megabytes(cost.memory.get(name, {}).get(place)) for place in places),
        )
        for name, value in cost.seconds.by_phase.items()
    )
    return Sheet("Cost by phase", ("phase", "seconds", *(f"peak {place} MB" for place in places)), rows)


def _costs(row: Row) -> Sheet:
    cost, data = row.cost, row.data
    spread = msgspec.to_builtins(cost.seconds_per_user) or {}
    tokens = msgspec.to_builtins(cost.tokens)
    rows = (
        ("trainable parameters, shared", count(cost.parameters.shared)),
        ("trainable parameters per user", count(cost.parameters.per_user)),
        ("bytes on disk, shared", count(cost.bytes.shared)),
        ("bytes on disk per user", count(cost.bytes.per_user)),
        *([] if cost.taken is None else [("shared stage trained, and measured, by run", cost.taken.run_id)]),
        *([] if cost.elapsed is None else [("seconds by the clock", seconds(cost.elapsed))]),
        *((f"seconds per user, {name}", seconds(value)) for name, value in spread.items()),
        *((f"tokens, {name.replace('_', ' ')}", count(value)) for name, value in tokens.items()),
        ("history items", count(data.history_items)),
        ("shared users", count(data.shared_users)),
        ("shared queries", count(data.shared_queries)),
        ("answers that are not valid", count(data.invalid_outputs)),
        ("prompts whose context was cut", count(data.cut_contexts)),
        ("prompts whose text was cut", count(data.cut_sources)),
        ("prompts cut while adapting", count(data.cut_while_adapting)),
        *_lengths(row.data.lengths),
    )
    return Sheet("Size and counts", ("", ""), rows)


def _lengths(own: Lengths | None) -> tuple[tuple[str, str], ...]:
    if own is None:
        return ()
    return (
        ("tokens of a prompt, mean", count(own.prompt_mean)),
        ("tokens of the longest prompt", count(own.prompt_longest)),
        ("tokens of an answer, mean", count(own.answer_mean)),
        ("answers that ended at the token limit", share(own.at_limit)),
        ("tokens of a thought, mean", count(own.thought_mean)),
        ("thoughts that did not end", count(own.unfinished_thoughts)),
    )


def _lowest(result: Result, task: Task) -> Sheet:
    metric, own = task.primary, result.sums[task.primary.key]
    title = "Users with the lowest own score" if metric.higher_is_better else "Users with the largest own error"
    if not own.per_user:
        return Sheet(title, (), ())
    values = own.own
    known = [int(i) for i in np.argsort(values if metric.higher_is_better else -values, kind="stable")]
    lowest = [i for i in known if np.isfinite(values[i])][:_LOWEST]
    rows = tuple((result.users[i], score(float(values[i]))) for i in lowest)
    return Sheet(title, ("user", metric.key), rows, 1, "Ids only; texts stay with the data.")


def _checks(row: Row) -> Sheet:
    rows = tuple(
        (
            name,
            _OUTCOMES[check.passed],
            "; ".join(f"{key.replace('_', ' ')}: {text_of(value)}" for key, value in check.found.items()),
        )
        for name, check in row.checks.items()
    )
    return Sheet("Checks", ("check", "outcome", "found"), rows, 3)


def _leaks(row: Row) -> Sheet:
    rows = tuple(
        (
            LEAKS.get(name, name),
            ", ".join(leak.examples) or ABSENT,
            "cannot tell" if leak.count is None else count(leak.count),
            count(leak.of),
        )
        for name, leak in row.data.leaks.items()
    )
    about = "What could let a score stand for something else than personalization."
    return Sheet("Leak checks", ("what", "first ids", "found", "of"), rows, 2, about)
