"""From results to boards: who may share a ranking, seeds pooled, honest ties."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean

import msgspec

from lampbench.core import Metric, Task, canonical_json, tasks
from lampbench.leaderboard._added import AddedScore
from lampbench.leaderboard._compare import Moved, check_comparable, moved, user_changes
from lampbench.leaderboard._costs import mean, reduction, share, time_reduction, user_seconds
from lampbench.leaderboard._names import Name, names
from lampbench.leaderboard._reference import Reference, reference
from lampbench.leaderboard._results import Result, no_collection
from lampbench.metrics import Difference, Estimate, Means, holm, rank_groups
from lampbench.rows import JOINT

# A board resamples for every entry; runs themselves record 10,000.
RESAMPLES = 2000
# The model without history, as it comes and with the task's LoRA: what methods gain over; and what they save against.
RAW, ADAPTED = "zero-shot", "lora"
_SAVING = "oppu"


@dataclass(frozen=True)
class Gain:
    """What an entry gains over a baseline.

    Attributes:
        differences: Metric -> the difference.
        p: Of the primary metric, adjusted by Holm over the board.
        moved: Users helped and hurt.
        swapped: The share of the gain that is left when users have another user's state; None if
            that was not tried (--swap-test) or there is no gain.
    """

    differences: Mapping[str, Difference]
    p: float
    moved: Moved
    swapped: float | None


@dataclass(frozen=True)
class Entry:
    """One method with one config on one board: all its seeds.

    Attributes:
        name: The method, with the settings that tell it from others of the same method on the board.
        results: One per seed.
        scores: Metric -> over queries, and over users, the mean over seeds.
        rank: Of its rank group: what cannot be told apart from the group's best shares its rank. None for
            what is not ranked.
        unranked: Why it is not ranked.
        gains: Baseline -> what is gained over it; nothing for a baseline that the board does not have, or is.
        invalid: The share of answers that are not valid for the task, the mean over seeds.
        seconds_per_user, shared_seconds, query_ms, query_tokens, peak_bytes: Costs, the mean over seeds.
        parameter_reduction, time_reduction: Against OPPU: 1 - this / that, of the parameters per user, and
            of the seconds to adapt to a user and to answer that user's queries, on the same hardware.
    """

    name: str
    results: tuple[Result, ...]
    scores: Mapping[str, tuple[Estimate, Estimate | None]]
    rank: int | None
    unranked: str | None
    gains: Mapping[str, Gain]
    invalid: float | None
    shared_parameters: int
    user_parameters: int
    user_bytes: int | None
    seconds_per_user: float | None
    shared_seconds: float | None
    query_ms: float | None
    query_tokens: float | None
    peak_bytes: int | None
    parameter_reduction: float | None
    time_reduction: float | None

    @property
    def method(self) -> str:
        """The method's name."""
        return self.results[0].identity.method

    @property
    def gain(self) -> Gain | None:
        """What is gained over zero-shot; None if the board has none, and for zero-shot itself."""
        return self.gains.get(RAW)

    @property
    def joint(self) -> bool:
        """Whether the shared stage read the histories of all evaluated users."""
        return self.results[0].identity.joint

    @property
    def standing(self) -> str:
        """The rank, or the mark of what has none."""
        if self.rank is not None:
            return str(self.rank)
        return "joint" if self.unranked == JOINT else "not ranked"

    @property
    def averaged(self) -> int:
        """How many runs are averaged: one if every seed gave the same answers."""
        answers = {result.row.artifacts["predictions.jsonl"] for result in self.results}
        return 1 if len(answers) == 1 else len(self.results)

    def length(self, name: str) -> float | None:
        """A field of ``Lengths``, the mean over seeds; None if a run did not measure it."""
        lengths = [result.row.data.lengths for result in self.results]
        return mean(None if own is None else getattr(own, name) for own in lengths)

    def cut(self, name: str) -> float | None:
        """The share of prompts that were cut: ``cut_contexts`` or ``cut_sources``, the mean over seeds."""
        return mean(share(getattr(result.row.data, name), result.row.data.queries) for result in self.results)

    def added(self, key: str) -> AddedScore | None:
        """A metric that rescoring added: the mean over seeds, with an interval if there is one run; None if absent."""
        own = [result.added.get(key) for result in self.results]
        scores = [score for score in own if score is not None and not score.skipped]
        if len(scores) < len(own):
            return None
        if self.averaged == 1:
            return scores[0]
        value, macro = (mean(getattr(score, name) for score in scores) for name in ("value", "macro"))
        return msgspec.structs.replace(scores[0], value=value, macro=macro, ci95=None)

    @property
    def hardware(self) -> str:
        """Where it ran; several classes are joined."""
        return ", ".join(sorted({result.row.environment.hardware_class for result in self.results}))


