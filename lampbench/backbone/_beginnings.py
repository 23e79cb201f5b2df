"""Which prompts begin alike, so that their beginning is read once. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

# Reading a beginning apart is another pass: it must be worth this part of all tokens.
_WORTH = 0.1


@dataclass(frozen=True, slots=True)
class Beginning:
    """The same first tokens of several rows.

    Attributes:
        rows: Numbers of the rows.
        length: How many tokens.
    """

    rows: tuple[int, ...]
    length: int

    @property
    def saved(self) -> int:
        """How many tokens fewer are read."""
        return (len(self.rows) - 1) * self.length


def shared_beginnings(rows: Sequence[Sequence[int]], owners: Sequence[Hashable], tail: int = 0) -> list[Beginning]:
    """Beginnings that are worth being read once; no row has two, and some have none.

    Args:
        rows: Token ids.
        owners: Only rows of the same owner can share something.
        tail: How many of a row's last tokens are not part of a beginning; at least the last one never is.
    """
    by_owner: dict[Hashable, list[int]] = defaultdict(list)
    for number, owner in enumerate(owners):
        by_owner[owner].append(number)
    found = [
        beginning
        for own in by_owner.values()
        for beginning in _best(rows, sorted(own, key=lambda number: list(rows[number])), max(tail, 1))
    ]
    return found if sum(one.saved for one in found) >= _WORTH * sum(map(len, rows)) else []


def _best(rows: Sequence[Sequence[int]], ordered: Sequence[int], tail: int) -> list[Beginning]:
    """What saves most: one beginning for all of ``ordered``, or longer ones for some of them each.

    ``ordered`` is in the order of the ids, so that rows that begin alike stand together, and the beginning of the first
    and last is that of all.
    """
    if len(ordered) < 2:
        return []
    first, last = rows[ordered[0]], rows[ordered[-1]]
    common = next(
        (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    whole = Beginning(tuple(ordered), min(common, min(len(rows[number]) for number in ordered) - tail))
    by_next: dict[int | None, list[int]] = defaultdict(list)
    for number in ordered:
        by_next[rows[number][common] if common < len(rows[number]) else None].append(number)
    parts = [] if len(by_next) == 1 else [one for own in by_next.values() for one in _best(rows, own, tail)]
    return parts if sum(one.saved for one in parts) > max(whole.saved, 0) else [whole] if whole.length > 0 else []
