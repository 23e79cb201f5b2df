"""Costs of entries: means over seeds, and what is saved against a reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from lampbench.leaderboard._results import Result


def time_reduction(pool: Sequence[Result], saving: Sequence[Result] | None) -> float | None:
    """What is saved of OPPU's seconds per user, answering included, if both ran on the same class of hardware."""
    if saving is None or len({r.row.environment.hardware_class for r in [*pool, *saving]}) > 1:
        return None
    own, theirs = (mean(_served_seconds(result) for result in part) for part in (pool, saving))
    return reduction(own, theirs)


def _served_seconds(result: Result) -> float | None:
    """Seconds to adapt to one user and to answer that user's queries."""
    adapting, answering = user_seconds(result), result.row.cost.seconds.predict
    return None if adapting is None or answering is None else adapting + answering / result.row.data.users


def user_seconds(result: Result) -> float | None:
    """Seconds to adapt to one user, the mean over users."""
    spread = result.row.cost.seconds_per_user
    return None if spread is None else spread.mean


def share(count: int | None, of: int) -> float | None:
    """A count as a share."""
    return None if count is None else count / of


def reduction(own: float | None, theirs: float | None) -> float | None:
    """1 - own / theirs; None if either is zero or not known."""
    return 1 - own / theirs if own and theirs else None


def mean(values: Iterable[float | None]) -> float | None:
    """The mean; None if a value is not known."""
    known = list(values)
    measured = [value for value in known if value is not None]
    return fmean(measured) if measured and len(measured) == len(known) else None