@dataclass(frozen=True)
class Board:
    """Entries that may be ranked together: one task version, protocol hash, backbone and decoding.

    Attributes:
        base: A result whose identity has what all entries share; with a backbone if any entry has one.
        protocol: As written on the command line.
        backbone: Its id; None if no entry uses one.
        label: What the data calls itself, such as "mini (synthetic)".
        baselines: What gains are over: zero-shot, and the task's LoRA alone.
        saving: What parameters and seconds are saved against.
        entries: Ranked ones first, then joint ones; each group with the best first.
    """

    task: Task
    base: Result
    protocol: str
    protocol_hash: str
    limit: int | None
    backbone: str | None
    decoding: str | None
    label: str | None
    users: int
    queries: int
    baselines: tuple[Reference, ...]
    saving: Reference
    entries: tuple[Entry, ...]

    @property
    def added(self) -> dict[str, AddedScore]:
        """Every metric that rescoring added to one of the runs, with one of its scores."""
        results = (result for entry in self.entries for result in entry.results)
        found = {key: score for own in results for key, score in own.added.items() if not score.skipped}
        return {key: found[key] for key in sorted(found)}

    @property
    def baseline(self) -> Reference:
        """What the gain over zero-shot is over."""
        return self.baselines[0]


@no_collection()
def boards(results: Iterable[Result]) -> list[Board]:
    """Every board, in order of protocol, task, queries, backbone and decoding.

    Raises:
        InputError: Results that claim the same queries are of different users.
    """
    data: dict[tuple[object, ...], list[Result]] = defaultdict(list)
    for result in results:
        own = result.identity
        data[own.task, own.task_version, own.protocol, own.protocol_hash, own.limit, own.prompt_hash].append(result)
    # Nearly all of it is numpy, which computes in every thread at once.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = [board for own in pool.map(_boards_of_data, data.values()) for board in own]
    return sorted(made, key=_place)


def _place(board: Board) -> tuple[str, ...]:
    return board.protocol, board.task.name, board.protocol_hash, board.backbone or "", board.decoding or ""


def _boards_of_data(results: Sequence[Result]) -> list[Board]:
    """Boards on the same queries: one per backbone; methods without a backbone are on each of them."""
    check_comparable(results)
    without = [result for result in results if result.identity.backbone is None]
    groups: dict[tuple[object, ...], list[Result]] = defaultdict(list)
    for result in results:
        own = result.identity.backbone
        if own is not None:
            groups[*own.model, result.identity.decoding_name].append(result)
    return [_board([*without, *own]) for own in groups.values()] or [_board(without)]


def _board(results: Sequence[Result]) -> Board:
    base = next((result for result in results if result.identity.backbone), results[0])
    identity = base.identity
    task: Task = tasks().load(identity.task)
    named = _pools(results, task)
    pools = {str(name): pool for name, pool in named.items()}
    means = {
        m.key: Means([[own.sums[m.key] for own in pool] for pool in pools.values()], resamples=RESAMPLES)
        for m in task.metrics
    }
    unranked = {name: _reason(pool, task.primary) for name, pool in pools.items()}
    ranked = {name: pool for name, pool in named.items() if unranked[str(name)] is None}
    ranks = _ranks(pools, unranked.values(), means[task.primary.key], task.primary)
    baselines = tuple(reference(method, ranked) for method in (RAW, ADAPTED))
    saving = reference(_SAVING, ranked)
    gains = {own.method: _gains(pools, means, task.primary, own.entry) for own in baselines}
    scores = _scores(pools, means)
    entries = [
        _entry(
            name,
            pool,
            scores[name],
            (ranks.get(name), unranked[name]),
            {over: own[name] for over, own in gains.items() if name in own},
            pools.get(saving.entry or ""),
        )
        for name, pool in pools.items()
    ]
    return Board(
        task=task,
        base=base,
        protocol=identity.protocol,
        protocol_hash=identity.protocol_hash,
        limit=identity.limit,
        backbone=identity.backbone.id if identity.backbone else None,
        decoding=identity.decoding_name,
        label=base.row.data.label,
        users=base.row.data.users,
        queries=base.row.data.queries,
        baselines=baselines,
        saving=saving,
        entries=tuple(sorted(entries, key=lambda entry: _order(entry, task.primary))),
    )


def _pools(results: Sequence[Result], task: Task) -> dict[Name, list[Result]]:
    """Name -> results that differ in the seed alone."""
    pools: dict[str, list[Result]] = defaultdict(list)
    for result in sorted(results, key=lambda result: (result.identity.method, result.row.run_id)):
        pools[canonical_json(result.identity.to_json() | {"seed": None})].append(result)
    own = [sorted(pool, key=lambda result: result.identity.seed) for pool in pools.values()]
    return dict(zip(names(own, task), own, strict=True))


