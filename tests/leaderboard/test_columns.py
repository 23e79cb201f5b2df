"""A column and a metric are written once, and every format shows them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from board_rows import made_run

from lampbench.leaderboard import COLUMNS, Board, Cell, Column, add, boards, columns, read_results, write_boards
from lampbench.leaderboard.site import write_site
from lampbench.metrics import Estimate

FORMATS = ("md", "csv", "json", "tex", "html")
STDERR = Column(
    "standard error",
    "score",
    lambda entry: entry.scores["accuracy"][0].stderr,
    lambda value: Cell(f"{value:.7f}", sort=value),
    "How far the score would move with other users.",
    path=("uncertainty", "stderr"),
)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A board of two methods."""
    folder = tmp_path_factory.mktemp("results")
    for method, quality in (("rag", 0.6), ("zero-shot", 0.3)):
        add(made_run(folder / "runs", "lamp2m", method, quality), folder)
    (made,) = boards(read_results(folder))
    return made


def written(boards: Sequence[Board], folder: Path) -> dict[str, str]:
    """Format -> the text of the board in it."""
    write_boards(boards, folder, ("md", "csv", "json", "tex"))
    write_site(boards, folder / "site")
    (page,) = (folder / "site" / "boards").iterdir()
    files = {kind: folder / "mini" / f"lamp2m.{kind}" for kind in ("md", "csv", "json", "tex")} | {"html": page}
    return {kind: path.read_text(encoding="utf-8") for kind, path in files.items()}


def test_a_column_added_to_the_list_is_in_every_format(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written([board], tmp_path / "before")
    monkeypatch.setattr("lampbench.leaderboard._columns.COLUMNS", (*COLUMNS, STDERR))
    after = written([board], tmp_path / "after")
    values = [entry.scores["accuracy"][0].stderr or 0 for entry in board.entries]
    for kind in ("md", "tex", "html"):
        assert "standard error" in after[kind]
        assert all(f"{value:.7f}" in after[kind] for value in values)
        assert "standard error" not in before[kind]
    assert [entry["uncertainty"] for entry in json.loads(after["json"])[0]["entries"]] == [
        {"stderr": value} for value in values
    ]
    rows = list(csv.DictReader(after["csv"].splitlines()))
    assert [float(row["uncertainty.stderr"]) for row in rows] == values
    assert STDERR.meaning in after["html"]
    assert f"* `standard error`: {STDERR.meaning}" in (tmp_path / "after" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_metric_of_a_task_is_in_every_format(board: Board, count: int, tmp_path: Path) -> None:
    primary = board.task.primary
    metrics = [primary, *(replace(primary, key=f"score {n}", higher_is_better=n % 2 == 0) for n in range(1, count))]
    scores = {metric.key: Estimate(0.1234 + n / 10, (0.1, 0.9)) for n, metric in enumerate(metrics)}
    entries = [replace(entry, scores={key: (value, None) for key, value in scores.items()}) for entry in board.entries]
    task: Any = SimpleNamespace(
        name=board.task.name, version=1, about=board.task.about, metrics=tuple(metrics), primary=primary
    )
    shown = replace(board, task=task, entries=tuple(entries))
    for kind, text in written([shown], tmp_path).items():
        for n, metric in enumerate(metrics):
            assert metric.key in text, kind
            assert f"0.{1234 + 1000 * n}" in text, kind


def test_every_column_of_the_tables_has_a_meaning_and_a_title_of_its_own(board: Board) -> None:
    own = columns(board.task)
    assert len({column.title for column in own}) == len(own)
    assert all(column.meaning for column in own if column.cell)
    assert all(column.cell or column.path for column in own)


def test_the_cells_say_the_values_that_the_json_holds(board: Board, tmp_path: Path) -> None:
    texts = written([board], tmp_path)
    header, _, *lines = [line for line in texts["md"].splitlines() if line.startswith("|")]
    titles = [cell.strip() for cell in header.split("|")[1:-1]]
    for line, entry in zip(lines, json.loads(texts["json"])[0]["entries"], strict=True):
        cells = dict(zip(titles, (cell.strip() for cell in line.split("|")[1:-1]), strict=True))
        micro = entry["scores"]["f1"]["micro"]
        assert cells["method"] == entry["name"]
        assert cells["f1"] == f"{micro['value']:.4f} [{micro['ci95'][0]:.4f}, {micro['ci95'][1]:.4f}]"
        assert cells["params/user"] == f"{entry['cost']['user_parameters']:,}"
        assert cells["peak MB"] == f"{entry['cost']['peak_bytes'] / 1e6:,.0f}"
        assert cells["hardware"] == entry["hardware"]
