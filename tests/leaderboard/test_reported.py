"""Papers' numbers: read with care, shown beside ours, never among them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board_rows import made_run
from click.testing import CliRunner

from lampbench.cli._leaderboard import leaderboard
from lampbench.core import InputError
from lampbench.leaderboard import add, boards, read_reported, read_results, reported_page, write_boards

SHIPPED = Path(__file__).parents[2] / "leaderboards"


def reported(**changes: Any) -> dict[str, Any]:
    row = {"method": "oppu", "task": "lamp2m", "metrics": {"accuracy": 0.6, "f1": 0.493}}
    whole = {"source": "A paper", "protocol": "mini", "backbone": "Some-7b", "why_ours_may_differ": ["it is made up"]}
    return {**whole, "rows": [row], **changes}


def write(root: Path, value: Any) -> Path:
    (root / "reported").mkdir(parents=True, exist_ok=True)
    (root / "reported" / "paper.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return root


def test_published_numbers_stand_beside_our_runs_of_the_same_protocol(tmp_path: Path) -> None:
    root = write(tmp_path / "boards", reported())
    target = add(made_run(tmp_path / "runs", "lamp2m", "oppu", 0.7), root)
    assert target is not None
    value = json.loads((target / "row.json").read_text())["metrics"]["accuracy"]["value"]
    page = reported_page(read_reported(root), boards(read_results(root)))
    (line,) = [line for line in page.splitlines() if "accuracy" in line and "0.600" in line]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "oppu", "lamp2m", "accuracy", "0.600", f"{value:.4f}", f"{value - 0.6:+.4f}", "made-up",
    ]  # fmt: skip
    assert "* it is made up" in page


def test_a_published_number_is_on_no_board_and_no_line_of_dashes(tmp_path: Path) -> None:
    root = write(tmp_path / "boards", reported())
    add(made_run(tmp_path / "runs", "lamp2m", "rag", 0.7), root)
    made = boards(read_results(root))
    write_boards(made, root)
    for path in root.rglob("*.md"):
        assert "A paper" not in path.read_text()
    page = reported_page(read_reported(root), made)
    assert "made-up" not in page
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert [table[0], table[2]] == [["method", "lamp2m accuracy", "lamp2m f1"], ["oppu", "0.600", "0.493"]]
    assert "2 numbers as printed, ours beside none of them." in page.splitlines()


def test_a_build_shows_published_numbers_where_nothing_was_run_yet(tmp_path: Path) -> None:
    root = write(tmp_path / "boards", reported())
    built = CliRunner().invoke(leaderboard, ["build", "--root", str(root), "--site", str(tmp_path / "site")])
    assert built.exit_code == 0, built.output
    assert "## A paper" in (root / "published.md").read_text()
    assert ">A paper</h2>" in (tmp_path / "site" / "published.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("source"), "missing required field source"),
        (lambda r: r.update(rank=1), "contains unknown field rank"),
        (lambda r: r.update(source=""), "source: expected string of length >= 1"),
        (lambda r: r["rows"][0].update(task="lamp9"), "unknown task 'lamp9'"),
        (
            lambda r: r["rows"][0]["metrics"].update({"rouge-1": 0.5}),
            "unknown metric 'rouge-1'; lamp2m has accuracy, f1",
        ),
        (
            lambda r: r["rows"][0]["metrics"].update(accuracy="0.6"),
            "rows.0.metrics.accuracy: expected number, found string",
        ),
        (lambda r: r["rows"][0].pop("method"), "rows.0: missing required field method"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    value = reported()
    change(value)
    with pytest.raises(InputError, match=message):
        read_reported(write(tmp_path, value))
    with pytest.raises(InputError, match=r"paper\.json: not valid JSON"):
        read_reported(write(tmp_path, "{"))


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no source tree here")
def test_what_the_repository_ships_is_read() -> None:
    sources = read_reported(SHIPPED)
    assert [len(source.rows) for source in sources] == [15, 15, 12]
    perfit = sources[-1]
    assert {row.method for row in perfit.rows} == {"oppu", "perfit"}
    assert perfit.protocol == "oppu100"
