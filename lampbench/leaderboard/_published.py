"""Papers' numbers: read with care, and shown beside ours; never ranked together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct
from tabulate import tabulate

from lampbench.core import InputError, Metric, Task, tasks
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._cells import ABSENT, number, score
from lampbench.rows import read_record

ABOUT = (
    "From papers and pages, as printed: not measured here, on other machines, with other code. They stand beside "
    "our runs of the same method under the same protocol, where there are any, and are ranked with none of them."
)
REASONS = "Why ours may differ"
ALONE = "Published, with no run of ours under this protocol to compare with"
_Text = Annotated[str, Meta(min_length=1)]


class _Row(Struct, forbid_unknown_fields=True):
    method: str
    task: str
    metrics: dict[str, Annotated[float, Meta(ge=-1e300, le=1e300)]]


class _File(Struct, forbid_unknown_fields=True):
    """A file of ``reported/``."""

    source: _Text
    protocol: _Text
    backbone: _Text
    why_ours_may_differ: tuple[_Text, ...]
    rows: tuple[_Row, ...]


@dataclass(frozen=True)
class ReportedRow:
    """One published score: ``metrics`` by official key, as printed."""

    method: str
    task: Task
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Reported:
    """What one source publishes under one protocol.

    Attributes:
        name: The file's, without its suffix.
        source: Paper or page.
        protocol: The protocol here whose queries it stands for, or comes nearest to.
        backbone: The model, as the source names it.
        reasons: Why our numbers may differ.
    """

    name: str
    source: str
    protocol: str
    backbone: str
    reasons: tuple[str, ...]
    rows: tuple[ReportedRow, ...]


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
    """An entry's score beside a published one; None if it is not finite."""

    board: Board
    entry: Entry
    value: float | None

    @property
    def model(self) -> str:
        """The backbone, with the entry's name if the board has several entries of its method."""
        model = self.board.backbone or ABSENT
        return model if self.entry.name == self.entry.method else f"{model}, {self.entry.name}"


@dataclass(frozen=True)
class PublishedScore:
    """A published number, and one of ours if there is one."""

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
            number(self.published, ".3f"),
            score(value),
            number(None if value is None else value - self.published, "+.4f"),
            self.ours.model if self.ours else ABSENT,
        )


class Alone(NamedTuple):
    """Published numbers without ours: a column per metric of a task, and a row per method, its name first."""

    columns: tuple[tuple[Task, Metric], ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Published:
    """A source with its numbers beside ours.

    Attributes:
        scores: A line for every number, or several if several of our entries stand beside it.
    """

    reported: Reported
    scores: tuple[PublishedScore, ...]

    @property
    def compared(self) -> tuple[PublishedScore, ...]:
        """Those that one of our numbers stands beside."""
        return tuple(own for own in self.scores if own.ours)

    @property
    def alone(self) -> Alone:
        """Those that nothing of ours stands beside, methods by metrics."""
        own = [score for score in self.scores if not score.ours]
        columns = {(score.task.name, score.metric.key): score for score in own}
        values = {(score.method, score.task.name, score.metric.key): score.cells.published for score in own}
        names = dict.fromkeys(score.method for score in own)
        return Alone(
            tuple((score.task, score.metric) for score in columns.values()),
            tuple((name, *(values.get((name, *key), ABSENT) for key in columns)) for name in names),
        )

    @property
    def beside(self) -> str:
        """How many numbers the source has, and how many of ours stand beside them."""
        ours = {(own.method, own.task.name, own.metric.key): own.ours is not None for own in self.scores}
        return f"{len(ours)} numbers as printed, ours beside {sum(ours.values()) or 'none'} of them"


def read_reported(root: Path) -> list[Reported]:
    """Every file of ``reported/`` below ``root``, in order of name.

    Raises:
        InputError: A file has another shape, an unknown task, or a metric that its task does not have.
    """
    return [_read(path) for path in sorted((root / "reported").glob("*.json"))]


def published(reported: Sequence[Reported], boards: Sequence[Board]) -> list[Published]:
    """Every source beside the ranked entries of the same method, task and protocol, run on all of its users."""
    return [
        Published(own, tuple(line for row in own.rows for line in _scores(row, own.protocol, boards)))
        for own in reported
    ]


def reported_page(reported: Sequence[Reported], boards: Sequence[Board]) -> str:
    """The page as Markdown."""
    parts = ["# Published numbers", ABOUT]
    for own in published(reported, boards):
        source = own.reported
        parts += [f"## {source.source}", f"Protocol {source.protocol}, model {source.backbone}."]
        parts.append(f"{own.beside[0].upper()}{own.beside[1:]}.")
        if own.compared:
            table = [line.cells for line in own.compared]
            parts.append(tabulate(table, headers=HEADERS, tablefmt="github", disable_numparse=True))
        if own.alone.rows:
            headers = ["method", *(f"{task.name} {metric.key}" for task, metric in own.alone.columns)]
            parts += [f"{ALONE}:", tabulate(own.alone.rows, headers=headers, tablefmt="github", disable_numparse=True)]
        parts.append(f"{REASONS}:\n\n" + "\n".join(f"* {reason}" for reason in source.reasons))
    return "\n\n".join(parts) + "\n"


def _read(path: Path) -> Reported:
    own = read_record(path, _File)
    rows = tuple(_row(row, f"{path}: rows.{number}") for number, row in enumerate(own.rows))
    return Reported(path.stem, own.source, own.protocol, own.backbone, own.why_ours_may_differ, rows)


def _row(row: _Row, where: str) -> ReportedRow:
    task: Task = tasks().load(row.task)
    known = sorted(metric.key for metric in task.metrics)
    for key in row.metrics:
        if key not in known:
            raise InputError(f"{where}: unknown metric {key!r}; {task.name} has {', '.join(known)}")
    return ReportedRow(row.method, task, row.metrics)


def _scores(row: ReportedRow, protocol: str, boards: Sequence[Board]) -> Iterator[PublishedScore]:
    metrics = {metric.key: metric for metric in row.task.metrics}
    entries = list(_entries(row, protocol, boards))
    for key, printed in row.metrics.items():
        ours: list[OurScore | None] = [OurScore(board, entry, entry.scores[key][0].value) for board, entry in entries]
        for own in ours or [None]:
            yield PublishedScore(row.method, row.task, metrics[key], printed, own)


def _entries(row: ReportedRow, protocol: str, boards: Sequence[Board]) -> Iterator[tuple[Board, Entry]]:
    for board in boards:
        if (board.protocol, board.task.name, board.limit) == (protocol, row.task.name, None):
            yield from ((board, entry) for entry in board.entries if entry.method == row.method and entry.rank)
