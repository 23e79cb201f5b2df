"""The page of papers' numbers: beside ours, ranked with none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from lampbench.leaderboard._board import Board
from lampbench.leaderboard._published import (
    ABOUT,
    HEADERS,
    REASONS,
    Cells,
    Published,
    PublishedScore,
    Reported,
    published,
)
from lampbench.leaderboard.site._columns import direction
from lampbench.leaderboard.site._places import PUBLISHED, BoardPlace, Listing, Site, file_name
from lampbench.leaderboard.site._sheets import Fact, facts


@dataclass(frozen=True)
class PublishedRow:
    """A number's cells.

    Attributes:
        good: Which end of its metric is good.
        listing: Our entry beside it; None where there is none.
    """

    cells: Cells
    good: str
    listing: Listing | None


@dataclass(frozen=True)
class MethodRows:
    """What a source says of a method."""

    name: str
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True)
class Source:
    """A source's part of the page.

    Attributes:
        labels: What the data of our entries beside it calls itself.
        beside: How many of its numbers have one of ours beside them, in words.
    """

    title: str
    anchor: str
    facts: tuple[Fact, ...]
    labels: tuple[str, ...]
    beside: str
    methods: tuple[MethodRows, ...]
    reasons: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where the part begins."""
        return f"{PUBLISHED}#{self.anchor}"


@dataclass(frozen=True)
class PublishedView:
    """What the page shows."""

    about: str
    headers: Cells
    why: str
    sources: tuple[Source, ...]


def published_view(reported: Sequence[Reported], boards: Sequence[Board], site: Site) -> PublishedView:
    """The page of these numbers beside these boards, whose pages are the site's."""
    places = {id(place.board): place for place in site.boards}
    sources = tuple(_source(own, places) for own in published(reported, boards))
    return PublishedView(ABOUT, HEADERS, REASONS, sources)


def _source(own: Published, places: Mapping[int, BoardPlace]) -> Source:
    reported = own.reported
    methods = tuple(
        MethodRows(name, tuple(_row(score, places) for score in scores))
        for name, scores in groupby(own.scores, key=lambda score: score.method)
    )
    ours = [score.ours.board.label for score in own.scores if score.ours]
    return Source(
        title=reported.source,
        anchor=f"source-{file_name(reported.name)}",
        facts=facts([("protocol", reported.protocol), ("model", reported.backbone)]),
        labels=tuple(sorted({label for label in ours if label})),
        beside=_beside(own),
        methods=methods,
        reasons=reported.reasons,
    )


def _row(score: PublishedScore, places: Mapping[int, BoardPlace]) -> PublishedRow:
    listing = Listing(places[id(score.ours.board)], score.ours.entry) if score.ours else None
    return PublishedRow(score.cells, direction(score.metric), listing)


def _beside(own: Published) -> str:
    numbers = {(score.method, score.task.name, score.metric.key): score.ours is not None for score in own.scores}
    return f"{len(numbers)} numbers as printed, ours beside {sum(numbers.values()) or 'none'} of them"
