"""What the pages of a board and of a method show; their templates say how."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any, get_args

from markupsafe import Markup

from lampbench.core import ConfigField, InputError, config_fields, methods
from lampbench.leaderboard._board import Entry
from lampbench.leaderboard._cells import Cell
from lampbench.leaderboard._columns import View, table_columns
from lampbench.leaderboard._render import length_notes, references
from lampbench.leaderboard.site._places import Fact, Listing, Place, Sheet, facts, text_of
from lampbench.leaderboard.site._plots import cost_plots, score_plot, user_plot
from lampbench.rows import JOINT
from lampbench.runner import load_method


def board_page(place: Place) -> dict[str, Any]:
    """What the template of a board's page shows."""
    board = place.board
    columns = table_columns(board.task, board.added)
    return {
        "place": place,
        "board": board,
        "facts": _board_facts(place),
        "hashes": _board_hashes(place),
        "references": references(board),
        "length_notes": length_notes(board),
        "columns": columns,
        "views": [view for view in get_args(View) if any(column.view == view for column in columns)],
        "always": ("rank", "method"),
        "ranked": [entry for entry in board.entries if entry.rank is not None],
        "unranked": [(title, own) for title, own in _unranked(board.entries) if own],
        "scores": score_plot(board),
        "costs": cost_plots(board),
        "users": user_plot(board),
    }


def _unranked(entries: Sequence[Entry]) -> tuple[tuple[str, list[Entry]], ...]:
    """The groups of entries without a rank, each with its title."""
    joint = [entry for entry in entries if entry.unranked == JOINT]
    others = [entry for entry in entries if entry.rank is None and entry.unranked != JOINT]
    return (
        ("Joint training: measured like the others, and ranked apart from them", joint),
        ("Not ranked: kept for the record, each with its reason", others),
    )


def _board_facts(place: Place) -> tuple[Fact, ...]:
    board, identity = place.board, place.board.base.identity
    backbone = identity.backbone
    values = {
        "task": f"{board.task.name}, version {identity.task_version}",
        "protocol": board.protocol,
        "users": f"{board.users:,}" + (f" (the first {board.limit:,})" if board.limit else ""),
        "queries": f"{board.queries:,}",
        "backbone": backbone and backbone.id,
        "dtype": backbone and backbone.precision,
        "decoding": board.decoding,
    }
    return facts(values)


def _board_hashes(place: Place) -> tuple[Fact, ...]:
    identity = place.board.base.identity
    values = {
        "protocol hash": place.board.protocol_hash,
        "prompt hash": identity.prompt_hash,
        "revision": identity.backbone and identity.backbone.revision,
    }
    return facts(values, code=values)


def method_page(name: str, listings: Sequence[Listing]) -> dict[str, Any]:
    """What the template of a method's page shows; ``missing`` says why there is no description."""
    labels = sorted({own.place.board.label for own in listings if own.place.board.label})
    page = {
        "name": name,
        "listings": listings,
        "labels": labels,
        "missing": "",
        "settings": None,
        "shown": [_main_cells(own) for own in listings],
    }
    if name not in methods().names():
        return page | {"missing": "It is not installed where this page was made."}
    try:
        return page | _description(name)
    except InputError as error:
        return page | {"missing": f"It cannot be loaded: {error}"}
    except Exception as error:  # a third party's Config must not keep the others from being shown
        return page | {"missing": f"Its settings cannot be read: {type(error).__name__}: {error}"}


def _main_cells(listing: Listing) -> dict[str, Cell]:
    """The main columns of an entry, all tasks under the same titles."""
    task = listing.place.board.task
    main = [column for column in table_columns(task) if column.main]
    return {
        "score" if column.title == task.primary.key else column.title: column.show(listing.entry) for column in main
    }


def _description(name: str) -> dict[str, Any]:
    method, plugin = load_method(name), methods().plugin(name)
    values = {
        "paper": method.paper or None,
        "version": method.version,
        "language model": "needed" if method.needs_backbone else "none",
        "engines": ", ".join(method.engines) or None,
        "distribution": plugin.distribution,
        "entry point": plugin.value,
    }
    # Not inspect.getdoc, which would show a class without a docstring as the manual of its base class.
    docs = docstring_html(inspect.cleandoc(method.__doc__ or ""))
    settings = _settings(config_fields(method.Config))
    return {"docs": docs, "facts": facts(values, code=("entry point",)), "settings": settings}


def _settings(fields: Sequence[ConfigField]) -> Sheet:
    rows = tuple((f.name, f.type, "none" if f.default is None else text_of(f.default), f.help) for f in fields)
    return Sheet("Settings", ("setting", "type", "default", "what it does"), rows, 4)


def docstring_html(docstring: str) -> Markup:
    """A docstring as paragraphs and literal blocks, with code told from words."""
    return Markup("").join(_block(part) for part in re.split(r"\n\s*\n", docstring.strip("\n")) if part.strip())


def _block(part: str) -> Markup:
    if all(line.startswith((" ", "\t")) for line in part.splitlines()):
        return Markup('<pre class="scroll" tabindex="0"><code>{}</code></pre>\n').format(textwrap.dedent(part))
    text = re.sub(r"::$", ":", " ".join(part.split()))
    # ``code`` and :role:`names` are code; the rest is words.
    words = re.split(r"``(.+?)``|(?::\w+:)?`([^`]+)`", text)
    spans = [Markup("<code>{}</code>").format(own) if place % 3 else own for place, own in enumerate(words) if own]
    return Markup("<p>{}</p>\n").format(Markup("").join(spans))
