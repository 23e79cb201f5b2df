"""Who is ranked, by what, and what the others are measured against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from board_rows import answers, made_row, mini_data, write_run
from support import task

from lampbench.core import RunContext, config_to_json
from lampbench.leaderboard import Board, add, boards, read_results, validate, write_boards
from lampbench.leaderboard.site import write_site
from lampbench.runner import load_method, load_protocol

QUALITIES = {"oppu": 0.9, "perfit": 0.76, "lora": 0.62, "pag": 0.48, "rag": 0.34, "zero-shot": 0.2}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "leaderboards"


def put(root: Path, name: str, method: str, outputs: list[str], change: Any = None) -> None:
    add(write_run(root.parent / "runs", made_row(name, method, outputs, change), outputs), root)


def board_of(root: Path) -> Board:
    (board,) = boards(read_results(root))
    return board


def six(root: Path, changed: Mapping[str, Mapping[int, str]]) -> Board:
    """Six methods of LaMP-3, from the best to the worst; ``changed`` are answers by method and place."""
    for method, quality in QUALITIES.items():
        outputs = answers("lamp3", quality)
        for place, output in changed.get(method, {}).items():
            outputs[place] = output
        put(root, "lamp3", method, outputs)
    return board_of(root)


def ranks(board: Board) -> dict[str, int | None]:
    return {entry.name: entry.rank for entry in board.entries}


@pytest.mark.parametrize("method", QUALITIES)
@pytest.mark.parametrize("answer", ["nan", "inf"])
def test_one_answer_that_is_not_a_finite_number_changes_nothing_on_a_board(
    root: Path, method: str, answer: str
) -> None:
    """While such an answer left a method without a score, one of lora's gave all six rank 1, one of oppu's perfit rank 3."""
    board = six(root, {method: {7: answer}})
    official = {name: board_metric.official for name, board_metric in metrics_of(board, method).items()}
    assert set(official.values()) <= {"nan", "inf"}
    assert not list(validate(root, lambda row: mini_data("lamp3").golds, lambda identity: None))
    assert list(ranks(board).items()) == [(name, rank) for rank, name in enumerate(QUALITIES, 1)]
    assert all(entry.scores["MAE"][0].value is not None for entry in board.entries)
    unreadable = six(root.parent / "words" / "leaderboards", {method: {7: "five"}})
    assert [entry.scores for entry in board.entries] == [entry.scores for entry in unreadable.entries]
    assert ranks(board) == ranks(unreadable)


def metrics_of(board: Board, method: str) -> Mapping[str, Any]:
    """The metrics in the row of a method."""
    (entry,) = [entry for entry in board.entries if entry.name == method]
    return entry.results[0].row.metrics


def test_an_official_value_that_does_not_follow_from_the_answers_is_a_fault(root: Path) -> None:
    outputs = ["nan", *answers("lamp3", 0.5)[1:]]
    put(root, "lamp3", "rag", outputs)
    (path,) = root.rglob("row.json")
    row = json.loads(path.read_text())
    assert row["metrics"]["MAE"].pop("official") == "nan"
    path.write_text(json.dumps(row))
    (fault,) = validate(root, lambda row: mini_data("lamp3").golds, lambda identity: None)
    assert "official values {'RMSE': 'nan'}, recomputed from predictions and golds" in fault


def without_score() -> dict[int, str]:
    """Answers of the first user with errors that no number can hold."""
    queries = mini_data("lamp3").queries
    places = [place for place, query in enumerate(queries) if query.user_id == queries[0].user_id]
    assert len(places) > 1
    return dict.fromkeys(places, "1e308")


@pytest.mark.parametrize("method", ["oppu", "lora", "zero-shot"])
def test_what_has_no_score_is_not_ranked_and_the_board_says_why(root: Path, method: str) -> None:
    others = {name: rank for name, rank in ranks(six(root.parent / "all" / "leaderboards", {})).items() if rank}
    board = six(root, {method: without_score()})
    found = ranks(board)
    assert list(found) == [name for name in QUALITIES if name != method] + [method]
    assert found[method] is None
    assert found == {name: None if name == method else found[name] for name in others}
    assert board.entries[-1].unranked == "no score: MAE is not a finite number"
    best = board.entries[0]
    assert best.rank == 1
    if method == "zero-shot":
        assert all(entry.gain is None for entry in board.entries)
        assert board.baseline.why == "no ranked entry of zero-shot"
    else:
        assert board.entries[-1].gain is None
        assert all(entry.gain and 0 < entry.gain.p <= 1 for entry in board.entries[:-2])
    write_boards([board], root, ("md", "csv", "json", "tex"))
    write_site([board], root / "site")
    text = (root / "mini" / "lamp3.md").read_text()
    assert f"Not ranked: {method}: no score: MAE is not a finite number." in text
    json.loads((root / "mini" / "lamp3.json").read_text(), parse_constant=pytest.fail)


def usual(method: str, recommended: bool, **settings: Any) -> dict[str, Any]:
    """The config of a run on mini in which nothing else is set."""
    kind, protocol = load_method(method), load_protocol("mini")[0]
    values = protocol.recommended.get(method, {}) if recommended else {}
    context = RunContext("mini", None, method, values)
    return config_to_json(kind.resolve(kind.Config(**settings), task("lamp2m"), context), identity_only=True)


def with_config(config: dict[str, Any], parameters: int = 0, model: str = "lampbench-mini") -> Any:
    def change(row: dict[str, Any]) -> None:
        row["identity"]["config"] = config
        row["identity"]["backbone"]["id"] = model
        row["cost"]["parameters"]["per_user"] = parameters

    return change


@pytest.mark.parametrize(("recommended", "model"), [(True, "lampbench-mini"), (False, "another")])
def test_savings_are_against_the_oppu_with_the_usual_settings_and_the_board_names_it(
    root: Path, recommended: bool, model: str
) -> None:
    """Those that the protocol recommends for its own model, and the published ones for another."""
    ranks_tried = range(20, 30)
    put(root, "lamp2m", "oppu", answers("lamp2m", 0.5), with_config(usual("oppu", recommended), 1000, model))
    # Some of them come first, by whatever is random in their ids.
    for rank in ranks_tried:
        changed = usual("oppu", recommended, rank=rank)
        put(root, "lamp2m", "oppu", answers("lamp2m", 0.5), with_config(changed, 5000, model))
    put(root, "lamp2m", "perfit", answers("lamp2m", 0.5), with_config({}, 100, model))
    board = board_of(root)
    assert {entry.name for entry in board.entries} == {
        "oppu", "perfit", *(f"oppu (rank={rank})" for rank in ranks_tried)
    }  # fmt: skip
    assert board.saving.entry == "oppu"
    assert {entry.name: entry.parameter_reduction for entry in board.entries}["perfit"] == pytest.approx(0.9)
    write_boards([board], root)
    write_site([board], root / "site")
    sentence = f"Parameters and time are saved against {board.saving.entry}."
    (page,) = (root / "site" / "boards").glob("*.html")
    assert sentence in (root / "mini" / "lamp2m.md").read_text()
    assert sentence in page.read_text()
    (value,) = json.loads((root / "mini" / "lamp2m.json").read_text())
    assert value["references"]["saved"] == {"method": "oppu", "entry": board.saving.entry, "why": None}


def test_on_the_protocols_own_model_the_recommended_settings_are_the_reference_and_published_ones_are_named(
    root: Path,
) -> None:
    for settings in ({}, {"preset": "lamp"}):
        put(root, "lamp2m", "oppu", answers("lamp2m", 0.5), with_config(usual("oppu", True, **settings), 1000))
    board = board_of(root)
    presets = {entry.name: entry.results[0].identity.config["preset"] for entry in board.entries}
    assert presets == {"oppu": "mini", "oppu (preset=lamp)": "lamp"}
    assert board.saving.entry == "oppu"


def test_without_an_entry_with_the_usual_settings_there_is_no_reference_and_the_board_says_so(root: Path) -> None:
    put(root, "lamp2m", "oppu", answers("lamp2m", 0.5), with_config(usual("oppu", True, rank=31), 1000))
    put(root, "lamp2m", "perfit", answers("lamp2m", 0.5), with_config({}, 100))
    board = board_of(root)
    assert board.saving.entry is None
    assert {entry.parameter_reduction for entry in board.entries} == {None}
    write_boards([board], root)
    text = (root / "mini" / "lamp2m.md").read_text()
    assert "no ranked entry of oppu has the published or the recommended settings." in text
    assert "No gains against zero-shot are given: no ranked entry of zero-shot." in text
