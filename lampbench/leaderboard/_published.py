"""Papers' numbers beside ours, as data for every page that shows them and as Markdown; never ranked together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tabulate import tabulate

from lampbench.core import Metric, Task
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._reported import Reported, ReportedRow

ABOUT = (
    "From papers and pages, as printed: not measured here, on other machines, with other code. They stand beside "
    "our runs of the same method under the same protocol, where there are any, and are ranked with none of them."
)
REASONS = "Why ours may differ"
_EMPTY = "–"


class Cells(NamedTuple):
    """A line of the table as text, with dashes for what is absent."""

    method: str
    task: str
    metric: str
    published: str
    ours: str
    difference: str
    model: str


HEADERS = Cells("method", "task", "metric", "published", "ours", "ours - published", "our model")


@dataclass(frozen=True)
class OurScore:
    """An entry's score in the place of a published one; None where it is not finite."""

    board: Board
    entry: Entry
    value: float | None

    @property
    def model(self) -> str:
        """The backbone, with the entry's name where it is more than its method's: one of several on the board."""
        model = self.board.backbone or _EMPTY
        return model if self.entry.name == self.entry.method else f"{model}, {self.entry.name}"


@dataclass(frozen=True)
class PublishedScore:
    """A published number, beside one of ours where there is one."""

    method: str
    task: Task
    metric: Metric
    published: float
    ours: OurScore | None

    @property
    def cells(self) -> Cells:
        """What the table says of it."""
        value = self.ours.value if self.ours else None
        return Cells(
            self.method,
            self.task.name,
            self.metric.key,
            f"{self.published:.3f}",
            _EMPTY if value is None else f"{value:.4f}",
            _EMPTY if value is None else f"{value - self.published:+.4f}",
            self.ours.model if self.ours else _EMPTY,
        )


@dataclass(frozen=True)
class Published:
    """A source with its numbers beside ours.

    Attributes:
        scores: A line for every number, several where several entries of ours stand beside it.
    """

    reported: Reported
    scores: tuple[PublishedScore, ...]

    @property
    def beside(self) -> str:
        """How many numbers the source has, and how many of ours stand beside them."""
        ours = {(score.method, score.task.name, score.metric.key): score.ours is not None for score in self.scores}
        return f"{len(ours)} numbers as printed, ours beside {sum(ours.values()) or 'none'} of them"


def published(reported: Sequence[Reported], boards: Sequence[Board]) -> list[Published]:
    """Every source beside the ranked entries of the same method, task and protocol, run on all of its users."""
    return [
        Published(own, tuple(score for row in own.rows for score in _scores(row, own.protocol, boards)))
        for own in reported
    ]


def reported_page(reported: Sequence[Reported], boards: Sequence[Board]) -> str:
    """The page as Markdown."""
    parts = ["# Published numbers", ABOUT]
    for own in published(reported, boards):
        source = own.reported
        parts += [f"## {source.source}", f"Protocol {source.protocol}, model {source.backbone}."]
        table = [score.cells for score in own.scores]
        parts.append(tabulate(table, headers=HEADERS, tablefmt="github", disable_numparse=True))
        parts.append(f"{REASONS}:\n\n" + "\n".join(f"* {reason}" for reason in source.reasons))
    return "\n\n".join(parts) + "\n"


def _scores(row: ReportedRow, protocol: str, boards: Sequence[Board]) -> Iterator[PublishedScore]:
    metrics = {metric.key: metric for metric in row.task.metrics}
    entries = list(_entries(row, protocol, boards))
    for key, number in row.metrics.items():
        ours: list[OurScore | None] = [OurScore(board, entry, entry.scores[key][0].value) for board, entry in entries]
        for own in ours or [None]:
            yield PublishedScore(row.method, row.task, metrics[key], number, own)


def _entries(row: ReportedRow, protocol: str, boards: Sequence[Board]) -> Iterator[tuple[Board, Entry]]:
    for board in boards:
        if (board.protocol, board.task.name, board.limit) == (protocol, row.task.name, None):
            yield from ((board, entry) for entry in board.entries if entry.method == row.method and entry.rank)
