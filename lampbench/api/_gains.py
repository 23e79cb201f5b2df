"""What methods gain over asking the model without any personalization."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lampbench.core import Metric
from lampbench.metrics import LEVEL
from lampbench.rows import Row, RunRow
from lampbench.runner import load_task

if TYPE_CHECKING:
    from lampbench.metrics import Difference

BASELINE = "zero-shot"


@dataclass(frozen=True)
class Gain:
    """A run's primary metric against that of zero-shot, on the same queries.

    Attributes:
        difference: The run's value minus zero-shot's.
        p: Of the paired permutation test over users, by Holm over all methods of the task.
        verdict: ``better``, ``worse``, or ``unclear`` if p is not below 5%.
    """

    difference: Difference
    p: float
    verdict: str


def gains(rows: Sequence[RunRow], folders: Sequence[Path]) -> dict[str, Gain]:
    """Run id -> gain, of every finished run on whose queries zero-shot ran too, with the same model if there is one."""
    finished = [(row, folder) for row, folder in zip(rows, folders, strict=True) if isinstance(row, Row)]
    baselines: dict[Hashable, list[tuple[Row, Path]]] = defaultdict(list)
    for row, folder in finished:
        if row.identity.method == BASELINE:
            baselines[_queries(row)].append((row, folder))
    compared: dict[tuple[str, str], list[tuple[Row, Path]]] = defaultdict(list)
    places: dict[str, Path] = {}
    for row, folder in finished:
        fitting = [
            own for own in baselines[_queries(row)] if row.identity.method != BASELINE and _same_model(row, own[0])
        ]
        if fitting:
            # Of the same seed, if there is one.
            base, place = min(fitting, key=lambda own: (own[0].identity.seed != row.identity.seed, own[0].run_id))
            places[base.run_id] = place
            compared[base.run_id, row.identity.task].append((row, folder))
    found: dict[str, Gain] = {}
    for (base_id, _), own in compared.items():
        found |= _against(places[base_id], own)
    return found


def _against(baseline: Path, runs: Sequence[tuple[Row, Path]]) -> dict[str, Gain]:
    # numpy, which statistics need, is not for commands without results.
    from lampbench.leaderboard import check_comparable, read_result
    from lampbench.metrics import difference, holm

    base = read_result(baseline)
    others = [read_result(folder) for _, folder in runs]
    check_comparable([base, *others])
    primary: Metric = load_task(base.identity.task).primary
    differences = [difference([own.sums[primary.key]], [base.sums[primary.key]]) for own in others]
    adjusted = holm([own.p for own in differences])
    return {
        row.run_id: Gain(own, p, _verdict(own, p, primary.higher_is_better))
        for (row, _), own, p in zip(runs, differences, adjusted, strict=True)
    }


def _verdict(difference: Difference, p: float, higher_is_better: bool) -> str:
    value = difference.micro.value
    # A p-value that is NaN is not below the level either.
    if value is None or not p < LEVEL:
        return "unclear"
    return "better" if (value > 0) is higher_is_better else "worse"


def _queries(row: Row) -> Hashable:
    own = row.identity
    return own.task, own.task_version, own.protocol_hash, own.limit


def _same_model(row: Row, base: Row) -> bool:
    ours, theirs = row.identity, base.identity
    if ours.backbone is None or theirs.backbone is None:
        return True
    return (ours.backbone.model, ours.decoding_name) == (theirs.backbone.model, theirs.decoding_name)
