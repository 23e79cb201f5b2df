"""The tables of both observations, as text: for the report, for Markdown and for the terminal."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lampbench.analysis._layer import LayerShifts
from lampbench.analysis._measure import TaskShifts
from lampbench.analysis._published import TABLE
from lampbench.analysis._rank import EffectiveRank

Centring = Literal["raw", "centred"]
_ABSENT = "–"
# The columns of PerFit's Table 1.
_PAPER = tuple(name for share in ("0.8", "0.9", "0.95") for name in (f"r({share})", "‰"))
_RANKS = tuple(name for share in ("0.8", "0.9", "0.95") for name in (f"r({share})", "‰", "random"))
_SHIFTS = (
    "layer", "norm of the mean", "spread", "norm / spread", "share", "by chance", "cosine with the others' mean",
    "users with two halves", "within", "between", "p", "nearest is own", "by chance", "reliable",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table under its title."""
        lines = [f"**{self.title}**", "", _line(self.headers), _line("---" for _ in self.headers)]
        return "\n".join([*lines, *(_line(row) for row in self.rows)]) + "\n"


def summary(tasks: Sequence[TaskShifts], centring: Centring) -> Table:
    """A row a task in the columns of PerFit's Table 1, each with the rank of random vectors, at one layer."""
    rows = [
        (own.task, f"{own.shown.layer} of {own.depth}", f"{own.users:,}", *_ranks(own.shown, centring)) for own in tasks
    ]
    what = "delta vectors as they are" if centring == "raw" else "residuals from the mean"
    return Table(f"Effective rank, {what}", ("task", "layer", "users", *_RANKS), tuple(rows))


def published() -> Table:
    """PerFit's Table 1."""
    rows = [
        (
            own.task,
            *(text for r, part in zip(own.ranks, own.per_mille, strict=True) for text in (f"{r}", f"{part:.2f}")),
        )
        for own in TABLE
    ]
    return Table("Published: effective rank", ("task", *_PAPER), tuple(rows))


def by_layer(own: TaskShifts, centring: Centring) -> Table:
    """Effective ranks at every layer of a task."""
    what = "delta vectors as they are" if centring == "raw" else "residuals from the mean"
    rows = [(str(layer.layer), *_ranks(layer, centring)) for layer in own.layers]
    return Table(f"{own.task}: effective rank, {what}", ("layer", *_RANKS), tuple(rows))


def shifts(own: TaskShifts) -> Table:
    """The collective and the personalized shift at every layer of a task."""
    rows = tuple(_shift_row(layer) for layer in own.layers)
    return Table(f"{own.task}: collective and personalized shift", _SHIFTS, rows)


def write_csv(tasks: Sequence[TaskShifts], path: Path) -> None:
    """Effective ranks, a line a task, layer, centring and share of the variance; nothing is rounded."""
    headers = (
        "task", "data", "layer", "centred", "users", "width", "share", "rank", "per_mille", "low", "high", "random"
    )  # fmt: skip
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(headers)
        writer.writerows(_csv_rows(tasks))


def _csv_rows(tasks: Sequence[TaskShifts]) -> Iterator[tuple[object, ...]]:
    for own in tasks:
        for layer in own.layers:
            for centre, result in ((False, layer.raw), (True, layer.centred)):
                for at in result.ranks:
                    yield (
                        own.task, own.label or "", layer.layer, centre, own.users, own.width,
                        at.share, at.rank, at.per_mille, *at.interval, at.null,
                    )  # fmt: skip


def _ranks(layer: LayerShifts, centring: Centring) -> Iterator[str]:
    result = layer.raw if centring == "raw" else layer.centred
    for at in result.ranks:
        yield from _rank(at)


def _rank(at: EffectiveRank) -> tuple[str, str, str]:
    low, high = at.interval
    return f"{at.rank} [{low}, {high}]", f"{at.per_mille:.2f}", f"{at.null:.1f}"


def _shift_row(layer: LayerShifts) -> tuple[str, ...]:
    shared, own = layer.collective, layer.personal
    ratio = f"{shared.norm / shared.spread:.2f}" if shared.spread else _ABSENT
    low, middle, high = shared.cosines
    row = (
        str(layer.layer), _three(shared.norm), _three(shared.spread), ratio, f"{shared.share:.1%}",
        f"{shared.chance:.1%}", f"{middle:.2f} [{low:.2f}, {high:.2f}]",
    )  # fmt: skip
    if own is None:
        return (*row, *[_ABSENT] * (len(_SHIFTS) - len(row)))
    return (
        *row, f"{own.users:,}", two(own.within), two(own.between), f"{own.p:.3f}", f"{own.identified:.0%}",
        f"{own.chance:.1%}", f"{own.reliable:.0%}",
    )  # fmt: skip


def two(value: float) -> str:
    """Two places, and no -0.00."""
    return f"{round(value, 2) + 0.0:.2f}"


def _three(value: float) -> str:
    """Three digits that count, zeros too."""
    return f"{value:#.3g}".removesuffix(".")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