def _reason(pool: Sequence[Result], primary: Metric) -> str | None:
    """Why a pool is not ranked."""
    failed = sorted({name for result in pool for name in result.row.failed_checks})
    if failed:
        return f"failed checks: {', '.join(failed)}"
    if pool[0].identity.joint:
        return JOINT
    without = [str(result.identity.seed) for result in pool if not _has_score(result, primary)]
    seeds = f" (seed {', '.join(without)})" if len(pool) > 1 else ""
    return f"no score: {primary.key} is not a finite number{seeds}" if without else None


def _has_score(result: Result, primary: Metric) -> bool:
    return bool(result.users) and math.isfinite(result.sums[primary.key].micro)


def _ranks(pools: Iterable[str], unranked: Iterable[str | None], means: Means, primary: Metric) -> dict[str, int]:
    """The ranks of what is ranked."""
    names = list(pools)
    sign = -1 if primary.higher_is_better else 1
    ranked = (place for place, reason in enumerate(unranked) if reason is None)
    order = sorted(ranked, key=lambda place: (sign * means.values[place], names[place]))
    ranks = rank_groups(means, order, higher_is_better=primary.higher_is_better)
    return {names[place]: rank for place, rank in zip(order, ranks, strict=True)}


def _scores(pools: Iterable[str], means: Mapping[str, Means]) -> dict[str, dict[str, tuple[Estimate, Estimate | None]]]:
    """Every entry's metrics, the mean over its seeds."""
    by_metric = {key: own.estimates() for key, own in means.items()}
    return {name: {key: made[place] for key, made in by_metric.items()} for place, name in enumerate(pools)}


def _gains(
    pools: Mapping[str, Sequence[Result]], means: Mapping[str, Means], primary: Metric, base: str | None
) -> dict[str, Gain]:
    """Every other entry that has a score against the baseline."""
    if base is None:
        return {}
    by_metric = {key: own.differences(list(pools).index(base)) for key, own in means.items()}
    others = {name: pool for name, pool in pools.items() if name != base}
    adjusted = holm([own.p for own in by_metric[primary.key]])
    return {
        name: Gain(
            {key: made[place] for key, made in by_metric.items()},
            adjusted[place],
            moved(user_changes(pool, pools[base], primary)),
            _swapped_gain(pool, pools[base], primary),
        )
        for place, (name, pool) in enumerate(others.items())
        if all(_has_score(result, primary) for result in pool)
    }


def _swapped_gain(pool: Sequence[Result], base: Sequence[Result], primary: Metric) -> float | None:
    swapped = mean(None if result.row.swap is None else result.row.swap[primary.key] for result in pool)
    if swapped is None:
        return None
    own, plain = (fmean(result.sums[primary.key].micro for result in part) for part in (pool, base))
    gain = (own - plain) * (1 if primary.higher_is_better else -1)
    return (swapped - plain) / (own - plain) if gain > 0 else None


def _entry(
    name: str,
    pool: Sequence[Result],
    scores: Mapping[str, tuple[Estimate, Estimate | None]],
    ranking: tuple[int | None, str | None],
    gains: Mapping[str, Gain],
    saving: Sequence[Result] | None,
) -> Entry:
    costs = [result.row.cost for result in pool]
    queries = pool[0].row.data.queries
    parameters = costs[0].parameters
    return Entry(
        name=name,
        results=tuple(pool),
        scores=scores,
        rank=ranking[0],
        unranked=ranking[1],
        gains=gains,
        invalid=mean(share(result.row.data.invalid_outputs, queries) for result in pool),
        shared_parameters=parameters.shared,
        user_parameters=parameters.per_user,
        user_bytes=costs[0].bytes.per_user,
        seconds_per_user=mean(map(user_seconds, pool)),
        shared_seconds=mean(cost.seconds.fit_shared for cost in costs),
        query_ms=mean(cost.seconds.predict and 1000 * cost.seconds.predict / queries for cost in costs),
        query_tokens=mean(cost.tokens.prompt and cost.tokens.prompt / queries for cost in costs),
        peak_bytes=max(
            (peak for cost in costs for own in cost.memory.values() for peak in own.values() if peak), default=None
        ),
        parameter_reduction=reduction(parameters.per_user, saving[0].row.cost.parameters.per_user if saving else None),
        time_reduction=time_reduction(pool, saving),
    )


def _order(entry: Entry, primary: Metric) -> tuple[int, float, str]:
    """Ranked entries, then joint ones, then what failed; each group from the best score on."""
    group = 0 if entry.rank is not None else 1 if entry.unranked == JOINT else 2
    value = entry.scores[primary.key][0].value
    if value is None:
        return group, float("inf"), entry.name
    return group, -value if primary.higher_is_better else value, entry.name
