"""Methods by tasks: boards of one protocol and backbone side by side, and what beats zero-shot over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._columns import LEVEL
from lampbench.metrics import holm


@dataclass(frozen=True)
class OverviewRow:
    """One name over the boards of a section.

    Attributes:
        entries: The entry on each board, or None.
        better: Places of the boards on which it beats zero-shot, p adjusted by Holm over them.
    """

    name: str
    entries: tuple[Entry | None, ...]
    better: frozenset[int]

    @property
    def method(self) -> str:
        """The method of the entries."""
        return next(entry.method for entry in self.entries if entry)


@dataclass(frozen=True)
class Section:
    """Boards of one protocol, limit and backbone.

    Attributes:
        title: The protocol, and how many users if not all.
        model: Backbone, decoding and dtype in words.
        label: What the data calls itself; None for LaMP's own.
    """

    title: str
    model: str
    label: str | None
    boards: tuple[Board, ...]
    rows: tuple[OverviewRow, ...]


def sections(boards: Iterable[Board]) -> list[Section]:
    """The tables of the overview, in the order of the boards."""
    groups: dict[tuple[str | int | None, ...], list[Board]] = {}
    for board in boards:
        backbone = board.base.identity.backbone
        model = (*backbone.model, board.decoding) if backbone else ()
        groups.setdefault((board.protocol, board.label, board.limit, *model), []).append(board)
    return [_section(own) for own in groups.values()]


def model_name(board: Board) -> str:
    """Backbone and decoding in words."""
    return f"{board.backbone}, {board.decoding} decoding" if board.backbone else "no language model"


def limit_name(board: Board) -> str:
    """How many users, if the board is limited to the first ones; else empty."""
    return f", first {board.limit} users" if board.limit else ""


def _section(boards: Sequence[Board]) -> Section:
    first = boards[0]
    backbone = first.base.identity.backbone
    model = f"{model_name(first)}, {backbone.precision}" if backbone else model_name(first)
    known = [{entry.name: entry for entry in board.entries} for board in boards]
    names = sorted({name for own in known for name in own})
    rows = tuple(_row(name, boards, tuple(own.get(name) for own in known)) for name in names)
    return Section(f"{first.protocol}{limit_name(first)}", model, first.label, tuple(boards), rows)


def _row(name: str, boards: Sequence[Board], entries: tuple[Entry | None, ...]) -> OverviewRow:
    gains = {
        place: (entry.gain.differences[board.task.primary.key], board.task.primary.higher_is_better)
        for place, (board, entry) in enumerate(zip(boards, entries, strict=True))
        if entry and entry.gain and entry.rank
    }
    adjusted = holm([own.p for own, _ in gains.values()])
    better = {
        place
        for (place, (own, higher)), p in zip(gains.items(), adjusted, strict=True)
        if p < LEVEL and own.micro.value is not None and (own.micro.value > 0) == higher
    }
    return OverviewRow(name, entries, frozenset(better))
