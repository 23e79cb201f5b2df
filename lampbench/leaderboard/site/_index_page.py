"""The front page: methods by tasks, a table a protocol and backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lampbench.leaderboard._render import better_places
from lampbench.leaderboard.site import _numbers as numbers
from lampbench.leaderboard.site._columns import Cell, direction
from lampbench.leaderboard.site._places import BoardPlace, Listing, Site


@dataclass(frozen=True)
class OverviewColumn:
    """A board as a column: its page, and how its primary metric reads.

    Attributes:
        telling: What tells it from the section's other boards of the task; empty where there are none.
    """

    place: BoardPlace
    metric: str
    good: str
    first: str
    telling: str


@dataclass(frozen=True)
class OverviewCell:
    """A method's primary score on a board; no listing where it is not there."""

    cell: Cell
    better: bool
    listing: Listing | None


@dataclass(frozen=True)
class OverviewRow:
    """An entry's name over the boards of a section."""

    name: str
    method: str
    cells: tuple[OverviewCell, ...]


@dataclass(frozen=True)
class Section:
    """Boards of one protocol and backbone.

    Attributes:
        label: What the data calls itself; None for LaMP's own.
    """

    title: str
    model: str
    label: str | None
    columns: tuple[OverviewColumn, ...]
    rows: tuple[OverviewRow, ...]


def sections(site: Site) -> list[Section]:
    """The front page's tables, in order of protocol and backbone."""
    groups: dict[tuple[str | int | None, ...], list[BoardPlace]] = {}
    for place in site.boards:
        board, backbone = place.board, place.base.identity.backbone
        model = (board.backbone, getattr(backbone, "revision", None), getattr(backbone, "dtype", None), board.decoding)
        groups.setdefault((board.protocol, board.label, board.limit, *model), []).append(place)
    return [_section(own) for own in groups.values()]


def _section(places: Sequence[BoardPlace]) -> Section:
    first = places[0]
    limit = f", first {first.board.limit} users" if first.board.limit else ""
    columns = tuple(_column(place, places) for place in places)
    known = [{entry.name: Listing(place, entry) for entry in place.board.entries} for place in places]
    names = sorted({name for own in known for name in own})
    rows = tuple(_row(name, places, [own.get(name) for own in known]) for name in names)
    return Section(f"{first.board.protocol}{limit}", _model(first), first.board.label, columns, rows)


def _column(place: BoardPlace, places: Sequence[BoardPlace]) -> OverviewColumn:
    metric, task = place.board.task.primary, place.board.task.name
    several = sum(other.board.task.name == task for other in places) > 1
    version = place.base.identity.task_version
    return OverviewColumn(
        place,
        metric.key,
        direction(metric),
        "descending" if metric.higher_is_better else "ascending",
        f"version {version}, protocol {place.board.protocol_hash[:8]}" if several else "",
    )


def _model(place: BoardPlace) -> str:
    backbone = place.base.identity.backbone
    return f"{place.model}, {backbone.dtype}" if backbone else place.model


def _row(name: str, places: Sequence[BoardPlace], listings: Sequence[Listing | None]) -> OverviewRow:
    better = better_places([place.board for place in places], [own.entry if own else None for own in listings])
    cells = tuple(_cell(own, i in better) for i, own in enumerate(listings))
    method = next(own.entry.method for own in listings if own)
    return OverviewRow(name, method, cells)


def _cell(listing: Listing | None, better: bool) -> OverviewCell:
    if listing is None:
        return OverviewCell(Cell(numbers.ABSENT), False, None)
    value = listing.entry.scores[listing.place.board.task.primary.key][0].value
    return OverviewCell(Cell(numbers.score(value), sort=value), better and listing.entry.rank is not None, listing)
