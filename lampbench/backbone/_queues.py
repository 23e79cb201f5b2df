"""Which prompts may be in one batch. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queue:
    """Rows that may be in one batch.

    Attributes:
        rows: Their numbers, longest first.
        size: How many of them a batch has at most.
    """

    rows: list[int]
    size: int


def queues(lengths: Sequence[int], room: int, batch_size: int, *, padded: bool, switch: int | None) -> list[Queue]:
    """All rows in queues.

    Args:
        lengths: Tokens of each row.
        room: How many tokens may follow a row.
        batch_size: The largest batch.
        padded: Whether rows of different lengths may be padded to one; if not, rows of one length are together.
        switch: The length at which rotary positions change, or None: rows on either side of it are not in one batch,
            and a row that may come to cross it is alone.
    """
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    if not padded:
        alike: dict[int, list[int]] = defaultdict(list)
        for number in order:
            alike[lengths[number]].append(number)
        return [Queue(own, batch_size) for own in alike.values()]
    if switch is None:
        return [Queue(order, batch_size)] if order else []
    below = [number for number in order if lengths[number] + room <= switch]
    above = [number for number in order if lengths[number] > switch]
    crossing = [number for number in order if lengths[number] <= switch < lengths[number] + room]
    found = [Queue(below, batch_size), Queue(above, batch_size), Queue(crossing, 1)]
    return [queue for queue in found if queue.rows]


def batches(found: Iterable[Queue]) -> Iterator[list[int]]:
    """The rows of each queue in batches of its size."""
    for queue in found:
        for start in range(0, len(queue.rows), queue.size):
            yield queue.rows[start : start + queue.size]
