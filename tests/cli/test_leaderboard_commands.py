"""``lampbench leaderboard``, ``compare`` and ``validate``, as a user runs them; and ``run --swap-test``."""

import json
import re
import shutil
from pathlib import Path

import pytest
from commands import done, lampbench, refused

RUN = ("run", "--method", "majority,zero-shot,rag,reft", "--task", "lamp3", "--users", "3", "--set", "epochs=1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which four methods ran on three users of mini, with the swap test."""
    folder = tmp_path_factory.mktemp("finished")
    done(*RUN, "--swap-test", cwd=folder)
    return folder


def row(folder: Path, method: str) -> dict[str, object]:
    (path,) = folder.glob(f"runs/mini/lamp3/{method}/*/row.json")
    loaded: dict[str, object] = json.loads(path.read_text())
    return loaded


def test_from_runs_to_valid_boards(finished: Path, tmp_path: Path) -> None:
    runs, root = str(finished / "runs"), ("--root", "boards")
    assert done("leaderboard", "add", runs, *root, cwd=tmp_path).count("added ") == 4
    assert done("leaderboard", "add", runs, *root, cwd=tmp_path).count("there already") == 4
    text = done("leaderboard", "build", *root, "--latex", cwd=tmp_path)
    assert "1 boards, 4 entries" in text
    assert not list(tmp_path.rglob("*.html"))
    text = done("leaderboard", "build", *root, "--site", "pages", cwd=tmp_path)
    assert "files in pages, start at index.html" in text
    assert "lamp3" in (tmp_path / "pages" / "index.html").read_text()
    page = (tmp_path / "boards" / "mini" / "lamp3.md").read_text()
    assert all(f" {method} " in page for method in ("majority", "zero-shot", "rag", "reft"))
    assert "first 3 users" in page
    assert "\\toprule" in (tmp_path / "boards" / "mini" / "lamp3.tex").read_text()
    assert "4 rows, 0 faults" in done("validate", "boards", cwd=tmp_path)
    (path,) = (tmp_path / "boards").glob("results/*/*/rag/*/row.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    faults = lampbench("validate", "boards", cwd=tmp_path)
    assert faults.status == 1
    assert "run_id: " in faults.out
    assert faults.err.endswith("4 rows, 1 fault\n")


def test_runs_are_compared_with_the_first(finished: Path, tmp_path: Path) -> None:
    folders = [
        str(next((finished / "runs" / "mini" / "lamp3" / m).iterdir())) for m in ("zero-shot", "rag", "majority")
    ]
    text = done("compare", *folders, cwd=tmp_path)
    assert re.findall(r"^(\S+) against zero-shot$", text, re.MULTILINE) == ["rag", "majority"]
    assert len(re.findall(r"  MAE: [+-]\d\.\d{4} \[[+-]\d\.\d{4}, [+-]\d\.\d{4}\], p=\d\.\d{4}; over users", text)) == 2
    assert text.count("users helped ") == 2
    assert "by Holm over 2 comparisons" in text
    assert text.count("queries that moved most") == 2
    assert re.search(r"^    mini-lamp3-dev-\d-q\d: [+-]\d\.\d{3}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("leaderboard", "add", "nothing"), "nothing: no row.json in it"),
        (("leaderboard", "build"), "no results; add finished runs: lampbench leaderboard add RUN"),
        (("compare", "one"), "compare needs two runs or more"),
        (("compare", "one", "two"), "one: no such run; expected a run folder"),
        (("validate", "nothing", "--golds", "none.json"), "none.json: no such file"),
    ],
)
def test_what_is_missing_is_reported(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in refused(*arguments, cwd=tmp_path)


def test_a_swap_test_gives_every_user_anothers_state(finished: Path) -> None:
    own, plain = row(finished, "reft"), row(finished, "zero-shot")
    assert isinstance(own["swap"], dict)
    assert isinstance(own["metrics"], dict)
    assert own["swap"]["MAE"] != own["metrics"]["MAE"]["value"]
    # What nobody learned cannot be another's.
    assert plain["swap"] is None


def test_a_swap_test_can_be_asked_for_later_and_changes_no_answer(finished: Path, tmp_path: Path) -> None:
    run = ("run", "--method", "reft", *RUN[3:])
    done(*run, cwd=tmp_path)
    before = row(tmp_path, "reft")
    assert before["swap"] is None
    done(*run, "--swap-test", cwd=tmp_path)
    after = row(tmp_path, "reft")
    assert after["swap"] == row(finished, "reft")["swap"]
    assert (after["run_id"], after["metrics"], after["artifacts"]) == (
        before["run_id"],
        before["metrics"],
        before["artifacts"],
    )


def test_a_private_board_is_made_of_a_folder_of_runs_in_one_command(finished: Path, tmp_path: Path) -> None:
    command = ("leaderboard", "build", "--results", str(finished / "runs"), "--out", "board")
    first = done(*command, cwd=tmp_path)
    assert "1 boards, 4 entries" in first
    assert "Text is in board/results/*/*/*/*/ alone" in first
    assert (tmp_path / "board" / "site" / "index.html").is_file()
    assert done(*command, cwd=tmp_path) == first
    # Of a run that is gone, nothing stays.
    shutil.copytree(finished / "runs", tmp_path / "runs")
    (gone,) = (tmp_path / "runs").glob("*/*/reft")
    shutil.rmtree(gone)
    changed = ("leaderboard", "build", "--results", "runs", "--out", "board")
    assert "1 boards, 3 entries" in done(*changed, cwd=tmp_path)
    assert not list((tmp_path / "board" / "results").glob("*/*/reft"))
    (next((tmp_path / "runs").rglob("predictions.jsonl"))).write_text("")
    assert "not added" in refused(*changed, cwd=tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    assert "not an empty folder" in refused(*changed[:-1], "other", cwd=tmp_path)
    assert "belong together" in refused(*command[:4], cwd=tmp_path)
