"""Names beside dots, where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_LETTER, _LINE, _GAP = 6.4, 13.0, 8.0
_MOST = 40


@dataclass(frozen=True)
class Label:
    """A name and where it begins, or ends where ``side`` is ``end``."""

    text: str
    x: float
    y: float
    side: Literal["start", "end", "middle"]


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, outer: _Box) -> bool:
        return (
            self.left >= outer.left
            and self.right <= outer.right
            and self.top >= outer.top
            and self.bottom <= outer.bottom
        )


def place_labels(
    texts: Sequence[str],
    points: Sequence[tuple[float, float]],
    first: Sequence[bool],
    room: tuple[float, float, float, float],
) -> list[Label | None]:
    """A place for each name that covers no dot and no other name, ``first`` ones before others; None without one.

    Args:
        texts: The names.
        points: Their dots.
        first: Whose names matter most.
        room: Left, top, right, bottom of the plot.
    """
    outer = _Box(*room)
    taken = [_Box(x - 4, y - 4, x + 4, y + 4) for x, y in points[: 4 * _MOST]]
    labels: list[Label | None] = [None] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: not first[i])
    for i in order[:_MOST]:
        for label, box in _candidates(texts[i], *points[i]):
            if box.within(outer) and not any(box.meets(other) for other in taken):
                labels[i] = label
                taken.append(box)
                break
    return labels


def _candidates(text: str, x: float, y: float) -> list[tuple[Label, _Box]]:
    width, half = _LETTER * len(text), _LINE / 2
    return [
        (Label(text, x + _GAP, y + 4, "start"), _Box(x + _GAP, y - half, x + _GAP + width, y + half)),
        (Label(text, x - _GAP, y + 4, "end"), _Box(x - _GAP - width, y - half, x - _GAP, y + half)),
        (Label(text, x + 4, y - 8, "start"), _Box(x + 4, y - 8 - _LINE, x + 4 + width, y - 6)),
        (Label(text, x + 4, y + 17, "start"), _Box(x + 4, y + 6, x + 4 + width, y + 6 + _LINE)),
        (Label(text, x - 4, y - 8, "end"), _Box(x - 4 - width, y - 8 - _LINE, x - 4, y - 6)),
        (Label(text, x - 4, y + 17, "end"), _Box(x - 4 - width, y + 6, x - 4, y + 6 + _LINE)),
    ]
