"""Writes the site: every page from its template, whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lampbench.core import InputError, new_folder
from lampbench.data import SYNTHETIC
from lampbench.leaderboard import _cells, _columns
from lampbench.leaderboard._advice import advice, certainty
from lampbench.leaderboard._board import Board
from lampbench.leaderboard._overview import sections
from lampbench.leaderboard._published import ABOUT, ALONE, HEADERS, REASONS, Reported, published
from lampbench.leaderboard._render import boards_csv, boards_json
from lampbench.leaderboard.site._pages import board_page, method_page
from lampbench.leaderboard.site._places import (
    PUBLISHED,
    SHIFTS,
    Listing,
    anchor,
    file_name,
    method_path,
    run_path,
    shortened,
    site_of,
)
from lampbench.leaderboard.site._plots import mean_rank, overview_plots
from lampbench.leaderboard.site._run_page import run_page
from lampbench.leaderboard.site._samples import Samples

_PACKAGE = "lampbench.leaderboard.site"
_ASSETS = ("site.css", "site.js")
# In every page that is written here: what tells a site from a folder that must not be replaced.
_MARK = '<meta name="generator" content="LampBench">'
_IN_TEMPLATES = (
    *(_cells.score, _cells.interval, _cells.number, _columns.good_end, _columns.best_first, _columns.meanings),
    *(anchor, file_name, method_path, run_path, shortened),
    *(advice, certainty, mean_rank, overview_plots, _cells.count, _cells.seconds),
)


def write_site(
    boards: Sequence[Board],
    out: Path,
    reported: Sequence[Reported] = (),
    shifts: Path | None = None,
    links: Mapping[str, str] = MappingProxyType({}),
) -> list[Path]:
    """Write the site of these boards into ``out``, which is replaced whole or not at all.

    Published numbers, if there are any, have a page of their own. ``shifts`` is a report of ``lampbench analyze
    shifts``: it becomes a page, which PerFit's own links to. ``links`` are titles and addresses of pages elsewhere,
    such as the documentation; every page's head has them. Addresses are http or https, or relative to the site's
    first page. The same boards and numbers give the same bytes.

    Returns:
        Every file, in order of path.

    Raises:
        InputError: ``out`` holds something else than a site, or an address is of another kind.
        OSError: The file system refuses; what was there stays.
    """
    out = out.resolve()
    _check_replaceable(out)
    for title, address in links.items():
        if not re.match(r"https?://|[^:]*$", address):
            raise InputError(f"link {title!r}: {address!r} is no address; give one of http or https, or a relative one")
    names: list[str] = []
    with new_folder(out, replace=True) as folder:
        for name, content in _files(boards, reported, shifts, links):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            names.append(name)
    return sorted(out / name for name in names)


def _files(
    boards: Sequence[Board], reported: Sequence[Reported], shifts: Path | None, links: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    """Path below the site's root, content; one page is in memory at a time."""
    for name in _ASSETS:
        yield f"assets/{name}", resources.files(_PACKAGE).joinpath("assets", name).read_bytes()
    site = site_of(boards)
    sources = published(reported, boards)
    environment = _environment(published=PUBLISHED if reported else "", site=site, links=links)

    def page(path: str, template: str, **values: Any) -> tuple[str, bytes]:
        text = environment.get_template(template).render(root="../" * path.count("/"), path=path, **values)
        # JSON may hold halves of surrogate pairs, which no file can.
        return path, text.encode("utf-8", "replace")

    yield page("index.html", "index.html", sections=sections(place.board for place in site.places), sources=sources)
    if reported:
        yield page(PUBLISHED, "published.html", about=ABOUT, alone=ALONE, headers=HEADERS, why=REASONS, sources=sources)
    yield from _data("data/boards", [place.board for place in site.places])
    for place in site.places:
        yield page(place.path, "board.html", **board_page(place))
        yield from _data(place.data, [place.board])
    samples = Samples()
    for run in site.runs:
        yield page(run_path(run.result), "run.html", **run_page(run, samples))
    if shifts:
        yield SHIFTS, shifts.read_bytes()
    for method, listings in site.methods.items():
        own = SHIFTS if shifts and method == "perfit" else ""
        yield page(method_path(method), "method.html", **method_page(method, listings), shifts=own)


def _data(stem: str, boards: Sequence[Board]) -> Iterator[tuple[str, bytes]]:
    for suffix, text in (("json", boards_json(boards)), ("csv", boards_csv(boards))):
        yield f"{stem}.{suffix}", text.encode("utf-8", "replace")


def _environment(**values: Any) -> Environment:
    """Templates; anyone may have written a row, so all of its text is escaped, wherever it goes."""
    environment = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= values | {"listing": Listing, "synthetic": f"{SYNTHETIC}.", "ABSENT": _cells.ABSENT}
    environment.globals |= {function.__name__: function for function in _IN_TEMPLATES}
    return environment


def _check_replaceable(out: Path) -> None:
    """Refuse to delete what is no site."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    index = out / "index.html"
    if not index.is_file() or _MARK not in index.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise InputError(f"{out}: holds something else than a site of LampBench; give a new or an empty folder")
