"""What pages there are, where each lies, what they have to do with each other, and the small tables in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lampbench.core import digest
from lampbench.leaderboard._board import Board, Entry
from lampbench.leaderboard._cells import ABSENT
from lampbench.leaderboard._overview import model_name
from lampbench.leaderboard._results import Result

PUBLISHED = "published.html"
SHIFTS = "shifts.html"


@dataclass(frozen=True)
class Place:
    """A board and its page.

    Attributes:
        stem: The name of its files.
    """

    board: Board
    stem: str

    @property
    def path(self) -> str:
        """Of its page, relative to the site's root, as every path here."""
        return f"boards/{self.stem}.html"

    @property
    def data(self) -> str:
        """Of its CSV and its JSON, without the suffix."""
        return f"data/{self.stem}"

    @property
    def name(self) -> str:
        """A heading's worth of words."""
        return f"{self.board.task.name} under {self.board.protocol}"

    @property
    def model(self) -> str:
        """Backbone and decoding in words."""
        return model_name(self.board)


@dataclass(frozen=True)
class Listing:
    """An entry on a board."""

    place: Place
    entry: Entry

    @property
    def path(self) -> str:
        """The entry's row on the board's page."""
        return f"{self.place.path}#{anchor(self.entry)}"


@dataclass(frozen=True)
class RunPlace:
    """A run and the entries it is part of: a run without a backbone is on several boards."""

    result: Result
    listings: tuple[Listing, ...]


@dataclass(frozen=True)
class Site:
    """Every page.

    Attributes:
        runs: In order of run id.
        methods: Name -> all entries of the method.
    """

    places: tuple[Place, ...]
    runs: tuple[RunPlace, ...]
    methods: Mapping[str, tuple[Listing, ...]]

    def place(self, board: Board) -> Place:
        """The place of one of the site's boards."""
        return next(own for own in self.places if own.board is board)


@dataclass(frozen=True)
class Fact:
    """A name and what it stands for; ``code`` sets the text in the font of code."""

    name: str
    text: str
    code: bool


@dataclass(frozen=True)
class Sheet:
    """A small table of text.

    Attributes:
        about: A sentence under the heading.
        text_columns: How many columns, from the left, hold words; the others hold numbers.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    about: str = ""


def site_of(boards: Iterable[Board]) -> Site:
    """The pages of these boards, the same whatever the order of the boards."""
    places = sorted((_place(board) for board in boards), key=lambda own: (own.board.protocol, own.path))
    by_run: dict[str, list[tuple[Result, Listing]]] = {}
    by_method: dict[str, list[Listing]] = {}
    for listing in (Listing(place, entry) for place in places for entry in place.board.entries):
        by_method.setdefault(listing.entry.method, []).append(listing)
        for result in listing.entry.results:
            by_run.setdefault(result.row.run_id, []).append((result, listing))
    runs = tuple(RunPlace(own[0][0], tuple(listing for _, listing in own)) for _, own in sorted(by_run.items()))
    return Site(tuple(places), runs, {name: tuple(own) for name, own in sorted(by_method.items())})


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
    """The text if it is a plain lower-case name, else a name made of it.

    Anyone may have written a row, and some file systems fold case.
    """
    plain = _plain(text)
    return plain if plain == text else f"{plain}-{digest(text)[:8]}"


def shortened(text: str, length: int) -> str:
    """The text, its middle left out if it is longer than ``length``."""
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def text_of(value: Any) -> str:
    """A value of a row as text: strings as they are, null as a dash, everything else as JSON."""
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def facts(values: Mapping[str, Any], code: Iterable[str] = ()) -> tuple[Fact, ...]:
    """Facts in the given order; those named in ``code`` are set in the font of code."""
    return tuple(Fact(name, text_of(value), name in code) for name, value in values.items())


def pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and values as rows, in order of name."""
    return tuple((name, text_of(values[name])) for name in sorted(values))


def _place(board: Board) -> Place:
    identity, backbone = board.base.identity, board.base.identity.backbone
    telling = [
        identity.task,
        identity.task_version,
        identity.protocol,
        identity.protocol_hash,
        identity.limit,
        identity.prompt_hash,
        *(backbone.model if backbone else (None, None, None)),
        identity.decoding_name,
    ]
    stem = f"{_plain(board.protocol)}-{_plain(board.task.name)}-{digest(telling)[:8]}"
    return Place(board, stem)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:60].strip("-.") or "x"
