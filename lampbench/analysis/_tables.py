"""The tables of both observations, as text: for the report, for Markdown and for the terminal; and PerFit's own."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lampbench.analysis._measure import TaskShifts
from lampbench.analysis._statistics import SHARES, LayerShifts

Centring = Literal["raw", "centred"]
_WHAT = {"raw": "delta vectors as they are", "centred": "residuals from the mean"}
_ABSENT = "–"
_RANKS = tuple(name for share in SHARES for name in (f"r({share})", "‰", "random"))
_SHIFTS = (
    "layer", "norm of the mean", "spread", "norm / spread", "share", "by chance", "cosine with the others' mean",
    "users with two halves", "within", "between", "p", "nearest is own", "by chance", "reliable",
)  # fmt: skip

PUBLISHED_SOURCE = "PerFit (Liu et al., ICLR 2026), Table 1; Llama-2-7B (width 4096)"
# Its rows: effective ranks at 80, 90 and 95%, each also in thousandths of min(users, 4096).
_PUBLISHED = (
    ("lamp2m", "1", "1.21", "3", "3.62", "12", "14.48"),
    ("lamp2n", "1", "3.65", "4", "14.60", "20", "72.90"),
    ("lamp3", "3", "0.73", "18", "4.39", "93", "22.71"),
    ("lamp4", "34", "22.03", "167", "108.23", "368", "238.50"),
    ("lamp5", "4", "0.98", "40", "9.77", "203", "49.56"),
    ("lamp7", "3", "0.73", "32", "7.81", "177", "43.21"),
)
WHY_OURS_DIFFER = (
    "The model differs unless it is Llama-2-7B; a rank is at most min(users, width), and per mille is what compares.",
    "The users differ: 829 (2M), 274 (2N) and 1,543 (4) there, at least 4,096 elsewhere (inferred from its per-mille "
    "columns). With few users a rank is bounded by their number, and a share of it is coarse.",
    "The paper does not say whether the mean was taken off first. Ranks of 1 at 80% mean that one direction dominates, "
    "which is what a collective shift does to uncentred vectors; both are shown here.",
    "Its layer, and the context of its personalized prompt (which retriever, how many items), are not stated.",
    "With few queries a user's mean is noisy, and noise has full rank.",
)


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
    """One row per task in the columns of PerFit's Table 1, each with the rank of random vectors, at one layer."""
    rows = [
        (own.task, f"{own.shown.layer} of {own.depth}", f"{own.counts.users:,}", *_ranks(own.shown, centring))
        for own in tasks
    ]
    return Table(f"Effective rank, {_WHAT[centring]}", ("task", "layer", "users", *_RANKS), tuple(rows))


def published() -> Table:
    """PerFit's Table 1, for a table of its own: never beside ours in one column."""
    headers = ("task", *(name for share in SHARES for name in (f"r({share})", "‰")))
    return Table("Published: effective rank", headers, _PUBLISHED)


def by_layer(own: TaskShifts, centring: Centring) -> Table:
    """Effective ranks at every layer of a task."""
    rows = [(str(layer.layer), *_ranks(layer, centring)) for layer in own.layers]
    return Table(f"{own.task}: effective rank, {_WHAT[centring]}", ("layer", *_RANKS), tuple(rows))


def shifts(own: TaskShifts) -> Table:
    """The collective and the personalized shift at every layer of a task."""
    rows = tuple(_shift_row(layer) for layer in own.layers)
    return Table(f"{own.task}: collective and personalized shift", _SHIFTS, rows)


def write_csv(tasks: Sequence[TaskShifts], path: Path) -> None:
    """Effective ranks, one line per task, layer, centring and share of the variance; nothing is rounded."""
    headers = (
        "task", "data", "layer", "centred", "users", "width", "share", "rank", "per_mille", "low", "high", "random"
    )  # fmt: skip
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(headers)
        for own in tasks:
            for layer in own.layers:
                for centre, result in ((False, layer.raw), (True, layer.centred)):
                    head = own.task, own.label or "", layer.layer, centre, own.counts.users, own.width
                    writer.writerows(
                        (*head, at.share, at.rank, at.per_mille, *at.interval, at.null) for at in result.ranks
                    )


def _ranks(layer: LayerShifts, centring: Centring) -> Iterator[str]:
    result = layer.raw if centring == "raw" else layer.centred
    for at in result.ranks:
        low, high = at.interval
        yield from (f"{at.rank} [{low}, {high}]", f"{at.per_mille:.2f}", f"{at.null:.1f}")


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
