"""A method's page: what it says of itself, and where its entries are."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from lampbench.core import ConfigField, InputError, config_fields, methods
from lampbench.leaderboard.site import _numbers as numbers
from lampbench.leaderboard.site._board_page import RunLink
from lampbench.leaderboard.site._docs import Block, blocks
from lampbench.leaderboard.site._places import Listing, MethodPlace, run_path
from lampbench.leaderboard.site._sheets import Fact, Sheet, facts, text_of
from lampbench.runner import load_method


@dataclass(frozen=True)
class MethodEntry:
    """An entry with what a reader asks first."""

    listing: Listing
    metric: str
    score: str
    interval: str
    runs: tuple[RunLink, ...]


@dataclass(frozen=True)
class MethodView:
    """What a method's page shows.

    Attributes:
        missing: Why there is no description; empty where there is one.
        labels: What the data of its entries calls itself.
    """

    place: MethodPlace
    missing: str
    docs: tuple[Block, ...]
    facts: tuple[Fact, ...]
    settings: Sheet | None
    entries: tuple[MethodEntry, ...]
    labels: tuple[str, ...]


def method_view(place: MethodPlace) -> MethodView:
    """The page of a method."""
    entries = tuple(_entry(listing) for listing in place.listings)
    labels = tuple(sorted({own.place.board.label for own in place.listings if own.place.board.label}))
    if place.name not in methods().names():
        return MethodView(place, "It is not installed where this page was made.", (), (), None, entries, labels)
    try:
        method, plugin = load_method(place.name), methods().plugin(place.name)
        fields = config_fields(method.Config)
    except InputError as error:
        return MethodView(place, f"It cannot be loaded: {error}", (), (), None, entries, labels)
    except Exception as error:  # a stranger's Config must not keep the others from being shown
        cause = f"{type(error).__name__}: {error}"
        return MethodView(place, f"Its settings cannot be read: {cause}", (), (), None, entries, labels)
    about = facts(
        [
            ("paper", method.paper or None),
            ("version", method.version),
            ("language model", "needed" if method.needs_backbone else "none"),
            ("engines", ", ".join(method.engines) or None),
            ("distribution", plugin.distribution),
            ("entry point", plugin.value),
        ],
        frozenset({"entry point"}),
    )
    # Not inspect.getdoc, which would show a class without a docstring as the manual of its base class.
    docs = tuple(blocks(inspect.cleandoc(method.__doc__ or "")))
    return MethodView(place, "", docs, about, _settings(fields), entries, labels)


def _entry(listing: Listing) -> MethodEntry:
    board, entry = listing.place.board, listing.entry
    micro = entry.scores[board.task.primary.key][0]
    runs = tuple(RunLink(str(result.identity.seed), run_path(result)) for result in entry.results)
    return MethodEntry(listing, board.task.primary.key, numbers.score(micro.value), numbers.interval(micro), runs)


def _settings(fields: list[ConfigField]) -> Sheet:
    rows = tuple((f.name, f.type, "none" if f.default is None else text_of(f.default), f.help) for f in fields)
    return Sheet("Settings", ("setting", "type", "default", "what it does"), rows, 4)
