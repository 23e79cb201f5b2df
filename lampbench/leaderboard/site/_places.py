"""What pages there are, where each lies, and what they have to do with each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lampbench.core import digest
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._results import Result

PUBLISHED = "published.html"
SHIFTS = "shifts.html"
_BOARD_KEYS = ("task", "task_version", "protocol", "protocol_hash", "limit", "prompt_hash")


@dataclass(frozen=True)
class BoardPlace:
    """A board and its page.

    Attributes:
        path: Relative to the site's root, as every path here.
        base: A result that the board's facts are read from.
    """

    board: Board
    path: str
    base: Result

    @property
    def name(self) -> str:
        """A heading's worth of words."""
        return f"{self.board.task.name} under {self.board.protocol}"

    @property
    def model(self) -> str:
        """Backbone and decoding in words."""
        return f"{self.board.backbone}, {self.board.decoding} decoding" if self.board.backbone else "no language model"


@dataclass(frozen=True)
class Listing:
    """An entry on a board."""

    place: BoardPlace
    entry: Entry

    @property
    def path(self) -> str:
        """The entry's row on the board's page."""
        return f"{self.place.path}#{anchor(self.entry)}"


@dataclass(frozen=True)
class RunPlace:
    """A run, its page, and the entries it is part of (a run without a backbone is on several boards)."""

    result: Result
    path: str
    listings: tuple[Listing, ...]


@dataclass(frozen=True)
class MethodPlace:
    """A method, its page, and all its entries."""

    name: str
    path: str
    listings: tuple[Listing, ...]


@dataclass(frozen=True)
class Site:
    """Every page with its place.

    Attributes:
        runs: By run id.
        methods: By name.
    """

    boards: tuple[BoardPlace, ...]
    runs: Mapping[str, RunPlace]
    methods: Mapping[str, MethodPlace]


def site_of(boards: Iterable[Board]) -> Site:
    """The pages of these boards, the same whatever the boards' order."""
    places = sorted((_place(board) for board in boards), key=lambda own: (own.board.protocol, own.path))
    listings = [Listing(place, entry) for place in places for entry in place.board.entries]
    by_run: dict[str, list[tuple[Result, Listing]]] = {}
    by_method: dict[str, list[Listing]] = {}
    for listing in listings:
        by_method.setdefault(listing.entry.method, []).append(listing)
        for result in listing.entry.results:
            by_run.setdefault(result.row.run_id, []).append((result, listing))
    runs = {
        run: RunPlace(own[0][0], run_path(own[0][0]), tuple(listing for _, listing in own))
        for run, own in sorted(by_run.items())
    }
    methods = {name: MethodPlace(name, method_path(name), tuple(own)) for name, own in sorted(by_method.items())}
    return Site(tuple(places), runs, methods)


def run_path(result: Result) -> str:
    """A run's page."""
    return f"runs/{file_name(result.row.run_id)}.html"


def method_path(name: str) -> str:
    """A method's page."""
    return f"methods/{file_name(name)}.html"


def anchor(entry: Entry) -> str:
    """The id of an entry's row on its board's page."""
    return f"entry-{file_name(entry.results[0].row.run_id)}"


def file_name(text: str) -> str:
    """The text where it is a plain lower-case name, else one made of it.

    Rows are anybody's, and some file systems fold case.
    """
    plain = _plain(text)
    return plain if plain == text else f"{plain}-{digest(text)[:8]}"


def _place(board: Board) -> BoardPlace:
    identity, backbone = board.base.identity, board.base.identity.backbone
    telling = [
        *(getattr(identity, key) for key in _BOARD_KEYS),
        *(getattr(backbone, key, None) for key in ("id", "revision", "dtype")),
        identity.decoding_mode,
    ]
    stem = f"{_plain(board.protocol)}-{_plain(board.task.name)}-{digest(telling)[:8]}"
    return BoardPlace(board, f"boards/{stem}.html", board.base)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:60].strip("-.") or "x"
