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
    # Each beginning with the number of the shorter one that its rows share with others. A list and no recursion,
    # because there may be as many, one within another, as there are rows.
    nested: list[tuple[Beginning, int]] = []
    pending = [(ordered, -1)]
    while pending:
        own, outer = pending.pop()
        if len(own) < 2:
            continue
        common = _common(rows[own[0]], rows[own[-1]])
        length = min(common, min(len(rows[number]) for number in own) - tail)
        by_next: dict[int | None, list[int]] = defaultdict(list)
        for number in own:
            by_next[rows[number][common] if common < len(rows[number]) else None].append(number)
        if len(by_next) > 1:
            pending += [(part, len(nested)) for part in reversed(by_next.values())]
        nested.append((Beginning(tuple(own), length), outer))
    parts: list[list[Beginning]] = [[] for _ in nested]
    best: list[Beginning] = []
    for (whole, outer), longer in zip(reversed(nested), reversed(parts), strict=True):
        best = [whole] if whole.length > 0 else []
        if sum(one.saved for one in longer) > max(whole.saved, 0):
            best = longer
        if outer >= 0:
            parts[outer][:0] = best
    return best


def _common(first: Sequence[int], last: Sequence[int]) -> int:
    """How many tokens two rows begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
