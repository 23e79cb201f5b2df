"""Results, papers and pages of a made-up site, for the tests of the site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
from board_rows import answers, made_row, mini_data

from lampbench.core import tasks
from lampbench.leaderboard import (
    Reported,
    ReportedRow,
    Result,
)
from lampbench.metrics import additive
from lampbench.rows import Row

Change = Callable[[dict[str, Any]], None]
NOTE = "mini (synthetic): invented users; these scores cannot be compared with scores on LaMP."
HOSTILE = """</script><script>alert(1)</script>"'&<img src=x onerror=alert(2)>{{ 7*7 }}\ud800"""
# Method -> the share of right answers, parameters and seconds per user.
METHODS = {
    "zero-shot": (0.2, 0, None),
    "majority": (0.25, 0, 0.0001),
    "rag": (0.5, 0, 0.01),
    "oppu": (0.7, 30_000, 10.0),
    "perfit": (0.72, 1_000, 1.0),
    "reft": (0.6, 1_000, 2.0),
}


def made(task: str, method: str, quality: float, seed: int = 0, change: Change | None = None) -> Result:
    """A result that was never on disk, so that anything can stand in it."""

    def with_seed(row: dict[str, Any]) -> None:
        row["identity"]["seed"] = seed
        if change:
            change(row)

    outputs, data = answers(task, quality, seed), mini_data(task)
    users = [query.user_id for query in data.queries]
    sums = additive(tasks().load(task), outputs, [data.golds[query.id] for query in data.queries], users)
    row = made_row(task, method, outputs, with_seed)
    return Result(Path("nowhere"), msgspec.convert(row, Row), tuple(dict.fromkeys(users)), sums)


def costing(parameters: int, seconds: float | None, hardware: str = "one", passed: bool = True) -> Change:
    def change(row: dict[str, Any]) -> None:
        row["cost"]["parameters"]["per_user"] = parameters
        spread = None if seconds is None else {"mean": seconds, "p50": seconds, "p95": seconds}
        row["cost"]["seconds_per_user"] = spread
        row["environment"]["hardware_class"] = hardware
        row["checks"]["parameters"]["passed"] = passed

    return change


def results() -> list[Result]:
    """Three tasks, six methods, two seeds of one, one that is not ranked."""
    rows = [
        made(task, method, quality, 0, costing(parameters, seconds))
        for task in ("lamp2m", "lamp3", "lamp5")
        for method, (quality, parameters, seconds) in METHODS.items()
        if (task, method) != ("lamp5", "majority")
    ]
    rows.append(made("lamp2m", "perfit", 0.72, 1, costing(1_000, 1.0)))
    rows.append(made("lamp2m", "latest-nowhere", 0.9, 0, costing(1, 1.0, passed=False)))
    return rows


def papers() -> list[Reported]:
    """Two sources: one of what was run here, under its protocol, and one of what was not."""
    lamp2m, lamp3 = tasks().load("lamp2m"), tasks().load("lamp3")
    rows = (
        ReportedRow("oppu", lamp2m, {"accuracy": 0.6125, "f1": 0.493}),
        ReportedRow("perfit", lamp3, {"MAE": 3.875}),
        ReportedRow("latest-nowhere", lamp2m, {"accuracy": 0.98}),
    )
    ours = Reported("a-paper", "A paper", "mini", "Some-7b", ("it is made up", "so is this"), rows)
    others = Reported("Other", "Another paper", "lamp-time", "Some-8b", ("other users",), rows[:1])
    return [ours, others]


class Page(HTMLParser):
    """What a page links to, which ids it has, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.append(name)
            if name in ("href", "src", "srcset", "action", "data", "poster", "xlink:href"):
                self.references.append((tag, value or ""))
            elif name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def pages(folder: Path) -> Iterator[tuple[Path, Page]]:
    for path in sorted(folder.rglob("*.html")):
        yield path, Page(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def board_path(site: Path, task: str) -> Path:
    (path,) = (site / "boards").glob(f"mini-{task}-*.html")
    return path
