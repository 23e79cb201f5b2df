"""Writes the site: every page from its view, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lampbench.core import InputError, new_folder
from lampbench.leaderboard._board import Board
from lampbench.leaderboard._published import Reported
from lampbench.leaderboard.site._board_page import board_view
from lampbench.leaderboard.site._index_page import sections
from lampbench.leaderboard.site._method_page import method_view
from lampbench.leaderboard.site._places import PUBLISHED, SHIFTS, site_of
from lampbench.leaderboard.site._published_page import published_view
from lampbench.leaderboard.site._run_page import run_view

_PACKAGE = "lampbench.leaderboard.site"
_ASSETS = ("site.css", "site.js")
# In every page that is written here: what tells a site from a folder that must not be replaced.
_MARK = '<meta name="generator" content="LampBench">'


def write_site(
    boards: Sequence[Board], out: Path, reported: Sequence[Reported] = (), shifts: Path | None = None
) -> list[Path]:
    """Write the site of these boards into ``out``, which is replaced whole or not at all.

    Papers' numbers have a page of their own, where there are any. ``shifts`` is a report of ``lampbench analyze
    shifts``: it becomes a page, which PerFit's own links to. The same boards and numbers give the same bytes.

    Returns:
        Every file, in order of path.

    Raises:
        InputError: ``out`` holds something else than a site.
        OSError: The file system refuses; what was there stays.
    """
    out = out.resolve()
    _check_replaceable(out)
    aside: Path | None = None
    names: list[str] = []
    try:
        with new_folder(out) as folder:
            for name, content in _files(boards, reported, shifts):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                names.append(name)
            if out.exists():
                # Beside the new one, so that both moves stay on one file system.
                aside = out.rename(folder.with_suffix(".old"))
    except BaseException:
        if aside:
            aside.rename(out)
        raise
    if aside:
        shutil.rmtree(aside)
    return sorted(out / name for name in names)


def _files(boards: Sequence[Board], reported: Sequence[Reported], shifts: Path | None) -> Iterator[tuple[str, bytes]]:
    """Path below the site's root, content; one page is in memory at a time."""
    for name in _ASSETS:
        yield f"assets/{name}", resources.files(_PACKAGE).joinpath("assets", name).read_bytes()
    site = site_of(boards)
    published = published_view(reported, boards, site)
    pages = _Pages(PUBLISHED if reported else "")
    yield pages.file("index.html", "index.html", site=site, sections=sections(site), sources=published.sources)
    if reported:
        yield pages.file(PUBLISHED, "published.html", view=published)
    for board in site.boards:
        yield pages.file(board.path, "board.html", view=board_view(board))
    for run in site.runs.values():
        yield pages.file(run.path, "run.html", view=run_view(run))
    if shifts:
        yield SHIFTS, shifts.read_bytes()
    for method in site.methods.values():
        own = SHIFTS if shifts and method.name == "perfit" else ""
        yield pages.file(method.path, "method.html", view=method_view(method), shifts=own)


class _Pages:
    """Templates, filled.

    Args:
        published: The page of papers' numbers, which every page links to; empty where there is none.
    """

    def __init__(self, published: str) -> None:
        # Everything in a row is anybody's text: all of it is escaped, wherever it goes.
        self._environment = Environment(
            loader=PackageLoader(_PACKAGE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.globals["published"] = published

    def file(self, path: str, template: str, **values: Any) -> tuple[str, bytes]:
        """A page and where it goes."""
        root = "../" * path.count("/")
        text = self._environment.get_template(template).render(root=root, path=path, **values)
        # JSON may hold halves of surrogate pairs, which no file can.
        return path, text.encode("utf-8", "replace")


def _check_replaceable(out: Path) -> None:
    """Refuse to delete what is no site."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    index = out / "index.html"
    if not index.is_file() or _MARK not in index.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise InputError(f"{out}: holds something else than a site of LampBench; give a new or an empty folder")
