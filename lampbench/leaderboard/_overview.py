"""Methods by tasks: boards of one protocol and backbone side by side, and what beats zero-shot over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._costs import mean
from lampbench.metrics import LEVEL, holm


@dataclass(frozen=True)
class OverviewRow:
    """One name over the boards of a section.

    Attributes:
        entries: The entry on each board, or None.
        better: Places of the boards on which it beats zero-shot, p adjusted by Holm over them.
        worse: Places of the boards on which it is worse than zero-shot, likewise.
    """

    name: str
    entries: tuple[Entry | None, ...]
    better: frozenset[int]
    worse: frozenset[int]

    @property
    def known(self) -> tuple[Entry, ...]:
        """The entries that there are."""
        return tuple(entry for entry in self.entries if entry)

    @property
    def method(self) -> str:
        """The method of the entries."""
        return self.known[0].method

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks on the boards that rank it."""
        return tuple(entry.rank for entry in self.known if entry.rank is not None)

    @property
    def complete(self) -> bool:
        """Whether every board of the section ranks it."""
        return len(self.ranks) == len(self.entries)

    @property
    def mean_rank(self) -> float | None:
        """The mean of the ranks; None if no board ranks it."""
        return fmean(self.ranks) if self.ranks else None

    @property
    def best(self) -> int:
        """On how many boards it is in the group of the best."""
        return self.ranks.count(1)

    @property
    def user_parameters(self) -> float:
        """Trainable parameters per user, the mean over the boards."""
        return fmean(entry.user_parameters for entry in self.known)

    @property
    def seconds_per_user(self) -> float | None:
        """Seconds to adapt to one user, the mean over the boards; None if a board has none."""
        return mean(entry.seconds_per_user for entry in self.known)

    @property
    def query_ms(self) -> float | None:
        """Milliseconds to answer one query, the mean over the boards; None if a board has none."""
        return mean(entry.query_ms for entry in self.known)

    @property
    def hardware(self) -> str:
        """Where it ran; several classes are joined."""
        return "; ".join(sorted({entry.hardware for entry in self.known}))


@dataclass(frozen=True)
class Section:
    """Boards of one protocol, limit and backbone.

    Attributes:
        title: The protocol, and how many users if not all.
        model: Backbone, decoding and dtype in words.
        label: What the data calls itself; None for LaMP's own.
        outdated: Whether the boards are of earlier versions of their tasks.
        rows: The lowest mean rank first; after those that every board ranks come the others.
    """

    title: str
    model: str
    label: str | None
    outdated: bool
    boards: tuple[Board, ...]
    rows: tuple[OverviewRow, ...]


def sections(boards: Iterable[Board]) -> list[Section]:
    """The tables of the overview: current ones before outdated ones, real data before synthetic."""
    groups: dict[tuple[str | int | bool | None, ...], list[Board]] = {}
    for board in boards:
        backbone = board.base.identity.backbone
        model = (*backbone.model, board.decoding) if backbone else ()
        key = (board.protocol, board.label, board.limit, _outdated(board), *model)
        groups.setdefault(key, []).append(board)
    made = [_section(own) for own in groups.values()]
    names = Counter((own.title, own.model) for own in made)
    told = [own if names[own.title, own.model] == 1 else _with_revision(own) for own in made]
    return sorted(told, key=lambda own: (own.outdated, own.label is not None))


def model_name(board: Board) -> str:
    """Backbone and decoding in words."""
    if board.backbone is None:
        return "no language model"
    mode, *more = str(board.decoding).split(", ")
    return ", ".join([board.backbone, f"{mode} decoding", *more])


def limit_name(board: Board) -> str:
    """How many users, if the board is limited to the first ones; else empty."""
    return f", first {board.limit} users" if board.limit else ""


def _outdated(board: Board) -> bool:
    """Whether this LampBench has a later version of the board's task."""
    return board.base.identity.task_version < board.task.version


def _section(boards: Sequence[Board]) -> Section:
    first = boards[0]
    backbone = first.base.identity.backbone
    model = f"{model_name(first)}, {backbone.precision}" if backbone else model_name(first)
    known = [{entry.name: entry for entry in board.entries} for board in boards]
    names = sorted({name for own in known for name in own})
    rows = sorted((_row(name, boards, tuple(own.get(name) for own in known)) for name in names), key=_order)
    earlier = ", earlier version of the tasks" if _outdated(first) else ""
    return Section(
        f"{first.protocol}{limit_name(first)}{earlier}",
        model,
        first.label,
        _outdated(first),
        tuple(boards),
        tuple(rows),
    )


def _with_revision(section: Section) -> Section:
    backbone = section.boards[0].base.identity.backbone
    revision = f", revision {backbone.revision.removeprefix('sha256:')[:8]}" if backbone else ""
    return replace(section, model=f"{section.model}{revision}")


def _order(row: OverviewRow) -> tuple[bool, float, str]:
    return not row.complete, row.mean_rank or float("inf"), row.name


def _row(name: str, boards: Sequence[Board], entries: tuple[Entry | None, ...]) -> OverviewRow:
    gains = {
        place: (entry.gain.differences[board.task.primary.key], board.task.primary.higher_is_better)
        for place, (board, entry) in enumerate(zip(boards, entries, strict=True))
        if entry and entry.gain and entry.rank
    }
    adjusted = holm([own.p for own, _ in gains.values()])
    apart = {
        place: (own.micro.value > 0) == higher
        for (place, (own, higher)), p in zip(gains.items(), adjusted, strict=True)
        if p < LEVEL and own.micro.value is not None
    }
    return OverviewRow(
        name,
        entries,
        frozenset(place for place, gained in apart.items() if gained),
        frozenset(place for place, gained in apart.items() if not gained),
    )
